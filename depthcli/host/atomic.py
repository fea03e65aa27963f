"""A file exists only when it is whole: written under a temporary name in the same folder, then renamed.

Temporary names are random, and tell which process wrote them: two machines that share a disk, or two containers, may
well have the same host name and the same process numbers. A process is known by its mark, part of the names, and holds
a lock on a file of that name in the machine's folder for temporary files. No lock is taken where the results are:
network disks may refuse it, and on SMB a locked file cannot be written to.

    .depthcli-<mark>-<random>.part     mark: 12 digits that stand for the machine, 12 for the process, all in hex
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from depthcli.errors import DiskFullError, OutputError

if sys.platform != "win32":
    import fcntl

# No space, quota, or no writing at all: the next file would fare no better.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What a file system answers that cannot do a thing at all; nothing is wrong with the file.
_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
_PARTIAL = re.compile(r"\.depthcli-(?P<mark>[0-9a-f]{24})-[0-9a-f]{8}\.part")
# Nobody writes to a file for a day without a byte reaching it: what is older was left by a process that is no more.
_ABANDONED_SECONDS = 24 * 3600
_MOST_LINKS = 40


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well and vanishes when it does not.

    Folders are made. What was written is on the disk, not only on its way, before it gets its name: after a power cut a
    file that is there is whole. If `path` is a link to a file, that file is replaced and the link stays. If it is a
    pipe or a device, such as /dev/stdout, `path` itself is given: what is written goes straight through.
    Raises OutputError where the disk or its permissions do not allow it, DiskFullError where nothing more fits.
    """
    partial: Path | None = None
    try:
        place = _file_to_replace(path)
        if place is None:
            yield path
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary_path(place.parent)
        yield partial
        sync_file(partial)
        os.replace(partial, place)
        _sync_folder(place.parent)
    except FileExistsError as error:
        raise OutputError(f"cannot write {path}: {path.parent} is a file, not a folder") from error
    except OSError as error:
        kind = DiskFullError if error.errno in FULL else OutputError
        reason = error.strerror or str(error)
        if partial is not None:
            reason = reason.replace(str(partial), str(path))
        busy = sys.platform == "win32" and isinstance(error, PermissionError)
        raise kind(f"cannot write {path}: {reason}", "is it open in another program?" if busy else "") from error
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder below `parent`, which exists; it is removed with what is left in it. Raises OSError."""
    folder = temporary_path(parent)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_path(folder: Path) -> Path:
    """Return a path in a folder that nothing else has, whatever other machines write there."""
    # Short, as the name of the file itself may be as long as a name can be.
    return folder / f".depthcli-{_LIFE.mark()}-{os.urandom(4).hex()}.part"


def remove_partials(folder: Path) -> int:
    """Remove what killed runs left behind in one folder; return how many files and folders that were.

    What a process of this machine left goes at once. Of others it cannot be told whether they are still at work, so
    what they write stays until it has not changed for a day.
    """
    removed = 0
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(".depthcli-") and entry.name.endswith(".part")]
    except OSError:  # a folder that is not there or may not be read: writing to it will tell, if it comes to that
        return 0
    for entry in found:
        match = _PARTIAL.fullmatch(entry.name)
        alive = _LIFE.is_alive(match["mark"]) if match else None
        with suppress(OSError):
            if alive or (alive is None and not is_abandoned(entry.path)):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
            removed += 1
    return removed


def is_abandoned(path: Path | str) -> bool:
    """Return whether a file or folder has not changed for a day. Raises OSError."""
    return time.time() - os.lstat(path).st_mtime > _ABANDONED_SECONDS


def try_lock(file: IO[Any] | int) -> bool | None:
    """Take a file for this process, until it is closed or the process ends, however that is.

    file: open; for writing too, as NFS asks for that. Returns False if another has it, and None if it cannot be told,
    as the file system has no locks. Only the first means that somebody is at work.
    """
    if sys.platform == "win32":  # an open file cannot be removed by another process anyway
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else None
    return True


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk, if its file system can do that. Raises OSError if the disk cannot take it."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except PermissionError:  # made to be read only
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    _sync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on the disk, if the system can do that."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder may be written to and not read
        return
    _sync(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


def _file_to_replace(path: Path) -> Path | None:
    """Return the file that a path stands for, there or not; None for what is written to as it is. Raises OSError."""
    if _is_descriptor(path):
        return None
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (NotADirectoryError, PermissionError):
        return path  # that folder can be neither made nor written to: said when it is tried
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        return None
    if not path.is_symlink():
        return path
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"it is a link to {place}, and there is no such folder")
    return place


def _is_descriptor(path: Path) -> bool:
    """Whether a path, or what it is a link to, stands for an open file of a process, such as /dev/stdout."""
    name = os.fspath(path)
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        if re.fullmatch(r"/dev/fd|/proc/\d+(/task/\d+)?/fd", folder):
            return True
        if not os.path.islink(name):
            return False
        name = os.path.join(folder, os.readlink(name))
    return False


class _Life:
    """Gives this process its mark, and tells whether the process of another mark is alive.

    The proof of life is a lock on a file that is named as the mark, in a folder of this user and this machine; the
    system lets go of it when the process ends. A process that is forked shares it.
    """

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._mark = ""
        self._file: IO[bytes] | None = None

    def mark(self) -> str:
        """Return the mark of this process."""
        with self._making:
            if not self._mark:
                self._mark = _machine() + os.urandom(6).hex()
                self._file = _locked_file(self._mark)
            return self._mark

    def is_alive(self, mark: str) -> bool | None:
        """Return whether the process of a mark is alive; None if that cannot be told."""
        if mark == self.mark():
            return True
        folder = _lock_folder()
        if folder is None or not mark.startswith(_machine()):
            return None
        path = folder / mark
        if sys.platform == "win32":
            try:
                path.unlink()
            except FileNotFoundError:
                return None
            except OSError:
                return True
            return False
        try:
            with path.open("rb+") as stream:
                taken = try_lock(stream)
        except OSError:
            return None
        return None if taken is None else not taken


_LIFE = _Life()


def _machine() -> str:
    """Return 12 hexadecimal digits that stand for the running system: containers on it share them, and its locks."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "")[:12]
    except (OSError, ValueError):
        text = ""
    return text if re.fullmatch("[0-9a-f]{12}", text) else f"{uuid.getnode():012x}"


def _lock_folder() -> Path | None:
    """Return the folder for the locks of this user, which may not exist; None if there is no safe place for it."""
    try:
        parent = Path(tempfile.gettempdir())
    except OSError:
        return None
    user = os.geteuid() if sys.platform != "win32" else 0
    folder = parent / f"depthcli-{user}"
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return folder
    except OSError:
        return None
    mine = sys.platform == "win32" or found.st_uid == user
    return folder if stat.S_ISDIR(found.st_mode) and mine else None


def _locked_file(name: str) -> IO[bytes] | None:
    """Make a file in the folder for locks and lock it until this process ends; None if that cannot be."""
    folder = _lock_folder()
    if folder is None:
        return None
    path = folder / name
    stream = None
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sweep(folder)
        stream = path.open("xb")
        atexit.register(_remove_lock, stream, path)
        if sys.platform != "win32" and not try_lock(stream):
            _remove_lock(stream, path)  # a lock that does not hold would say that this process is dead
    return stream


def _sweep(folder: Path) -> None:
    """Remove the lock files of processes that were killed, when nobody needs them any more."""
    for path in folder.iterdir():
        with suppress(OSError):
            if is_abandoned(path):
                with path.open("rb+") as stream:
                    if try_lock(stream):
                        path.unlink()


def _remove_lock(stream: IO[bytes], path: Path) -> None:
    with suppress(OSError):
        stream.close()
        path.unlink()
        path.parent.rmdir()  # refused where others have theirs
