from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import nn

import headwater as hw
from headwater.errors import InvalidInput, NonFinite
from headwater.show import TextMap, plot


def explained(relevance: Any, inputs: Any = None) -> Any:
    """What ``plot`` reads of an explanation."""
    count = len(relevance) if isinstance(relevance, torch.Tensor) else 2
    inputs = relevance if inputs is None else inputs
    return SimpleNamespace(
        details={}, relevance=relevance, inputs=inputs, output=torch.arange(float(count)), method="lrp"
    )


def kind(found: Figure | TextMap) -> str:
    if isinstance(found, TextMap):
        return "text"
    parts = [axes for figure in (found, *found.subfigs) for axes in figure.axes]
    if any(axes.images for axes in parts):
        return "image"
    return "series" if any(isinstance(c, LineCollection) for axes in parts for c in axes.collections) else "table"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3, 8, 8), "image"),
        ((2, 1, 8, 8), "image"),
        ((2, 4, 8, 8), "image"),
        ((2, 7, 8, 8), "image"),
        ((2, 28, 28), "image"),
        ((2, 3, 300), "series"),
        ((2, 20, 300), "series"),
        ((2, 5), "table"),
    ],
)
def test_the_kind_follows_from_the_shape(shape: tuple[int, ...], expected: str) -> None:
    assert kind(plot(explained(torch.randn(shape)))) == expected


def test_token_ids_are_text() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    relevance = torch.randn(2, 3, 4)
    found = plot(explained(relevance, ids))
    assert isinstance(found, TextMap)
    assert found.tokens == [["5", "6", "7"], ["8", "9", "0"]]
    assert torch.allclose(torch.as_tensor(found.relevance[1]), relevance[1].double().sum(-1))
    named = plot(explained(relevance, ids), tokens=[["a", "##b", "c"], ["d", "e", "f"]], samples=[0])
    assert isinstance(named, TextMap)
    assert "ab" in str(named)


def test_images_show_the_input_the_map_and_both_on_one_scale() -> None:
    relevance = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 1.0)])
    found = plot(explained(relevance, torch.rand(2, 3, 4, 4)))
    assert isinstance(found, Figure)
    assert len([axes for axes in found.axes if axes.images]) == 6
    assert found.axes[-1].get_ylim() == pytest.approx((-3.0, 3.0))


def test_one_of_several_inputs_is_chosen() -> None:
    parts = {"ids": torch.randn(2, 3, 4), "mask": None, "extra": torch.randn(2, 5)}
    inputs = {"ids": torch.zeros(2, 3, dtype=torch.long), "mask": None, "extra": torch.randn(2, 5)}
    assert kind(plot(explained(parts, inputs), of="ids")) == "text"
    assert kind(plot(explained(parts, inputs), of="extra")) == "table"
    with pytest.raises(InvalidInput, match="one of 'ids', 'extra'"):
        plot(explained(parts, inputs))
    pair = (torch.randn(2, 5), None)
    assert kind(plot(explained(pair, pair))) == "table"


def test_many_samples_are_drawn_in_part_and_may_be_chosen() -> None:
    many = explained(torch.randn(40, 3))
    assert len(plot(many).axes) == 8  # type: ignore[union-attr]
    titles = [axes.get_title() for axes in plot(many, samples=[39, -2]).axes]  # type: ignore[union-attr]
    assert titles == ["lrp, output 39", "lrp, output 38"]


def test_the_shape_may_be_overruled() -> None:
    assert kind(plot(explained(torch.randn(1, 28, 28)), kind="series")) == "series"


def test_volumes_are_rows_of_slices_on_one_scale() -> None:
    figure = plot(explained(torch.randn(2, 1, 9, 4, 5)))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 2 * 6
    assert [title.rpartition("slice ")[2] for title in titles] == ["0", "2", "3", "5", "6", "8"] * 2
    chosen = plot(explained(torch.randn(1, 2, 9, 4, 5)), slices=[7, 2])
    assert [axes.get_title().rpartition("slice ")[2] for axes in chosen.axes if axes.images] == ["7", "2"]
    assert len([axes for axes in plot(explained(torch.randn(1, 1, 2, 4, 5))).axes if axes.images]) == 2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no image, series, text, table or volume"):
        plot(explained(torch.randn(2, 3, 4, 4, 4, 4)))
    with pytest.raises(InvalidInput, match="some of the 5 slices, not \\[5\\]"):
        plot(explained(torch.randn(2, 1, 5, 4, 4)), slices=[5])
    with pytest.raises(InvalidInput, match="samples names some of the 2"):
        plot(explained(torch.randn(2, 5)), samples=[2])
    with pytest.raises(InvalidInput, match="1 titles for 2"):
        plot(explained(torch.randn(2, 5)), titles=["a"])
    with pytest.raises(NonFinite):
        plot(explained(torch.full((2, 3, 4, 4), float("nan")), torch.rand(2, 3, 4, 4)))


def test_an_explanation_plots_itself() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 6, 3)).eval()
    assert kind(hw.explain(model, torch.rand(2, 1, 8, 8)).plot()) == "image"
    assert kind(hw.explain(nn.Linear(4, 2), torch.randn(2, 4)).plot(names=list("abcd"))) == "table"
    words = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    assert kind(hw.explain(words, torch.tensor([[1, 2, 3]])).plot()) == "text"
