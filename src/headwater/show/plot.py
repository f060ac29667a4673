"""Drawing an explanation as what was explained, recognized by its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from headwater.errors import InvalidInput
from headwater.show.colour import Array, finite, limit_of
from headwater.show.figure import new_figure
from headwater.show.image import images
from headwater.show.series import draw_series, series
from headwater.show.table import grouped, table
from headwater.show.text import TextMap
from headwater.show.volume import volumes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headwater.explanation import Explanation

Kind = Literal["image", "series", "text", "table", "volume"]
_AT_MOST = 8  # samples in one figure, unless the caller names them


def plot(
    explanation: Explanation,
    *,
    pictures: Sequence[Array] | Array | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    rate: float | None = None,
    samples: Sequence[int] | None = None,
    limit: float | None = None,
    kind: Kind | None = None,
    of: str | int | None = None,
    slices: Sequence[int] | None = None,
) -> Figure | TextMap:
    """Draw an explanation as what was explained: samples in rows, all on one scale.

    Token ids are drawn as text, ``[N, C, H, W]`` and ``[N, H, W]`` as images, ``[N, C, T]`` as series, ``[N, F]`` as a
    table, ``[N, C, D, H, W]`` as slices. Of three dimensions, the last two count as an image if the second has more
    than 16 entries and the last at most 4 times as many.

    Args:
        explanation: of N samples.
        pictures: N pictures to lay the heatmaps over, as ``picture_rgb`` takes each; by default the inputs where they
            have 1, 3 or 4 channels.
        tokens: N lists of T tokens; by default the words of raw text, else the token ids.
        names: of the channels of a series or the features of a table; by default the names of the columns that an
            estimator was fitted on.
        titles: of the N samples; by default the method and the explained output.
        rate: samples per second of a series.
        samples: which of the N to draw, in this order; by default the first 8.
        limit: the end of the scale; by default the largest magnitude drawn.
        kind: draw as this whatever the shape.
        of: which input to draw, where the model takes several: its place or its name.
        slices: of a volume, which to draw; by default six.

    Returns:
        A matplotlib figure; for text a ``TextMap``, which prints coloured and which a notebook shows.

    Raises:
        InvalidInput: no picture fits the shape, or an argument does not fit the samples.
        NonFinite: NaN or infinity in the relevance.
        MissingExtra: matplotlib is not installed (text needs none).
    """
    relevance, inputs = _chosen(explanation.relevance, explanation.inputs, of)
    count = len(relevance)
    drawn = list(samples) if samples is not None else list(range(min(count, _AT_MOST)))
    if not drawn or not all(-count <= index < count for index in drawn):
        raise InvalidInput(f"samples names some of the {count} that were explained, not {drawn}")
    for what, given in (("pictures", pictures), ("tokens", tokens), ("titles", titles)):
        if given is not None and len(given) != count:
            raise InvalidInput(f"{len(given)} {what} for {count} explained samples: give each sample one")
    lines = titles or [f"{explanation.method}, output {value:.4g}" for value in explanation.output.tolist()]
    heads, maps, values = [lines[i] for i in drawn], [relevance[i] for i in drawn], [inputs[i] for i in drawn]
    kind = kind or _kind(relevance, inputs)
    if kind == "text":
        known = explanation.details.get("words") if tokens is None else tokens
        words = [known[i] if known is not None else [f"{identity}" for identity in inputs[i].tolist()] for i in drawn]
        scores = [scores.sum(-1) if scores.ndim == 2 else scores for scores in maps]
        if tokens is None:  # raw texts are padded to the longest
            scores = [score[: len(own)] for score, own in zip(scores, words, strict=True)]
        return TextMap(words, [finite(score) for score in scores], limit_of(scores, limit))
    if kind == "series":
        return _series_rows(maps, values, heads, rate, names, limit)
    if kind == "table":
        known = explanation.details
        return _table_rows(
            maps, [known["values"][i] for i in drawn] if "values" in known else values, heads,
            names or known.get("names"), limit,
        )  # fmt: skip
    if kind == "volume":
        return volumes(
            maps, values if pictures is None else [pictures[i] for i in drawn], heads, slices=slices, limit=limit
        )
    return _image_rows(maps, _pictures(pictures, inputs, drawn), heads, limit)


def _chosen(relevance: Any, inputs: Any, of: str | int | None) -> tuple[Tensor, Tensor]:
    """The relevance and the values of one input, which the caller must name where several were explained."""
    if isinstance(relevance, Tensor):
        return relevance, inputs
    if relevance is None:
        raise InvalidInput("only a hidden layer was explained: draw explanation.layers with headwater.show")
    parts: Mapping[Any, Any] = relevance if isinstance(relevance, Mapping) else dict(enumerate(relevance))
    keys = [key for key, part in parts.items() if isinstance(part, Tensor)]
    if of is None and len(keys) == 1:
        of = keys[0]
    if of not in keys:
        choices = ", ".join(repr(key) for key in keys)
        raise InvalidInput(f"the model takes several inputs: choose the one to draw with of=, one of {choices}")
    return parts[of], inputs[of]


def _kind(relevance: Tensor, inputs: Tensor) -> Kind:
    if relevance.ndim == inputs.ndim + 1 or (relevance.ndim == 2 and not inputs.is_floating_point()):
        return "text"
    if relevance.ndim == 3:
        rows, columns = relevance.shape[1:]
        return "image" if rows > 16 and columns <= 4 * rows else "series"
    kinds: dict[int, Kind] = {2: "table", 4: "image", 5: "volume"}
    if relevance.ndim not in kinds:
        raise InvalidInput(
            f"relevance of shape {list(relevance.shape)} is no image, series, text, table or volume: draw a "
            "slice or a sum of it with headwater.show.image, series or table"
        )
    return kinds[relevance.ndim]


def _pictures(pictures: Sequence[Array] | Array | None, inputs: Tensor, drawn: Sequence[int]) -> Sequence[Array | None]:
    if pictures is not None:
        return [pictures[index] for index in drawn]
    if inputs.ndim == 3 or inputs.shape[1] in (1, 3, 4):
        return [inputs[index] for index in drawn]
    return [None] * len(drawn)


def _image_rows(
    maps: Sequence[Tensor], pictures: Sequence[Array | None], titles: Sequence[str], limit: float | None
) -> Figure:
    """A row for each sample: the picture, the plain heatmap and the heatmap over the picture."""
    cells: list[tuple[Array | None, Array | None, str]] = []
    for relevance, picture, title in zip(maps, pictures, titles, strict=True):
        if picture is not None:
            cells.append((None, picture, "input"))
        cells.append((relevance, None, title))
        if picture is not None:
            cells.append((relevance, picture, "over the input"))
    columns = 3 if pictures[0] is not None else None
    relevances, under, heads = zip(*cells, strict=True)
    return images(relevances, under, heads, limit="shared" if limit is None else limit, columns=columns)


def _series_rows(
    maps: Sequence[Tensor],
    signals: Sequence[Tensor],
    titles: Sequence[str],
    rate: float | None,
    names: Sequence[str] | None,
    limit: float | None,
) -> Figure:
    if len(maps) == 1:
        return series(maps[0], signals[0], rate=rate, names=names, limit=limit, title=titles[0])
    end = limit_of(maps, limit)
    figure = new_figure(9.0, len(maps) * (1.0 + 1.3 * len(maps[0])))
    parents = figure.subfigures(len(maps), 1, squeeze=False).flat
    for parent, relevance, signal, title in zip(parents, maps, signals, titles, strict=True):
        draw_series(parent, relevance, signal, rate=rate, names=names, limit=end, title=title)
    return figure


def _table_rows(
    maps: Sequence[Tensor],
    values: Sequence[Any],
    titles: Sequence[str],
    names: Sequence[str] | None,
    limit: float | None,
) -> Figure:
    end = limit_of([grouped(relevance)[0] for relevance in maps], limit) or None
    figure = new_figure(7.0, len(maps) * (1.2 + 0.32 * min(13, len(maps[0]))))
    rows = figure.subplots(len(maps), 1, squeeze=False).flat
    for axes, relevance, value, title in zip(rows, maps, values, titles, strict=True):
        table(names, value, relevance, limit=end, title=title, ax=axes)
    return figure
