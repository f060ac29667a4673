"""Pictures of what the analyses found: the map of strategies, their spectrum and mean heatmaps, pooled relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.show.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from headwater.analyze.pooling import Pooled
    from headwater.analyze.strategies import Cluster, Spray

_DRAWN = 20_000  # points of a map


def picture(found: Spray, count: int) -> Figure:
    """The map with the suspects in colour, the eigenvalues of the first suspect's group, and mean heatmaps."""
    suspects = found.suspects[:count]
    drawable = found.means.ndim in (3, 4)
    figure = new_figure(11.0, 4.2 + (2.6 if drawable and suspects else 0.0))
    parts: list[Any] = [figure]
    if drawable and suspects:
        parts = [*np.asarray(figure.subfigures(2, 1, height_ratios=[4.2, 2.6]))]
    top, *rest = parts
    places, spectrum = top.subplots(1, 2, width_ratios=[1.6, 1.0])
    _draw_map(found, suspects, places)
    _draw_spectrum(found, suspects, spectrum)
    if rest:
        _draw_means(found, suspects, rest[0])
    return figure


def bars(pooled: Pooled) -> Figure:
    """Mean relevance of each group of features, side by side for the groups of samples."""
    figure = new_figure(max(5.0, 0.5 * pooled.values.size + 2.0), 3.6)
    ax = figure.subplots()
    places = np.arange(len(pooled.features))
    width = 0.8 / len(pooled.samples)
    for i, (name, row) in enumerate(zip(pooled.samples, pooled.means, strict=True)):
        ax.bar(places + (i + 0.5) * width - 0.4, row, width, label=f"{name} (n = {pooled.sizes[i]})")
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.set_xticks(
        places,
        pooled.features,
        rotation=30 if len(pooled.features) > 4 else 0,
        ha="right" if len(pooled.features) > 4 else "center",
    )
    ax.set_ylabel("mean relevance a sample")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return figure


def _draw_map(found: Spray, suspects: list[Cluster], ax: Axes) -> None:
    """Of the first suspect's group alone: every group has a plane of its own."""
    group = suspects[0].group if suspects else found.groups[0].name
    own = [c.label for c in found.clusters if c.group == group]
    points = found.embedding[:, 1:3] if found.places is None else found.places
    shown = np.flatnonzero(np.isfinite(points).all(1) & np.isin(found.labels, own))
    shown = shown[:: max(1, len(shown) // _DRAWN)]
    ax.scatter(points[shown, 0], points[shown, 1], s=3, color="0.75", linewidths=0, rasterized=True, label="others")
    for rank, suspect in enumerate(suspects, start=1):
        members = shown[found.labels[shown] == suspect.label]
        if len(members):
            x, y = points[members].T
            ax.scatter(x, y, s=8, linewidths=0, rasterized=True, label=_name(rank, suspect))
    of = "" if group is None else f" of group {group}"
    if found.places is None:
        ax.set(xlabel="second eigenvector", ylabel="third eigenvector", title=f"Heatmaps{of}")
    else:
        ax.set(xticks=[], yticks=[], title=f"Map of the heatmaps{of}")
    ax.legend(loc="best", frameon=True, fontsize="small", markerscale=2)


def _draw_spectrum(found: Spray, suspects: list[Cluster], ax: Axes) -> None:
    names = {group.name: group for group in found.groups}
    group = names[suspects[0].group] if suspects else found.groups[0]
    values = group.eigenvalues
    ax.plot(np.arange(1, len(values) + 1), values, "o-", color="0.3", markersize=3.5, linewidth=1)
    if len(values) > 2:
        gap = 2 + int(np.argmax(np.diff(values)[1:]))
        ax.axvspan(gap, gap + 1, color="tab:blue", alpha=0.15, label=f"largest gap: {gap} clusters")
        ax.legend(loc="lower right", frameon=False, fontsize="small")
    where = "" if group.name is None else f" of group {group.name}"
    ax.set(xlabel="number", title=f"Eigenvalues{where}", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)


def _draw_means(found: Spray, suspects: list[Cluster], figure: Any) -> None:
    from headwater.show.image import image

    axes = np.atleast_1d(figure.subplots(1, len(suspects)))
    for rank, (suspect, ax) in enumerate(zip(suspects, axes, strict=True), start=1):
        image(found.means[suspect.label], ax=ax, title=f"mean of {_name(rank, suspect)}")


def _name(rank: int, suspect: Cluster) -> str:
    group = "" if suspect.group is None else f"group {suspect.group}, "
    return f"suspect {rank}: {group}{suspect.size} samples"
