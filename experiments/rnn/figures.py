"""Grids of heatmaps, and bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from headwater.evaluate import bootstrap_interval
from headwater.show.figure import new_figure
from headwater.show.image import to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4a6fa5", "#d9822b", "#5a9a6e", "#a05195", "#8a8a8a")


def grid(cells: Sequence[Sequence[Any]], heads: Sequence[str], labels: Sequence[str], height: float = 0.95) -> Figure:
    """Pictures ``[H, W]`` (grey, -1 to 1) or ``[H, W, 3]`` in rows that are labelled on the left."""
    shape = cells[0][0].shape
    width = height * shape[1] / shape[0]
    figure = new_figure(width * len(heads) + 1.2, height * len(cells) + 0.4)
    axes = figure.subplots(len(cells), len(heads), squeeze=False)
    for row, (pictures, label) in enumerate(zip(cells, labels, strict=True)):
        for column, (picture, head) in enumerate(zip(pictures, heads, strict=True)):
            one = axes[row, column]
            one.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            one.set(xticks=[], yticks=[])
            for side in one.spines.values():
                side.set_color("#cccccc")
            if not row:
                one.set_title(head, fontsize=9)
        axes[row, 0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center")
    return figure


def columns(sets: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]], methods: Sequence[str]) -> Figure:
    """For every set of samples ``[S, H, W]`` a row a sample: the picture, and its relevance by each method."""
    rows, labels = [], []
    for name, (pixels, maps) in sets.items():
        for number, picture in enumerate(pixels):
            rows.append([picture.numpy(), *(to_rgb(maps[method][number]) for method in methods)])
            labels.append(name if not number else "")
    return grid(rows, ["input", *methods], labels)


def bars(
    panels: Mapping[str, Mapping[str, Mapping[str, Tensor]]],
    groups: Sequence[str],
    label: str,
    baseline: str | None = None,
) -> Figure:
    """Means with 95 % bootstrap intervals: a panel a set, a group a method, a bar a cell.

    Args:
        panels: scores ``[F]`` by panel, bar and group; bars without scores are left out.
        groups: what stands along the axis.
        label: of the scores.
        baseline: the bar whose mean is drawn through its group as a line.
    """
    figure = new_figure(5.4 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(bar for panel in panels.values() for bar in panel))
    width = 0.84 / max(len(names), 1)
    for one, (title, panel) in zip(axes, panels.items(), strict=True):
        for number, name in enumerate(names):
            for group, method in enumerate(groups):
                scores = panel.get(name, {}).get(method)
                if scores is None or not len(scores):
                    continue
                place, mean = group + (number - (len(names) - 1) / 2) * width, float(scores.mean())
                low, high = bootstrap_interval(scores)
                label_once = name if group == 0 else None
                one.bar(place, mean, width * 0.92, color=COLOURS[number % len(COLOURS)], label=label_once)
                one.plot([place, place], [float(low), float(high)], color="black", lw=1)
                if name == baseline:
                    one.plot([group - 0.45, group + 0.45], [mean, mean], color="#333333", lw=0.8, ls=":")
        one.set_xticks(range(len(groups)), groups, fontsize=8)
        one.set_title(title, fontsize=10)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(label)
    shown = [
        value for panel in panels.values() for bar in panel.values() for scores in bar.values() for value in scores
    ]
    axes[0].set_ylim(max(0.0, np.floor(10 * float(min(shown, default=0.0))) / 10 - 0.05), 1.0)
    drawn = max(axes, key=lambda one: len(one.get_legend_handles_labels()[1]))
    figure.legend(
        *drawn.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), fontsize=8, frameon=False
    )
    return figure
