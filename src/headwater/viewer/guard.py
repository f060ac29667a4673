"""Who may ask: the host that was meant, a page of this server, the token; and the headers that fence the page in."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from headwater.viewer.refusals import Forbidden, Refusal, TooLarge, Unauthorized

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LONGEST_BODY = 64 << 20  # bytes: the rows of a selection of millions
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_READS = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Policy:
    """What a request must bring.

    Attributes:
        token: without it nothing is answered; None asks for none.
        host: the address that is bound; other names of it are worked out.
    """

    host: str
    token: str | None
    _names: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = {*LOOPBACK, self.host.lower()}
        if not is_loopback(self.host):
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        object.__setattr__(self, "_names", frozenset(names))

    @property
    def cookie(self) -> str:
        """The name of the cookie: another for each server, as browsers keep cookies by host, whatever the port."""
        return "headwater-" + hashlib.sha256((self.token or "").encode()).hexdigest()[:12]

    def check(self, scope: Scope) -> bool:
        """Refuse a forged request; whether this one brought the token in its query, and so is given the cookie.

        Raises:
            Forbidden: another host or origin than this server's. Unauthorized: no token, or a wrong one.
        """
        headers = _headers(scope)
        self._check_host(headers)
        self._check_origin(scope, headers)
        return self._check_token(scope, headers)

    def _check_host(self, headers: dict[str, list[str]]) -> None:
        """Another name than ours means that a page elsewhere had its name point here (DNS rebinding)."""
        given = headers.get("host", [])
        if len(given) != 1 or not self._is_ours(_name(given[0])):
            raise Forbidden("this host name is not the viewer's: open the address that was printed")

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not is_loopback(self.host)  # a number cannot be rebound; the machine may have several

    def _check_origin(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        """Pages of other servers, those at other ports of this machine included, may do no more than link here."""
        host = headers["host"][0].lower()
        for origin in headers.get("origin", []):
            if origin.lower() not in (f"http://{host}", f"https://{host}"):
                raise Forbidden("the request comes from another page")
        for site in headers.get("sec-fetch-site", []):
            linked = scope["path"] == "/" and "navigate" in headers.get("sec-fetch-mode", [])
            if site not in ("same-origin", "none") and not linked:
                raise Forbidden("the request comes from another page")
        if scope["method"] not in _READS:
            # forms of other pages send no JSON, and no DELETE
            kind = headers.get("content-type", ["application/json" if scope["method"] == "DELETE" else ""])[0]
            if kind.partition(";")[0].strip().lower() != "application/json":
                raise Forbidden("what is sent must be of Content-Type application/json")

    def _check_token(self, scope: Scope, headers: dict[str, list[str]]) -> bool:
        if self.token is None:
            return False
        bearer = [text.removeprefix("Bearer ") for text in headers.get("authorization", [])]
        cookies = [_cookie(text, self.cookie) for text in headers.get("cookie", [])]
        if any(self._is_token(text) for text in [*bearer, *cookies]):
            return False
        queried = parse_qs(scope["query_string"].decode("latin-1")).get("token", []) if scope["path"] == "/" else []
        if not any(self._is_token(text) for text in queried):
            raise Unauthorized("open the address that was printed when the viewer started: it holds the token")
        return True

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), (self.token or "").encode())


class Guard:
    """Checks every request before the application sees it, and adds the security headers to every answer."""

    def __init__(self, app: App, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        extra: dict[str, str] = {}

        async def fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.decode("latin-1").lower() for name, _ in message["headers"]}
                added = {k: v for k, v in _HEADERS.items() if k not in own} | extra
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        try:
            if self._policy.check(scope):
                extra["set-cookie"] = f"{self._policy.cookie}={self._policy.token}; Path=/; HttpOnly; SameSite=Strict"
            await self._app(scope, _bounded(scope, receive), fenced)
        except Refusal as error:
            await refuse(error, fenced)


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """The body up to a length; one that is announced longer is not read at all."""
    announced = _headers(scope).get("content-length", ["0"])[0]
    if not announced.isdecimal() or int(announced) > LONGEST_BODY:
        raise TooLarge(f"a request has at most {LONGEST_BODY >> 20} MiB")
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > LONGEST_BODY:
            raise TooLarge(f"a request has at most {LONGEST_BODY >> 20} MiB")
        return message

    return bounded


async def refuse(error: Refusal, send: Send) -> None:
    """Answer with an error as the application words it."""
    body = json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _cookie(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
