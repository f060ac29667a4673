"""Several targets in one picture, and differences of maps on one scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.show.classes import class_rgb, classes, difference
from tests.reference.nets import draw


def maps() -> list[torch.Tensor]:
    """Three maps, each positive in a corner of its own; the first two overlap; negative elsewhere."""
    found = [-torch.ones(8, 8, dtype=torch.float64) for _ in range(3)]
    found[0][:4, :4] = 1.0
    found[1][:4, 2:6] = 1.0
    found[2][6:, 6:] = 0.5
    return found


def test_maps_shine_in_their_colours_and_mix_where_they_overlap() -> None:
    pixels = class_rgb(maps(), limit=1.0)
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 5].tolist() == [0, 255, 0]
    assert pixels[0, 3].tolist() == [255, 255, 0]
    assert pixels[7, 7].tolist() == [0, 0, 128]
    assert pixels[5, 0].tolist() == [0, 0, 0]  # negative relevance does not shine


def test_a_picture_stays_grey_where_nothing_speaks() -> None:
    picture = np.full((8, 8), 0.5)
    pixels = class_rgb(maps(), picture, limit=1.0)
    assert pixels[5, 0].tolist() == [128, 128, 128]
    assert pixels[0, 0, 0] > 150
    assert pixels[0, 0, 1] == 0
    zero = class_rgb([torch.zeros(2, 8, 8)], picture)
    assert (zero == 128).all()


def test_channels_are_summed_and_many_classes_have_colours_of_their_own() -> None:
    one = torch.stack([maps()[0], torch.zeros(8, 8)])
    assert np.array_equal(class_rgb([one]), class_rgb([maps()[0]]))
    many = np.zeros((12, 12, 12))
    many[np.arange(12), np.arange(12), np.arange(12)] = 1.0
    pixels = class_rgb(list(many), limit=1.0)
    assert len({tuple(pixels[k, k].tolist()) for k in range(12)}) == 12
    assert class_rgb([maps()[0]], colours=["#102030"], limit=1.0)[0, 0].tolist() == [16, 32, 48]


def test_figures_have_a_legend_and_one_scale() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    figure = classes(
        dict(zip(("cancer", "lymphocytes", "stroma"), maps(), strict=True)), np.full((8, 8), 0.5), title="t"
    )
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["cancer", "lymphocytes", "stroma"]
    pair = difference(maps()[0], maps()[1], names=("a", "b"))
    titles = [a.get_title() for a in pair.axes]
    assert titles[:3] == ["a", "b", "a − b"]


def test_refusals() -> None:
    with pytest.raises(hw.InvalidInput, match="at least one"):
        class_rgb([])
    with pytest.raises(hw.InvalidInput, match="one size"):
        class_rgb([draw(4, 4), draw(5, 4)])
    with pytest.raises(hw.InvalidInput, match="2 colours for 1"):
        class_rgb([draw(4, 4)], colours=["#000000", "#ffffff"])
    with pytest.raises(hw.InvalidInput, match="#rrggbb"):
        class_rgb([draw(4, 4)], colours=["red"])
    with pytest.raises(hw.InvalidInput, match="interpolate"):
        class_rgb([draw(4, 4)], draw(5, 5))
    with pytest.raises(hw.InvalidInput, match="interpolate"):
        difference(draw(4, 4), draw(5, 4))
    with pytest.raises(hw.NonFinite):
        class_rgb([torch.full((3, 3), torch.nan)])
