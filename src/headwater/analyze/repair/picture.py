"""Pictures of an artefact and of its repair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.show.figure import colour_bar, new_figure
from headwater.show.image import image, picture_rgb, scale_of, to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from headwater.analyze.repair.artefact import Artefact
    from headwater.analyze.repair.outcome import Repair

_BARS = {
    "accuracy": "all samples",
    "own": "its class",
    "own_pasted": "its class,\npasted",
    "others": "others",
    "others_pasted": "others,\npasted",
    "taken": "others taken for\nits class, pasted",
    "relevance": "relevance\non it",
}
_BEFORE, _AFTER = "0.65", "tab:blue"


def artefact_picture(artefact: Artefact) -> Figure:
    """The excess of relevance, the region on a member, and the artefact pasted on a sample of the rest."""
    _check(artefact.members)
    figure = new_figure(9.0, 3.0)
    axes = figure.subplots(1, 3)
    pasted = artefact.paste(artefact.rest[:1], torch.Generator().manual_seed(0))
    image(artefact.excess, ax=axes[0], title="more relevance than in the rest")
    _picture(axes[1], artefact.members[0], "the region, on a selected sample")
    _outline(axes[1], artefact.region)
    _picture(axes[2], pasted[0], "pasted on another sample")
    return figure


def repair_picture(repair: Repair) -> Figure:
    """Accuracies before and after; of pictures also an example and its relevance."""
    drawable = repair.example[0].dim() == 4 and repair.example[0].shape[1] in (1, 3)
    figure = new_figure(11.0, 6.6 if drawable else 3.6)
    if not drawable:
        _draw_bars(repair, figure.subplots())
        return figure
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1.0, 0.9]))
    _draw_bars(repair, above.subplots())
    _draw_example(repair, below)
    return figure


def _draw_bars(repair: Repair, ax: Axes) -> None:
    for shift, figures, colour, label in (
        (-0.2, repair.before, _BEFORE, "before"), (0.2, repair.after, _AFTER, f"after {repair.method}"),
    ):  # fmt: skip
        values = [100 * getattr(figures, name) for name in _BARS]
        bars = ax.bar(np.arange(len(_BARS)) + shift, np.nan_to_num(values), 0.38, color=colour, label=label)
        ax.bar_label(bars, [f"{value:.1f}" if value == value else "" for value in values], fontsize="small", padding=1)
    ax.set_xticks(np.arange(len(_BARS)), list(_BARS.values()))
    ax.set(ylabel="%", ylim=(0, 112))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper right", frameon=False, ncols=2)


def _draw_example(repair: Repair, figure: Any) -> None:
    x, *relevances = repair.example
    axes = figure.subplots(1, 3)
    _picture(axes[0], x[0], "artefact pasted on another class")
    limit = scale_of(relevance[0] for relevance in relevances) or None
    for ax, relevance, when in zip(axes[1:], relevances, ("before", "after"), strict=True):
        ax.imshow(to_rgb(relevance[0], limit))
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"relevance for its class {when}", fontsize="medium")
    for ax in axes:
        _outline(ax, repair.artefact.region)
    if limit:
        colour_bar(figure, list(axes[1:]), limit, beyond=True)


def _picture(ax: Axes, sample: Tensor, title: str) -> None:
    ax.imshow(picture_rgb(sample))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize="medium")


def _outline(ax: Axes, region: Tensor) -> None:
    """The border of the region, along the edges of pixels."""
    inside = region.reshape(-1, *region.shape[-2:]).amax(0).repeat_interleave(8, 0).repeat_interleave(8, 1)
    height, width = inside.shape
    place = ((np.arange(width) + 0.5) / 8 - 0.5, (np.arange(height) + 0.5) / 8 - 0.5)
    if bool((inside < 0.5).any()) and bool((inside >= 0.5).any()):
        ax.contour(*place, inside.numpy(), levels=[0.5], colors="tab:green", linewidths=1.4)


def _check(samples: Tensor) -> None:
    if samples.dim() != 4 or samples.shape[1] not in (1, 3):
        raise InvalidInput(f"samples of shape {list(samples.shape[1:])} are no pictures [1 or 3, H, W]")
