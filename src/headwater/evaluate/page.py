"""The page of a comparison."""

from __future__ import annotations

from headwater.errors import InvalidInput
from headwater.evaluate.comparison import Comparison
from headwater.evaluate.drawing import CHANCE
from headwater.show import report
from headwater.show.figure import png

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
