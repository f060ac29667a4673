from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra, NonFinite
from headwater.show import figure, image, images, overlay_rgb, picture_rgb, to_rgb
from headwater.show.classes import classes
from headwater.show.colour import rgb
from headwater.show.image import pixels_png, scale_of, summed


def drawn(found: Figure) -> list[np.ndarray]:
    """The pixels of each cell of a figure."""
    return [np.asarray(axes.images[0].get_array()) for axes in found.axes if axes.images]


def bar_ends(found: Figure) -> tuple[float, float]:
    return tuple(found.axes[-1].get_ylim())


def test_channels_are_summed() -> None:
    relevance = torch.randn(3, 5, 7)
    assert np.allclose(summed(relevance), relevance.double().sum(0).numpy())
    assert to_rgb(relevance).shape == (5, 7, 3)
    assert (to_rgb(relevance) == to_rgb(relevance.double().sum(0))).all()


def test_a_zero_map_is_a_blank_picture() -> None:
    assert (to_rgb(torch.zeros(3, 4, 4)) == 255).all()
    (pixels,) = drawn(image(torch.zeros(3, 4, 4)))
    assert (pixels == 255).all()


def test_no_relevance_leaves_the_picture_grey() -> None:
    pixels = overlay_rgb(torch.zeros(4, 4), torch.rand(3, 4, 4))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 1] == pixels[..., 2]).all()


def test_a_few_outliers_do_not_bleach_the_map_but_a_sparse_map_is_seen() -> None:
    relevance = torch.ones(100, 100)
    relevance[0, :5] = 1000.0
    assert scale_of([relevance]) == 1.0
    sparse = torch.zeros(100, 100)
    sparse[3, 3] = -2.0
    assert scale_of([sparse]) == 2.0
    assert scale_of([torch.zeros(3, 3)]) == 0.0


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        (torch.rand(3, 4, 5), (4, 5, 3)),
        (torch.rand(1, 4, 5), (4, 5, 3)),
        (torch.rand(4, 6, 5), (6, 5, 3)),
        (torch.rand(4, 5), (4, 5, 3)),
        (np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8), (4, 5, 3)),
    ],
)
def test_pictures_of_every_layout(picture: Tensor, shape: tuple[int, ...]) -> None:
    assert picture_rgb(picture).shape == shape


def test_the_range_of_pictures() -> None:
    assert picture_rgb(torch.tensor([[0.0, 0.5]]))[0, :, 0].tolist() == [0, 128]
    assert picture_rgb(torch.tensor([[-1.0, 0.0, 1.0]]))[0, :, 0].tolist() == [0, 128, 255]
    assert picture_rgb(torch.tensor([[0, 7]], dtype=torch.uint8))[0, :, 0].tolist() == [0, 7]


def test_maps_share_one_scale_unless_each_has_its_own() -> None:
    weak, strong = torch.full((4, 4), 0.1), torch.full((4, 4), 10.0)
    shared = images([weak, strong])
    assert (drawn(shared)[0] == rgb(weak, 10.0)).all()
    assert bar_ends(shared) == (-10.0, 10.0)
    own = images([weak, strong], limit="each")
    assert (drawn(own)[0] == drawn(own)[1]).all()
    assert [axes.get_xlabel() for axes in own.axes[:2]] == ["scale ± 0.1", "scale ± 10"]
    assert bar_ends(images([weak, strong], limit=2.0)) == (-2.0, 2.0)


def test_a_cell_without_relevance_shows_the_picture_and_empty_cells_nothing() -> None:
    picture = torch.rand(3, 4, 4)
    found = images([None, torch.ones(4, 4), torch.ones(4, 4)], [picture, picture, None], list("abc"), columns=2)
    cells = drawn(found)
    assert len(cells) == 3
    assert (cells[0] == picture_rgb(picture)).all()
    assert (cells[1] == overlay_rgb(torch.ones(4, 4), picture)).all()
    assert (cells[2] == to_rgb(torch.ones(4, 4))).all()


def test_plain_and_overlay() -> None:
    relevance, picture = torch.randn(3, 4, 4), torch.rand(3, 4, 4)
    assert (drawn(image(relevance, picture))[0] == overlay_rgb(relevance, picture)).all()
    assert (drawn(image(relevance, picture, overlay=False))[0] == to_rgb(relevance)).all()


def test_drawing_on_the_callers_axes() -> None:
    own = Figure()
    axes = own.subplots()
    assert image(torch.randn(4, 4), title="mine", ax=axes) is own
    assert axes.get_title() == "mine"


def test_a_figure_shows_itself_in_a_notebook_and_pyplot_keeps_none() -> None:
    found = image(torch.randn(4, 4))
    assert found._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert pixels_png(to_rgb(torch.randn(4, 4))).startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[C, H, W\] or \[H, W\], not \[2, 3, 4, 4\]"):
        to_rgb(torch.ones(2, 3, 4, 4))
    with pytest.raises(InvalidInput, match="4 x 4 pixels but the picture 5 x 4"):
        overlay_rgb(torch.ones(4, 4), torch.rand(3, 5, 4))
    with pytest.raises(InvalidInput, match="not \\[2, 4, 4\\]"):
        picture_rgb(torch.rand(2, 4, 4))
    with pytest.raises(InvalidInput, match="got 2 maps, 1 pictures, 2 titles"):
        images([torch.ones(4, 4)] * 2, [None])
    with pytest.raises(InvalidInput, match="at least one map"):
        images([])
    with pytest.raises(NonFinite, match="relevance holds 1 NaN"):
        image(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(NonFinite, match="picture holds 1 NaN"):
        image(torch.ones(1, 2), torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(InvalidInput, match="limit of a colour scale must be a positive number, not 0"):
        to_rgb(torch.ones(4, 4), 0.0)
    with pytest.raises(InvalidInput, match="empty"):
        to_rgb(torch.ones(3, 0, 4))


def test_a_missing_matplotlib_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    figure._figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"matplotlib is not installed: pip install 'headwater\[plot\]'"):
        image(torch.ones(4, 4))
    monkeypatch.setitem(sys.modules, "matplotlib.patches", None)
    with pytest.raises(MissingExtra, match="headwater"):
        classes({"one": torch.ones(4, 4)})
    # what needs no figure needs no matplotlib
    assert to_rgb(torch.ones(4, 4)).shape == (4, 4, 3)
