"""Run a service: load, listen, answer until a signal comes, finish what was accepted."""

from __future__ import annotations

import gc
import logging
import socket
import time
from types import FrameType
from typing import Any, Callable, Optional

import uvicorn

from depthcli.errors import EngineError, Log
from depthcli.host import allocator
from depthcli.serve.app import Service, make_app
from depthcli.serve.guard import DeadlineProtocol, address_of, open_socket
from depthcli.serve.settings import ServiceSettings

_COLLECT = (700, 10, 10)  # as Python itself does
_KEEP_ALIVE = 20  # seconds that an idle connection stays open


class _Server(uvicorn.Server):
    """uvicorn that answers everybody until what was accepted is done, instead of closing its door at once."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._until: Optional[float] = None

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        """Stop when what was accepted is answered; a second signal stops at once."""
        if self._until is not None:
            self.force_exit = self.should_exit = True
            for server in self.servers:  # from a signal's handler
                server.get_loop().call_soon_threadsafe(self._cut)
        self._drain()

    def _cut(self) -> None:
        """Cut all connections: from Python 3.12 on, a server is not closed before they are."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to leave."""
        if self._service.runner.lost is not None:
            self._drain()
        if self._until is not None and (not self._service.busy or time.monotonic() > self._until):
            left = self._until - time.monotonic()  # for answers that are on their way
            self.config.timeout_graceful_shutdown = max(1, round(left))
            return True
        return await super().on_tick(counter)

    def _drain(self) -> None:
        if self._until is None:
            self._until = time.monotonic() + self._service.settings.drain
            self._service.drain()


def serve(settings: ServiceSettings, log: Log, ready: Callable[[str], None]) -> int:
    """Serve until a signal comes, and return the exit code: 0, or that of a lost device.

    log: receives lines about downloads and failures. ready: receives the address, when the model is loaded.
    Raises UsageError if the address is taken, and ModelError or EngineError if the first model does not load.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)  # what matters is in the answers and the log
    bound = open_socket(settings)
    allocator.hold_little()
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT)  # a command ends before it matters; here cycles would hold pictures and films for hours
    try:
        return _serve_on(bound, settings, log, ready)
    finally:
        gc.set_threshold(*before)
        bound.close()
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _serve_on(bound: socket.socket, settings: ServiceSettings, log: Log, ready: Callable[[str], None]) -> int:
    service = Service(settings, log)
    forced = False
    try:
        service.start()
        config = uvicorn.Config(
            make_app(service),
            http=DeadlineProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        address = address_of(settings, bound)
        server = _Server(config, service, lambda: ready(address))
        server.run([bound])
        # A model that loads, or a large layer, may take longer: the job goes on from the disk at the next start.
        forced = server.force_exit or service.busy
    finally:
        if not forced:  # else what runs is left to the end of the process
            service.close()
    return EngineError.exit_code if service.runner.lost is not None else 0
