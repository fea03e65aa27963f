"""A backend that is opened before it is asked for, in a thread, while other modules load and the picture is read."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any, Optional

from depthcli.backends import Backend, open_backend, pick_backend, remembered_backend
from depthcli.backends.converted import graph_name
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import Log
from depthcli.host import graph_cache
from depthcli.host.memory import check_room
from depthcli.predict.model import known_model, resolve_model


class EarlyBackend:
    """The backend of a choice, opened in a thread if its network is kept: without torch and without a download.

    Nothing is raised or logged, and nothing is certain: `take` returns None if there is no such backend, and whoever
    opens it then meets the error. log: of the backend.
    """

    def __init__(self, model: ModelChoice, backend: BackendChoice, input_size: Optional[int], log: Log) -> None:
        self._backend: Optional[Backend] = None
        self._thread: Optional[threading.Thread] = None
        with suppress(Exception):
            self._start(model, backend, input_size, log)

    def _start(self, choice: ModelChoice, backend: BackendChoice, input_size: Optional[int], log: Log) -> None:
        name = pick_backend(backend) if backend.backend == "auto" else backend.backend
        row_name, sha256 = known_model(choice)
        if name != "openvino" or (sha256 and not row_name):  # the tensors of an unknown file need torch
            return
        notices: list[str] = []
        model = resolve_model(replace(choice, offline=True), notices.append, backend=backend)
        row = model.row.with_input_size(input_size)
        if notices or remembered_backend(backend, row) or not graph_cache.holds(graph_name(name, row, model.weights)):
            return
        from depthcli.backends.openvino import shared_core

        check_room(name)
        shared_core()  # here: an import in a thread would only wait for the other imports
        self._arguments = (row, model.weights, replace(backend, backend=name), model.trust)
        self._thread = threading.Thread(target=self._open, args=(log,), daemon=True)
        self._thread.start()

    def _open(self, log: Log) -> None:
        with suppress(Exception):
            self._backend = open_backend(*self._arguments, log)

    def take(self, *arguments: Any) -> Optional[Backend]:
        """Return the backend if `open_backend` was called with these arguments (row, weights, choice, trust)."""
        if self._thread is None or arguments != self._arguments:
            return None
        self._thread.join()
        taken, self._backend = self._backend, None
        return taken

    def close(self) -> None:
        """Free a backend that nobody took."""
        if self._thread is not None:
            self._thread.join()
        if self._backend is not None:
            self._backend.close()
            self._backend = None
