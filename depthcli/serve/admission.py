"""How much a service takes in at once: places in the queue, bytes of bodies, and memory of pictures."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from depthcli.host.memory import free_memory
from depthcli.serve.problems import BusyError

_SHARE = 0.25  # of the free memory for the pictures that are in work
_BODY_SHARE = 0.125  # and for those that wait as bytes


class Places:
    """A number of places, each taken at once or refused."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for the block. Raises BusyError."""
        if self.taken >= self.most:
            raise BusyError("the service has as much to do as it takes")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Bodies:
    """Bytes of bodies that are held, refused beyond a share of the memory."""

    def __init__(self, least: int) -> None:
        """least: bytes that are taken whatever the memory is."""
        free = free_memory()
        self._most = max(least, math.inf if free is None else int(free * _BODY_SHARE))
        self._held = 0

    def add(self, size: int) -> None:
        """Hold more bytes. Raises BusyError."""
        if self._held and self._held + size > self._most:
            raise BusyError("the pictures that wait fill the memory")
        self._held += size

    def remove(self, size: int) -> None:
        """Hold fewer bytes."""
        self._held -= size


class Room:
    """Memory for pictures in work: a picture waits until it fits beside the others; one alone always fits."""

    def __init__(self, most: float = -1.0) -> None:
        """most: bytes; -1 for a share of the memory that is free now."""
        free = free_memory()
        self._most = most if most >= 0 else math.inf if free is None else free * _SHARE
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size: int, seconds: float) -> AsyncIterator[None]:
        """Hold so many bytes for the block. seconds: most to wait. Raises BusyError."""
        await self._take(size, seconds)
        try:
            yield
        finally:
            self._held -= size
            self._wake()

    async def _take(self, size: int, seconds: float) -> None:
        if not self._waiting and self._fits(size):
            self._held += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await asyncio.wait_for(asyncio.shield(turn), seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was let in at the last moment
                self._held -= size
            else:
                self._waiting.remove((size, turn))
            self._wake()
            if isinstance(error, TimeoutError):
                raise BusyError("the picture waited too long") from None
            raise

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._most

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self._held += size
            turn.set_result(None)
