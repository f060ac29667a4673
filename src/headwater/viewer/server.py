"""The web server: routes, errors as JSON, the page's files, and streams of numbers that start at once."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from threading import Event
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError, MissingExtra
from headwater.viewer.export import Export
from headwater.viewer.guard import Guard, Policy
from headwater.viewer.refusals import NotThere, Refusal, status_of
from headwater.viewer.request import Ask, decoded, encoded
from headwater.viewer.routes import Accepted, Binary, Endpoints, Png
from headwater.viewer.viewed import Viewed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_PIECE = 1 << 18  # bytes that are sent at a time
_log = logging.getLogger(__name__)
_NO_PAGE = b"<!DOCTYPE html><title>Headwater</title><p>The page was not built: run make viewer. The API is there."


def application(viewed: Viewed, policy: Policy) -> Guard:
    """The viewer as an ASGI application.

    Raises:
        MissingExtra: without the extra ``viewer``.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise MissingExtra("viewer", "starlette") from error
    endpoints = Endpoints(viewed)
    routes = [
        Route(f"/api{path}", _handler(endpoint), methods=[method]) for method, path, endpoint in endpoints.table()
    ]
    page = _page()
    routes.append(Route("/{path:path}", lambda request: _file(page, request.path_params["path"])))
    handlers: dict[Any, Any] = {HTTPException: _wrong_route, HeadwaterError: _refused, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), policy)


def _handler(endpoint: Callable[[Ask], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = await request.body() if request.method in ("POST", "PUT") else b""
        gone = Event()

        def answer() -> Any:
            return endpoint(Ask(request.path_params, request.query_params, decoded(body), gone))

        watch = asyncio.create_task(_watch(request, gone))
        try:
            return _response(await run_in_threadpool(answer))
        finally:
            watch.cancel()
            gone.set()  # the server may be ending: work in the thread ends too

    return handle


async def _watch(request: Request, gone: Event) -> None:
    """Tell when the client closes the connection."""
    with suppress(Refusal):  # of a body that nobody asked for
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()


def _response(found: Any) -> Response:
    from starlette.responses import Response, StreamingResponse

    if isinstance(found, Png):
        return Response(found.data, media_type="image/png")
    if isinstance(found, Binary):
        headers = {"content-length": str(found.data.nbytes), **found.headers}
        return StreamingResponse(_pieces(found.data), media_type="application/octet-stream", headers=headers)
    if isinstance(found, Export):
        headers = {"content-disposition": f'attachment; filename="{found.name}"', **found.headers}
        return StreamingResponse(found.parts, media_type=found.kind, headers=headers)
    if isinstance(found, Accepted):
        return Response(encoded(found.value), 202, media_type="application/json")
    return Response(encoded(found), media_type="application/json")


async def _pieces(data: memoryview) -> AsyncIterator[memoryview]:
    """A piece at a time, as fast as the client takes them: nothing is copied for a client that waits."""
    for start in range(0, data.nbytes, _PIECE):
        yield data[start : start + _PIECE]


def _error(status: int, error: Exception, kind: str, message: str) -> Response:
    from starlette.responses import Response

    facts = {"kind": kind, "message": message}
    facts |= {name: getattr(error, name) for name in ("at", "current") if hasattr(error, name)}
    return Response(encoded({"error": facts}), status, media_type="application/json")


def _refused(request: Request, error: HeadwaterError) -> Response:
    return _error(status_of(error), error, type(error).__name__, str(error))


def _wrong_route(request: Request, error: Any) -> Response:
    return _error(error.status_code, error, "NotThere", "there is nothing at this address")


def _failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw: told in the log, and to the client without its inside."""
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _error(500, error, "Failed", f"the server failed at this ({type(error).__name__}): its log says more")


# ---------------------------------------------------------------------- the page's files


def _page() -> dict[str, tuple[bytes, str]]:
    """All files of the page by their path, read once: no path of a client's is ever opened."""
    found: dict[str, tuple[bytes, str]] = {}
    root = files("headwater.viewer") / "static"
    if root.is_dir():
        _collect(root, "", found)
    found.setdefault("index.html", (_NO_PAGE, "text/html"))
    return found


def _collect(folder: Traversable, path: str, found: dict[str, tuple[bytes, str]]) -> None:
    for entry in folder.iterdir():
        name = f"{path}{entry.name}"
        if entry.is_dir():
            _collect(entry, f"{name}/", found)
        else:
            kind = {".js": "text/javascript", ".css": "text/css"}.get(f".{name.rpartition('.')[2]}")
            found[name] = entry.read_bytes(), kind or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _file(page: dict[str, tuple[bytes, str]], path: str) -> Response:
    from starlette.responses import Response

    content = page.get(path or "index.html")
    if content is None:
        raise NotThere("there is nothing at this address")
    fixed = path.startswith("assets/")  # whose names hold a hash of the content
    headers = {"cache-control": "private, max-age=31536000, immutable"} if fixed else {}
    return Response(content[0], media_type=content[1], headers=headers)
