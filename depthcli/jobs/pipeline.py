"""Calls that other threads make, taken back in the order they were given."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """A queue whose entries are worked on by a few threads at once and leave in the order they came.

    threads: with 0 each call is made at once in the thread that puts it; a thread is started only when a call needs it.
    A lane has no bound of its own: who puts looks at its length first. It belongs to one thread; only `closed`, which
    a long call may look at to give up early, is for others. Close it, or use it as a context manager.
    """

    def __init__(self, threads: int) -> None:
        self.closed = False
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._entries: deque[Future[T]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, call: Callable[..., T], *arguments: Any) -> None:
        """Have a call made."""
        self._entries.append(self._pool.submit(call, *arguments) if self._pool else _made(call, *arguments))

    def put_done(self, value: T) -> None:
        """Let a value pass that needs no call, behind all that were put before it."""
        self._entries.append(_made(lambda: value))

    def ready(self) -> bool:
        """Whether the oldest entry can be taken without waiting."""
        return bool(self._entries) and self._entries[0].done()

    def failed(self) -> bool:
        """Whether any entry, and be it not the oldest, has raised: `take` will raise it in its turn."""
        return any(entry.done() and entry.exception() is not None for entry in self._entries)

    def take(self) -> T:
        """Wait for the oldest entry and return its value, or raise what its call raised."""
        return self._entries.popleft().result()

    def settle(self) -> None:
        """Wait until no call is being made."""
        wait(self._entries)

    def close(self) -> None:
        """Drop the calls that have not begun, wait for those that have; no thread is left."""
        self.closed = True
        self._entries.clear()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Lane[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for_oldest(*lanes: Lane[Any]) -> None:
    """Wait until one of the lanes is ready; empty ones are left out."""
    wait([lane._entries[0] for lane in lanes if lane], return_when=FIRST_COMPLETED)


def _made(call: Callable[..., T], *arguments: Any) -> Future[T]:
    entry: Future[T] = Future()
    try:
        entry.set_result(call(*arguments))
    except Exception as error:
        entry.set_exception(error)
    return entry
