"""Heatmaps of images: relevance summed over the channels, plain or over the picture that it explains."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.errors import InvalidInput, MissingExtra
from headwater.show.colour import Array, finite, limit_of, rgb
from headwater.show.figure import colour_bar, figure_of, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# weights of red, green and blue in the brightness of a picture (ITU-R BT.601)
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])
# of the pixels, the part that may lie beyond the scale: a few that stand out would leave all others white
_BEYOND = 0.005


def to_rgb(relevance: Array, limit: float | None = None) -> NDArray[np.uint8]:
    """The plain heatmap, shape ``[H, W, 3]``: red where relevance is positive, blue where negative, white at zero.

    Args:
        relevance: shape ``[C, H, W]``, summed over C, or ``[H, W]``.
        limit: the end of the scale; by default that of ``scale_of``.

    Raises:
        InvalidInput: another shape, or a limit that is not positive.
        NonFinite: NaN or infinity in the relevance.
    """
    pixels = summed(relevance)
    return rgb(pixels, (scale_of([pixels]) or None) if limit is None else limit)


def overlay_rgb(relevance: Array, picture: Array, limit: float | None = None) -> NDArray[np.uint8]:
    """The heatmap over the picture in grey, shape ``[H, W, 3]``: no relevance leaves the grey as it is.

    Args:
        relevance: shape ``[C, H, W]``, summed over C, or ``[H, W]``.
        picture: ``[C, H, W]`` with C in 1, 3, 4, or ``[H, W]``, or ``[H, W, 3]``; see ``picture_rgb`` for its range.
        limit: the end of the scale; by default that of ``scale_of``.

    Raises:
        InvalidInput: shapes that do not fit, or a limit that is not positive.
        NonFinite: NaN or infinity in either.
    """
    heat, grey = to_rgb(relevance, limit), picture_rgb(picture) @ _BRIGHTNESS / 255.0
    if heat.shape[:2] != grey.shape:
        raise InvalidInput(
            f"the relevance is {heat.shape[0]} x {heat.shape[1]} pixels but the picture {grey.shape[0]} x "
            f"{grey.shape[1]}: interpolate one of them first"
        )
    # the colours of the scale dye a picture that was made pale enough for them to be told apart
    dyed = heat * (0.6 + 0.4 * grey[..., None])
    return dyed.round().astype(np.uint8)


def scale_of(relevances: Iterable[Array]) -> float:
    """The end of the scale that maps share by default: half a percent of all their pixels lie at it or beyond.

    Those pixels take the colour of the end, and the colour bar has pointed ends. Zero where all maps are zero.

    Args:
        relevances: shape ``[C, H, W]``, summed over C, or ``[H, W]``, each.

    Raises:
        InvalidInput: another shape.
        NonFinite: NaN or infinity in a map.
    """
    magnitudes = [np.abs(summed(relevance)).ravel() for relevance in relevances]
    if not magnitudes:
        return 0.0
    pixels = np.concatenate(magnitudes)
    # a sparse map may have less than half a percent of pixels that are not zero
    return float(np.quantile(pixels, 1.0 - _BEYOND, method="higher") or pixels.max())


def picture_rgb(picture: Array) -> NDArray[np.uint8]:
    """A picture for display, shape ``[H, W, 3]``.

    Args:
        picture: ``[C, H, W]`` with C in 1, 3, 4 (a fourth channel, alpha, is left out), ``[H, W]`` or ``[H, W, 3]``.
            Bytes and floats in [0, 1] are shown as they are; any other range, as of a normalized input, is stretched
            from its minimum (black) to its maximum (white).

    Raises:
        InvalidInput: another shape.
        NonFinite: NaN or infinity in the picture.
    """
    is_bytes = torch.as_tensor(picture).dtype == torch.uint8
    values = finite(picture, "picture")
    if values.ndim == 2:
        values = values[None]
    if values.ndim == 3 and (values.shape[0] in (1, 3) or (values.shape[0] == 4 and values.shape[2] != 3)):
        values = values[:3].transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[-1] not in (1, 3):
        raise InvalidInput(
            f"a picture has shape [C, H, W] with C in 1, 3, 4, [H, W] or [H, W, 3], not {list(values.shape)}"
        )
    low, high = (0.0, 255.0) if is_bytes else (float(values.min()), float(values.max()))
    if not is_bytes and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.broadcast_to((255.0 * scaled).round().astype(np.uint8), (*scaled.shape[:2], 3))


def pixels_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels, shape ``[H, W, 3]``, as a PNG file.

    Raises:
        MissingExtra: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("plot", "pillow") from error
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def summed(relevance: Array) -> NDArray[np.float64]:
    """Relevance of each pixel, shape ``[H, W]``: the sum over the channels of ``[C, H, W]``.

    Raises:
        InvalidInput: another shape than ``[C, H, W]`` or ``[H, W]``.
        NonFinite: NaN or infinity in the relevance.
    """
    values = finite(relevance)
    if values.ndim not in (2, 3):
        raise InvalidInput(f"the relevance of an image has shape [C, H, W] or [H, W], not {list(values.shape)}")
    return values.sum(axis=0) if values.ndim == 3 else values


def image(
    relevance: Array,
    picture: Array | None = None,
    *,
    limit: float | None = None,
    overlay: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw one heatmap with its colour bar.

    Args:
        relevance: shape ``[C, H, W]``, summed over C, or ``[H, W]``.
        picture: what was explained, as ``picture_rgb`` takes it; ``None`` draws the plain heatmap.
        limit: the end of the scale; by default that of ``scale_of``.
        overlay: over the picture; ``False`` draws the plain heatmap.
        title: a line above.
        ax: axes of the caller's to draw on; by default a new figure.

    Raises:
        InvalidInput: shapes that do not fit, or a limit that is not positive.
        NonFinite: NaN or infinity in the relevance or the picture.
        MissingExtra: matplotlib is not installed.
    """
    pixels = summed(relevance)
    end = scale_of([pixels]) if limit is None else limit_of([], limit)
    figure, axes = figure_of(ax, 4.6, 4.0)
    _draw(axes, pixels, picture if overlay else None, end, title or "", 40)
    colour_bar(figure, [axes], end, beyond=_exceeds([pixels], end))
    return figure


def images(
    relevances: Sequence[Array | None],
    pictures: Sequence[Array | None] | None = None,
    titles: Sequence[str] | None = None,
    *,
    limit: Literal["shared", "each"] | float = "shared",
    overlay: bool = True,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a grid of heatmaps, row by row.

    Args:
        relevances: per cell, shape ``[C, H, W]``, summed over C, or ``[H, W]``; ``None`` shows the picture alone.
        pictures: per cell, as ``picture_rgb`` takes it, or ``None``.
        titles: per cell.
        limit: "shared" puts all maps on one scale, see ``scale_of``; a number is that scale's end; "each" gives every
            map its own, written below it.
        overlay: over the pictures; ``False`` draws plain heatmaps.
        columns: cells in a row; by default at most four.
        title: a line above the grid.

    Raises:
        InvalidInput: no maps, lists of different lengths, or shapes that do not fit.
        NonFinite: NaN or infinity in a map or a picture.
        MissingExtra: matplotlib is not installed.
    """
    pictures, titles = pictures or [None] * len(relevances), titles or [""] * len(relevances)
    if not relevances or not len(relevances) == len(pictures) == len(titles):
        raise InvalidInput(
            "images takes one picture and one title for each map, and at least one map: got "
            f"{len(relevances)} maps, {len(pictures)} pictures, {len(titles)} titles"
        )
    maps = [None if relevance is None else summed(relevance) for relevance in relevances]
    drawn = [pixels for pixels in maps if pixels is not None]
    shared = scale_of(drawn) if isinstance(limit, str) else limit_of([], limit)
    columns = columns or min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(2.3 * columns + 0.7, 2.6 * rows + (0.4 if title else 0.0))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, relevance, picture, text in zip(cells, maps, pictures, titles, strict=False):
        end = scale_of([relevance]) if limit == "each" and relevance is not None else shared
        _draw(axes, relevance, picture if overlay or relevance is None else None, end, text, 26)
        if limit == "each" and relevance is not None:
            axes.set_xlabel(f"scale ± {end:.3g}", fontsize=8)
    for axes in cells[len(maps) :]:
        axes.set_axis_off()
    each = limit == "each"
    colour_bar(
        figure,
        cells,
        1.0 if each else shared,
        label="parts of each map's scale" if each else "relevance",
        beyond=each or _exceeds(drawn, shared),
        shrink=min(1.0, 2 / rows),
    )
    figure.suptitle(title or "")
    return figure


def _exceeds(maps: Sequence[NDArray[np.float64]], limit: float) -> bool:
    return any(float(np.abs(pixels).max()) > limit for pixels in maps)


def _draw(axes: Axes, relevance: Array | None, picture: Array | None, limit: float, title: str, width: int) -> None:
    end = limit or None
    if relevance is not None:
        pixels = to_rgb(relevance, end) if picture is None else overlay_rgb(relevance, picture, end)
        axes.imshow(pixels, interpolation="antialiased")
    elif picture is not None:
        axes.imshow(picture_rgb(picture), interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.set_title("\n".join(textwrap.wrap(title, width)), fontsize=9)
    axes.spines[:].set(color="0.7", linewidth=0.6)
