"""A client of `depth serve`, by the standard library alone: it loads no web library, no NumPy and no torch."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Optional, Protocol, Union
from urllib.parse import urlencode, urlsplit

from depthcli.errors import (
    DepthError,
    EngineError,
    Log,
    ModelError,
    OutputError,
    PictureError,
    UsageError,
    first_line,
)

if TYPE_CHECKING:
    from depthcli.depthmap import DepthMap
    from depthcli.scene import Scene

DEFAULT_ADDRESS = "http://127.0.0.1:7373"
SERVER_VARIABLE, TOKEN_VARIABLE = "DEPTH_SERVER", "DEPTH_TOKEN"
AUTO, UNIX = "auto", "unix:"
_AUTO_SECONDS = 0.05  # that the default address has to answer in
_TRIES = 5  # of a request whose connection breaks
_BUSY_SECONDS = 900.0  # that a request waits for a full queue, at most
_QUIET_SECONDS = 1.0  # of that wait, before it is told
_LONGEST_WAIT = 10.0
_CLASSES = {2: UsageError, 4: ModelError, 5: EngineError}
_BROKEN = (ConnectionError, http.client.HTTPException, TimeoutError, socket.timeout)
_PIECE_BYTES = 1 << 16
Query = Sequence[tuple[str, Union[str, int, float, bool]]]


@dataclass(frozen=True)
class Answer:
    """What a service answered. headers: by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def meta(self) -> dict[str, Any]:
        """What the answer says of its depth map. Raises EngineError if it is not from a service of depthcli."""
        try:
            return dict(json.loads(self.headers["depth-meta"]))
        except (KeyError, ValueError, TypeError) as error:
            raise EngineError("the answer is not from depth serve", "check the address of `server`") from error


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end."""
        ...


@dataclass(frozen=True)
class Upload:
    """A body that is read while it is sent. open: gives it from its first byte, for each try anew. size: in bytes."""

    open: Callable[[], AbstractContextManager[Readable]]
    size: int


class _BusyError(Exception):
    """The service is full. seconds: to wait."""

    def __init__(self, error: DepthError, seconds: float) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ServiceGoneError(EngineError):
    """There is no service at an address, or it does not answer any more."""


Body = Union[bytes, Upload]


class Client:
    """A running `depth serve`. Threads may share one; each has its own connection.

        with depthcli.Client("http://127.0.0.1:7373") as client:
            depth = client.estimate("photo.jpg", model="tiny")

    address: http://HOST:PORT, https://..., or unix:PATH. token: that the service wants; by default that of the variable
    DEPTH_TOKEN. timeout: seconds that a connection may be silent. log: receives one line when a request waits for a
    full service for the first time. Raises UsageError for an address that makes no sense. Requests raise EngineError if
    the service cannot be reached, and the errors of the service: UsageError, PictureError, ModelError, EngineError.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        token: Optional[str] = None,
        timeout: float = 300.0,
        log: Log = lambda line: None,
    ) -> None:
        self.address = address.rstrip("/")
        self.log = log
        self._telling, self._told = threading.Lock(), False
        self._token = os.environ.get(TOKEN_VARIABLE, "").strip() if token is None else token
        self._timeout = timeout
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._prefix = ""
        if address.startswith(UNIX):
            if not address[len(UNIX) :]:
                raise UsageError(f"{address} names no socket", "give `server` as unix:PATH")
            return
        parts = urlsplit(self.address if "://" in address else f"http://{self.address}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query:
            raise UsageError(f"{address!r} is not the address of a service", f"such as {DEFAULT_ADDRESS}, or unix:PATH")
        self._parts, self._prefix = parts, parts.path.rstrip("/")

    def about(self) -> dict[str, Any]:
        """Return what the service offers: version, models, formats, limits."""
        try:
            found = json.loads(self.request("GET", "/v1").body)
            if found["service"] != "depthcli":
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{self.address} is not depth serve", "check the address of `server`") from error
        return dict(found)

    def check_ready(self) -> None:
        """Raise EngineError, with the reason, if the service does not take work now."""
        try:
            self._once("GET", "/readyz", (), b"")
        except _BusyError as busy:
            raise EngineError(f"{self.address}: {busy.error.message}") from busy
        except OSError as error:
            raise self._gone(error) from error
        except http.client.HTTPException as error:
            raise EngineError(f"{self.address} is not depth serve", "check the address of `server`") from error

    def estimate(self, picture: Union[str, Path, bytes], **options: Any) -> DepthMap:
        """Return the depth map of a picture, with the numbers of the model.

        picture: a path, or the bytes of a file. options: parameters of POST /v1/depth, such as model, input_size,
        panorama, detail, focal.
        """
        import numpy as np

        from depthcli.depthmap import from_description

        data, name = (picture, "") if isinstance(picture, bytes) else (_read(picture), Path(picture).name)
        query = [("format", "f32"), ("name", name), *_pairs(options)]
        answer = self.request("POST", "/v1/depth", query, data)
        meta = answer.meta
        values = np.frombuffer(answer.body, "<f4").reshape(meta["height"], meta["width"])
        valid = ~np.isnan(values)
        return from_description(np.where(valid, values, np.float32(0)), meta, None if valid.all() else valid)

    def files(self, picture: bytes, formats: Sequence[str], **options: Any) -> dict[str, bytes]:
        """Return the files of a picture, by their names, as `depth image` writes them.

        picture: the bytes of its file. options: as of `estimate`; also colormap, file, mesh_size and so on.
        """
        from depthcli.io.codecs.formats import STILLS

        if len(formats) == 1 and not options.get("file"):  # a name asks for a ZIP
            stem = Path(options.get("name") or "picture").stem
            options["file"] = [stem + STILLS[formats[0]].still]
        query = [("format", ",".join(formats)), *_pairs(options)]
        return unpack(self.request("POST", "/v1/depth", query, picture))

    def estimate_scene(self, pictures: Union[str, Path, Sequence[Union[str, Path]]], **options: Any) -> Scene:
        """Return the scene of several pictures, or of a folder of pictures or a clip.

        options: parameters of POST /v1/scenes, such as model, input_size, metres, max_views. Raises as `scene_files`.
        """
        import tempfile

        from depthcli.io.scenes.files import read_scene

        with tempfile.TemporaryDirectory(prefix="depthcli-") as folder:
            (file,) = self.scene_files(pictures, folder, ["npz"], **options)
            return read_scene(file)

    def scene_files(
        self,
        pictures: Union[str, Path, Sequence[Union[str, Path]]],
        folder: Union[str, Path],
        formats: Sequence[str],
        **options: Any,
    ) -> list[Path]:
        """Write the files of a scene into a folder, as `depth scene` does, and return their paths.

        pictures: several, or a folder of pictures or a clip. options: as of `estimate_scene`. What is there already
        stays. Raises PictureError for a picture that cannot be read, once the rest of the scene is there.
        """
        from depthcli.jobs.remote_scene import make_scene

        inputs = [pictures] if isinstance(pictures, (str, Path)) else pictures
        return make_scene(self, [str(one) for one in inputs], Path(folder), formats, options)

    def request(self, method: str, path: str, query: Query = (), body: Body = b"") -> Answer:
        """Return the answer to a request, tried again while the service is full or the connection breaks.

        Raises EngineError if the service is gone, PictureError if only this request fails again and again, and the
        error that the service answers with.
        """
        tries, since = 0, 0.0
        while True:
            try:
                return self._once(method, path, query, body)
            except _BusyError as busy:
                since = since or time.monotonic()
                if time.monotonic() + busy.seconds > since + _BUSY_SECONDS:
                    raise busy.error from None
                self._wait(busy, since)
            except _BROKEN as error:
                if isinstance(error, ConnectionRefusedError):
                    tries = max(tries, _TRIES - 2)  # it may be about to start again
                tries += 1
                if tries >= _TRIES:
                    raise self._broken(error) from error
                time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.1 * 2**tries)))
            except OSError as error:
                raise self._gone(error) from error

    def fetch(self, path: str, target: IO[bytes], stop: Callable[[], bool] = lambda: False) -> None:
        """Write a file of the service to `target`; a connection that breaks is taken up where it broke.

        stop: asked between pieces; if it returns True, InterruptedError is raised. Other errors: as of `request`.
        """
        tries = 0
        while True:
            connection, there = self._connect(), target.tell()
            try:
                connection.request(
                    "GET", self._prefix + path, headers=self._headers({"Range": f"bytes={there}-"} if there else {})
                )
                response = connection.getresponse()
                if response.status == 416 and there:  # it broke after the last byte
                    return
                if response.status not in (200, 206):
                    _raise(_answer(response))
                if response.status == 200:
                    target.seek(0)
                    target.truncate()
                left = int(response.headers["Content-Length"])
                while left:
                    piece = response.read(min(left, _PIECE_BYTES))
                    if not piece:
                        raise ConnectionResetError("the connection was closed")
                    target.write(piece)
                    left -= len(piece)
                    if stop():
                        raise InterruptedError
                return
            except _BusyError as busy:
                raise busy.error from None
            except _BROKEN as error:
                tries = 1 if target.tell() > there else tries + 1
                if tries >= _TRIES:
                    raise self._broken(error) from error
                time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.1 * 2**tries)))
            finally:
                connection.close()

    def _wait(self, busy: _BusyError, since: float) -> None:
        """Wait as long as a full service asks for. since: when the first wait of the request began."""
        seconds = busy.seconds * random.uniform(0.5, 1.5)
        quiet = min(seconds, max(0.0, since + _QUIET_SECONDS - time.monotonic()))
        time.sleep(quiet)
        if quiet == seconds:
            return
        with self._telling:
            told, self._told = self._told, True
        if not told:
            self.log(f"{self.address} is busy, waiting for it: {busy.error.message}")
        time.sleep(seconds - quiet)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Accept": "*/*", **({"Authorization": f"Bearer {self._token}"} if self._token else {}), **more}

    def close(self) -> None:
        """Close the connections."""
        for connection in self._open:
            connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, method: str, path: str, query: Query, body: Body) -> Answer:
        connection, used = self._connection()
        try:
            return self._ask(connection, method, path, query, body)
        except _BROKEN:
            connection.close()
            if not used:
                raise
        except BaseException:
            connection.close()
            raise
        # The service closes idle connections; that this one was closed says nothing.
        try:
            return self._ask(connection, method, path, query, body)
        except BaseException:
            connection.close()
            raise

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, query: Query, body: Body) -> Answer:
        target = self._prefix + path + (f"?{urlencode(query, errors='surrogateescape')}" if query else "")
        headers = self._headers({"Content-Type": "application/octet-stream"} if body else {})
        try:
            if isinstance(body, Upload):
                with body.open() as stream:
                    connection.request(method, target, stream, {**headers, "Content-Length": str(body.size)})
            else:
                connection.request(method, target, body or None, headers)
        except (BrokenPipeError, ConnectionResetError):  # it may have answered before it closed
            pass
        self._local.used = True
        answer = _answer(connection.getresponse())
        if answer.status >= 400:
            _raise(answer)
        return answer

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return the connection of this thread, and whether it was used before."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._open.append(connection)
            self._local.connection, self._local.used = connection, False
        return connection, self._local.used and connection.sock is not None

    def _connect(self) -> http.client.HTTPConnection:
        if self.address.startswith(UNIX):
            return _UnixConnection(self.address[len(UNIX) :], self._timeout)
        made = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return made(str(self._parts.hostname), self._parts.port, timeout=self._timeout)

    def _broken(self, error: BaseException) -> DepthError:
        """Return the error for connections that break: of this request, or of the service if that is gone."""
        with suppress(OSError, http.client.HTTPException, DepthError, _BusyError):
            self._once("GET", "/livez", (), b"")
            return PictureError(f"the connection to {self.address} broke {_TRIES} times: {first_line(error)}")
        return self._gone(error)

    def _gone(self, error: BaseException) -> ServiceGoneError:
        reason = (error.strerror if isinstance(error, OSError) else "") or first_line(error)
        return ServiceGoneError(f"there is no service at {self.address}: {reason}", "start it with: depth serve")


def find_server(server: str) -> Optional[Client]:
    """Return a client of the service that `server` means; None if it is auto and none answers quickly."""
    if server != AUTO:
        return Client(server)
    client = Client(DEFAULT_ADDRESS, timeout=_AUTO_SECONDS)
    try:
        client._once("GET", "/livez", (), b"")
    except (OSError, http.client.HTTPException, DepthError, _BusyError):
        return None
    finally:
        client.close()
    return Client(DEFAULT_ADDRESS)


def unpack(answer: Answer) -> dict[str, bytes]:
    """Return the files in an answer by their names. Raises EngineError for a damaged one."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise EngineError(f"the answer of the service is damaged: {first_line(error)}") from error


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def _raise(answer: Answer) -> None:
    """Raise the error that an answer holds."""
    try:
        problem = json.loads(answer.body)
        title, hint, code = str(problem["title"]), str(problem["hint"]), int(problem["exit_code"])
    except (ValueError, KeyError, TypeError):
        raise EngineError(f"the service answered {answer.status}", "check the address of `server`") from None
    if answer.status == 401:
        hint = f"put it into the variable {TOKEN_VARIABLE}, or give Client a token"
    kind = _CLASSES.get(code) or (OutputError if answer.status in (500, 507) else PictureError)
    error = kind(title, hint)
    if answer.status == 503:
        with suppress(ValueError):
            raise _BusyError(error, min(_LONGEST_WAIT, float(answer.headers.get("retry-after", "1"))))
        raise _BusyError(error, 1.0)
    raise error


def _pairs(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return options as parameters; lists are repeated, None is left out."""
    pairs: list[tuple[str, Any]] = []
    for name, value in options.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is not None:
                pairs.append((name, int(item) if isinstance(item, bool) else item))
    return pairs


def _read(path: Union[str, Path]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}", "check the path") from error
