"""The sha256 of files, read in pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20  # bytes


def stream_digest(stream: BinaryIO) -> str:
    """Return the sha256 of the rest of a stream as hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return stream_digest(stream)
