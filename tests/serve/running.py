"""A service as a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote, urlencode

import pytest

from tests.conftest import environment

if sys.version_info < (3, 11):
    pytest.skip("the service needs Python 3.11", allow_module_level=True)

# The command, with a network that takes `NETWORK` seconds, and clients that have `DEADLINE` seconds. One for scenes
# takes less if there is a file `go`, and stops between two layers if it is told to: each adds a byte to `layers`. With
# `DEAF` it is one layer. `FREE`: bytes that it may take.
_PROGRAM = """
import os, sys, time
from depthcli.predict.picture import DepthEstimator
seconds, deadline = float(os.environ["NETWORK"]), float(os.environ["DEADLINE"])
run = DepthEstimator.run
def slowly(self, batch, recheck=False):
    time.sleep(float(os.environ.get("PICTURES", seconds)))
    return run(self, batch, recheck)
DepthEstimator.run = slowly
if os.environ.get("ROOM"):  # networks for scenes answer with the room of tests/predict/rooms.py
    import pytest
    from tests.predict import rooms
    from depthcli.errors import StoppedError
    answers = rooms.answers
    def slowly_views(inputs):
        end, stop = time.monotonic() + seconds, inputs.get("stop", lambda: False)
        while time.monotonic() < end and not os.path.exists("go"):
            if not os.environ.get("DEAF"):
                if stop():
                    raise StoppedError
                with open("layers", "ab") as layers:
                    layers.write(b".")
            time.sleep(0.02)
        return answers(inputs)
    rooms.answers = slowly_views
    rooms.use_room(pytest.MonkeyPatch(), int(os.environ.get("FREE", 0)) or None)
    from depthcli.serve import scene_query
    usual = scene_query.SceneQuery.wish
    def wish(self, model):  # the page asks for the usual size, and the room has one size
        if self.input_size is None:
            self.input_size = int(os.environ["ROOM"])
        return usual(self, model)
    scene_query.SceneQuery.wish = wish
if os.environ.get("STANDIN"):  # a detector that always finds the objects of tests/serve/detector.py
    from depthcli.backends import detector
    from tests.serve.detector import open_detector
    detector.open_detector = open_detector
if os.environ.get("MASKS"):  # bytes for masks, in place of a share of the memory
    from depthcli.serve import objects
    objects.mask_bytes = lambda: int(os.environ["MASKS"])
from depthcli.serve import guard
guard.HEADER_SECONDS = guard.BODY_SECONDS = deadline
from depthcli.cli.app import main
main()
"""


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def meta(self) -> dict[str, Any]:
        return json.loads(self.headers["depth-meta"])


@dataclass
class Service:
    """A running service. host, port: where it listens; uds: or the path of its socket."""

    process: subprocess.Popen[bytes]
    address: str
    errors: Path
    token: str = ""
    host: str = field(init=False, default="127.0.0.1")
    port: int = field(init=False, default=0)
    _open: list[Any] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.address.startswith("http://"):
            self.host, _, port = self.address[7:].partition(":")
            self.port = int(port)

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        """Return a connection; it is closed with the service."""
        self._open.append(http.client.HTTPConnection(self.host, self.port, timeout=timeout))
        return self._open[-1]

    def socket(self, timeout: float = 60) -> socket.socket:
        """Return a bare connection; it is closed with the service."""
        self._open.append(socket.create_connection((self.host, self.port), timeout=timeout))
        return self._open[-1]

    def close(self) -> None:
        """Close the connections."""
        while self._open:
            self._open.pop().close()

    def ask(
        self,
        target: str,
        body: Optional[bytes] = None,
        method: Optional[str] = None,
        headers: Optional[dict[str, str]] = None,
        connection: Optional[http.client.HTTPConnection] = None,
        **query: object,
    ) -> Got:
        """Return the answer to a request, on a connection of its own unless one is given."""
        own = connection or self.connect()
        sent = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **(headers or {})}
        if query:
            target += "?" + urlencode(query, doseq=True, quote_via=quote)
        try:
            own.request(method or ("GET" if body is None else "POST"), target, body, sent)
            answer = own.getresponse()
            return Got(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            if connection is None:
                own.close()
                with suppress(ValueError):  # the service was closed meanwhile, by another thread
                    self._open.remove(own)

    def depth(self, picture: Path | bytes, **query: object) -> Got:
        return self.ask("/v1/depth", picture if isinstance(picture, bytes) else picture.read_bytes(), **query)

    def memory(self) -> int:
        """Return the resident bytes of the process."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it as a supervisor does; return its exit code."""
        self.signal()
        return self.process.wait(60)


@contextmanager
def running(
    folder: Path, weights: Path, *options: object, network: float = 0.0, deadline: float = 20.0, **extra: str
) -> Iterator[Service]:
    """Run `depth serve` with the weights of tiny, in a folder. extra: variables of the environment."""
    place = folder / "checkpoints/tiny.safetensors"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(weights)
    errors = folder / "stderr.txt"
    command = [sys.executable, "-c", _PROGRAM, "serve", "--input-size", "56"]
    if "--models" not in options:
        command += ["--models", "tiny"]
    if "--uds" not in options and "--port" not in options:
        command += ["--port", "0"]
    around = {**environment(), "NETWORK": str(network), "DEADLINE": str(deadline), **extra}
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [*command, *map(str, options)], cwd=folder, env=around, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address, errors.read_text()
        service = Service(process, address, errors, extra.get("DEPTH_TOKEN", ""))
        with closing(service):
            yield service
        assert "Traceback" not in errors.read_text(), errors.read_text()
    finally:
        process.kill()
        process.communicate()


def until(condition: Any, seconds: float = 30.0) -> Any:
    """Wait for a condition and return its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            found = condition()
            if found:
                return found
        time.sleep(0.02)
    raise AssertionError("it did not become true")


def cores() -> int:
    return len(os.sched_getaffinity(0))
