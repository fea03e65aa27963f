"""Keep glibc's allocator from holding on to memory that a long-lived process has freed.

By itself glibc gives each thread an arena of its own, serves large blocks out of them once one has been freed, and
never returns a page that lies between two used ones. A service whose requests have many sizes then grows for as long as
it runs.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Optional

# Of malloc.h. The kernel serves blocks from a threshold on; naming it keeps glibc from raising it to 32 MB.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_LARGE = 1 << 20
_ARENAS = 2


def is_known() -> bool:
    """Return whether this process uses an allocator that can be told."""
    return _glibc() is not None


def hold_little() -> None:
    """Let freed memory go back to the system, where that can be asked for. Call it before threads begin."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_ARENA_MAX, _ARENAS)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Return free pages to the system now: milliseconds, in which other threads may wait for memory."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Optional[Any]:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None
