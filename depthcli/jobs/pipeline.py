"""Calls made by other threads, whose results come back in the order of the calls."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Generic, TypeVar

from depthcli.errors import PictureError

T = TypeVar("T")
R = TypeVar("R")


class Lane(Generic[T]):
    """A queue of calls, run by a few threads; results leave in the order of the calls.

    threads: 0 makes each call at once in the calling thread. A lane has no bound: look at its length before you put. It
    belongs to one thread; others may only look at `closed`, to give up a long call. Close it in the end.
    """

    def __init__(self, threads: int) -> None:
        self.closed = False
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._entries: deque[Future[T]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, call: Callable[..., T], *arguments: Any) -> None:
        """Add a call."""
        self._entries.append(self._pool.submit(call, *arguments) if self._pool else _made(call, *arguments))

    def put_done(self, value: T) -> None:
        """Add a value that needs no call."""
        self._entries.append(_made(lambda: value))

    def ready(self) -> bool:
        """Return whether the oldest entry can be taken without waiting."""
        return bool(self._entries) and self._entries[0].done()

    def failed(self) -> bool:
        """Return whether any entry has raised; `take` raises it in its turn."""
        return any(entry.done() and entry.exception() is not None for entry in self._entries)

    def take(self) -> T:
        """Wait for the oldest entry and return its value, or raise what its call raised."""
        return self._entries.popleft().result()

    def wait(self) -> None:
        """Wait until no call is being made."""
        wait(self._entries)

    def with_room(self, call: Callable[[], R]) -> R:
        """Make a call here; if memory is short for it, once more when the entries are done. Raises what it raises."""
        try:
            return call()
        except (PictureError, MemoryError):
            if not self:
                raise
        self.wait()
        return call()

    def close(self) -> None:
        """Drop the calls that have not begun and wait for the others; no thread is left."""
        self.closed = True
        self._entries.clear()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Lane[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for_oldest(*lanes: Lane[Any]) -> None:
    """Wait until one of the lanes that are not empty is ready."""
    wait([lane._entries[0] for lane in lanes if lane], return_when=FIRST_COMPLETED)


def _made(call: Callable[..., T], *arguments: Any) -> Future[T]:
    entry: Future[T] = Future()
    try:
        entry.set_result(call(*arguments))
    except Exception as error:
        entry.set_exception(error)
    return entry
