"""Pictures of feature maps and of filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headwater.errors import InvalidInput
from headwater.show.colour import Array, colour_map, finite, norm
from headwater.show.figure import colour_bar, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AT_MOST = 16


def feature_maps(maps: Array, channels: Sequence[int] | None = None, *, title: str | None = None) -> Figure:
    """Draw the channels of a feature map on one scale: planes as pictures, rows as lines.

    Args:
        maps: ``[C, H, W]`` or ``[C, T]`` (of ``[C, D, H, W]`` the middle slice is drawn).
        channels: which ones; by default the 16 with the largest norm, in their order.
        title: a line above.

    Raises:
        InvalidInput: another shape, or a channel that is not there.
        NonFinite: NaN or infinity in the maps.
        MissingExtra: matplotlib is not installed.
    """
    values = finite(maps, "feature map")
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    if values.ndim not in (2, 3):
        raise InvalidInput(f"a feature map has shape [C, H, W], [C, D, H, W] or [C, T], not {list(values.shape)}")
    if channels is None:
        strength = np.square(values).reshape(len(values), -1).sum(1)
        channels = sorted(np.argsort(-strength, kind="stable")[:_AT_MOST].tolist())
    if not channels or not all(-len(values) <= k < len(values) for k in channels):
        raise InvalidInput(f"channels names some of 0 to {len(values) - 1}, not {list(channels)}")
    return _grid([values[k] for k in channels], [f"channel {k}" for k in channels], title, "activation")


def filters(weights: Array, count: int = 64, *, title: str | None = None) -> Figure:
    """Draw the filters of a convolution: those of three input channels in colour, others as sums over their inputs.

    Args:
        weights: ``[out, in, H, W]``, or ``[out, in, T]``, drawn as lines.
        count: how many at most.
        title: a line above.

    Raises:
        InvalidInput: another shape.
        NonFinite: NaN or infinity in the weights.
        MissingExtra: matplotlib is not installed.
    """
    values = finite(weights, "filter")
    if values.ndim not in (3, 4):
        raise InvalidInput(f"filters have shape [out, in, H, W] or [out, in, T], not {list(values.shape)}")
    chosen = values[:count]
    heads = [str(k) for k in range(len(chosen))]
    if values.ndim == 4 and values.shape[1] == 3:
        return _coloured(chosen, heads, title)
    return _grid(list(chosen.sum(1)), heads, title, "weight, summed over the inputs")


def _coloured(values: np.ndarray, heads: Sequence[str], title: str | None) -> Figure:
    """Each filter as a picture in red, green and blue, its own range from black to white about a grey zero."""
    figure, cells = _cells(len(values), title, 1.1, 1.25)
    for axes, one, head in zip(cells, values, heads, strict=False):
        end = np.abs(one).max() or 1.0
        axes.imshow((0.5 + 0.5 * one / end).transpose(1, 2, 0), interpolation="nearest")
        axes.set_title(head, fontsize=7, pad=2)
    return figure


def _grid(values: Sequence[np.ndarray], heads: Sequence[str], title: str | None, label: str) -> Figure:
    end = max(float(np.abs(v).max()) for v in values)
    lines = values[0].ndim == 1
    width, height = (2.6, 1.3) if lines else (1.5, 1.7)
    figure, cells = _cells(len(values), title, width, height)
    for axes, one, head in zip(cells, values, heads, strict=False):
        if lines:
            axes.plot(one, color="#333333", linewidth=0.8)
            axes.set_ylim(-1.05 * end or -1.0, 1.05 * end or 1.0)
            axes.axhline(0.0, color="0.8", linewidth=0.6, zorder=0)
        else:
            axes.imshow(one, cmap=colour_map(), norm=norm(end), interpolation="nearest")
        axes.set_title(head, fontsize=8, pad=3)
    if not lines:
        colour_bar(figure, cells, end, label=label, shrink=min(1.0, 2 * 4 / max(len(values), 1) + 0.4))
    return figure


def _cells(count: int, title: str | None, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(8 if count > 16 else 4, count)
    rows = -(-count // columns)
    figure = new_figure(width * columns + 0.8, height * rows + (0.4 if title else 0.0))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.7", linewidth=0.6)
    for axes in cells[count:]:
        axes.set_axis_off()
    figure.suptitle(title or "")
    return figure, cells
