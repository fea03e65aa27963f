"""Faults that disks and systems have, put in on purpose.

    with faults.failing("fsync", errno.EIO): ...                 # every call fails
    with faults.failing("write", errno.ENOSPC, after=3): ...     # the first three calls are made, all others fail
    with faults.failing("replace", errno.EACCES, times=1, where="a_depth"): ...   # one call for such a path

A context tells how many calls have failed: `with failing(...) as fault: ...; assert fault.count == 1`.
"""

from __future__ import annotations

import fcntl
import io
import os
import pathlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

CALLS = ("fsync", "flock", "replace", "write")


class Fault:
    """Counts the calls that concern it, and raises for those that are to fail."""

    def __init__(self, code: int, after: int, times: float, where: str) -> None:
        self.count = 0
        self._code, self._after, self._times, self._where = code, after, times, where
        self._seen = 0

    def meet(self, path: str) -> None:
        if self._where not in path:
            return
        self._seen += 1
        if self._after < self._seen <= self._after + self._times:
            self.count += 1
            raise OSError(self._code, os.strerror(self._code), path)


@contextmanager
def failing(call: str, code: int, after: int = 0, times: float = float("inf"), where: str = "") -> Iterator[Fault]:
    """Make calls fail within the block.

    call: fsync, flock, replace, or write (to a file that Python opens for writing). code: from errno. after: how many
    calls are made as usual first; times: how many fail then. where: only paths that hold this (the new name, for
    replace).
    """
    fault = Fault(code, after, times, where)
    with {"fsync": _fsync, "flock": _flock, "replace": _replace, "write": _write}[call](fault):
        yield fault


def _path_of(file: Any) -> str:
    """Return the path of an open file or descriptor, as Linux tells it."""
    number = file if isinstance(file, int) else file.fileno()
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def _fsync(fault: Fault) -> Any:
    real = os.fsync

    def call(file: Any) -> None:
        fault.meet(_path_of(file))
        real(file)

    return mock.patch("os.fsync", call)


def _flock(fault: Fault) -> Any:
    real = fcntl.flock

    def call(file: Any, operation: int) -> None:
        fault.meet(_path_of(file))
        real(file, operation)

    return mock.patch("fcntl.flock", call)


def _replace(fault: Fault) -> Any:
    real = os.replace

    def call(source: Any, target: Any, **options: Any) -> None:
        fault.meet(os.fspath(target))
        real(source, target, **options)

    return mock.patch("os.replace", call)


class _Written:
    """A file open for writing whose `write` may fail; all else is the file's."""

    def __init__(self, file: Any, path: str, fault: Fault) -> None:
        self._file, self._path, self._fault = file, path, fault

    def write(self, data: Any) -> Any:
        self._fault.meet(self._path)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def _write(fault: Fault) -> Iterator[None]:
    real = io.open

    def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = real(file, mode, *arguments, **options)
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return stream
        return _Written(stream, os.fspath(file), fault)

    with ExitStack() as stack:
        for name in ("io.open", "builtins.open"):
            stack.enter_context(mock.patch(name, call))
        accessor = getattr(pathlib, "_NormalAccessor", None)
        if getattr(accessor, "open", None) is real:  # Python 3.10 alone: pathlib has a name of its own for it
            stack.enter_context(mock.patch.object(accessor, "open", staticmethod(call)))
        yield
