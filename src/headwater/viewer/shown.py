"""One explained sample as a browser can draw it: a picture in its own pixels, or numbers of a line, text or table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headwater.show.colour import finite, limit_of
from headwater.show.image import overlay_rgb, picture_rgb, pixels_png, scale_of, to_rgb
from headwater.show.text import merge_pieces
from headwater.viewer.refusals import Conflict

Kind = Literal["image", "spectrogram", "video", "series", "text", "table"]
KINDS = ("image", "spectrogram", "video", "series", "text", "table")
PICTURES = ("image", "spectrogram", "video")
_STEPS = 4000  # of a series, and entries of a table, that are sent
_ENTRIES = 500
Words = Callable[[list[int]], list[str]]


@dataclass(frozen=True)
class Names:
    """What the entries of an input are called.

    Attributes:
        words: turns token ids into pieces of text; ``axis``: names of channels or of columns; ``rate``: of a series, in
            samples per second.
    """

    words: Words | None = None
    axis: Sequence[str] | None = None
    rate: float | None = None


def kind_of(relevance: tuple[int, ...], given: tuple[int, ...] | None, whole: bool) -> Kind:
    """How a sample is drawn, by the shape of its relevance and of its input; as ``headwater.show.plot`` chooses.

    Args:
        relevance, given: shapes of one sample; ``given`` is None where the input is not known.
        whole: whether the input holds whole numbers, as token ids are.
    """
    if given is not None and (len(relevance) == len(given) + 1 or (len(relevance) == 1 and whole)):
        return "text"
    if len(relevance) == 2:
        rows, columns = relevance
        return "image" if rows > 16 and columns <= 4 * rows else "series"
    kinds: dict[int, Kind] = {3: "image", 4: "video"}
    return kinds.get(len(relevance), "table")


@dataclass(frozen=True)
class Shown:
    """Relevance ``[*shape]`` of one sample, and its input where that is known.

    Attributes:
        kind: how it is drawn; ``frame``: of a video ``[C, T, H, W]``, which picture; None for the one in the middle.
    """

    kind: Kind
    relevance: NDArray[Any]
    given: NDArray[Any] | None
    names: Names
    frame: int | None = None

    def limit(self) -> float:
        """The end of this sample's own scale."""
        return shared_limit([self])

    @property
    def map(self) -> NDArray[Any]:
        """Relevance of a picture, ``[C, H, W]`` or ``[H, W]``."""
        return self._flat(self.relevance)

    def heatmap(self, limit: float | None = None, side: int = 0) -> bytes:
        """The plain heatmap as PNG, every pixel a square, as large as ``side`` has room for."""
        self._need_picture()
        return _png(to_rgb(self.map, limit), side)

    def overlay(self, limit: float | None = None, side: int = 0) -> bytes:
        """The heatmap over the picture as PNG, sized likewise."""
        return _png(overlay_rgb(self.map, self.under(), limit), side)

    def picture(self, side: int = 0) -> bytes:
        """The input as PNG, sized likewise."""
        return _png(picture_rgb(self.under()), side)

    def values(self) -> dict[str, Any]:
        """Numbers for the browser to draw; of a picture its shape and sum alone."""
        if self.kind == "series":
            found = self._series()
        elif self.kind == "text":
            found = self._text()
        elif self.kind == "table":
            found = self._table()
        else:
            found = {"shape": self.relevance.shape, "total": float(finite(self.relevance).sum())}
        return {"kind": self.kind, "limit": self.limit(), **found}

    def _need_picture(self) -> None:
        if self.kind not in PICTURES:
            raise Conflict(f"the samples are of kind {self.kind}: ask for their values, they have no picture")

    def under(self) -> NDArray[Any]:
        """The input of a picture, ``[C, H, W]`` with C in 1, 3, 4, or ``[H, W]``.

        Raises:
            Conflict: the samples are no pictures, or the inputs are not there.
        """
        self._need_picture()
        if self.given is None:
            raise Conflict("the inputs are not in the store: write it with keep_inputs, or name the data when viewing")
        picture = self._flat(self.given)
        return picture if picture.ndim == 2 or picture.shape[0] in (1, 3, 4) else picture.mean(0)

    def _flat(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.kind == "video":
            frame = values.shape[1] // 2 if self.frame is None else self.frame
            if not 0 <= frame < values.shape[1]:
                raise Conflict(f"there is no frame {frame}: the video has {values.shape[1]}")
            return values[:, frame]
        return np.ascontiguousarray(values[..., ::-1, :]) if self.kind == "spectrogram" else values

    def scores(self) -> NDArray[np.float64]:
        """The numbers that share a scale: of tokens (summed over their embedding), of steps or of columns."""
        values = finite(self.relevance)
        return values.sum(-1) if self.kind == "text" and values.ndim == 2 else values

    def _series(self) -> dict[str, Any]:
        relevance = self.scores().reshape(-1, self.relevance.shape[-1])
        signal = None if self.given is None else finite(self.given, "input").reshape(relevance.shape)
        step = -(-relevance.shape[1] // _STEPS)
        if step > 1:  # of each stretch, the place of the strongest relevance: a peak must not fall between two steps
            place = _strongest(relevance, step)
            relevance = np.take_along_axis(relevance, place, 1)
            signal = None if signal is None else np.take_along_axis(signal, place, 1)
        names = self._named(len(relevance), "channel")
        return {"names": names, "rate": self.names.rate, "step": step, "signal": signal, "relevance": relevance}

    def _text(self) -> dict[str, Any]:
        scores = self.scores()
        if self.given is None:
            return {"tokens": [f"{place}" for place in range(len(scores))], "relevance": scores}
        ids = [int(identity) for identity in self.given.reshape(-1)][: len(scores)]
        kept = _unpadded(ids, scores)
        words = self.names.words
        tokens = [f"#{identity}" for identity in ids[:kept]] if words is None else words(ids[:kept])
        pieces, sums = merge_pieces(tokens, scores[:kept])
        return {"tokens": pieces, "relevance": sums}

    def _table(self) -> dict[str, Any]:
        scores = self.scores().reshape(-1)
        given = None if self.given is None or self.given.size != scores.size else self.given.reshape(-1)
        names = self._named(len(scores), "feature")
        picked = np.arange(len(scores))
        if len(scores) > _ENTRIES:
            picked = np.sort(np.argsort(-np.abs(scores), kind="stable")[:_ENTRIES])
        rest = float(scores.sum() - scores[picked].sum()) if len(picked) < len(scores) else 0.0
        return {
            "names": [names[i] for i in picked], "values": None if given is None else given[picked],
            "relevance": scores[picked], "rest": rest, "count": len(scores),
        }  # fmt: skip

    def _named(self, count: int, what: str) -> list[str]:
        given = self.names.axis
        return [str(name) for name in given] if given and len(given) == count else [f"{what} {i}" for i in range(count)]


def shared_limit(samples: Sequence[Shown]) -> float:
    """The end of a scale for several samples; 0 where none has any relevance."""
    if not samples:
        return 0.0
    if samples[0].kind == "video":  # all frames on one scale, one below the other
        maps = [shown.relevance for shown in samples]
        return scale_of([r.reshape(len(r), -1, r.shape[-1]) for r in maps])
    if samples[0].kind in PICTURES:
        return scale_of([shown.map for shown in samples])
    if samples[0].kind == "text" and samples[0].given is not None:
        return limit_of([np.asarray(shown._text()["relevance"]) for shown in samples])
    return limit_of([shown.scores() for shown in samples])


def _png(pixels: NDArray[np.uint8], side: int) -> bytes:
    times = max(1, side // max(pixels.shape[:2]))
    return pixels_png(pixels.repeat(times, 0).repeat(times, 1))


def _strongest(relevance: NDArray[np.float64], step: int) -> NDArray[np.int64]:
    channels, length = relevance.shape
    padded = np.pad(np.abs(relevance), ((0, 0), (0, -length % step)), constant_values=-1.0)
    inner = padded.reshape(channels, -1, step).argmax(-1)
    return np.arange(inner.shape[1]) * step + inner


def _unpadded(ids: list[int], scores: NDArray[np.float64]) -> int:
    """How many tokens come before the padding: the last run of one id without any relevance, where it is one."""
    kept = len(ids)
    while kept > 1 and ids[kept - 1] == ids[-1] and scores[kept - 1] == 0:
        kept -= 1
    return kept if kept < len(ids) - 1 else len(ids)
