"""``headwater compare``: methods side by side on a model and samples, or on tasks with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.app import (
    DropOption,
    MeanOption,
    SizeOption,
    StdOption,
    WeightsOption,
    app,
    numbers,
)
from headwater.errors import InvalidInput


@app.command(
    epilog="Examples: headwater compare torchvision:resnet18 photos/*.jpg --weights resnet18.pth --methods "
    "lrp,occlusion:window=16,integrated_gradients --out compared; headwater compare --ground-truth"
)
def compare(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL", help="package.module:factory, torchvision:NAME, timm:NAME or hf:PATH."),
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...]", help="Files, folders or globs, as for explain.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names that `headwater methods` lists, divided by commas; options after colons (rise:masks=500)."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="As for explain. By default the predicted class.")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="What is removed at once: a side (9) or sides (9,9) of patches, value, channel, grid, superpixel."
        ),
    ] = None,
    imputer: Annotated[
        str | None,
        typer.Option(help="What takes its place: zero, mean, blur, noise, uniform, inpaint, delete or a number."),
    ] = None,
    output: Annotated[str, typer.Option(help="What is watched: score, probability or accuracy.")] = "score",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the flipping; 50 at most by default.")] = None,
    bounds: Annotated[str | None, typer.Option(help="LOW,HIGH of the model's input.")] = None,
    ground_truth: Annotated[
        bool,
        typer.Option("--ground-truth", help="Rank methods on small tasks whose answers are known; no MODEL, no INPUT."),
    ] = False,
    repetitions: Annotated[int, typer.Option(min=0, help="Of the timing; 0 leaves it out.")] = 3,
    batch_size: Annotated[int | None, typer.Option(help="Samples explained, or rows asked, at a time.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    out: Annotated[
        Path, typer.Option(help="The folder that is written to; a broken run goes on from it.", file_okay=False)
    ] = Path("out"),
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Compare methods by faithfulness, complexity and cost; print a table and a recommendation, write a page."""
    from headwater import evaluate
    from headwater.cli.given import load, target_of
    from headwater.evaluate.compare import METHODS
    from headwater.evaluate.ground_truth import ground_truth as rank

    chosen = None if methods is None else _methods(methods)
    if ground_truth:
        if model is not None:
            raise InvalidInput("--ground-truth brings its own models and samples: leave MODEL and INPUT out")
        typer.echo(str(rank(chosen, seed=seed)))
        return
    if model is None or not inputs:
        raise InvalidInput("compare needs a MODEL and at least one INPUT, or --ground-truth")
    resolved = target_of(target)
    loaded, samples = load(model, inputs, weights, size, mean, std, drop)
    found = evaluate.compare(
        loaded.model, samples.x, METHODS if chosen is None else chosen, resolved,
        features=_features(features), imputer=_number(imputer), output=output,  # type: ignore[arg-type]
        steps=steps, bounds=samples.bounds if bounds is None else numbers("--bounds", bounds, 2),
        names=samples.names, repetitions=repetitions, store=out / "methods", batch_size=batch_size, seed=seed,
    )  # fmt: skip
    typer.echo(f"{found.table}\n\n{found.recommendation}")
    found.to_html(out / "index.html", f"Methods compared on {len(samples.names)} samples")
    typer.echo(out / "index.html")


def _methods(text: str) -> dict[str, dict[str, Any]]:
    """Methods by the text that named them, with their options."""
    found = {}
    for part in text.split(","):
        name, *options = part.strip().split(":")
        pairs = [option.partition("=") for option in options]
        if not name or any(not equals for _, equals, _ in pairs):
            raise InvalidInput(f"--methods {part!r}: write NAME or NAME:OPTION=VALUE:OPTION=VALUE")
        found[part.strip()] = {"method": name, **{key: _number(value) for key, _, value in pairs}}
    return found


def _features(text: str | None) -> Any:
    """A name, one side or several."""
    sides = None if text is None else [part.strip() for part in text.split(",")]
    if sides is None or not all(side.isdigit() for side in sides):
        return text
    return int(sides[0]) if len(sides) == 1 else tuple(int(side) for side in sides)


def _number(text: str | None) -> Any:
    """A number where the text is one, else the text."""
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text


__all__: Sequence[str] = ["compare"]
