"""The application of the command line, and what its commands share: arguments, models, inputs, targets."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from typer.core import TyperGroup

import headwater as hw
from headwater.errors import HeadwaterError, HeadwaterWarning, InvalidInput, InvalidTarget
from headwater.inputs import Preparation, Samples, read
from headwater.loaders import LoadedModel, load_model


class Commands(TyperGroup):
    """Commands that say in one line what they refuse and what they warn of."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; a refusal ends it with status 1."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", category=HeadwaterWarning)
            try:
                return super().invoke(ctx)
            except HeadwaterError as error:
                complain(f"Error: {error}", "red")
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
        typer.echo(f"headwater {hw.__version__}")
        raise typer.Exit


@app.callback()
def headwater(
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


def load(
    model: str,
    inputs: list[str],
    weights: Path | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    drop: list[str] | None,
) -> tuple[LoadedModel, Samples]:
    """The model, and the samples in its form and precision; options go before what the model knows of itself."""
    loaded = load_model(model, weights)
    chosen = numbers("--size", size, 1, 2)
    preparation = Preparation(
        size=(int(chosen[0]), int(chosen[-1])) if chosen else loaded.size,
        mean=_channels("--mean", mean) or loaded.mean or Preparation.mean,
        std=_channels("--std", std) or loaded.std or Preparation.std,
        drop=drop or (),
        tokenizer=loaded.tokenizer,
    )
    return loaded, _in_precision_of(loaded.model, read(inputs, preparation))


def _in_precision_of(model: nn.Module, samples: Samples) -> Samples:
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    x = samples.x
    converted = {name: cast(part) for name, part in x.items()} if isinstance(x, dict) else cast(x)
    return replace(samples, x=converted)


@contextmanager
def blaming_input(model: nn.Module, x: Tensor | dict[str, Tensor]) -> Iterator[None]:
    """Say so in one sentence where it is the model itself that cannot take the input."""
    try:
        yield
    except HeadwaterError:
        raise
    except Exception:
        try:
            with torch.no_grad():
                model(**x) if isinstance(x, dict) else model(x)
        except Exception as error:  # the model is the user's: it may raise anything
            shapes = {name: list(part.shape) for name, part in x.items()} if isinstance(x, dict) else list(x.shape)
            reason = str(error).strip().partition("\n")[0]
            raise InvalidInput(f"the model cannot take an input of shape {shapes}: {reason}") from error
        raise


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


def _channels(option: str, text: str | None) -> tuple[float, ...] | None:
    given = numbers(option, text, 1, 3)
    return given * 3 if given is not None and len(given) == 1 else given


TARGETS = "3, 3,5,1, log-odds:3, margin:3,5, contrast:3, neuron:LAYER,3, token:POSITION,ID or sum"


def target_of(text: str | None) -> Any:
    """The target that ``text`` writes.

    Raises:
        InvalidTarget: it writes none; the text lists the ways to write one.
    """
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    arguments = [part.strip() for part in rest.split(",")] if rest else []
    try:
        match kind, arguments:
            case "sum", []:
                return hw.target.Sum()
            case "log-odds", [c]:
                return hw.target.LogOdds(int(c))
            case "contrast", [c]:
                return hw.target.Contrast(int(c))
            case "margin", [a, b]:
                return hw.target.Margin(int(a), int(b))
            case "neuron", [layer, *index]:
                return hw.target.Neuron(layer, tuple(int(place) for place in index))
            case "token", [position, identity]:
                return hw.target.Token(int(position), int(identity))
            case _, []:
                classes = [int(part) for part in kind.split(",")]
                return classes[0] if len(classes) == 1 else classes
    except ValueError:
        pass  # not a number where one is wanted
    raise InvalidTarget(f"--target {text!r} writes no target: write one as {TARGETS}")


def print_table(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in the terminal; cells are plain text."""
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
