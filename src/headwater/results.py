"""What the command line leaves behind: the explanation as a file, as a picture and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra
from headwater.explanation import leaves
from headwater.inputs import Samples
from headwater.show import TextMap, display, plot, report
from headwater.show.display import HEADER, absorbed
from headwater.show.figure import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headwater.explanation import Explanation

CAUSES = ("cause", "absorbed, largest of a sample")


@dataclass(frozen=True)
class Drawing:
    """One input's relevance, drawn.

    Attributes:
        name: of the input, empty where the model takes one.
        content: a figure, or a text; ``None`` where nothing could be drawn.
        reason: why not.
    """

    name: str
    content: Figure | TextMap | None
    reason: str = ""


def draw(explanation: Explanation, samples: Samples, count: int) -> list[Drawing]:
    """Draw the first ``count`` samples on one scale, each input of the model by itself.

    A shape that no picture fits, or a missing matplotlib, is no error: the drawing says why it is empty.
    """
    return [_drawing(explanation, samples, count, name) for name in _drawn_inputs(explanation, samples)]


def write(explanation: Explanation, samples: Samples, drawings: Sequence[Drawing], out: Path) -> list[Path]:
    """Write ``explanation.safetensors``, a PNG for each figure and ``index.html`` with it all; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    written = [explanation.save(out / "explanation.safetensors")]
    parts: list[report.Part] = []
    for drawing in drawings:
        if drawing.content is None:
            parts.append(report.Paragraph(drawing.reason))
        elif isinstance(drawing.content, TextMap):
            parts.append(drawing.content)
        else:
            path = out / ("-".join(["relevance", *drawing.name.split()]) + ".png")
            path.write_bytes(png(drawing.content))
            parts.append(
                report.Picture(
                    path.read_bytes(), f"Relevance of {drawing.name or 'the input'}, all samples on one scale"
                )
            )
            written.append(path)
    table = report.Table(HEADER, list(rows(explanation, samples)))
    sections = [report.Section("Relevance", parts), report.Section("Samples", [table])]
    if explanation.ledger is not None:
        audit = report.Paragraph(audit_line(explanation))
        causes = report.Table(CAUSES, list(absorbed(explanation)))
        sections.append(report.Section("Ledger", [audit, causes]))
    sections.append(report.Section("Sources", [report.Paragraph(line) for line in explanation.cite().splitlines()]))
    title = f"{explanation.method}, {explanation.composite}" if explanation.composite else explanation.method
    written.append(report.write(out / "index.html", report.page(f"Explained by {title}", sections)))
    return written


def rows(explanation: Explanation, samples: Samples) -> Iterator[tuple[str, str, str, str]]:
    """For each sample its name, what was explained of it, the score, and the part that relevance does not add up to."""
    return display.rows(explanation, samples.names)


def audit_line(explanation: Explanation) -> str:
    """One sentence on the part of relevance that no operator can account for."""
    total = explanation.output.abs().double()
    for part in leaves(explanation.relevance):
        total = total + part.abs().double().reshape(len(total), -1).sum(1)
    share = (explanation.ledger.unexplained().abs() / total.clamp(min=1e-300)).max().item()
    count = len(explanation.ledger)
    return f"Unexplained at any of {count} operators: at most {share:.1e} of |output| + Σ|relevance|."


def _drawn_inputs(explanation: Explanation, samples: Samples) -> list[str]:
    if samples.tokens:
        return ["input_ids"]
    if isinstance(explanation.relevance, dict):
        return [name for name, part in explanation.relevance.items() if isinstance(part, Tensor)]
    return [""]


def _drawing(explanation: Explanation, samples: Samples, count: int, name: str) -> Drawing:
    try:
        content = plot(
            explanation,
            pictures=samples.pictures,
            tokens=samples.tokens or None,
            names=samples.columns or None,
            titles=[f"{sample}: {output}" for sample, _, output, _ in rows(explanation, samples)],
            rate=samples.rate,
            samples=range(min(count, len(samples.names))),
            of=name or None,
        )
    except (InvalidInput, MissingExtra) as error:
        return Drawing(name, None, f"Not drawn: {error}")
    return Drawing(name, content)
