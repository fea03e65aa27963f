"""A file exists only when it is whole: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthcli.errors import DiskFullError, OutputError

_HOST = re.sub(r"\W", "", socket.gethostname()) or "host"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PARTIAL = re.compile(r"^\..+\.(?P<host>\w+)-(?P<pid>\d+)\.part$")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well and vanishes when it does not.

    Folders are made. Raises OutputError where the disk or its permissions do not allow it.
    """
    partial = path.parent / f".{path.name}.{_HOST}-{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except FileExistsError as error:
        raise OutputError(f"cannot write {path}: {path.parent} is a file, not a folder") from error
    except OSError as error:
        kind = DiskFullError if error.errno in _FULL else OutputError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if os.path.exists(partial):  # Path.exists raises where a folder may not be entered
            partial.unlink()


def remove_partials(folder: Path) -> int:
    """Remove what killed runs on this machine left behind in one folder; return how many files that were."""
    removed = 0
    for path in folder.glob(".*.part"):
        match = _PARTIAL.match(path.name)
        if match and match["host"] == _HOST and not _alive(int(match["pid"])):
            try:
                path.unlink()
            except OSError:  # a folder that may be read only: writing to it will say so, if it comes to that
                continue
            removed += 1
    return removed


def _alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # nothing of ours is being written while we clean
