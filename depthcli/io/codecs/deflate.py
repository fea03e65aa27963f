"""Deflate for PNG and OpenEXR: by ISA-L if it is installed, else by zlib.

ISA-L takes a fifth of zlib's time for files of nearly the same size (docs/log.md). Files of the two differ, and so may
those of ISA-L on other kinds of processors; the pixels in them do not.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

_ISAL_LEVEL = 2  # the best of those that need no more time than the first
_ZLIB_LEVEL = 2


class Packer(Protocol):
    """A stream that is packed piece by piece."""

    def compress(self, data: Any) -> bytes:
        """Return packed bytes, perhaps none, for the next bytes of the stream."""

    def flush(self) -> bytes:
        """Return the last packed bytes."""


def packer() -> Packer:
    """Return a packer for a stream in zlib's format."""
    try:
        from isal import isal_zlib
    except ImportError:  # has no wheels for some processors
        return zlib.compressobj(_ZLIB_LEVEL)
    return isal_zlib.compressobj(_ISAL_LEVEL)


def packed(data: bytes) -> bytes:
    """Return bytes packed in zlib's format."""
    stream = packer()
    return stream.compress(data) + stream.flush()
