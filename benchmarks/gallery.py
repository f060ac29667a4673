"""``python -m benchmarks.gallery``: every method on real networks and data, as figures and a page of the documentation.

Reads the data from the folder that ``HEADWATER_DATA`` names.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

import headwater as hw
from benchmarks.gallery_drawing import compact_png, draw
from benchmarks.gallery_runs import Exhibit, exhibit
from benchmarks.gallery_subjects import SUBJECTS

_HEAD = """\
# Gallery

Every method of `hw.methods()` on six networks and real inputs, made by one command:
`HEADWATER_DATA=FOLDER python -m benchmarks.gallery`. Red speaks for what is explained, blue against it. Each method has
a scale of its own, whose end is written beside its name or map (of pictures, half a percent of the pixels lie beyond
it): numbers of different methods have different units. Samples and steps are few: this page shows what methods look
like. A click on a picture fetches it in full size.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the gallery as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/gallery"), help="figures (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=Path("docs/gallery.md"), help="the page (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, help="these subjects alone; the page is not written")
    chosen = parser.parse_args(arguments)
    folder = os.environ.get("HEADWATER_DATA")
    if not folder:
        parser.error("HEADWATER_DATA names no folder of real data")
    torch.set_num_threads(1)
    shown = []
    for name in chosen.only or SUBJECTS:
        shown.append(exhibit(SUBJECTS[name](Path(folder)), lambda line: print(line, file=sys.stderr, flush=True)))
        print(save(shown[-1], chosen.out), flush=True)
    if not chosen.only:
        chosen.page.write_text(page(shown, Path(os.path.relpath(chosen.out, chosen.page.parent))))
        print(chosen.page)


def save(shown: Exhibit, out: Path) -> Path:
    """Write the figure of an exhibit into a folder, which is made if it is not there; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{shown.subject.name}.png"
    path.write_bytes(compact_png(draw(shown)))
    return path


def page(exhibits: Iterable[Exhibit], figures: Path) -> str:
    """The page in Markdown; ``figures`` is the folder of the figures, relative to the page."""
    sections = [_section(shown, figures) for shown in exhibits]
    calls = [[f"`{row.name}`", f"`{row.call}`"] for row in hw.methods() if row.run is None]
    rest = "## Methods that are no single map\n\n" + _table(["method", "is run by"], calls)
    return "\n".join([_HEAD, *sections, rest])


def _section(shown: Exhibit, figures: Path) -> str:
    subject = shown.subject
    path = f"{(figures / subject.name).as_posix()}.png"
    picture = f"[![{len(shown.maps)} methods: {subject.title}]({path})]({path})"
    refused = [[f"`{name}`", _cell(reason)] for name, reason in shown.refusals.items()]
    table = f"Not drawn, and what was said instead:\n\n{_table(['method', 'why'], refused)}" if refused else ""
    told = (
        f"{len(shown.maps)} methods; those that explain a hidden layer, or a neuron of it, look at `{subject.layer}`."
    )
    return f"## {subject.title}\n\n{subject.about} {told}\n\n{picture}\n\n{table}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    main()
