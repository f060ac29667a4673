"""Selections as files: a table, a list of ids, pictures, one self-contained page. Written as they are sent."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import HeadwaterError, InvalidInput
from headwater.show import report
from headwater.show.figure import new_figure, png
from headwater.show.image import image, images
from headwater.show.series import series
from headwater.show.table import table
from headwater.show.text import text_html
from headwater.viewer.refusals import Conflict
from headwater.viewer.shown import PICTURES, Shown, shared_limit
from headwater.viewer.viewed import Viewed

FORMATS = ("csv", "ids", "json", "png", "svg", "html")
_PICTURES, _REPORTED, _SCALED = 1_000, 200, 64
_SIDE = 280  # pixels of a picture on the page, which would blur smaller ones
_ROWS = 5_000  # of a table, written at once
_LETTERS = 122  # of a fixed width, in a line of a picture of a text
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_drawing = Lock()  # matplotlib draws for one thread at a time


@dataclass(frozen=True)
class Export:
    """A file to be downloaded.

    Attributes:
        name, kind: of the file, and its media type; ``parts``: its content, made as it is read.
        shown, of: how many samples are in it, and how many were selected.
    """

    name: str
    kind: str
    parts: Iterator[bytes]
    shown: int
    of: int

    @property
    def headers(self) -> dict[str, str]:
        """That not all samples are in it."""
        return {"x-truncated": f"{self.shown} of {self.of}"} if self.shown < self.of else {}


def export(
    viewed: Viewed, rows: NDArray[np.int64], format: str, title: str, note: str = "", name: str | None = None
) -> Export:
    """A selection as a file.

    Args:
        rows: the samples. format: one of ``FORMATS``. title, note: of the selection.
        name: the explanation that is drawn.

    Raises:
        InvalidInput: another format. Conflict: ids that a list of lines cannot hold, or nothing to draw.
    """
    viewed.explanation(name)
    most = {"png": _PICTURES, "svg": _PICTURES, "html": _REPORTED}.get(format, len(rows))
    own, text = rows[:most], "; charset=utf-8"
    match format:
        case "csv":
            suffix, kind, parts = "csv", f"text/csv{text}", _table(viewed, rows)
        case "ids":
            suffix, kind, parts = "txt", f"text/plain{text}", _lines(viewed, rows)
        case "json":
            suffix, kind, parts = "json", "application/json", _saved(viewed, rows, title, note)
        case "png" | "svg":
            suffix, kind, parts = "zip", "application/zip", _pictures(viewed, own, rows, format, name)
        case "html":
            suffix, kind, parts = "html", f"text/html{text}", _page(viewed, own, len(rows), title, note, name)
        case _:
            raise InvalidInput(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    first = next(parts, b"")  # so that what cannot be written is refused before anything is sent
    return Export(f"{_file_name(title) or 'selection'}.{suffix}", kind, chain([first], parts), len(own), len(rows))


def _file_name(text: str) -> str:
    """What is left of a text that any file system takes, and no shell or header misreads."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60]


# ---------------------------------------------------------------------- tables and lists


def _table(viewed: Viewed, rows: NDArray[np.int64]) -> Iterator[bytes]:
    """The selected rows of all columns; a spreadsheet is kept from taking a text for a formula."""
    columns = [viewed.columns[name] for name in viewed.columns.names]
    yield _csv([["row", *(column.name for column in columns)]])
    for start in range(0, len(rows), _ROWS):
        own = rows[start : start + _ROWS].tolist()
        yield _csv([[row, *(_cell(column.title_at(row)) for column in columns)] for row in own])


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULAS) and not _is_number(value):
        return "'" + value
    return "" if value is None or value != value else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _saved(viewed: Viewed, rows: NDArray[np.int64], title: str, note: str) -> Iterator[bytes]:
    """A selection as it is saved beside the store."""
    ids = [viewed.columns.id(row) for row in rows.tolist()]
    yield json.dumps({title: {"ids": ids, "rows": rows.tolist(), "note": note}}).encode()


def _lines(viewed: Viewed, rows: NDArray[np.int64]) -> Iterator[bytes]:
    ids = viewed.columns["id"].values
    broken = next((row for row in rows if "\n" in str(ids[row]) or "\r" in str(ids[row])), None)
    if broken is not None:
        raise Conflict(
            f"the id of sample {broken} holds a line break, which a list of lines cannot: export json instead"
        )
    return (
        "".join(f"{ids[row]}\n" for row in rows[start : start + _ROWS]).encode() for start in range(0, len(rows), _ROWS)
    )


# ---------------------------------------------------------------------- pictures


def _pictures(
    viewed: Viewed, drawn: NDArray[np.int64], rows: NDArray[np.int64], format: str, name: str | None
) -> Iterator[bytes]:
    """A zip file with one picture a sample on a shared scale, and the table; sent entry by entry."""
    limit = _limit(viewed, drawn, name)
    stream = _Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED if format == "png" else zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("selection.csv", b"".join(_table(viewed, rows)))
        yield stream.taken()
        missing = []
        for row in drawn.tolist():
            identity = viewed.columns.id(row)
            try:
                content = _figure(viewed.shown(row, name), limit, f"{identity}  {_told(viewed, row, name)}", format)
            except HeadwaterError as error:
                missing.append(f"{row}\t{error}")
                continue
            stem = _file_name(PurePosixPath(identity).stem)
            archive.writestr(f"{row:07d}{'_' if stem else ''}{stem}.{format}", content)
            yield stream.taken()
        if missing:
            archive.writestr("not_drawn.txt", "\n".join(missing))
    yield stream.taken()


class _Stream(io.RawIOBase):
    """Takes what a zip file writes and hands it on; it cannot be gone back in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def _limit(viewed: Viewed, rows: NDArray[np.int64], name: str | None) -> float | None:
    """The scale that the drawn samples share, from 64 of them."""
    picked = rows[:: max(1, len(rows) // _SCALED)][:_SCALED].tolist()
    shown = [viewed.shown(row, name) for row in picked if viewed.columns.valid[row]]
    return shared_limit(shown) or None


def _figure(shown: Shown, limit: float | None, title: str, format: str) -> bytes:
    """One sample as a file of its own, with its colour bar."""
    title = _plain(title)
    with _drawing:
        if shown.kind in PICTURES:
            picture = shown.given is not None
            figure = (
                images([None, shown.map], [shown.under(), shown.under()], ["input", title], limit=limit or "shared")
                if picture
                else image(shown.map, None, limit=limit, title=title)
            )
        elif shown.kind == "series":
            given = shown.relevance if shown.given is None else shown.given
            axis = shown.names.axis
            figure = series(shown.relevance, given, rate=shown.names.rate, names=axis, limit=limit, title=title)
        elif shown.kind == "text":
            figure = _text_figure(shown, limit, title)
        else:
            values = shown.values()
            figure = table(values["names"], values["values"], values["relevance"], limit=limit, title=title)
        if format == "png":
            return png(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
        return buffer.getvalue()


def _plain(text: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return re.sub(r"[\x00-\x1f]", " ", text).replace("$", r"\$")


def _text_figure(shown: Shown, limit: float | None, title: str) -> Any:
    """Words on their colours, line by line."""
    from headwater.show.colour import hexadecimal, ink_on, rgb

    values = shown.values()
    words, colours = values["tokens"], rgb(values["relevance"], limit)
    lines: list[list[tuple[str, Any]]] = [[]]
    for word, colour in zip(words, colours, strict=True):
        if sum(len(w) + 1.5 for w, _ in lines[-1]) + len(word) > _LETTERS:
            lines.append([])
        lines[-1].append((_plain(word), colour))
    figure = new_figure(9.0, 0.6 + 0.28 * len(lines))
    figure.suptitle(title, fontsize=9)
    for at, line in enumerate(lines):
        x = 0.01
        for word, colour in line:
            figure.text(
                x, 1 - (0.5 + 0.28 * at) / (0.6 + 0.28 * len(lines)), word, fontsize=8, family="monospace",
                color=ink_on(colour), va="top", bbox={"facecolor": hexadecimal(colour), "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            x += (len(word.replace("\\$", "$")) + 1.5) / (_LETTERS + 12)
    return figure


# ---------------------------------------------------------------------- the page


@dataclass(frozen=True)
class _Words:
    """A text as coloured words."""

    tokens: Sequence[str]
    relevance: Any
    limit: float | None

    def to_html(self) -> str:
        return text_html(self.tokens, self.relevance, limit=self.limit, merge=False)


@dataclass(frozen=True)
class _Figure:
    """A figure as wide as the page: with axes and writing, it cannot be read in a gallery."""

    picture: report.Picture

    def to_html(self) -> str:
        return self.picture.to_html()


def _page(
    viewed: Viewed, rows: NDArray[np.int64], count: int, title: str, note: str, name: str | None
) -> Iterator[bytes]:  # fmt: skip
    """One page with everything in it and no script; a browser that opens it asks nobody for anything."""
    limit = _limit(viewed, rows, name)
    store = viewed.explanation(name)
    facts = store.facts
    made = [part for part in (facts.method, facts.composite, viewed.asked(facts)) if part]
    about: list[report.Part] = [report.Paragraph(note)] if note else []
    shown = f"{count} samples" if count == len(rows) else f"the first {len(rows)} of {count} samples"
    about.append(report.Paragraph(f"{shown} of {viewed.title}, explained by {', '.join(made)}."))
    if limit is not None:
        about.append(report.Scale(f"\N{MINUS SIGN}{limit:.3g}", f"{limit:.3g}"))
    parts = [part for row in rows.tolist() for part in _parts(viewed, row, name, limit)]
    pictures = [part for part in parts if isinstance(part, report.Picture)]
    others = [part for part in parts if not isinstance(part, report.Picture)]
    body: list[report.Part] = ([report.Gallery(pictures)] if pictures else []) + others
    sections = [report.Section("Selection", about), report.Section("Samples", body)]
    sections.append(report.Section("Table", [_summary(viewed, rows)]))
    yield report.page(title, sections).encode()


def _parts(viewed: Viewed, row: int, name: str | None, limit: float | None) -> list[report.Part]:
    identity = viewed.columns.id(row)
    told = _told(viewed, row, name)
    try:
        shown = viewed.shown(row, name)
        if shown.kind == "text":
            values = shown.values()
            return [report.Paragraph(f"{identity}: {told}"), _Words(values["tokens"], values["relevance"], limit)]
        if shown.kind not in PICTURES:
            return [_Figure(report.Picture(_figure(shown, limit, "", "png"), identity, told))]
        found: list[report.Part] = (
            [] if shown.given is None else [report.Picture(shown.picture(_SIDE), identity, "input")]
        )
        heat = shown.heatmap(limit, _SIDE) if shown.given is None else shown.overlay(limit, _SIDE)
        return [*found, report.Picture(heat, identity, told)]
    except HeadwaterError as error:
        return [report.Paragraph(f"{identity}: {error}")]


def _told(viewed: Viewed, row: int, name: str | None) -> str:
    """A sample in one line: its label, what was explained and the output."""
    facts = viewed.facts(row)
    own = facts["explanations"][viewed.explanation(name).name]
    parts = []
    if facts["label"] is not None:
        parts.append(f"label {facts['label']['title']}")
    if own["target"] is not None:
        parts.append(f"explained {own['target']['title']}")
    if own["output"] is not None:
        parts.append(f"output {own['output']:.4g}")
    return ", ".join(parts)


def _summary(viewed: Viewed, rows: NDArray[np.int64]) -> report.Table:
    columns = [viewed.columns[name] for name in viewed.columns.names]
    body = [[str(row), *(_shortly(column.title_at(row)) for column in columns)] for row in rows.tolist()]
    return report.Table(["row", *(column.title for column in columns)], body)


def _shortly(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
