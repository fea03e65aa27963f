"""A store in memory that fails as a network does, for the tests of object stores."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, ClassVar, Optional

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class ServerError(Exception):
    """What a client raises for an answer with this status."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the server answered {code}")
        self.code = code


ERRORS: dict[str, Callable[[], Exception]] = {
    "500": lambda: ServerError(500),
    "429": lambda: ServerError(429),
    "timeout": TimeoutError,
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
}


class FlakyStore(MemoryFileSystem):
    """Raises the errors of `plan` in turn, before reads, writes and listings; `calls` counts these.

    torn: a write that fails leaves nothing, as one request does.
    """

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    plan: ClassVar[list[Optional[str]]] = []
    calls: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def reset(cls) -> None:
        """Forget everything."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.plan.clear()
        cls.calls.clear()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("flaky://").strip("/")

    def _fail(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        error = self.plan.pop(0) if self.plan else None
        if error:
            raise ERRORS[error]()

    def cat_file(self, path: str, *arguments: Any, **settings: Any) -> bytes:
        self._fail("get", path)
        return bytes(super().cat_file(path, *arguments, **settings))

    def pipe_file(self, path: str, value: bytes, *arguments: Any, **settings: Any) -> None:
        self._fail("put", path)
        super().pipe_file(path, value, *arguments, **settings)

    def ls(self, path: str, detail: bool = True, **settings: Any) -> Any:
        self._fail("list", path)
        return super().ls(path, detail, **settings)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)
