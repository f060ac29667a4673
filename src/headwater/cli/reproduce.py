"""The command ``reproduce``: run a paper's experiments again."""

from __future__ import annotations

import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import headwater
from headwater.cli.app import app, print_table
from headwater.errors import HeadwaterError


class Scale(StrEnum):
    """How large a run is."""

    quick = "quick"
    full = "full"


@app.command(epilog="Example: headwater reproduce earthquake --scale quick --out found")
def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The paper; without one they are listed.")
    ] = None,
    scale: Annotated[Scale, typer.Option(help="quick takes minutes, full about an hour.")] = Scale.quick,
    out: Annotated[
        Path | None, typer.Option(help="The folder written to (default: out/NAME); the same again goes on.")
    ] = None,
    data: Annotated[Path | None, typer.Option(envvar="HEADWATER_DATA", help="The folder of real data.")] = None,
    seed: Annotated[int, typer.Option(help="For all that is random.")] = 0,
    publish: Annotated[bool, typer.Option("--publish", help="Copy page and pictures to docs/papers.")] = False,
) -> None:
    """Run the experiments of the paper NAME again, and put each claim beside what was found."""
    root = _root()
    import experiments
    from experiments import report
    from experiments.reproduction import Reproduction

    if name is None:
        listed = ((paper, str(experiments.paper(paper).TITLE)) for paper in experiments.papers())
        print_table(Console(), ("name", "paper"), listed)
        return
    paper = experiments.paper(name)
    run = Reproduction(name, scale.value, out or Path("out") / name, data or Path("data"), seed)
    paper.reproduce(run)
    page = report.write(run, paper)
    if publish:
        page = report.publish(run, paper, root)
    print_table(Console(), ("claim", "verdict"), ((claim.key, claim.verdict) for claim in run.claims))
    typer.echo(f"{page}: {len(run.claims)} claims, {report.duration(run.seconds)}")


def _root() -> Path:
    """The source tree, with ``experiments`` importable from it; they are no part of the installed package.

    Raises:
        HeadwaterError: there is none beside an editable install, nor in the working directory.
    """
    for root in (Path(headwater.__file__).parents[2], Path.cwd()):
        if (root / "experiments" / "reproduction.py").exists():
            if importlib.util.find_spec("experiments") is None:
                sys.path.insert(0, str(root))
            return root
    raise HeadwaterError(
        "the experiments are not part of the installed package: clone the repository and run the command in its folder"
    )
