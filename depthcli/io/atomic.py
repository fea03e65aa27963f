"""A file exists only when it is whole: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import os
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthcli.errors import DiskFullError, OutputError

# Of this machine, as part of a name: short, as a name has an end.
HOST = (re.sub(r"\W", "", socket.gethostname()) or "host")[:32]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PARTIAL = re.compile(r"\.depthcli-(?P<host>\w+)-(?P<pid>\d{1,9})-[0-9a-f]{8}\.part")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well and vanishes when it does not.

    Folders are made. What was written is on the disk, not only on its way, before it gets its name: after a power cut a
    file that is there is whole. Raises OutputError where the disk or its permissions do not allow it.
    """
    # Short, as the name of the file itself may be as long as a name can be.
    name = f".depthcli-{HOST}-{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.part"
    partial = path.parent / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as stream:
            os.fsync(stream.fileno())
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
    for path in folder.glob(".depthcli-*.part"):
        match = _PARTIAL.fullmatch(path.name)
        if match and match["host"] == HOST and not _is_written(int(match["pid"])):
            try:
                path.unlink()
            except OSError:  # a folder that may be read only: writing to it will say so, if it comes to that
                continue
            removed += 1
    return removed


def _is_written(pid: int) -> bool:
    return pid != os.getpid() and is_alive(pid)  # nothing of ours is being written while we clean


def is_alive(pid: int) -> bool:
    """Return whether there is a process of that number on this machine; True where that cannot be told."""
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
