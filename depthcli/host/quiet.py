"""Collect what libraries print while a file is read, as notes on the file.

A filter that looks at the thread catches Python's warnings, only inside `noise_of`. C libraries write to file
descriptor 2, which the whole process shares. After `own_descriptor_2`, which the command line calls, Python writes to a
copy of that descriptor, and while files are read the descriptor leads to a temporary file. Without that call, as in a
library, the descriptor does not change.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO, Optional

_MOST_LINES = 5  # of one file
_MOST_BYTES = 1 << 16


@contextlib.contextmanager
def noise_of() -> Iterator[list[str]]:
    """Collect the lines printed while a file is read; complete when the context is left.

    With several threads, a line of a C library goes to all open files, with a note.
    """
    heard: list[str] = []
    outer, _here.heard = _here.heard, heard
    try:
        _descriptor.enter(heard)
        yield heard
    finally:
        _here.heard = outer
        _descriptor.leave(heard)
        heard[:] = list(dict.fromkeys(line.strip() for line in heard if line.strip()))[:_MOST_LINES]


def own_descriptor_2() -> None:
    """Let `noise_of` catch C libraries; for the command line only. Python's stderr moves to a copy of descriptor 2."""
    if _descriptor.copy is not None or sys.stderr is None:
        return
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        if sys.stderr.fileno() != 2:  # redirected, as in a test
            return
        copy = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)  # not the number of a closed stream
    except (OSError, ValueError):
        return
    old = sys.stderr
    old.flush()
    raw = os.fdopen(copy, "wb", 0)
    sys.stderr = io.TextIOWrapper(raw, old.encoding, old.errors, line_buffering=True, write_through=True)
    _descriptor.copy = copy


def terminal() -> int:
    """Return the descriptor of the original stderr."""
    return 2 if _descriptor.copy is None else _descriptor.copy


class _Here(threading.local):
    """The lines of this thread, None while it reads no file. It stands in for the pattern of a warnings filter."""

    heard: Optional[list[str]] = None

    def match(self, text: str) -> bool:
        if self.heard is None:
            return False
        self.heard.append(str(text))
        return True


class _Descriptor:
    """Descriptor 2 and the warnings filter while files are read. copy: of descriptor 2, if moved."""

    def __init__(self) -> None:
        self.copy: Optional[int] = None
        self._lock = threading.Lock()
        self._active: list[list[str]] = []
        self._noise: Optional[BinaryIO] = None
        self._heard = 0  # bytes of it that were distributed

    def enter(self, heard: list[str]) -> None:
        """Start to collect lines for a file."""
        with self._lock:
            self._share_out()
            if not self._active:
                warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
                self._lead_away()
            self._active.append(heard)

    def leave(self, heard: list[str]) -> None:
        """Stop to collect lines for a file."""
        with self._lock:
            self._share_out()
            self._active = [other for other in self._active if other is not heard]
            if not self._active:
                with contextlib.suppress(ValueError):  # the filters were reset
                    warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
                if self.copy is not None:
                    os.dup2(self.copy, 2)

    def _lead_away(self) -> None:
        if self.copy is None:
            return
        import tempfile

        with contextlib.suppress(OSError):  # no room for a temporary file: the lines go to stderr
            self._noise = self._noise or tempfile.TemporaryFile("w+b", 0)
            self._noise.seek(0)
            self._noise.truncate()
            self._heard = 0
            os.dup2(self._noise.fileno(), 2)

    def _share_out(self) -> None:
        """Give the lines since the last call to all open files."""
        if self._noise is None:
            return
        size = os.fstat(self._noise.fileno()).st_size
        data = os.pread(self._noise.fileno(), min(size - self._heard, _MOST_BYTES), self._heard)
        self._heard = size
        lines = data.decode(errors="replace").splitlines()
        doubt = " (of this file or another)" if len(self._active) > 1 else ""
        for heard in self._active:
            heard += [line + doubt for line in lines]


class _Log(logging.Handler):
    """Collects Pillow's log in a thread that reads a file; without it, errors would go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        _here.match(record.getMessage())


_here = _Here()
_FILTER = ("ignore", _here, Warning, None, 0)
_descriptor = _Descriptor()
logging.getLogger("PIL").addHandler(_Log(logging.WARNING))
