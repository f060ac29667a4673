"""Commands for whole data sets: ``run``, ``spray``, ``pool``, ``diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
)
from headwater.errors import InvalidInput

if TYPE_CHECKING:
    from headwater.analyze import FeatureGroups
    from headwater.analyze.maps import Maps

PAST = 3  # status of a diff whose relevance moved past the threshold

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="What `headwater run` wrote.")]
MethodOption = Annotated[
    list[str] | None, typer.Option("--method", help="One that `headwater methods` lists; may be repeated.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Samples that go through the model at once.")]
BoxOption = Annotated[
    list[str] | None,
    typer.Option("--box", metavar="NAME:TOP,LEFT,BOTTOM,RIGHT", help="A group of features; may be repeated."),
]
SeedOption = Annotated[int, typer.Option(help="For all that is random.")]


@app.command(
    "run",
    epilog="Example: headwater run torchvision:resnet18 photos/ --weights resnet18.pth --store relevance --workers 2",
)
def run_command(
    model: ModelArgument,
    inputs: InputArgument,
    store: Annotated[Path, typer.Option(help="The folder that is written to; the same again goes on.")],
    method: MethodOption = None,
    target: Annotated[str | None, typer.Option(help="As for explain, or label: each sample's own folder.")] = None,
    composite: CompositeOption = None,
    batch_size: BatchOption = 32,
    dtype: Annotated[str, typer.Option(help="Of the stored relevance: float32 or float16.")] = "float32",
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="Store the samples too.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Pass over bad samples and record why.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cores.")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Explain a whole data set into a STORE; the same command goes on where it was interrupted."""
    from headwater.cli.given import Given, target_of
    from headwater.dataset import run
    from headwater.loaders import load_model

    given = Given.of(load_model(model, weights), inputs, size, mean, std, drop)
    options: dict[str, Any] = {"bounds": given.bounds} if given.bounds is not None else {}
    if composite is not None:
        options["composite"] = composite
    found = run(
        given.loaded.model, given.source, store, method or ["lrp"], "label" if target == "label" else target_of(target),
        batch_size, dtype=dtype, keep_inputs=keep_inputs, skip_bad=skip_bad, workers=workers, engine=engine, seed=seed,
        **options,
    )  # fmt: skip
    typer.echo(found)


@app.command("spray", epilog="Example: headwater spray relevance --by label --out strategies")
def spray_command(
    store: StoreArgument,
    by: Annotated[
        str, typer.Option(help="A column, such as label or target; all for one group; auto: explained classes.")
    ] = "auto",
    clusters: Annotated[int | None, typer.Option(min=1, help="In each group; by default from the eigengap.")] = None,
    clustering: Annotated[str, typer.Option(help="kmeans or hdbscan.")] = "kmeans",
    map: Annotated[str | None, typer.Option(help="Draw a map: umap or tsne.")] = None,
    suspects: Annotated[int, typer.Option(min=1, help="That are listed.")] = 10,
    explanation: Annotated[str | None, typer.Option(help="Which, of a store that holds several.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the numbers and a picture.")] = None,
    seed: SeedOption = 0,
) -> None:
    """Cluster the heatmaps of a STORE and list the clusters that are unlike the rest of their class."""
    from headwater.analyze import spray
    from headwater.show.figure import png

    found = spray(
        _opened(store, explanation), None if by == "all" else by, clusters=clusters,
        clustering=clustering, map=map, seed=seed,  # type: ignore[arg-type]  # they are checked there
    )  # fmt: skip
    typer.echo(found.summary(suspects))
    if out is not None:
        typer.echo(found.save(out) / "spray.npz")
        (out / "spray.png").write_bytes(png(found.plot()))
        typer.echo(out / "spray.png")


@app.command("pool", epilog="Example: headwater pool relevance --samples label --box tag:0,0,12,40")
def pool_command(
    store: StoreArgument,
    samples: Annotated[str, typer.Option(help="A column, such as label or target; all for one group.")] = "auto",
    box: BoxOption = None,
    edges: Annotated[
        str | None, typer.Option(help="Where windows along the last axis begin, and the last one's end: 0,100,250.")
    ] = None,
    explanation: Annotated[str | None, typer.Option(help="Which, of a store that holds several.")] = None,
    out: Annotated[Path | None, typer.Option(help="A picture (png) of it.")] = None,
) -> None:
    """Sum the relevance of a STORE over groups of samples and groups of features."""
    from headwater.analyze import pool
    from headwater.show.figure import png

    maps = _opened(store, explanation)
    found = pool(maps, None if samples == "all" else samples, _features(maps.shape, box, edges))
    typer.echo(found)
    if out is not None:
        out.write_bytes(png(found.plot()))
        typer.echo(out)


@app.command(
    "diff",
    epilog="Example: headwater diff torchvision:resnet18 torchvision:resnet18 photos/ --weights old.pth "
    f"--other-weights new.pth --threshold 0.2. The status is {PAST} where relevance moved past the threshold.",
)
def diff_command(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A model, or a store.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another, of the same kind.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT...]", help="As for run; none for stores.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The share of relevance that may move in any group.")] = None,
    box: BoxOption = None,
    method: Annotated[str, typer.Option(help="One that `headwater methods` lists.")] = "lrp",
    target: Annotated[
        str | None, typer.Option(help="As for explain; by default the class that FIRST predicts.")
    ] = None,
    composite: CompositeOption = None,
    batch_size: BatchOption = 32,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    weights: WeightsOption = None,
    other_weights: Annotated[Path | None, typer.Option(help="As --weights, for SECOND.")] = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Say in which groups of samples the relevance moved between two models, or between two STOREs."""
    from headwater.analyze import diff
    from headwater.analyze.maps import Maps
    from headwater.cli.given import Given, target_of
    from headwater.loaders import load_model

    if not inputs:
        maps = Maps.of(first)
        found = diff(maps, Maps.of(second), features=_features(maps.shape, box, None), confidence=confidence)
    else:
        given = Given.of(load_model(first, weights), inputs, size, mean, std, drop)
        other = load_model(second, other_weights).model
        options: dict[str, Any] = {"bounds": given.bounds} if given.bounds is not None else {}
        if composite is not None:
            options["composite"] = composite
        shape = tuple(given.source.load(0, 0)[0].shape) if box else ()
        found = diff(
            given.loaded.model, other, given.source, features=_features(shape, box, None), target=target_of(target),
            method=method, batch_size=batch_size, confidence=confidence, **options,
        )  # fmt: skip
    typer.echo(found)
    past = [] if threshold is None else found.beyond(threshold)
    if past:
        names = ", ".join("all" if row.group is None else str(row.group) for row in past)
        typer.echo(f"Relevance moved past {threshold:g} in {len(past)} of {len(found.rows)} groups: {names}", err=True)
        raise typer.Exit(PAST)


def _opened(store: Path, explanation: str | None) -> Maps:
    from headwater.analyze.maps import Maps

    maps = Maps.of(store)
    return maps if explanation is None or maps.store is None else Maps.of(maps.store[explanation])


def _features(shape: tuple[int, ...], named: list[str] | None, edges: str | None) -> FeatureGroups | None:
    from headwater.analyze import boxes, windows

    if named and edges:
        raise InvalidInput("--box and --edges are two ways to group features: choose one")
    if edges:
        try:
            return windows(shape, edges=[int(part) for part in edges.split(",")])
        except ValueError as error:
            raise InvalidInput(f"--edges {edges!r}: {error}") from error
    found = {}
    for text in named or []:
        name, _, corners = text.rpartition(":")
        sides = numbers("--box", corners, 4)
        if not name or sides is None:
            raise InvalidInput(f"--box {text!r}: write NAME:TOP,LEFT,BOTTOM,RIGHT")
        found[name] = [int(side) for side in sides]
    return boxes(shape, found, share=True) if found else None
