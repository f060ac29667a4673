"""The command ``repair``: from a selection of a store to a repaired model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.app import (
    DropOption,
    InputArgument,
    MeanOption,
    ModelArgument,
    SizeOption,
    StdOption,
    WeightsOption,
    app,
)
from headwater.cli.dataset import BatchOption, SeedOption
from headwater.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@app.command(
    "repair",
    epilog="Example: headwater repair my.models:network photos/ --weights network.pth --store relevance "
    "--strategies strategies --cluster 12 --method p_clarc --out repaired",
)
def repair_command(
    model: ModelArgument,
    inputs: InputArgument,
    store: Annotated[Path, typer.Option(help="The explanations of these inputs, as `headwater run` wrote them.")],
    out: Annotated[Path, typer.Option(help="A folder for the weights, the figures and pictures.")],
    selection: Annotated[str | None, typer.Option(help="The name of a selection that the viewer saved.")] = None,
    strategies: Annotated[Path | None, typer.Option(help="What `headwater spray --out` wrote; with --cluster.")] = None,
    cluster: Annotated[int | None, typer.Option(min=0, help="The number of a cluster.")] = None,
    method: Annotated[str, typer.Option(help="augment, p_clarc, a_clarc or rrr.")] = "augment",
    layer: Annotated[str | None, typer.Option(help="NAME or NAME:input, for the ClArC methods.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of those that train.")] = None,
    rate: Annotated[float | None, typer.Option(help="Adam's, of those that train.")] = None,
    train: Annotated[str | None, typer.Option(help="A pattern of the parameters that are trained.")] = None,
    threshold: Annotated[float, typer.Option(help="Of the region, as a part of the largest excess.")] = 0.2,
    batch_size: BatchOption = 32,
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Repair a MODEL that decides by an artefact: what a cluster or selection of its explanations shares.

    INPUT is a folder whose folders name the classes; a fifth of it is held out to judge by.
    """
    from headwater.analyze import artefact, repair
    from headwater.cli.given import Given
    from headwater.dataset import open_store
    from headwater.loaders import load_model
    from headwater.show.figure import png

    given = Given.of(load_model(model, weights), inputs, size, mean, std, drop)
    chosen = _members(strategies, cluster) if selection is None else selection
    if chosen is None or (selection is not None and cluster is not None):
        raise InvalidInput("say which samples show the artefact: --selection NAME, or --strategies FOLDER --cluster K")
    seen = artefact(open_store(store), chosen, given.source, threshold=threshold, seed=seed)
    typer.echo(seen)
    asked = {"layer": layer, "epochs": epochs, "rate": rate, "train": train}
    options: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    explaining = {} if given.bounds is None else {"bounds": given.bounds}
    mended = repair(
        given.loaded.model, given.source, seen, method, batch_size=batch_size, seed=seed, explaining=explaining,
        **options,
    )  # fmt: skip
    typer.echo(mended)
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(mended.save(out / "weights.pt"))
    (out / "repair.txt").write_text(f"{seen}\n\n{mended}\n")
    (out / "repair.png").write_bytes(png(mended.plot()))
    typer.echo(out / "repair.png")


def _members(strategies: Path | None, cluster: int | None) -> NDArray[np.int64] | None:
    """The rows of a cluster in a folder that ``headwater spray --out`` wrote."""
    import numpy as np

    if strategies is None or cluster is None:
        return None
    try:
        with np.load(strategies / "spray.npz", allow_pickle=False) as arrays:
            rows = np.flatnonzero(arrays["labels"] == cluster)
    except (OSError, KeyError, ValueError) as error:
        raise InvalidInput(f"{strategies} holds no clusters ({error}): run headwater spray STORE --out") from error
    if not len(rows):
        raise InvalidInput(f"{strategies} has no cluster {cluster}")
    return rows
