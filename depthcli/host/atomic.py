"""A file exists only when it is complete: written under a temporary name in the same folder, then renamed.

Temporary names name their process by a random mark, as machines that share a disk, and containers, may have the same
host names and process numbers. The process holds a lock on a file of that name in the machine's folder for temporary
files. Not beside the results: network disks may refuse locks, and on SMB a locked file cannot be written to.

    .depthcli-<mark>-<random>.part     mark: 12 hex digits for the machine, 12 for the process
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

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no space, quota exceeded, or read-only: the next file would fail too
# Errors of a file system that lacks an operation; nothing is wrong with the file.
_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
_PARTIAL = re.compile(r"\.depthcli-(?P<mark>[0-9a-f]{24})-[0-9a-f]{8}\.part")
_ABANDONED_SECONDS = 24 * 3600  # without a change: its process has ended
_MOST_LINKS = 40


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path`, or is removed if the block raises.

    Folders are made. The content is synced before the rename, so a file is complete even after a power cut. A link
    stays, and the file it leads to is replaced. A pipe or a device, such as /dev/stdout, is given itself. Raises
    OutputError, or DiskFullError if nothing more fits.
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
    """Give an empty folder in an existing `parent`; it is removed at the end. Raises OSError."""
    folder = temporary_path(parent)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise errors of the disk as OutputError, or DiskFullError if nothing more fits. path: that is written."""
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in FULL else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from error


def temporary_path(folder: Path) -> Path:
    """Return a path in a folder, unique among all machines; short, to be valid for any file system."""
    return folder / f".depthcli-{_LIFE.mark()}-{os.urandom(4).hex()}.part"


def remove_partials(folder: Path) -> int:
    """Remove the partial files and folders of killed runs in one folder; return their number.

    Those of other machines, whose processes may be alive, stay until they have not changed for a day.
    """
    removed = 0
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(".depthcli-") and entry.name.endswith(".part")]
    except OSError:  # a missing or unreadable folder is reported when it is written to
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
    """Lock a file until it is closed or the process ends; False if another process has the lock, None without locks.

    file: open for writing too, which NFS requires.
    """
    if sys.platform == "win32":  # an open file cannot be removed by another process anyway
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else None
    return True


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk, if its file system supports that. Raises OSError if writing failed."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except PermissionError:  # a read-only file
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    _sync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on the disk, if the system supports that."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder may be writable and not readable
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
    """Return the file of a path, existing or not; None for pipes and devices. Raises OSError."""
    if _is_descriptor(path):
        return None
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (NotADirectoryError, PermissionError):
        return path  # reported when the folder is made or written to
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
    """Return whether a path is or links to an open file of a process, such as /dev/stdout."""
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
    """The mark of this process, and whether the process of another mark is alive.

    A living process, or its fork, has a lock on a file named like its mark, in a folder of this user and machine.
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
        """Return whether the process of a mark is alive; None if unknown."""
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
    """Return 12 hex digits for the running system; its containers share them, as they share its locks."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "")[:12]
    except (OSError, ValueError):
        text = ""
    return text if re.fullmatch("[0-9a-f]{12}", text) else f"{uuid.getnode():012x}"


def _lock_folder() -> Path | None:
    """Return the folder for this user's locks, which may not exist; None if no place is safe."""
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
    """Make a file in the folder for locks and lock it until this process ends; None if that fails."""
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
            _remove_lock(stream, path)  # without the lock this process would count as dead
    return stream


def _sweep(folder: Path) -> None:
    """Remove the old lock files of killed processes."""
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
        path.parent.rmdir()  # fails if others have files there
