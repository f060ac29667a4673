"""Pictures of neuralized models: decision fields with their relevance, and what moved a clip's decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra
from headwater.explanation import Explanation

_MAP = "RdBu_r"  # red speaks for, blue against; told apart by all kinds of colour vision
_MARKERS = "osD^vP*X"


def grid(samples: Any, steps: int = 100, margin: float = 0.25) -> Tensor:
    """Points that cover samples of one or two columns: ``[steps, 1]`` or ``[steps², 2]``, rows of the second column.

    Args:
        samples: ``[N, D]``; ``margin``: how much wider than them, in shares of their range.

    Raises:
        InvalidInput: where D is neither 1 nor 2.
    """
    x = torch.as_tensor(np.asarray(samples)).double()
    if x.dim() != 2 or x.shape[1] not in (1, 2):
        raise InvalidInput(f"A field is drawn of samples [N, 1] or [N, 2], not {list(x.shape)}")
    low, high = x.amin(0), x.amax(0)
    pad = margin * (high - low)
    axes = [torch.linspace(float(a), float(b), steps).double() for a, b in zip(low - pad, high + pad, strict=True)]
    if len(axes) == 1:
        return axes[0][:, None]
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    return torch.stack([first.flatten(), second.flatten()], 1)


def decision_field(
    field: Explanation, samples: Any = None, labels: Any = None, names: Sequence[str] = ("$x_1$", "$x_2$")
) -> Any:
    """The explained score over a plane and the relevance of both coordinates, or of one coordinate over a line.

    Args:
        field: an explanation of the points of :func:`grid`.
        samples: ``[N, D]``, drawn over it; ``labels``: ``[N]``, their markers; ``names``: of the coordinates.

    Returns:
        A matplotlib figure: for two columns three panels on one colour scale, whose middle is zero.

    Raises:
        InvalidInput: an explanation of something else.
        MissingExtra: without matplotlib.

    Source: Samek et al. 2021 (review), Figure 9.
    """
    plt = _pyplot()
    x, relevance = field.inputs, field.relevance
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] not in (1, 2):
        raise InvalidInput("A decision field is drawn from an explanation of points [N, 1] or [N, 2]: see grid")
    if x.shape[1] == 1:
        return _line(plt, field, samples, labels, names[0])
    steps = round(len(x) ** 0.5)
    if steps**2 != len(x):
        raise InvalidInput(f"{len(x)} points are no square grid: make them with grid")
    panels = [field.output, relevance[:, 0], relevance[:, 1]]
    titles = ["score", f"relevance of {names[0]}", f"relevance of {names[1]}"]
    # Fields grow with the square of the distance: their outskirts would wash out what lies between the samples.
    limit = float(torch.stack(panels).abs().flatten().quantile(0.9))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharex=True, sharey=True)
    extent = (float(x[0, 0]), float(x[-1, 0]), float(x[0, 1]), float(x[-1, 1]))
    for ax, panel, title in zip(axes, panels, titles, strict=True):
        values = panel.detach().reshape(steps, steps).numpy()
        image = ax.imshow(
            values, origin="lower", extent=extent, cmap=_MAP, vmin=-limit, vmax=limit, aspect="auto",
            interpolation="bilinear",
        )  # fmt: skip
        if values.min() < 0 < values.max():
            ax.contour(values, levels=[0], extent=extent, colors="0.2", linewidths=0.8)
        _scatter(ax, samples, labels)
        ax.set(title=title, xlabel=names[0], xlim=extent[:2], ylim=extent[2:])
    axes[0].set_ylabel(names[1])
    figure.colorbar(image, ax=axes, extend="both", shrink=0.9)
    return figure


def _line(plt: Any, field: Explanation, samples: Any, labels: Any, name: str) -> Any:
    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    x = field.inputs[:, 0]
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.plot(x, field.output.detach(), color="0.2", label="score")
    ax.plot(x, field.relevance[:, 0].detach(), color="#b2182b", linestyle="--", label=f"relevance of {name}")
    if samples is not None:
        points = np.asarray(samples)[:, 0]
        _scatter(ax, np.stack([points, np.zeros_like(points)], 1), labels)
    ax.set(xlabel=name, xlim=(float(x[0]), float(x[-1])))
    ax.legend(frameon=False)
    return figure


def _scatter(ax: Any, samples: Any, labels: Any) -> None:
    if samples is None:
        return
    points = np.asarray(samples)
    kinds = (
        np.zeros(len(points), dtype=int) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    )
    for kind in np.unique(kinds):
        own = points[kinds == kind]
        ax.scatter(
            own[:, 0],
            own[:, 1],
            s=14,
            c="white",
            edgecolors="0.15",
            linewidths=0.7,
            marker=_MARKERS[kind % len(_MARKERS)],
        )


def clip_relevance(frames: Any, relevance: Any, shown: int = 5) -> Any:
    """Relevance of a clip's blocks over some of its frames, and its sum over time (overview, Figure 2 C).

    Args:
        frames: pictures ``[T, H, W, 3]``; ``relevance``: of blocks ``[T, H / 16, W / 16]``.
        shown: how many pictures, evenly through the clip.

    Returns:
        A matplotlib figure.

    Raises:
        InvalidInput: arrays of other shapes.
        MissingExtra: without matplotlib.
    """
    plt = _pyplot()
    frames, r = np.asarray(frames), np.asarray(relevance)
    if frames.ndim != 4 or r.ndim != 3 or len(frames) != len(r):
        raise InvalidInput(f"Pictures {frames.shape} and relevance {r.shape}: pass [T, H, W, 3] and [T, rows, columns]")
    at = np.linspace(0, len(r) - 1, min(shown, len(r))).round().astype(int)
    limit = np.abs(r).max() or 1.0
    figure = plt.figure(figsize=(2.3 * len(at), 4.2), layout="constrained")
    mosaic = figure.subplot_mosaic([[f"{t}" for t in at], ["time"] * len(at)], height_ratios=[2.2, 1])
    height, width = r.shape[1] * 16, r.shape[2] * 16
    for t in at:
        ax = mosaic[f"{t}"]
        ax.imshow(frames[t].mean(2), cmap="gray", vmin=0, vmax=400, extent=(0, frames.shape[2], frames.shape[1], 0))
        image = ax.imshow(
            r[t], cmap=_MAP, vmin=-limit, vmax=limit, alpha=np.clip(2 * np.abs(r[t]) / limit, 0, 0.8),
            extent=(0, width, height, 0),
        )  # fmt: skip
        ax.set(title=f"frame {t}", xticks=[], yticks=[], xlim=(0, frames.shape[2]), ylim=(frames.shape[1], 0))
    figure.colorbar(image, ax=[mosaic[f"{t}"] for t in at], shrink=0.8)
    total = r.sum((1, 2))
    mosaic["time"].axhline(0, color="0.7", linewidth=0.8)
    mosaic["time"].plot(total, color="0.2")
    mosaic["time"].fill_between(np.arange(len(total)), 0, total, where=total > 0, color="#d6604d", alpha=0.5)
    mosaic["time"].fill_between(np.arange(len(total)), 0, total, where=total < 0, color="#4393c3", alpha=0.5)
    mosaic["time"].set(xlabel="frame", ylabel="relevance", xlim=(0, len(total) - 1))
    return figure


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtra("plot", "matplotlib") from None
    return plt
