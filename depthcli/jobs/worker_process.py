"""A process of this machine that does a share of a job, and the pipe to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Callable

from depthcli.errors import EngineError
from depthcli.host.cores import usable_cores
from depthcli.host.quiet import own_descriptor_2


class WorkerProcess:
    """Runs `work(pipe, *arguments)` in a process of its own. Close it in the end.

    work, arguments: are pickled. cores: that it may use, all if empty. workers: how many such processes there are.
    `ended` is for its owner to set, once all that it sends has come.
    """

    def __init__(self, work: Callable[..., None], arguments: Sequence[Any], cores: list[int], workers: int) -> None:
        # Not forked: threads of engines do not survive a fork.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        threads = max(1, usable_cores() // workers)
        self._process = context.Process(target=_begin, args=(work, theirs, arguments, cores, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.ended = False

    def receive(self) -> Any:
        """Return one message; EngineError, and `ended`, if the process is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.ended = True
            self._process.join()
            return EngineError(
                f"a worker process ended with code {self._process.exitcode}",
                "the memory may be short: use fewer `workers`, and run the same command again",
            )

    def send(self, message: Any) -> None:
        """Send a message. One that has ended does not get it, which is heard."""
        with suppress(OSError):
            self.connection.send(message)

    def close(self) -> None:
        """Wait for it if it has sent all, else kill it."""
        if not self.ended:
            self._process.kill()
        self._process.join()
        self.connection.close()


def _begin(
    work: Callable[..., None], connection: Connection, arguments: Sequence[Any], cores: list[int], threads: int
) -> None:
    """Do a share. It ends early, and quietly, if its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    own_descriptor_2()
    with suppress(BrokenPipeError, ConnectionResetError, EOFError):
        work(connection, *arguments)
