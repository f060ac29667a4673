"""What notebooks and terminals show of a result that stands alone: tables and pictures, all text escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headwater.errors import HeadwaterError
from headwater.show.figure import png
from headwater.show.plot import plot
from headwater.show.text import TextMap

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headwater.explanation import Explanation
    from headwater.propagate.plan import Plan

HEADER = ("sample", "target", "output", "delta")
LISTED, DRAWN = 8, 4  # samples
_DPI = 80  # of pictures in a notebook, whose cells are narrow
_CELL = "padding:0.25em 0.9em 0.25em 0;text-align:left;white-space:pre;vertical-align:top"
_RED = "#d04a35"  # legible on white and on black
SMALL = "font-size:0.9em;opacity:0.8;max-width:60em;margin:0.4em 0"


# ---------------------------------------------------------------------- what is shown of each


def explanation_html(explanation: Explanation) -> str:
    """An explanation for a notebook: how it was made, each sample's score, the picture, what was absorbed."""
    parts = [html_line(_title(explanation), "font-weight:600;margin:0.4em 0"), html_table(HEADER, _shown(explanation))]
    for drawing in drawings(explanation):
        parts.append(html_line(drawing, SMALL) if isinstance(drawing, str) else html_drawing(drawing))
    if explanation.ledger is not None:
        parts.append(html_table(("cause", "absorbed, largest of a sample"), list(absorbed(explanation))))
    return html_block([*parts, html_line("; ".join(explanation.sources), SMALL)])


def explanation_rich(explanation: Explanation) -> RenderableType:
    """An explanation for the terminal: how it was made, each sample's score, coloured text, what was absorbed."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [rich_table(HEADER, _shown(explanation), _title(explanation))]
    parts += [
        Text.from_ansi(str(found)) for found in drawings(explanation, figures=False) if isinstance(found, TextMap)
    ]
    if explanation.ledger is not None:
        parts.append(rich_table(("cause", "absorbed, largest of a sample"), list(absorbed(explanation))))
    return Group(*parts)


def plan_html(plan: Plan) -> str:
    """A plan for a notebook, its gaps marked."""
    header, rows = plan.cells
    gaps = [i for i, row in enumerate(plan) if row.status == "gap"]
    return html_block([html_table(header, rows, gaps), html_line(plan.verdict, SMALL)])


def plan_rich(plan: Plan) -> RenderableType:
    """A plan for the terminal, its gaps marked."""
    header, rows = plan.cells
    gaps = [i for i, row in enumerate(plan) if row.status == "gap"]
    return rich_table(header, rows, marked=gaps, caption=plan.verdict)


# ---------------------------------------------------------------------- an explanation's figures


def rows(explanation: Explanation, names: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """For each sample its name, what was explained of it, the score, and the part that relevance does not add up to."""
    target, delta = explanation.target, explanation.delta
    for index, name in enumerate(names):
        gap = "-" if delta is None else f"{delta[index].item():.2g}"
        yield name, target_of(target, index), f"{explanation.output[index].item():.4g}", gap


def absorbed(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """Each cause in the ledger with the largest amount that it absorbed of any sample."""
    for cause, amount in explanation.ledger.causes().items():
        yield cause, f"{amount[amount.abs().argmax()].item():.4g}"


def target_of(target: object, index: int) -> str:
    """What was explained of sample ``index``: a class, or a target with the class of this sample."""
    if target is None:
        return "output"
    if isinstance(target, (Tensor, list)):
        return str(int(target[index]))
    if is_dataclass(target):
        values = [getattr(target, part.name) for part in fields(target)]
        shown = (target_of(value, index) if isinstance(value, (Tensor, list)) else str(value) for value in values)
        return f"{type(target).__name__}({', '.join(shown)})"
    return getattr(target, "__qualname__", str(target))


def drawings(explanation: Explanation, figures: bool = True) -> Iterator[Any]:
    """A picture of each explained input: a figure, a text, or a sentence that says why there is none."""
    relevance = explanation.relevance
    names: list[Any] = [None]
    if not isinstance(relevance, Tensor) and relevance is not None:
        several = relevance.items() if isinstance(relevance, Mapping) else enumerate(relevance)
        names = [name for name, part in several if isinstance(part, Tensor)]
    for name in names:
        try:
            if figures or _is_text(explanation, name):
                yield plot(explanation, of=name, samples=range(min(DRAWN, len(explanation.output))))
        except HeadwaterError as error:
            yield f"Not drawn: {error}"


def _is_text(explanation: Explanation, name: Any) -> bool:
    values = explanation.inputs if name is None else explanation.inputs[name]
    return isinstance(values, Tensor) and not values.is_floating_point()


def _title(explanation: Explanation) -> str:
    rules = f", rules {explanation.composite}" if explanation.composite else ""
    count = len(explanation.output)
    return f"{explanation.method}{rules}: {count} sample{'s' if count > 1 else ''}"


def _shown(explanation: Explanation) -> list[tuple[str, ...]]:
    count = len(explanation.output)
    listed: list[tuple[str, ...]] = list(rows(explanation, [str(i) for i in range(min(LISTED, count))]))
    return listed if count <= LISTED else [*listed, (f"and {count - LISTED} more", "", "", "")]


# ---------------------------------------------------------------------- HTML and the terminal


def html_table(header: Sequence[str], body: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """A table as an HTML fragment in the colours of the page around it, which scrolls where it is long or broad.

    Args:
        header: names of the columns; ``body``: rows of cells; ``marked``: places of rows that stand out.
    """
    head = "".join(f'<th scope="col" style="{_CELL};font-weight:600">{html.escape(cell)}</th>' for cell in header)
    lines = []
    for i, row in enumerate(body):
        style = f"{_CELL};color:{_RED}" if i in marked else _CELL
        cells = "".join(f'<td style="{style}">{html.escape(cell)}</td>' for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return (
        '<div style="overflow:auto;max-height:32em">'
        '<table style="border-collapse:collapse;margin:0;font-size:inherit;color:inherit">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def rich_table(
    header: Sequence[str], body: Sequence[Sequence[str]], title: str = "", marked: Sequence[int] = (), caption: str = ""
) -> RenderableType:
    """A table for the terminal, its cells as plain text; ``marked`` rows stand out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, caption=Text(caption) if caption else None, title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    for place, name in enumerate(header):
        table.add_column(Text(name), no_wrap=not place, overflow="fold")
    for i, row in enumerate(body):
        table.add_row(*(Text(cell) for cell in row), style="red" if i in marked else None)
    return table


def html_drawing(drawing: Any) -> str:
    """A figure or a text as an HTML fragment."""
    if isinstance(drawing, TextMap):
        return drawing.to_html()
    data = base64.b64encode(png(drawing, _DPI)).decode("ascii")
    return f'<img alt="relevance" style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'


def html_line(text: str, style: str) -> str:
    """A paragraph of plain text."""
    return f'<p style="{style}">{html.escape(text)}</p>'


def html_block(parts: Sequence[str]) -> str:
    """Fragments as one, which a page may style by its class."""
    return f'<div class="headwater">{"".join(parts)}</div>'
