"""Raw text and token ids as inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.remove.text import reader
from headwater.show import TextMap

TEXTS = ["  A good\tfilm, really good ", "bad"]


def polarity(texts: list[str]) -> np.ndarray:
    good = np.array([t.count("good") - 2.0 * t.count("bad") for t in texts])
    return np.stack([good, -good], 1)


@pytest.mark.parametrize(
    "method", ["feature_ablation", "occlusion", "shapley_exact", "shapley_sampling", "kernel_shap"]
)
def test_words_get_what_they_say(method: str) -> None:
    found = hw.explain(polarity, TEXTS, target=0, method=method)
    assert found.details["words"] == [["A", "good", "film,", "really", "good"], ["bad"]]
    expected = torch.tensor([[0, 1, 0, 0, 1], [-2, 0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.relevance, expected)
    torch.testing.assert_close(found.tokens(), expected)
    assert hw.explain(polarity, TEXTS[0], target=0, method=method).relevance.shape == (1, 5)


def test_drawn_word_by_word() -> None:
    drawn = hw.explain(polarity, TEXTS, target=0, method="shapley_exact").plot()
    assert isinstance(drawn, TextMap)
    assert "really" in drawn.to_html()
    ids = hw.explain(Counting(), IDS, method="feature_ablation").plot()
    assert isinstance(ids, TextMap)


def test_nothing_removed_is_the_text_itself() -> None:
    row = next(m for m in hw.methods() if m.name == "occlusion")
    read, ids = reader(polarity, TEXTS, row)
    assert read.texts(ids) == TEXTS
    assert ids.tolist() == [[1, 2, 3, 4, 5], [6, 0, 0, 0, 0]]


def test_a_word_takes_the_place_of_others() -> None:
    seen: list[str] = []

    def model(texts: list[str]) -> list[float]:
        seen.extend(texts)
        return [float(len(t)) for t in texts]

    hw.explain(model, "one two three", method="feature_ablation", imputer="[MASK]")
    assert {"[MASK] two three", "one [MASK] three", "one two [MASK] "} < set(seen)
    seen.clear()
    hw.explain(model, "one two three", method="feature_ablation")
    assert {"two three", "one three", "one two "} < set(seen)


def test_refusals() -> None:
    with pytest.raises(hw.InvalidInput, match="family remove"):
        hw.explain(polarity, "a good film", method="lrp")
    with pytest.raises(hw.InvalidInput, match="no words"):
        hw.explain(polarity, ["fine", "  "], method="occlusion")
    with pytest.raises(hw.InvalidTarget):
        hw.explain(lambda texts: [1.0], TEXTS, method="occlusion")


class Counting(nn.Module):
    """Scores of token ids, of which a mask hides some; padding is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 1, padding_idx=1)
        with torch.no_grad():
            self.embedding.weight.copy_(torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7.0])[:, None])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert bool((attention_mask.diff(dim=1) <= 0).all())
        assert bool(((input_ids != 1) >= 0).all())
        places = torch.arange(1, input_ids.shape[1] + 1)
        return (self.embedding(input_ids)[..., 0] * attention_mask * places).sum(1)


IDS = {
    "input_ids": torch.tensor([[2, 3, 4, 5], [6, 7, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}  # fmt: skip


def test_padding_is_what_the_embedding_pads_with_and_is_no_word() -> None:
    found = hw.explain(Counting(), IDS, method="feature_ablation")
    assert found.tokens().tolist() == [[1, 4, 9, 16], [5, 12, 0, 0]]
    assert found.relevance["attention_mask"] is None
    assert found.details["features"][1].tolist() == [5, 12, 0, 0]


def test_deleted_words_take_their_mask_along() -> None:
    found = hw.explain(Counting(), IDS, method="feature_ablation", imputer="delete")
    # without the first of (1, 2, 3, 4) at places 1 2 3 4 the rest moves up: 2 + 6 + 12 of 30 remain
    assert found.tokens()[0].tolist() == [30 - 20, 30 - (1 + 6 + 12), 30 - (1 + 4 + 12), 30 - (1 + 4 + 9)]
    assert found.tokens()[1].tolist() == [17 - 6, 17 - 5, 0, 0]
    for method in ("occlusion", "shapley_sampling", "rise"):
        more = {"samples": 10} if method == "rise" else {}
        assert hw.explain(Counting(), IDS, method=method, imputer="delete", **more).tokens().shape == (2, 4)
