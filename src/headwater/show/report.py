"""A page that holds everything it shows: one HTML file with its pictures inside, for a screen of any width."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol


class Part(Protocol):
    """A piece of a section."""

    def to_html(self) -> str:
        """The piece as HTML, with everything that came from outside escaped."""
        ...


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str

    def to_html(self) -> str:
        """The escaped paragraph."""
        return f"<p>{html.escape(self.text)}</p>"


@dataclass(frozen=True)
class Preformatted:
    """Text in columns, as a terminal shows it, folded away under ``summary`` until it is opened."""

    text: str
    summary: str

    def to_html(self) -> str:
        """The escaped text, which scrolls by itself where it is broader than the page."""
        text = f'<pre tabindex="0">{html.escape(self.text)}</pre>'
        return f"<details><summary>{html.escape(self.summary)}</summary>{text}</details>"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_html(self) -> str:
        """The escaped table, which scrolls by itself where it is broader than the page."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = "".join(
            f'<tr><th scope="row">{html.escape(first)}</th>{"".join(f"<td>{html.escape(c)}</td>" for c in rest)}</tr>'
            for first, *rest in self.rows
        )
        return (
            f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Attributes:
        png: the bytes of a PNG file.
        caption: below it, and what a screen reader says.
        note: a smaller second line.
    """

    png: bytes
    caption: str
    note: str = ""

    def to_html(self) -> str:
        """The picture as inline data."""
        data = base64.b64encode(self.png).decode("ascii")
        caption, note = html.escape(self.caption), html.escape(self.note)
        small = f"<small>{note}</small>" if note else ""
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}{small}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, as many in a row as the page has room for."""

    pictures: Sequence[Picture]

    def to_html(self) -> str:
        """The pictures in a grid."""
        return f'<div class="gallery">{"".join(picture.to_html() for picture in self.pictures)}</div>'


@dataclass(frozen=True)
class Scale:
    """The bar of colours, with what its ends mean."""

    low: str
    high: str

    def to_html(self) -> str:
        """The bar as a gradient of the colours that the heatmaps have."""
        from headwater.show.colour import ANCHORS

        bar = f'<span class="bar" style="background:linear-gradient(to right,{",".join(ANCHORS)})"></span>'
        return f'<p class="scale">{html.escape(self.low)}{bar}{html.escape(self.high)}</p>'


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]

    def to_html(self) -> str:
        """The section, its heading escaped."""
        body = "\n".join(part.to_html() for part in self.parts)
        return f"<section>\n<h2>{html.escape(self.title)}</h2>\n{body}\n</section>"


# Everything on a page is escaped; should something slip through, it still cannot run or load anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, sections: Iterable[Section]) -> str:
    """One self-contained HTML page, light or dark as the reader's system is.

    Args:
        title: its heading and the name of its tab.
        sections: from top to bottom.
    """
    style = (files("headwater.show") / "report.css").read_text(encoding="utf-8")
    body = "\n".join(section.to_html() for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{html.escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def write(path: Path, text: str) -> Path:
    """Write a page, with the folders above it, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
