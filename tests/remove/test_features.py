"""Features: which entries belong together, and how scores of features become relevance of entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import headwater as hw
from headwater.remove.features import features_of, jointly, superpixels


@pytest.mark.parametrize(
    ("shape", "features", "count"),
    [
        ((2, 3, 6, 5), None, 30), ((2, 3, 6, 5), "value", 90), ((2, 3, 6, 5), "channel", 3), ((2, 3, 6, 5), 4, 4),
        ((2, 3, 6, 5), (2, 5), 3), ((2, 3, 32, 20), "grid", 56), ((2, 3, 6, 5), "grid", 30), ((2, 4, 200), "grid", 50),
        ((2, 4, 200), 7, 29), ((2, 9), None, 9), ((2, 9), "grid", 9), ((2, 9), 4, 3), ((1, 1, 8, 8, 8), "grid", 64),
    ],
)  # fmt: skip
def test_counts(shape: tuple[int, ...], features: object, count: int) -> None:
    found = features_of(torch.rand(shape), features)
    assert found.most == count
    assert found.counts.tolist() == [count] * shape[0]
    assert found.shape == shape[1:]
    assert int(found.sizes.sum()) == torch.Size(shape[1:]).numel()


def test_own_labels_in_every_shape() -> None:
    x = torch.rand(2, 3, 4, 4)
    flat = torch.arange(16).view(4, 4) // 8
    for labels in (flat, flat.numpy(), flat[None], flat.expand(3, 4, 4), flat.expand(2, 4, 4), flat.expand(2, 3, 4, 4)):
        found = features_of(x, labels)
        assert found.most == 2
        assert found.placed(torch.tensor([[1.0, 2.0]] * 2)).expand(2, 3, 4, 4).sum() == 2 * 3 * 8 * 3


def test_labels_that_skip_numbers_and_negative_ones_are_renumbered() -> None:
    found = features_of(torch.rand(2, 5), torch.tensor([[7, 7, -3, 2, 2], [-1, -1, -1, 4, 4]]))
    assert found.counts.tolist() == [2, 1]
    assert found.labels.tolist() == [[1, 1, -1, 0, 0], [-1, -1, -1, 0, 0]]
    assert found.present.tolist() == [[True, True], [True, False]]
    hole = found.placed(torch.tensor([[True, True], [True, True]]), outside=False)
    assert hole.tolist() == [[True, True, False, True, True], [False, False, False, True, True]]
    assert found.spread(torch.tensor([[2.0, 4.0], [6.0, 0.0]])).tolist() == [[2, 2, 0, 1, 1], [0, 0, 0, 3, 3]]


@given(st.integers(0, 10_000))
def test_shared_scores_keep_their_sum(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = [int(s) for s in torch.randint(1, 5, (4,), generator=generator)]
    x = torch.rand(shape, generator=generator)
    labels = torch.randint(-1, 4, shape, generator=generator)
    labels.view(shape[0], -1)[:, 0] = 1
    found = features_of(x, labels)
    scores = torch.randn(shape[0], found.most, generator=generator, dtype=torch.float64) * found.present
    torch.testing.assert_close(found.spread(scores).flatten(1).sum(1), scores.sum(1))
    pooled = found.pooled(found.spread(scores))
    torch.testing.assert_close(pooled[found.present], scores[found.present])
    assert pooled[~found.present].eq(-torch.inf).all()


def test_rows_choose_the_labels_of_their_sample() -> None:
    found = features_of(torch.rand(2, 3), torch.tensor([[0, 1, 1], [0, 0, 1]]))
    placed = found.placed(torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([1, 0, 1]))
    assert placed.tolist() == [[1, 1, 2], [3, 4, 4], [5, 5, 6]]


def test_several_arguments_are_numbered_one_after_the_other() -> None:
    first = features_of(torch.rand(2, 4), torch.tensor([[0, 0, 1, 1], [0, 0, 0, -1]]))
    second = features_of(torch.rand(2, 3))
    a, b = jointly([first, second])
    assert a.counts.tolist() == b.counts.tolist() == [5, 4]
    assert b.labels.tolist() == [[2, 3, 4], [1, 2, 3]]
    assert a.labels.tolist() == first.labels.tolist()


def test_superpixels_follow_the_picture() -> None:
    pytest.importorskip("skimage")
    picture = torch.zeros(1, 3, 40, 40)
    picture[:, :, :, 20:] = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    labels = superpixels(picture, 8)
    assert labels.shape == (1, 1, 40, 40)
    left, right = labels[..., :19].unique(), labels[..., 21:].unique()
    assert len(left) > 1
    assert not set(left.tolist()) & set(right.tolist())
    assert superpixels(torch.rand(2, 1, 16, 16)).shape == (2, 1, 16, 16)
    assert len(superpixels(torch.rand(1, 3, 60, 60)).unique()) > 20  # also where there is nothing but noise
    assert superpixels(torch.full((1, 3, 16, 16), 0.5)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        ((2,), None), ((2, 0), None), ((2, 5), "channel"), ((2, 5), "colour"), ((2, 3, 4, 4), (2, 2, 2)),
        ((2, 3, 4, 4), 0), ((2, 5), np.zeros(5)), ((2, 5), torch.zeros(4, dtype=torch.long)), ((2, 5), object()),
        ((2, 5), torch.full((5,), -1)), ((2, 5), True), ((2, 5), "superpixel"), ((2, 5), ()),
    ],
)  # fmt: skip
def test_refusals(shape: tuple[int, ...], features: object) -> None:
    with pytest.raises(hw.HeadwaterError):
        features_of(torch.rand(shape), features)
