from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import torch

from headwater.show import TextMap, report, to_rgb
from headwater.show.image import pixels_png

HOSTILE = "<script>alert('&')</script>"
VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """The tags of a page, with a check that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole_page(text: str) -> str:
    png = pixels_png(to_rgb(torch.randn(3, 4, 4)))
    parts: list[report.Part] = [
        report.Paragraph(text),
        report.Preformatted(text, text),
        report.Table([text, text], [[text, text], [text, text]]),
        report.Gallery([report.Picture(png, text, text), report.Picture(png, text)]),
        report.Scale(text, text),
        TextMap([[text]], [torch.ones(1)], 1.0),
    ]
    return report.page(text, [report.Section(text, parts)])


def test_everything_from_outside_is_escaped() -> None:
    page = whole_page(HOSTILE)
    assert "script" not in Outline(page).tags
    assert HOSTILE not in page


def test_the_page_holds_everything_it_shows() -> None:
    page = whole_page("text")
    links = Outline(page).links
    assert len(links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"https?:|url\(|@import", page)
    assert base64.b64decode(links[0].partition(",")[2]).startswith(b"\x89PNG")


def test_the_page_is_for_light_and_dark_screens_of_any_width() -> None:
    page = whole_page("text")
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport" content="width=device-width' in page


def test_a_page_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    path = report.write(tmp_path / "a" / "b.html", whole_page("Ülm ⁺"))
    assert "Ülm ⁺" in path.read_text(encoding="utf-8")
