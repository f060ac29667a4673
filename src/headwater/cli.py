"""The command line: ``headwater explain``, ``plan``, ``methods``, ``demo``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
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
from headwater import results
from headwater.errors import HeadwaterError, HeadwaterWarning, InvalidInput, InvalidTarget
from headwater.inputs import Preparation, Samples, read
from headwater.loaders import LoadedModel, load_model
from headwater.show import TextMap


class Commands(TyperGroup):
    """Commands that say in one line what they refuse and what they warn of."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; a refusal ends it with status 1."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", category=HeadwaterWarning)
            try:
                return super().invoke(ctx)
            except HeadwaterError as error:
                _complain(f"Error: {error}", "red")
                raise typer.Exit(1) from error
            finally:
                for warning in caught:
                    _complain(f"Warning: {warning.message}", "yellow")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Follow a prediction back to its source: which parts of the input carried it.",
)

ROWS = 20  # samples that are listed in the terminal

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="package.module:factory, torchvision:NAME, timm:NAME or hf:PATH."),
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


@app.command(
    epilog="Example: headwater explain torchvision:resnet18 photo.jpg --weights resnet18.pth --target 285 --out found"
)
def explain(
    model: ModelArgument,
    inputs: InputArgument,
    target: Annotated[
        str | None,
        typer.Option(
            help="A class (3), one a sample (3,5,1), log-odds:3, margin:3,5, contrast:3, neuron:LAYER,3, "
            "token:POSITION,ID or sum. By default the predicted class."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="One of those that `headwater methods` lists.")] = "lrp",
    composite: CompositeOption = None,
    bounds: Annotated[
        str | None,
        typer.Option(help="LOW,HIGH of the model's input. By default those of a picture, where the input is one."),
    ] = None,
    ledger: Annotated[bool, typer.Option("--ledger", help="Audit every operator.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Samples that are explained at a time.")] = None,
    out: Annotated[Path, typer.Option(help="The folder that is written to.")] = Path("out"),
    pictures: Annotated[int, typer.Option(min=1, help="Samples that are drawn.")] = 8,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Explain what in each INPUT carried the MODEL's decision; write a page, a picture and the numbers."""
    resolved = _target(target)
    loaded, samples = _load(model, inputs, weights, size, mean, std, drop)
    with _blaming_input(loaded.model, samples.x):
        explanation = hw.explain(
            loaded.model,
            samples.x,
            target=resolved,
            method=method,
            composite=composite,
            bounds=samples.bounds if bounds is None else _numbers("--bounds", bounds, 2),
            ledger=ledger,
            batch_size=batch_size,
        )
    console = Console()
    _print_table(console, results.HEADER, islice(results.rows(explanation, samples), ROWS))
    if len(samples.names) > ROWS:
        console.print(f"and {len(samples.names) - ROWS} more, in the page", highlight=False)
    if explanation.ledger is not None:
        _print_table(console, results.CAUSES, results.absorbed(explanation))
        console.print(results.audit_line(explanation), highlight=False)
    drawings = results.draw(explanation, samples, pictures)
    for drawing in drawings:
        if isinstance(drawing.content, TextMap):
            typer.echo(str(drawing.content))
        elif drawing.content is None:
            console.print(drawing.reason, markup=False, highlight=False, soft_wrap=True)
    for path in results.write(explanation, samples, drawings, out):
        typer.echo(path)


@app.command(epilog="Example: headwater plan torchvision:resnet18 photo.jpg --weights resnet18.pth")
def plan(
    model: ModelArgument,
    inputs: InputArgument,
    composite: CompositeOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """List every operator call of the MODEL on INPUT with its rule, or the gap where there is none."""
    loaded, samples = _load(model, inputs, weights, size, mean, std, drop)
    with _blaming_input(loaded.model, samples.x):
        typer.echo(str(hw.plan(loaded.model, samples.x, composite=composite)))


@app.command(epilog="Example: headwater methods")
def methods() -> None:
    """List the methods with their sources and what they need of a model."""
    for row in hw.methods():
        typer.echo(f"{row.name} ({row.abbreviation}): {row.family}, needs {row.needs}")
        for source in row.source.split("; "):
            typer.echo(f"    {source}")


@app.command(epilog="Example: headwater demo --out demo")
def demo(out: Annotated[Path, typer.Option(help="The folder that is written to.")] = Path("demo")) -> None:
    """Explain photographs with a pretrained classifier (needs the extra demo)."""
    from headwater.demo import main

    main(out)


def _complain(text: str, colour: str) -> None:
    Console(stderr=True).print(text, style=colour, markup=False, highlight=False, soft_wrap=True)


def _load(
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
    chosen = _numbers("--size", size, 1, 2)
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
def _blaming_input(model: nn.Module, x: Tensor | dict[str, Tensor]) -> Iterator[None]:
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


def _numbers(option: str, text: str | None, *counts: int) -> tuple[float, ...] | None:
    """Numbers divided by commas, as many as one of ``counts`` says."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        wanted = " or ".join(str(count) for count in counts)
        raise InvalidInput(f"{option} {text!r}: write {wanted} numbers, divided by commas")
    return numbers


def _channels(option: str, text: str | None) -> tuple[float, ...] | None:
    numbers = _numbers(option, text, 1, 3)
    return numbers * 3 if numbers is not None and len(numbers) == 1 else numbers


TARGETS = "3, 3,5,1, log-odds:3, margin:3,5, contrast:3, neuron:LAYER,3, token:POSITION,ID or sum"


def _target(text: str | None) -> Any:
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


def _print_table(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
