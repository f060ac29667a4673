"""Relevance of tables: the features of one sample as signed bars, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput
from headwater.show.colour import Array, finite, limit_of, rgb
from headwater.show.figure import figure_of, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table(
    names: Sequence[str] | None,
    values: Array | Sequence[object] | None,
    relevance: Array,
    *,
    top: int = 12,
    limit: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw signed horizontal bars, sorted by magnitude; those after the first ``top`` are summed in one bar.

    Args:
        names: of the F features; ``None`` numbers them.
        values: of the features, shown after their names; ``None`` shows the names alone.
        relevance: shape ``[F]``.
        top: bars of their own.
        limit: the end of the axis, for figures that are compared; by default the longest bar's.
        title: a line above.
        ax: axes of the caller's to draw on; by default a new figure.

    Raises:
        InvalidInput: lengths that differ, a ``top`` below 1, or a limit that is not positive.
        NonFinite: NaN or infinity in the relevance.
        MissingExtra: matplotlib is not installed.
    """
    scores = finite(relevance)
    if scores.ndim != 1 or top < 1:
        raise InvalidInput(
            f"a table draws relevance of shape [F] and at least 1 bar, not {list(scores.shape)} and {top}"
        )
    labels = _labels(names, values, len(scores))
    bars, order = grouped(scores, top)
    captions = [labels[index] for index in order[: len(bars)]]
    others = len(scores) - top
    if others > 1:
        captions[-1] = f"{others} others, summed"
    figure, axes = figure_of(ax, 7.0, 0.9 + 0.32 * len(bars))
    _draw(axes, bars, captions, limit_of([bars], limit), last_hatched=others > 1)
    axes.set_title(title or "", fontsize=10)
    return figure


def grouped(relevance: Array, top: int = 12) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The bars of a table: the ``top`` largest by magnitude and, if more are left, their sum.

    Returns:
        The bars, and the places of all features in ``relevance`` in their order.
    """
    scores = finite(relevance)
    order = np.argsort(-np.abs(scores), kind="stable")
    bars, rest = scores[order[:top]], scores[order[top:]]
    return (np.append(bars, rest.sum()) if rest.size else bars), order


def _labels(names: Sequence[str] | None, values: Array | Sequence[object] | None, count: int) -> list[str]:
    labels = [str(name) for name in names] if names is not None else [f"feature {index}" for index in range(count)]
    shown = [] if values is None else [_value(value) for value in values]
    if len(labels) != count or (values is not None and len(shown) != count):
        raise InvalidInput(
            f"{count} features have relevance, but there are {len(labels)} names and {len(shown)} values"
        )
    return [f"{label} = {value}" for label, value in zip(labels, shown, strict=True)] if shown else labels


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return f"{float(value):.4g}"  # type: ignore[arg-type]  # a number, or a tensor or array that holds one
    except (TypeError, ValueError):
        return str(value)


def _draw(axes: Axes, bars: NDArray[np.float64], captions: list[str], limit: float, *, last_hatched: bool) -> None:
    rows = np.arange(len(bars))
    end = limit or 1.0
    colours = rgb(np.sign(bars), 1.0) / 255.0
    drawn = axes.barh(rows, np.clip(bars, -end, end), color=colours, height=0.72)
    if last_hatched:
        drawn[-1].set(hatch="///", edgecolor="white")
    for row, bar in enumerate(bars):
        beyond = 4 if bar >= 0 else -4
        axes.annotate(
            signed(float(bar)),
            (float(np.clip(bar, -end, end)), row),
            xytext=(beyond, 0),
            textcoords="offset points",
            va="center",
            ha="left" if bar >= 0 else "right",
            fontsize=8,
        )
    axes.set_yticks(rows, captions, fontsize=9)
    axes.set(xlim=(-1.25 * end, 1.25 * end), ylim=(len(bars) - 0.4, -0.6))
    axes.set_xlabel("relevance", fontsize=9)
    axes.axvline(0.0, color="0.3", linewidth=0.8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
