"""The networks that were converted for an engine, kept in the user's cache folder: an entry is a folder that is whole.

An entry is made once per checkpoint and engine and serves every size of picture. Whoever finds one needs no torch. The
least recently used go first when there are too many; all of it can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from depthcli.io.atomic import is_alive

# Graphs are as large as their weights in float32: 0.1 GB for vits, 0.4 for vitb, 1.3 for vitl, 5 for vitg.
LIMIT_BYTES = 8_000_000_000
FOLDER_VARIABLE = "DEPTHCLI_CACHE"
_SIZES = "sizes.json"
_PARTIAL = ".part-"


@dataclass(frozen=True)
class Entry:
    """One graph that is kept. name: its key; bytes: of its files; used: seconds since the epoch."""

    name: str
    path: Path
    bytes: int
    used: float


def cache_folder() -> Path:
    """Return where graphs are kept: $DEPTHCLI_CACHE, or `depthcli` in the user's cache folder. It may not exist."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("depthcli", appauthor=False)) / "graphs"


def find(name: str) -> Path | None:
    """Return the folder of an entry whose files are all there in full, or None; from now on it is the last used."""
    path = cache_folder() / name
    try:
        sizes = json.loads((path / _SIZES).read_text(encoding="utf-8"))
        if any((path / file).stat().st_size != size for file, size in sizes.items()):
            return None
    except (OSError, ValueError, AttributeError):
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read is a cache all the same
        os.utime(path / _SIZES)
    return path


@contextlib.contextmanager
def new_entry(name: str) -> Iterator[Path]:
    """Give an empty folder to write files to; it becomes the entry `name` when the block ends well.

    An entry of that name that is there already, damaged or made by another process meanwhile, is replaced. Afterwards
    the least recently used entries beyond LIMIT_BYTES are removed, but never this one. Raises OSError.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    partial = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{os.getpid()}-", dir=folder))
    try:
        yield partial
        sizes = {path.name: _flush(path) for path in partial.iterdir()}
        (partial / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")
        _replace(partial, folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _prune(keep=name)


def entries() -> list[Entry]:
    """Return what is kept, the last used first."""
    found = []
    with contextlib.suppress(OSError):
        for path in cache_folder().iterdir():
            with contextlib.suppress(OSError):
                if not path.name.startswith(_PARTIAL):
                    size = sum(file.stat().st_size for file in path.iterdir())
                    found.append(Entry(path.name, path, size, (path / _SIZES).stat().st_mtime))
    return sorted(found, key=lambda entry: -entry.used)


def clear() -> list[Entry]:
    """Remove every entry and return what there was. Raises OSError."""
    removed = entries()
    for entry in removed:
        shutil.rmtree(entry.path)
    return removed


def _flush(path: Path) -> int:
    """Bring a file to the disk, so that after a power cut no entry holds less than it says; return its size."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
        return os.fstat(stream.fileno()).st_size


def _replace(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError:
        if not target.is_dir():
            raise
        # A folder is replaced in two steps; whoever has files of the old one open keeps them.
        old = tempfile.mkdtemp(prefix=f"{_PARTIAL}{os.getpid()}-", dir=target.parent)
        os.rename(target, Path(old) / "old")
        try:
            os.rename(partial, target)
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _prune(keep: str) -> None:
    total = 0
    for entry in entries():
        total += entry.bytes
        if total > LIMIT_BYTES and entry.name != keep:
            shutil.rmtree(entry.path, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that are no more left unfinished."""
    for path in folder.glob(f"{_PARTIAL}*"):
        pid = path.name[len(_PARTIAL) :].partition("-")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
