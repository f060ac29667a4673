"""``headwater explain``, ``plan``, ``methods`` and ``demo``."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import headwater as hw
from headwater.cli.app import (
    CompositeOption,
    DropOption,
    InputArgument,
    MeanOption,
    ModelArgument,
    SizeOption,
    StdOption,
    WeightsOption,
    app,
    numbers,
    print_table,
)
from headwater.errors import InvalidInput

ROWS = 20  # samples that are listed in the terminal


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
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the method, as NAME=VALUE (window=16); may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows that go through the model at a time.")] = None,
    seed: Annotated[int, typer.Option(help="For methods that draw at random.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder that is written to.", file_okay=False)] = Path("out"),
    pictures: Annotated[int, typer.Option(min=1, help="Samples that are drawn.")] = 8,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Explain what in each INPUT carried the MODEL's decision; write a page, a picture and the numbers."""
    from headwater import results
    from headwater.cli.given import load, target_of
    from headwater.show import TextMap, display

    resolved = target_of(target)
    loaded, samples = load(model, inputs, weights, size, mean, std, drop)
    explanation = hw.explain(
        loaded.model,
        samples.x,
        target=resolved,
        method=method,
        composite=composite,
        bounds=samples.bounds if bounds is None else numbers("--bounds", bounds, 2),
        ledger=ledger,
        batch_size=batch_size,
        seed=seed,
        **_options(option or ()),
    )
    console = Console()
    print_table(console, display.HEADER, islice(results.rows(explanation, samples), ROWS))
    if len(samples.names) > ROWS:
        console.print(f"and {len(samples.names) - ROWS} more, in the page", highlight=False)
    if explanation.ledger is not None:
        print_table(console, results.CAUSES, display.absorbed(explanation))
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
    from headwater.cli.given import load

    loaded, samples = load(model, inputs, weights, size, mean, std, drop)
    typer.echo(str(hw.plan(loaded.model, samples.x, composite=composite)))


@app.command(epilog="Example: headwater methods")
def methods() -> None:
    """List the methods with their sources and what they need of a model."""
    for row in hw.methods():
        typer.echo(f"{row.name} ({row.abbreviation}): {row.family}, needs {row.needs}")
        for source in row.source.split("; "):
            typer.echo(f"    {source}")


@app.command(epilog="Example: headwater demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="The folder that is written to.", file_okay=False)] = Path("demo"),
) -> None:
    """Explain photographs with a pretrained classifier (needs the extra demo)."""
    from headwater.demo import main

    main(out)


def _options(given: Sequence[str]) -> dict[str, Any]:
    """A method's options: numbers, tuples of numbers and truth values as such, everything else as text."""
    options = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInput(f"--option {text!r}: write NAME=VALUE, such as window=16")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options
