"""``headwater optimize``: inputs that a model scores high."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.app import (
    DropOption,
    MeanOption,
    ModelArgument,
    SizeOption,
    StdOption,
    WeightsOption,
    app,
    numbers,
)
from headwater.errors import InvalidInput


@app.command(
    epilog="Example: headwater optimize torchvision:resnet18 --weights resnet18.pth --target 285 --shape 3,224,224 "
    "--start random --count 4 --tv 1 --jitter 4 --out found"
)
def optimize(
    model: ModelArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT...]", help="Real inputs to begin at, as for explain; else --shape says which."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="What is maximized, written as for explain.")] = None,
    shape: Annotated[str | None, typer.Option(help="Of one input: 3,500 for three channels of 500 samples.")] = None,
    start: Annotated[str, typer.Option(help="zeros or random, where there is no INPUT.")] = "zeros",
    count: Annotated[int, typer.Option(min=1, help="Random starts.")] = 1,
    scale: Annotated[float, typer.Option(help="Standard deviation of random starts.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="At most.")] = 512,
    rate: Annotated[float, typer.Option(help="Of Adam.")] = 0.05,
    l2: Annotated[float, typer.Option(help="Weight of the mean square.")] = 0.0,
    tv: Annotated[float, typer.Option(help="Weight of the total variation.")] = 0.0,
    spectral: Annotated[float, typer.Option(help="Weight of the power at high frequencies.")] = 0.0,
    decay: Annotated[float, typer.Option(help="Weight decay.")] = 0.0,
    jitter: Annotated[int, typer.Option(help="Roll the input by up to this many places at each step.")] = 0,
    blur: Annotated[float, typer.Option(help="Standard deviation of a blur at every fourth step.")] = 0.0,
    bounds: Annotated[str | None, typer.Option(help="LOW,HIGH of the input's values.")] = None,
    seed: Annotated[int, typer.Option(help="For random starts and jitter.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder that is written to.", file_okay=False)] = Path("out"),
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Find inputs that the MODEL scores as high as it can; write them, their learning curve and a picture."""

    from headwater.cli.given import load, target_of
    from headwater.loaders import load_model
    from headwater.optimize import maximize

    low_high = numbers("--bounds", bounds, 2)
    options: dict[str, Any] = {"start": start, "count": count, "scale": scale}
    if inputs:
        if shape is not None:
            raise InvalidInput("--shape is for starts without an INPUT: leave one of them out")
        loaded, samples = load(model, inputs, weights, size, mean, std, drop)
        options = {"start": samples.x}
    else:
        loaded = load_model(model, weights)
        options["shape"] = _shape(shape)
    optimum = maximize(
        loaded.model, target_of(target), **options, steps=steps, rate=rate, l2=l2, tv=tv, spectral=spectral,
        decay=decay, jitter=jitter, blur=blur, bounds=None if low_high is None else (low_high[0], low_high[1]),
        seed=seed,
    )  # fmt: skip
    for i, score in enumerate(optimum.score.tolist()):
        stopped = int(optimum.stopped[i])
        ended = f"converged at step {stopped}" if stopped >= 0 else f"still rising after {steps} steps"
        typer.echo(f"start {i}: {float(optimum.curve[0, i]):.4g} -> {score:.4g}, {ended}")
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(optimum.save(out / "optimum.safetensors"))
    picture = out / "optimum.png"
    optimum.plot().savefig(picture, dpi=150, facecolor="white")
    typer.echo(picture)


def _shape(text: str | None) -> tuple[int, ...]:
    try:
        sides = tuple(int(part) for part in (text or "").split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1:
        raise InvalidInput(f"--shape {text!r}: pass an INPUT, or the shape of one, such as --shape 3,224,224")
    return sides
