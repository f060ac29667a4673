"""Optimal inputs beside the curves of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.show.figure import new_figure
from headwater.show.image import picture_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from headwater.optimize import Optimum

_INK, _BEFORE = "#1b4965", "#b8b8b8"
_AT_MOST = 6


def plot(
    optimum: Optimum,
    *,
    rate: float | None = None,
    names: Sequence[str] | None = None,
    of: str | int | None = None,
    samples: Sequence[int] | None = None,
) -> Figure:
    """Draw the optimal inputs, one a row, and to their right how their scores grew.

    ``[N, C, T]`` are drawn as series with the starts in grey, ``[N, C, H, W]`` with 1, 3 or 4 channels as pictures,
    from their lowest value to their highest, anything else as the values in order.

    Args:
        optimum: what ``headwater.optimize.maximize`` found.
        rate: samples per second of a series.
        names: of the channels of a series.
        of: which input, where the model takes several: its place or its name.
        samples: which to draw, in this order; by default the first 6.

    Raises:
        InvalidInput: for an input or sample that is not there; MissingExtra: matplotlib is not installed.
    """
    x, start = (_chosen(value, of) for value in (optimum.x, optimum.start))
    shown = list(range(min(len(x), _AT_MOST))) if samples is None else list(samples)
    if not shown or not all(-len(x) <= i < len(x) for i in shown):
        raise InvalidInput(f"samples={shown} must name some of the {len(x)} optimal inputs")
    height = _height(x)
    figure = new_figure(10.0, 0.6 + height * len(shown))
    halves: Any = figure.subfigures(1, 2, width_ratios=[3, 2])
    left, right = halves
    rows = np.atleast_1d(left.subfigures(len(shown), 1)).tolist()
    for row, i in zip(rows, shown, strict=True):
        _draw_input(row, x[i], start[i], rate, names)
        row.suptitle(f"score {float(optimum.score[i]):.4g}", fontsize=9)
    _draw_curves(right.subplots(), optimum, shown)
    return figure


def _chosen(value: Any, of: str | int | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().float().cpu()
    keys = list(value) if isinstance(value, Mapping) else list(range(len(value)))
    key = of if of is not None else next(k for k in keys if isinstance(value[k], Tensor))
    if key not in keys:
        raise InvalidInput(f"of={of!r} names no input: choose from {keys}")
    return value[key].detach().float().cpu()


def _is_picture(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] in (1, 3, 4)


def _height(x: Tensor) -> float:
    return 3.0 if _is_picture(x) else max(1.6, 0.9 * x.shape[1]) if x.dim() == 3 and x.shape[1] <= 12 else 1.8


def _draw_input(part: SubFigure, x: Tensor, start: Tensor, rate: float | None, names: Sequence[str] | None) -> None:
    if _is_picture(x[None]):
        axes = part.subplots()
        low, high = float(x.min()), float(x.max())
        axes.imshow(picture_rgb(((x - low) / max(high - low, 1e-12)).numpy()), interpolation="nearest")
        axes.set_axis_off()
        return
    lines = [(line, before) for line, before in zip(_lines(x), _lines(start), strict=True)]
    panels: list[Axes] = list(part.subplots(len(lines), sharex=True, squeeze=False).flat)
    labels = list(names) if names is not None else [f"channel {c}" for c in range(len(lines))]
    if len(labels) != len(lines):
        raise InvalidInput(f"{len(labels)} names for {len(lines)} channels: give each channel one name")
    for axes, (line, before), label in zip(panels, lines, labels, strict=True):
        times = np.arange(len(line)) / (rate or 1.0)
        axes.plot(times, before, color=_BEFORE, linewidth=0.7)
        axes.plot(times, line, color=_INK, linewidth=0.8)
        axes.margins(x=0.01)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.set_ylabel(label, fontsize=8)
    panels[-1].set_xlabel("time (s)" if rate is not None else "place", fontsize=8)


def _lines(x: Tensor) -> list[Any]:
    values = x.numpy()
    return list(values) if values.ndim == 2 and len(values) <= 12 else [values.reshape(-1)]


def _draw_curves(axes: Axes, optimum: Optimum, shown: Sequence[int]) -> None:
    curve = optimum.curve.detach().float().cpu().numpy()
    for i in shown:
        axes.plot(curve[:, i], color=_INK, linewidth=1.0, alpha=max(0.35, 1 / len(shown)))
        if int(optimum.stopped[i]) >= 0:
            axes.plot(int(optimum.stopped[i]), curve[int(optimum.stopped[i]), i], "o", color=_INK, markersize=3)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("score", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
