"""``headwater import``: a store of relevance that another program computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.app import app

_FILES = "npy, npz, Zarr or HDF5"


@app.command("import", epilog="Example: headwater import heatmaps.npz relevance --labels labels.npy")
def import_command(
    relevance: Annotated[Path, typer.Argument(metavar="RELEVANCE", help=f"{_FILES} (CoRelAy's layout too).")],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder that is written to.")],
    inputs: Annotated[Path | None, typer.Option(help=f"What was explained: {_FILES}.")] = None,
    labels: Annotated[Path | None, typer.Option(help=f"The samples' own classes: {_FILES}.")] = None,
    targets: Annotated[Path | None, typer.Option(help=f"The classes that were explained: {_FILES}.")] = None,
    outputs: Annotated[Path | None, typer.Option(help=f"The scores that were explained: {_FILES}.")] = None,
    name: Annotated[str, typer.Option(help="Of the explanation, by its method say.")] = "imported",
    dtype: Annotated[str, typer.Option(help="Of the stored relevance: float32 or float16.")] = "float32",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Pass over samples with NaN and record them.")] = False,
) -> None:
    """Bring RELEVANCE that was computed elsewhere into a STORE for spray and pool."""
    from headwater.dataset.imported import import_attributions

    typer.echo(
        import_attributions(
            relevance, store, inputs, labels, targets, outputs, name=name, dtype=dtype, skip_bad=skip_bad
        )
    )
