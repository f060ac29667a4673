"""The command ``view``: a store in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.app import DropOption, MeanOption, SizeOption, StdOption, WeightsOption, app
from headwater.errors import InvalidInput


@app.command("view", epilog="Example: headwater view relevance --analysis strategies --open")
def view_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="What `headwater run` wrote: a folder or a URL.")],
    model: Annotated[
        str | None, typer.Option(help="The model that made it, as for run: explain samples anew, audit them.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="The samples as for run, where the store holds none.")
    ] = None,
    analysis: Annotated[
        list[str] | None,
        typer.Option(metavar="[EXPLANATION=]FOLDER", help="What `headwater spray --out` wrote; may be repeated."),
    ] = None,
    spray: Annotated[bool, typer.Option("--spray", help="Run the analysis first where there is none.")] = False,
    classes: Annotated[Path | None, typer.Option(help="A file of the classes' names, one a line.")] = None,
    words: Annotated[Path | None, typer.Option(help="A file of pieces of text, one a line, by their ids.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="image, spectrogram, video, series, text or table; by default by the shape.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Of a series, in samples per second.")] = None,
    host: Annotated[str, typer.Option(help="The address to bind; any but this machine's own asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(help="By default 8765 or the next that is free.", min=0, max=65535)
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Ask for a token on this machine's own address too.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write nothing: no selections, no analysis.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    weights: WeightsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    drop: DropOption = None,
) -> None:
    """Look at a STORE in the browser: the map, clusters, samples; name what you find and export it."""
    from torch import nn

    from headwater.cli.given import Given
    from headwater.loaders import LoadedModel, load_model
    from headwater.viewer import view

    loaded = None if model is None else load_model(model, weights)
    given = Given.of(loaded or LoadedModel(nn.Identity()), inputs, size, mean, std, drop) if inputs else None
    view(
        store, loaded, data=None if given is None else given.source, analysis=_folders(analysis), spray=spray,
        classes=_lines("--classes", classes) or (), words=_lines("--words", words), rate=rate,
        kind=kind,  # type: ignore[arg-type]  # it is checked there
        bounds=None if given is None else given.bounds, host=host, port=port, token=token, read_only=read_only,
        open_browser=open_browser,
    )  # fmt: skip


def _folders(given: list[str] | None) -> Any:
    """A folder for the first explanation, or explanations and their folders."""
    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    named = {name: folder for name, sign, folder in pairs if sign}
    if len(given) == 1 and not named:
        return given[0]
    if len(named) < len(given):
        raise InvalidInput("--analysis: of several folders each is written EXPLANATION=FOLDER")
    return named


def _lines(option: str, path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{option} {path} cannot be read: {error}") from error
