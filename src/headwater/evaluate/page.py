"""A comparison as a page, in a notebook and in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError, InvalidInput
from headwater.evaluate.comparison import Comparison
from headwater.evaluate.drawing import CHANCE
from headwater.show import report
from headwater.show.display import SMALL, html_block, html_drawing, html_line, html_table, rich_table
from headwater.show.figure import png

if TYPE_CHECKING:
    from rich.console import RenderableType

MAPS_A_FIGURE = 4  # samples


def comparison_page(comparison: Comparison, title: str) -> str:
    """One self-contained page: the recommendation, the table, the curves, the maps, and how it all was made."""
    board = comparison.table
    notes = [report.Paragraph(note) for note in board.notes]
    sections = [
        report.Section("Recommendation", [report.Paragraph(comparison.recommendation)]),
        report.Section("Methods", [report.Table(board.header, board.rows), *notes]),
        report.Section("Pixel-flipping", [_curves(comparison)]),
        report.Section("Maps", _maps(comparison)),
    ]
    rows = [(name, str(value)) for name, value in comparison.settings.items()]
    rows += [(e.name, e.options) for e in comparison.entries if e.options]
    sections.append(report.Section("Settings", [report.Table(("setting", "value"), rows)]))
    return report.page(title, sections)


def _curves(comparison: Comparison) -> report.Part:
    count = len(comparison.clean)
    return report.Picture(
        png(comparison.plot()),
        f"Mean {comparison.settings['output']} as features are removed, the most relevant first",
        f"{count} samples; bands are 95 % bootstrap intervals of the mean; the faster the fall, the more faithful.",
    )  # fmt: skip


def _maps(comparison: Comparison) -> list[report.Part]:
    count = min(len(comparison.clean), 2 * MAPS_A_FIGURE)
    if not any(not e.error and e.name != CHANCE for e in comparison.entries):
        return [report.Paragraph("No method served this model.")]
    parts: list[report.Part] = []
    for start in range(0, count, MAPS_A_FIGURE):
        chosen = range(start, min(start + MAPS_A_FIGURE, count))
        try:
            figure = comparison.plot("maps", samples=chosen)
        except InvalidInput as error:
            return [report.Paragraph(f"Not drawn: {error}")]
        parts.append(
            report.Picture(
                png(figure), f"Samples {chosen.start} to {chosen.stop - 1}",
                "Each method's maps are divided by the end of their own scale; the colours are those of one.",
            )
        )  # fmt: skip
    return parts


def comparison_html(comparison: Comparison) -> str:
    """A comparison for a notebook: the advice, the table with its notes, the curves."""
    board = comparison.table
    parts = [html_line(comparison.recommendation, "max-width:60em"), html_table(board.header, board.rows)]
    parts += [html_line(note, SMALL) for note in board.notes]
    try:
        parts.append(html_drawing(comparison.plot()))
    except HeadwaterError as error:
        parts.append(html_line(f"Not drawn: {error}", SMALL))
    return html_block(parts)


def comparison_rich(comparison: Comparison) -> RenderableType:
    """A comparison for the terminal: the table with its notes, the advice."""
    from rich.console import Group
    from rich.text import Text

    board = comparison.table
    notes = Text("\n".join(board.notes), style="dim")
    return Group(rich_table(board.header, board.rows), notes, Text(comparison.recommendation))
