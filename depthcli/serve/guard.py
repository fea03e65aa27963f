"""What stands before every request: known names of the host, our own pages, the token, and an end to slow clients."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import urlsplit

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from depthcli.errors import EngineError, UsageError
from depthcli.serve.metrics import Metrics
from depthcli.serve.problems import PROBLEM, Refusal, problem_json
from depthcli.serve.settings import ServiceSettings

HEADER_SECONDS = 20.0  # from the first byte, or the connection, to the end of the headers
BODY_SECONDS = 20.0  # and from there for a body of any size, plus its time at the slowest rate
SLOWEST_RATE = 64 * 1024  # bytes a second
_OPEN = ("/", "/livez", "/readyz", "/openapi.json", "/docs", "/favicon.ico")  # hold nothing of anybody
_OPEN_BELOW = ("/page/", "/static-offline-docs/")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self' blob:;" + (
    " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"  # scripts of Swagger


class Guard:
    """ASGI application around another one: refuses strangers, and gives every answer its id and its safe headers."""

    def __init__(self, app: Any, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._token = settings.token
        self._root = settings.root_path
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in settings.hosts)}
        if not _is_address(settings.host):
            self._names.add(settings.host.lower())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else os.urandom(8).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        scope["root_path"] = self._root
        if scope["method"] == "HEAD":  # what is asked by GET; the server sends no body, as it has its own copy
            scope = {**scope, "method": "GET"}
        path = scope["path"]
        fixed = {
            b"x-request-id": request_id,
            b"x-content-type-options": "nosniff",
            b"referrer-policy": "no-referrer",
            b"content-security-policy": _DOCS_POLICY if path.endswith("/docs") else _POLICY,
            b"cache-control": "no-store",
        }

        began, status = time.monotonic(), 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in fixed]
                message = {**message, "headers": [*own, *((name, text.encode()) for name, text in fixed.items())]}
            await send(message)

        refusal = self._refusal(scope, headers, path)
        try:
            if refusal is None:
                await self._app(scope, receive, answer)
            else:
                await _refuse(refusal, request_id, answer)
        finally:
            route = scope.get("route")  # known after the routing
            shown = "other" if route is None else route.path
            self._metrics.requests.labels(shown, str(status)).inc()
            self._metrics.duration.labels(shown).observe(time.monotonic() - began)

    def _refusal(self, scope: Any, headers: Mapping[str, str], path: str) -> Optional[Refusal]:
        host = headers.get("host", "")
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        if hosts != 1 or not self._is_known(_name_of(host), scope.get("server")):
            return Refusal(421, f"this service is not called {host!r}", "`allow_host` adds a name")
        origin = headers.get("origin")
        if origin is not None and not _is_same(origin, host):
            return Refusal(403, f"a page of {origin} may not use this service", "use the page of the service itself")
        given = headers.get("authorization", "")
        if self._token and not self._is_open(path) and not self._has_token(given):
            wanted = {"WWW-Authenticate": "Bearer"}
            what = "this is not the token of the service" if given else "the service wants its token"
            hint = "send the header Authorization: Bearer TOKEN"
            return Refusal(401, what, hint, EngineError.exit_code, wanted)
        return None

    def _is_known(self, name: str, server: Any) -> bool:
        """Return whether a name leads here by itself, and not through a stranger's entry in the DNS."""
        if not name:
            return False
        if name in self._names:
            return True
        if not _is_address(name):
            return False
        address = ipaddress.ip_address(name)
        if address.is_loopback:
            return True
        try:  # the very address that the connection came to
            return bool(server) and address == ipaddress.ip_address(str(server[0]).partition("%")[0])
        except ValueError:
            return False

    def _is_open(self, path: str) -> bool:
        path = path.removeprefix(self._root) if self._root else path
        return path in _OPEN or path.startswith(_OPEN_BELOW)

    def _has_token(self, given: str) -> bool:
        scheme, _, token = given.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token.encode())


async def _refuse(refusal: Refusal, request_id: str, send: Any) -> None:
    body = problem_json(refusal.status, refusal.message, refusal.hint, refusal.exit_code, request_id)
    headers = {"content-type": PROBLEM, "content-length": str(len(body)), "connection": "close", **refusal.headers}
    encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without its port; "" if it makes no sense."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", host)
    return (match[1] or match[2]).lower().removesuffix(".") if match else ""


def _is_same(origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 with an end to clients that send nothing, or too slowly: uvicorn waits for them for ever."""

    _timer: Optional[asyncio.TimerHandle] = None
    _began = 0.0
    _received = 0

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the clock starts with the first of a request, and stops with its last."""
        if self._timer is None:
            self._start()
        self._received += len(data)
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._stop()
        self._began, self._received = self.loop.time(), 0
        self._timer = self.loop.call_later(HEADER_SECONDS, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Close the connection, or look again when its bytes do not justify more time."""
        reading = self.conn.their_state is h11.SEND_BODY
        allowed = BODY_SECONDS + self._received / SLOWEST_RATE if reading else HEADER_SECONDS
        left = self._began + allowed - self.loop.time()
        # A body that is not taken from the socket now is late through us.
        if reading and (left > 0 or self.flow.read_paused):
            self._timer = self.loop.call_later(max(left, 1.0), self._look)
            return
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


def open_socket(settings: ServiceSettings) -> socket.socket:
    """Return the bound socket of a service. Raises UsageError if the place is taken.

    A unix socket can be opened by its owner alone; one that a dead service left is replaced.
    """
    if settings.uds is not None:
        return _unix_socket(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named, as asyncio sends small answers at once only on sockets that say TCP.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}", "choose another `port`"
        ) from error
    return made


def _unix_socket(settings: ServiceSettings) -> socket.socket:
    path = str(settings.uds)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if _is_dead_socket(path):
            os.unlink(path)
        made.bind(path)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen on {path}: {error.strerror or error}", "choose another `uds`") from error
    finally:
        os.umask(before)
    return made


def _is_dead_socket(path: str) -> bool:
    """Return whether a path is a socket that nobody listens to."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def address_of(settings: ServiceSettings, bound: socket.socket) -> str:
    """Return the address that a client on this machine takes."""
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
