"""The gallery's figures: one for each subject, every method in it on a scale of its own."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gallery_runs import Exhibit
from headwater.show import images
from headwater.show.colour import colour_map, norm
from headwater.show.figure import colour_bar, new_figure, png, signed
from headwater.show.image import scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 7
_LABEL = "relevance, in parts of each map's scale"


def draw(shown: Exhibit) -> Figure:
    """The figure of an exhibit, as its subject's kind is drawn."""
    return _DRAWN[shown.subject.kind](shown)


def compact_png(figure: Figure, dpi: float = 72) -> bytes:
    """A figure as a PNG of 256 colours: a third of the bytes of one over photographs, and maps look the same."""
    from PIL import Image

    buffer = BytesIO()
    picture = Image.open(BytesIO(png(figure, dpi))).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _pictures(shown: Exhibit) -> Figure:
    """Maps over the picture; a spectrogram with its low frequencies at the bottom."""
    turn = shown.subject.kind == "sound"
    picture = shown.subject.x[0].flip(-2) if turn else shown.subject.x[0]
    maps: list[Tensor | None] = [m.flip(-2) if turn else m for m in shown.maps.values()]
    return images(
        [None, *maps], [picture] * (1 + len(maps)), ["the input", *(name.replace("_", " ") for name in shown.maps)],
        limit="each", columns=_COLUMNS,
    )  # fmt: skip


def _series(shown: Exhibit, pool: int = 4, columns: int = 4) -> Figure:
    """The components one above the other, on a ground that is their relevance, summed over ``pool`` samples."""
    rows = -(-len(shown.maps) // columns)
    figure = new_figure(4.2 * columns, 1.5 * rows + 0.3)
    cells = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes, (name, relevance) in zip(cells, shown.maps.items(), strict=False):
        pooled = F.avg_pool1d(relevance[None], pool)[0] * pool
        end = scale_of([pooled])
        _strip(axes, pooled, end, shown)
        axes.set_title(f"{name.replace('_', ' ')}   ± {end:.3g}", fontsize=9, pad=3)
    for axes in cells[len(shown.maps) :]:
        axes.set_axis_off()
    for axes in cells[-columns:]:
        axes.set_xlabel("sample", fontsize=8)
    colour_bar(figure, cells, 1.0, label=_LABEL, shrink=0.3, beyond=True)
    return figure


def _strip(axes: Axes, relevance: Tensor, end: float, shown: Exhibit) -> None:
    signal, names = shown.subject.x[0], shown.subject.words
    channels, length = signal.shape
    axes.imshow(
        relevance.numpy(), cmap=colour_map(), norm=norm(end), aspect="auto", interpolation="nearest",
        extent=(0, length, channels, 0),
    )  # fmt: skip
    for place, line in enumerate(signal):
        axes.plot(place + 0.5 - 0.45 * (line / line.abs().max()).numpy(), color="0.15", linewidth=0.5)
    axes.set_yticks([place + 0.5 for place in range(channels)], names, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set(color="0.7", linewidth=0.6)


def _matrix(shown: Exhibit) -> Figure:
    """A row for each method, a column for each word or feature; numbers where there is room for them."""
    words, names = shown.subject.words, list(shown.maps)
    values = torch.stack([shown.maps[name] for name in names])
    ends = values.abs().amax(1, keepdim=True)
    parts = values / torch.where(ends > 0, ends, 1.0)
    numbered = len(words) <= 12
    figure = new_figure(3.6 + (1.0 if numbered else 0.38) * len(words), 1.9 + 0.25 * len(names))
    axes = figure.subplots()
    axes.imshow(parts.numpy(), cmap=colour_map(), norm=norm(1.0), aspect="auto", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(words)), words, rotation=55, ha="left", rotation_mode="anchor", fontsize=10)
    heads = [f"{name.replace('_', ' ')}   ± {float(end):.2g}" for name, end in zip(names, ends, strict=True)]
    axes.set_yticks(range(len(names)), heads, fontsize=9)
    axes.tick_params(length=0)
    axes.set_yticks([place - 0.5 for place in range(1, len(names))], minor=True)
    axes.grid(which="minor", axis="y", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set(color="0.7", linewidth=0.6)
    if numbered:
        for row, column in torch.cartesian_prod(torch.arange(len(names)), torch.arange(len(words))).tolist():
            ink = "white" if abs(float(parts[row, column])) > 0.7 else "0.2"
            number = float(f"{float(values[row, column]):.2g}")  # two digits are enough to see a pattern
            axes.text(column, row, signed(number), ha="center", va="center", fontsize=8, color=ink)
    colour_bar(figure, [axes], 1.0, label="relevance, in parts of each row's scale", shrink=0.4)
    return figure


_DRAWN: dict[str, Callable[[Exhibit], Figure]] = {
    "picture": _pictures,
    "sound": _pictures,
    "series": _series,
    "text": _matrix,
    "table": _matrix,
}
