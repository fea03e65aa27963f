"""A file that lives as long as the value that names it."""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path


class TemporaryFile:
    """An empty file in the machine's folder for temporary files, held by no descriptor.

    It is removed when nothing refers to this value any more, or when the process ends. `tempfile` would keep it open,
    and warn where a traceback, and not the program, was the last to refer to it. Raises OSError.
    """

    def __init__(self, prefix: str, suffix: str = "") -> None:
        number, name = tempfile.mkstemp(suffix, prefix)
        os.close(number)
        self.path = Path(name)
        weakref.finalize(self, _remove, name)


def _remove(name: str) -> None:
    with suppress(OSError):
        os.unlink(name)
