"""Converted networks in the user's cache folder: an entry is a complete folder.

An entry is made once per checkpoint and backend and serves every input size, without torch. The least recently used are
removed if there are too many; the cache can be deleted at any time.

Backends accept any file that looks like theirs, so the sha256 of an entry's files is compared with the one stored with
it, together with the entry's name (digest of the weights, version of the backend). That finds damaged and swapped
files. Digests of large files are remembered (zoo/digests.py): a file whose times and inode stayed is read in full only
once a week, and damage that changes none of them can last that long. Forged files are excluded by the folder, which
must belong to the user and not be writable for everybody.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from depthcli.host.atomic import is_abandoned, remove_partials, sync_file, temporary_folder
from depthcli.zoo.digests import FOLDER_VARIABLE as FOLDER_VARIABLE
from depthcli.zoo.digests import cache_folder as cache_folder
from depthcli.zoo.digests import forget, is_ours, sha256_of

# Graphs are as large as their weights in float32: 0.1 GB for vits, 0.4 for vitb, 1.3 for vitl, 5 for vitg.
LIMIT_BYTES = 8_000_000_000
NO_FOLDER = f"there is no home directory for a cache (set HOME or {FOLDER_VARIABLE})"
_CONTENTS = "contents.json"
_OLD_PARTIALS = ".part-*"  # the name in earlier versions


@dataclass(frozen=True)
class Entry:
    """One network. name: its key. bytes: of its files. used: seconds since the epoch."""

    name: str
    path: Path
    bytes: int
    used: float


def find(name: str) -> Path | None:
    """Return the folder of an undamaged entry, marked as the last used, or None."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / name
    try:
        contents = json.loads((path / _CONTENTS).read_text(encoding="utf-8"))
        files = contents["files"]
        if contents["name"] != name or not files or any(Path(file).name != file for file in files):
            return None
        if not all(is_ours(item) for item in (path.parent, path, *(path / file for file in files))):
            return None
        if any(_checksum(path / file) != wanted for file, wanted in files.items()):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    with contextlib.suppress(OSError):  # a read-only cache works too
        os.utime(path / _CONTENTS)
    return path


def holds(start: str) -> bool:
    """Return whether there is an entry, perhaps damaged, whose name begins like this."""
    folder = cache_folder()
    try:
        return folder is not None and any(name.startswith(start) for name in os.listdir(folder))
    except OSError:
        return False


@contextlib.contextmanager
def new_entry(name: str) -> Iterator[Path]:
    """Give an empty folder to write files to; it becomes the entry `name` unless the block raises.

    A damaged entry of that name is replaced; a good one of another process stays. Then the least recently used entries
    beyond LIMIT_BYTES are removed, except this one. Raises OSError.
    """
    folder = cache_folder()
    if folder is None:
        raise FileNotFoundError(errno.ENOENT, NO_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    if not is_ours(folder):
        raise PermissionError(errno.EPERM, "it belongs to another user, or everybody may write to it (chmod o-w)")
    _remove_abandoned(folder)
    with temporary_folder(folder) as partial:
        yield partial
        files = {path.name: _flush(path) for path in partial.iterdir()}
        (partial / _CONTENTS).write_text(json.dumps({"name": name, "files": files}), encoding="utf-8")
        _replace(partial, folder / name)
    _prune(keep=name)


def entries() -> list[Entry]:
    """Return all entries, the last used first."""
    found: list[Entry] = []
    folder = cache_folder()
    if folder is None:
        return found
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if not path.name.startswith("."):
                    size = sum(file.stat().st_size for file in path.iterdir())
                    stamp = path / _CONTENTS
                    used = (stamp if stamp.exists() else path).stat().st_mtime
                    found.append(Entry(path.name, path, size, used))
    return sorted(found, key=lambda entry: -entry.used)


def clear() -> list[Entry]:
    """Remove every entry and the remains of killed processes; return the removed entries. Raises OSError."""
    folder = cache_folder()
    if folder is not None:
        _remove_abandoned(folder)
        forget()
    removed = entries()
    for entry in removed:
        shutil.rmtree(entry.path)
    return removed


def _flush(path: Path) -> str:
    """Write a file to the disk, so that an entry is complete after a power cut; return its checksum."""
    sync_file(path)
    return _checksum(path)


def _checksum(path: Path) -> str:
    size = path.stat().st_size
    return f"{size} {sha256_of(path)}" if size else "0"


def _replace(partial: Path, target: Path) -> None:
    """Give a complete folder its name, even if another process does so at the same time."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            os.rename(partial, target)
            return
        if find(target.name) is not None:  # another process was first
            return
        if not target.is_dir():
            break
        # A folder is replaced in two steps; open files of the old one stay usable.
        with temporary_folder(target.parent) as old, contextlib.suppress(OSError):
            os.rename(target, old / "old")
    os.rename(partial, target)


def _prune(keep: str) -> None:
    total = 0
    for entry in entries():
        total += entry.bytes
        if total > LIMIT_BYTES and entry.name != keep:
            shutil.rmtree(entry.path, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    remove_partials(folder)
    for path in folder.glob(_OLD_PARTIALS):
        with contextlib.suppress(OSError):
            if is_abandoned(path):
                shutil.rmtree(path)
