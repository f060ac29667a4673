"""The application of the command line, and what its commands share: arguments and options."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import headwater
from headwater.errors import HeadwaterError, HeadwaterWarning, InputRefused, InvalidInput

RESHAPE = "--drop COLUMN leaves a column of a table out, --size HEIGHT,WIDTH crops and resizes pictures"


class Commands(TyperGroup):
    """Commands that say in one line what they refuse and what they warn of."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; a refusal ends it with status 1."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", category=HeadwaterWarning)
            try:
                return super().invoke(ctx)
            except HeadwaterError as error:
                remedy = f". {RESHAPE}" if isinstance(error, InputRefused) else ""
                complain(f"Error: {error}{remedy}", "red")
                raise typer.Exit(1) from error
            finally:
                for warning in caught:
                    complain(f"Warning: {warning.message}", "yellow")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwater {headwater.__version__}")
        raise typer.Exit


@app.callback()
def follow(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Follow a prediction back to its source: which parts of the input carried it."""


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:factory, torchvision:NAME, timm:NAME, hf:PATH, or a file: .onnx, .pt2, .keras.",
    ),
]
InputArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders or globs: pictures (png, jpg), recordings (wav, flac), tables (csv), arrays (npy, npz), "
        "texts (txt, for hf: models).",
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Safetensors, or a checkpoint of weights alone, in place of the model's own.")
]
SizeOption = Annotated[
    str | None,
    typer.Option(help="HEIGHT,WIDTH (or one number for both): pictures are cropped around the middle and resized."),
]
MeanOption = Annotated[str | None, typer.Option(help="Subtracted from pictures in [0, 1]: one number, or R,G,B.")]
StdOption = Annotated[str | None, typer.Option(help="Divides pictures after the mean: one number, or R,G,B.")]
DropOption = Annotated[list[str] | None, typer.Option(help="A column of a table that is no input; may be repeated.")]
CompositeOption = Annotated[str | None, typer.Option(help="A recipe of LRP, such as epsilon_plus.")]


def complain(text: str, colour: str) -> None:
    """One line on the standard error."""
    Console(stderr=True).print(text, style=colour, markup=False, highlight=False, soft_wrap=True)


def numbers(option: str, text: str | None, *counts: int) -> tuple[float, ...] | None:
    """Numbers divided by commas, as many as one of ``counts`` says."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in counts:
        wanted = " or ".join(str(count) for count in counts)
        raise InvalidInput(f"{option} {text!r}: write {wanted} numbers, divided by commas")
    return found


def print_table(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in the terminal; cells are plain text."""
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
