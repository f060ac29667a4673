"""Pictures of an evaluation: curves with their bands, and the maps of several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.maps import picture
from headwater.show.figure import figure_of, new_figure
from headwater.show.image import images, scale_of
from headwater.show.series import draw_series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headwater.evaluate.flipping import Flipping

# Okabe and Ito's colours, which readers with colour vision deficiencies can tell apart; dashes when they are used up
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
CHANCE = "random"


def plot_curves(
    flippings: Mapping[str, Flipping], *, confidence: float = 0.95, title: str = "", ylabel: str = "", ax: Any = None
) -> Figure:
    """Draw mean curves with their bootstrap bands; the one called "random" in grey.

    Args:
        flippings: curves by name, in the order of the legend.
        confidence: of the bands; those of a single sample have no width.
        title: a line above; ``ylabel``: what was recorded.
        ax: axes of the caller's to draw on; by default a new figure.

    Raises:
        InvalidInput: no curves.
        MissingExtra: matplotlib is not installed.
    """
    if not flippings:
        raise InvalidInput("there are no curves to draw")
    figure, axes = figure_of(ax, 6.4, 4.0)
    others = [name for name in flippings if name != CHANCE]
    for name, flipping in flippings.items():
        place = others.index(name) if name in others else 0
        colour = "0.55" if name == CHANCE else COLOURS[place % len(COLOURS)]
        style = "--" if name == CHANCE else DASHES[place // len(COLOURS) % len(DASHES)]
        low, high = (end.numpy() for end in flipping.interval(confidence))
        at = (100 * flipping.fractions).numpy()
        axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(at, flipping.curve.numpy(), style, color=colour, label=f"{name} ({flipping.area:.3g})", linewidth=1.6)
    settings = next(iter(flippings.values())).settings
    done = "inserted" if settings.get("insert") else "removed"
    unit = settings.get("features", "feature")
    axes.set_xlabel(f"features {done}, % ({unit})", fontsize=9)
    axes.set_ylabel(ylabel or str(settings.get("output", "score")), fontsize=9)
    axes.set_xlim(0, float(100 * next(iter(flippings.values())).fractions[-1]))
    axes.legend(title="method (area)", fontsize=8, title_fontsize=8, framealpha=0.85, edgecolor="none")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def plot_maps(
    maps: Mapping[str, Tensor], inputs: Tensor | None = None, *, samples: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:  # fmt: skip
    """Draw the maps of several methods: a row for each sample, a column for each method.

    Methods measure in different units, so each method's maps are divided by the end of the scale they would have by
    themselves (see :func:`headwater.show.image.scale_of`); the colours are then those of one scale for all, -1 to 1.

    Args:
        maps: relevance ``[N, ...]`` by method.
        inputs: ``[N, ...]``, drawn in the first column where they are pictures, or as the lines of a series.
        samples: which to draw; by default the first 4.
        titles: of the N samples.

    Raises:
        InvalidInput: maps of shapes that no picture fits.
        MissingExtra: matplotlib is not installed.
    """
    count = len(next(iter(maps.values())))
    chosen = list(range(min(4, count))) if samples is None else list(samples)
    drawn = {name: relevance.detach().double().cpu()[chosen] for name, relevance in maps.items()}
    shape = next(iter(drawn.values())).shape[1:]
    image = len(shape) >= 2 and min(shape[-2:]) > 16
    scaled = {name: _scaled(picture(relevance) if image else relevance) for name, relevance in drawn.items()}
    heads = [titles[i] for i in chosen] if titles is not None else [f"sample {i}" for i in chosen]
    if image:
        return _grid(scaled, inputs, chosen, heads)
    if len(shape) == 2 and inputs is not None and inputs.shape[1:] == shape:
        return _lines(scaled, inputs.detach().cpu()[chosen[0]], heads[0])
    return _strips(scaled, heads)


def _scaled(maps: Tensor) -> Tensor:
    return maps / (scale_of([one.reshape(1, -1) if one.dim() != 2 else one for one in maps]) or 1.0)


def _grid(scaled: Mapping[str, Tensor], inputs: Tensor | None, chosen: Sequence[int], heads: Sequence[str]) -> Figure:
    cells: list[tuple[Any, Any, str]] = []
    shown = inputs is not None and inputs.dim() == 4 and inputs.shape[1] in (1, 3, 4)
    for row, (sample, head) in enumerate(zip(chosen, heads, strict=True)):
        if shown and inputs is not None:
            cells.append((None, inputs[sample].detach().cpu(), head))
        cells += [(maps[row], None, name if row == 0 else "") for name, maps in scaled.items()]
    relevances, under, titles = zip(*cells, strict=True)
    return images(relevances, under, titles, limit=1.0, columns=len(scaled) + shown)


def _lines(scaled: Mapping[str, Tensor], signal: Tensor, head: str) -> Figure:
    figure = new_figure(9.0, len(scaled) * (1.0 + 0.9 * len(signal)))
    for parent, (name, maps) in zip(figure.subfigures(len(scaled), 1, squeeze=False).flat, scaled.items(), strict=True):
        draw_series(parent, maps[0], signal, rate=None, names=None, limit=1.0, title=f"{name}, {head}")
    return figure


def _strips(scaled: Mapping[str, Tensor], heads: Sequence[str]) -> Figure:
    """A matrix for each sample: methods in rows, features in columns."""
    from matplotlib.ticker import MaxNLocator

    from headwater.show.colour import colour_map, norm
    from headwater.show.figure import colour_bar

    figure = new_figure(8.0, len(heads) * (0.7 + 0.28 * len(scaled)))
    axes = figure.subplots(len(heads), 1, squeeze=False)[:, 0]
    for i, (ax, head) in enumerate(zip(axes, heads, strict=True)):
        rows = torch.stack([maps[i].flatten() for maps in scaled.values()])
        ax.imshow(rows.numpy(), cmap=colour_map(), norm=norm(1.0), aspect="auto", interpolation="nearest")
        ax.set_yticks(range(len(scaled)), list(scaled), fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # features are whole
        ax.tick_params(axis="x", labelsize=7)
        ax.set_title(head, fontsize=9)
    axes[-1].set_xlabel("feature", fontsize=8)
    colour_bar(figure, list(axes), 1.0)
    return figure
