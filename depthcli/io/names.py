"""Names of files: one that is too long for the file system ends in a digest of itself."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

STDIN = "-"  # the name of stdin as an input, and of stdout as an output
# Bytes in the name of a file: what every file system takes, and what most take.
_SHORT_NAME = 100
_USUAL_LIMIT = 255


def fitting_name(folder: Path, stem: str, ending: str, spare: int = 0) -> str:
    """Return stem and ending as one file name; a stem too long for the file system ends in its digest.

    spare: bytes to leave free, for a further ending.
    """
    name = stem + ending
    size = len(os.fsencode(name)) + spare
    if size <= _SHORT_NAME or size <= (limit := name_limit(folder)):
        return name
    digest = f"_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    room = limit - len(digest) - len(os.fsencode(ending)) - spare
    while stem and len(os.fsencode(stem)) > room:  # by characters, not to leave half of one
        stem = stem[:-1]
    return stem + digest + ending


def sidecar_of(path: Path) -> Path:
    """Return the file that describes a film, a folder of frames or a compiled network."""
    return path.with_name(path.name + ".json")


@lru_cache(maxsize=1024)
def name_limit(folder: Path) -> int:
    """Return the most bytes that a name in a folder can have, whether or not the folder exists yet."""
    for place in (folder, *folder.parents):
        try:
            limit = os.pathconf(place, "PC_NAME_MAX")
        except (OSError, ValueError, AttributeError):  # not there yet; Windows
            continue
        return limit if limit > 0 else _USUAL_LIMIT
    return _USUAL_LIMIT


def printable(name: str) -> str:
    """Return a name for one line on a terminal: line breaks, escape sequences and undecodable bytes are spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
