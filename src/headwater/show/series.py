"""Relevance of time series: the line of each channel, coloured by the relevance of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput
from headwater.show.colour import Array, colour_map, finite, limit_of, norm
from headwater.show.figure import colour_bar, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

_NEUTRAL = "#c4c4c4"  # a line without relevance; white would not be seen


def series(
    relevance: Array,
    signal: Array,
    *,
    rate: float | None = None,
    names: Sequence[str] | None = None,
    limit: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw each channel of a signal, its line red where relevance is positive, blue where negative, grey at zero.

    Args:
        relevance: shape ``[C, T]``, or ``[T]`` for one channel; the channels share one scale.
        signal: what was explained, of the same shape.
        rate: samples per second; by default the axis counts samples.
        names: of the channels.
        limit: the end of the scale; by default the largest magnitude.
        title: a line above.

    Raises:
        InvalidInput: shapes that differ or are none of these, fewer than two samples, a rate or limit that is not
            positive, or another number of names than of channels.
        NonFinite: NaN or infinity in the relevance or the signal.
        MissingExtra: matplotlib is not installed.
    """
    figure = new_figure(9.0, 0.8 + 1.4 * (len(relevance) if relevance.ndim > 1 else 1))
    draw_series(figure, relevance, signal, rate=rate, names=names, limit=limit, title=title)
    return figure


def draw_series(
    parent: FigureBase,
    relevance: Array,
    signal: Array,
    *,
    rate: float | None,
    names: Sequence[str] | None,
    limit: float | None,
    title: str | None,
) -> None:
    """What ``series`` draws, on a figure or a part of one; a ``limit`` of zero draws every line grey."""
    values, lines = np.atleast_2d(finite(relevance)), np.atleast_2d(finite(signal, "signal"))
    if values.shape != lines.shape or values.ndim != 2 or values.shape[1] < 2:
        raise InvalidInput(
            "relevance and signal have one shape, [C, T] with at least 2 samples, not "
            f"{list(values.shape)} and {list(lines.shape)}"
        )
    if rate is not None and not rate > 0:
        raise InvalidInput(f"the rate is in samples per second and positive, not {rate}")
    channels = list(names) if names is not None else [f"channel {index}" for index in range(len(values))]
    if len(channels) != len(values):
        raise InvalidInput(f"{len(channels)} names for {len(values)} channels: give each channel one name")
    end = limit_of([values], limit or None)
    rows: list[Axes] = list(parent.subplots(len(values), sharex=True, squeeze=False).flat)
    times = np.arange(values.shape[1]) / (rate or 1.0)
    for axes, line, colours, name in zip(rows, lines, values, channels, strict=True):
        _draw(axes, times, line, colours, end)
        axes.set_ylabel(name, fontsize=9)
    rows[-1].set_xlabel("sample" if rate is None else "time (s)", fontsize=9)
    colour_bar(parent, rows, end, cmap=colour_map(_NEUTRAL))
    parent.suptitle(title or "")


def _draw(
    axes: Axes, times: NDArray[np.float64], line: NDArray[np.float64], relevance: NDArray[np.float64], limit: float
) -> None:
    from matplotlib.collections import LineCollection

    points = np.stack([times, line], axis=1)
    # each sample colours the line from half way before it to half way after it
    halves = (points[1:] + points[:-1]) / 2
    starts, ends = np.concatenate([points[:1], halves]), np.concatenate([halves, points[-1:]])
    pieces = np.stack([starts, points, ends], axis=1)
    # strong relevance is drawn last, and broader, so that dense signals do not bury it
    strength = np.abs(relevance) / limit if limit else np.zeros_like(relevance)
    order = np.argsort(strength, kind="stable")
    collection = LineCollection(
        list(pieces[order]),
        cmap=colour_map(_NEUTRAL),
        norm=norm(limit),
        linewidths=0.9 + 1.6 * np.minimum(strength[order], 1.0),
        capstyle="round",
    )
    collection.set_array(relevance[order])
    axes.add_collection(collection)
    axes.autoscale_view()
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
