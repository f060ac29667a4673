from __future__ import annotations

import itertools

import pytest
import torch

import headwater as hw
from headwater.errors import InvalidInput
from headwater.evaluate import (
    ground_truth,
    linear,
    logic,
    majority_sequences,
    tones,
    watermarked,
    words,
)


def test_majority_sequences_hold_what_they_claim() -> None:
    labels = torch.arange(30) % 3
    images = labels[:, None, None] * 100 + torch.arange(30)[:, None, None] * torch.ones(1, 4, 5)
    made = majority_sequences(images.float(), labels)
    assert made.x.shape == (30, 4, 15)
    assert made.truth.sum(1).tolist() == [2] * 30
    for sequence, label, marks in zip(made.x, made.y, made.truth, strict=True):
        blocks = [int(b[0, 0]) for b in sequence.split(5, -1)]
        classes = [next(int(labels[i]) for i in range(30) if int(labels[i]) * 100 + i == b) for b in blocks]
        assert [c == label for c in classes] == marks.tolist()
        assert len(set(blocks)) == 3  # three different images
    places = {tuple(m) for m in made.truth.tolist()}
    assert len(places) == 3  # in random order
    assert made.x.equal(majority_sequences(images.float(), labels).x)
    wide = majority_sequences(images.float(), labels, count=7, blocks=5, majority=3)
    assert wide.truth.sum(1).tolist() == [3] * 7
    with pytest.raises(InvalidInput, match="majority"):
        majority_sequences(images, labels, majority=1)


def test_watermarks_are_where_the_mask_says() -> None:
    images, labels = torch.rand(20, 3, 16, 16), torch.arange(20) % 2
    made = watermarked(images, labels, 1)
    marked = made.truth.flatten(1).any(1)
    assert marked.tolist() == (labels == 1).tolist()
    assert made.x[~marked].equal(images[~marked])
    changed = (made.x != images).any(1)
    assert not bool((changed & ~made.truth).any())
    assert made.truth[marked].flatten(1).sum(1).unique().tolist() == [4]
    own = watermarked(images, labels, 1, mark=torch.full((5, 7), 9.0), share=0.0)
    assert own.x.equal(images)
    with pytest.raises(InvalidInput, match="does not fit"):
        watermarked(images, labels, 1, mark=torch.ones(20, 2))


def test_tones_and_words() -> None:
    made = tones(40, noise=0.0)
    assert made.x.shape == (40, 1, 128)
    assert not bool((made.x[:, 0][~made.truth]).any())
    for signal, where, label in zip(made.x[:, 0], made.truth, made.y, strict=True):
        spectrum = torch.fft.rfft(signal[where]).abs()
        assert int(spectrum.argmax()) == pytest.approx(32 / (4.0, 8.0, 16.0)[int(label)], abs=1)
    text = words(40)
    assert bool((text.truth.sum(1) == 1).all())
    assert text.x[text.truth].equal(text.y + 1)
    assert bool((text.x[~text.truth] > 3).all())


def test_logic_against_all_orders() -> None:
    made = logic(30)
    assert set(made.x.unique().tolist()) == {0.0, 1.0}
    output = made.model(made.x)
    bits = made.x.bool()
    expected = (bits[:, 0] & bits[:, 1]).int() + (bits[:, 2] | bits[:, 3]).int() + (bits[:, 4] ^ bits[:, 5]).int()
    assert output.tolist() == expected.tolist()
    orders = list(itertools.permutations(range(6)))
    for x, relevance in zip(made.x[:3], made.relevance[:3], strict=True):
        steps = torch.zeros(len(orders), 7, 6)
        for i, order in enumerate(orders):
            for k, feature in enumerate(order):
                steps[i, k + 1 :, feature] = x[feature]
        gains = made.model(steps.reshape(-1, 6)).view(-1, 7).diff(dim=1).detach()
        shapley = torch.zeros(6).index_add_(0, torch.tensor(orders).flatten(), gains.flatten()) / len(orders)
        assert relevance.tolist() == pytest.approx(shapley.tolist(), abs=1e-5)


def test_the_linear_tasks_answer_is_every_complete_methods() -> None:
    made = linear(5)
    for method in ("lrp", "gradient_x_input"):
        assert hw.explain(made.model, made.x, method=method).relevance.allclose(made.relevance, atol=1e-4)
    assert linear(5, bias=True).relevance.shape == (5, 8)


@pytest.mark.slow
def test_the_board_ranks_methods_above_chance() -> None:
    def blank(model: object, x: torch.Tensor, target: object) -> torch.Tensor:
        return torch.zeros(x.shape)

    board = ground_truth({"LRP": "lrp", "GI": "gradient_x_input", "SA": "sensitivity", "blank": blank})
    ranks = {record["method"]: record["rank"] for record in board}
    assert ranks["LRP"] < ranks["SA"]
    assert ranks["GI"] < ranks["random"]
    assert ranks["blank"] >= max(ranks["LRP"], ranks["GI"])
    assert board["LRP"]["linear"] == pytest.approx(1, abs=1e-3)
    assert board["GI"]["linear"] == pytest.approx(1, abs=1e-3)
    assert board["SA"]["linear"] < 0.5
    assert all(record[task] is not None for record in board for task in ("majority", "watermark", "tones", "words"))
    assert "right on 100%" in str(board)
