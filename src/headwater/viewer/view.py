"""``hw.view``: open a store, bind an address, serve until it is closed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from torch import nn

from headwater.errors import HeadwaterError, InvalidInput, MissingExtra
from headwater.loaders import LoadedModel
from headwater.viewer.analysis import Analysis
from headwater.viewer.analyzing import Analyzing
from headwater.viewer.guard import Policy, is_loopback
from headwater.viewer.server import application
from headwater.viewer.shown import Kind, Names, Words
from headwater.viewer.viewed import Extra, Viewed

PORT = 8765
_TRIED = 20  # ports, where the first is taken
_PATIENCE = 30  # seconds to start, or to end


@dataclass
class Viewing:
    """A viewer that serves in the background; a context manager that closes it.

    Attributes:
        url: what to open; it holds the token where there is one.
    """

    url: str
    _server: Any
    _thread: threading.Thread

    def close(self) -> None:
        """End it; requests that are under way are cut off."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(_PATIENCE)

    def __enter__(self) -> Viewing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def view(
    store: Any,
    model: Any = None,
    *,
    data: Any = None,
    analysis: str | Path | Mapping[str, str | Path] | None = None,
    spray: bool = False,
    classes: Sequence[str] = (),
    words: Words | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    rate: float | None = None,
    kind: Kind | None = None,
    bounds: Any = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: bool = False,
    read_only: bool = False,
    open_browser: bool = False,
    block: bool = True,
) -> Viewing:
    """Look at a store in the browser.

    The page is served from this machine and to this machine alone, unless ``host`` says otherwise; then nobody is
    answered without the random token that is part of the printed address. Selections and notes are saved in
    ``<store>.viewer`` beside the store, which itself is never written to.

    Args:
        store: what :func:`headwater.run` wrote: its path or URL, or the store. One whose job has not ended is shown
            as far as it is there.
        model: the model that made it (or what :func:`headwater.loaders.load_model` returned): samples can then be
            explained anew, and audited.
        data: the samples as they were passed to ``run``, for stores without inputs.
        analysis: the folder that ``headwater spray --out`` wrote, for the first explanation; or a dict of explanations
            and folders.
        spray: run the analysis first where there is none.
        classes: names of the classes, in order; by default those that the store knows.
        words: for texts: a function from token ids to pieces of text, or the pieces in the order of their ids.
        names: of the channels of a series or the columns of a table. rate: of a series, in samples per second.
        kind: "image", "spectrogram", "video", "series", "text" or "table"; by default by the shape.
        bounds: of the input, for live explanations; see :func:`headwater.explain`.
        host: the address to bind. port: by default 8765 or the next that is free; 0 for any.
        token: ask for a token on the loopback address too, where other people use the machine.
        read_only: write nothing: no selections, no analysis.
        open_browser: open the page. block: serve until interrupted; else return at once and serve in the background.

    Returns:
        The viewer: ``.url``, ``.close()``. With ``block`` after it was closed.

    Raises:
        InvalidInput: no store, an analysis or data of other samples, an address that cannot be bound.
        MissingExtra: without the extra ``viewer``.
    """
    if model is not None and not isinstance(model, LoadedModel):
        model = LoadedModel(model.eval() if isinstance(model, nn.Module) and model.training else model)
    extra = Extra(classes, Names(_reader(words, model), names, rate), kind, bounds)
    viewed = Viewed(store, model, data, extra, read_only)
    _analyses(viewed, analysis, spray)
    viewed.warm()
    secret = secrets.token_urlsafe(32) if token or not is_loopback(host) else None
    bound = bind(host, port)
    shown = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    address = f"[{shown}]" if ":" in shown else shown
    url = f"http://{address}:{bound.getsockname()[1]}/" + (f"?token={quote(secret)}" if secret else "")
    server = _server(viewed, Policy(host, secret))
    print(f"{viewed.title} is at {url}" + (" (Ctrl+C ends)" if block else ""), file=sys.stderr, flush=True)
    if block:
        if open_browser:
            threading.Timer(0.5, webbrowser.open, [url]).start()
        viewing = Viewing(url, server, threading.current_thread())
        with suppress(KeyboardInterrupt):
            server.run(sockets=[bound])
        return viewing
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True, name="headwater.view")
    thread.start()
    end = time.monotonic() + _PATIENCE
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise HeadwaterError(f"the viewer did not start at {url}")
        time.sleep(0.01)
    if open_browser:
        webbrowser.open(url)
    return Viewing(url, server, thread)


def _reader(words: Words | Sequence[str] | None, model: LoadedModel | None) -> Words | None:
    if words is None:
        tokenizer = None if model is None else model.tokenizer
        return None if tokenizer is None else tokenizer.convert_ids_to_tokens
    if callable(words):
        return words
    pieces = [str(piece) for piece in words]
    return lambda ids: [pieces[i] if 0 <= i < len(pieces) else f"#{i}" for i in ids]


def _analyses(viewed: Viewed, given: Any, spray: bool) -> None:
    """Those that were named, those that the viewer keeps, and the one that is asked for."""
    named = dict(given) if isinstance(given, Mapping) else {} if given is None else {viewed.store.name: given}
    for name in viewed.store.names:
        folder = named.pop(name, None)
        kept = viewed.analysis_folder(name)
        if folder is None and kept is not None and (kept / "spray.json").exists():
            folder = kept
        if folder is not None:
            viewed.add_analysis(name, Analysis.read(Path(folder), len(viewed.store), viewed.classes))
    if named:
        raise InvalidInput(
            f"the store has no explanation {next(iter(named))!r}: it has {', '.join(viewed.store.names)}"
        )
    if spray and viewed.store.name not in viewed.analyses:
        Analyzing(viewed).run(None)


def bind(host: str, port: int | None) -> socket.socket:
    """A socket at this address; without a port at the first one free.

    Raises:
        InvalidInput: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tried = range(PORT, PORT + _TRIED) if port is None else [port]
    reason: Exception | None = None
    for number in tried:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
        except (OSError, OverflowError) as error:
            bound.close()
            reason = error
            continue
        bound.listen(128)
        return bound
    ports = str(tried[0]) if len(tried) == 1 else f"{tried[0]} to {tried[-1]}"
    raise InvalidInput(f"cannot serve at {host}, port {ports}: {reason}")


def _server(viewed: Viewed, policy: Policy) -> Any:
    application_ = application(viewed, policy)
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("viewer", "uvicorn") from error
    config = uvicorn.Config(
        application_, log_level="warning", access_log=False, lifespan="off", ws="none", http="h11", loop="asyncio",
        proxy_headers=False, server_header=False, limit_concurrency=256, timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_tells)
    return uvicorn.Server(config)


def _tells(record: logging.LogRecord) -> bool:
    """Whether a message is worth showing; that a request was still open when the viewer was closed is not."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)
