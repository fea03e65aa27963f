"""sha256 of large files, remembered between processes in the user's cache folder.

Hashing takes 0.6 s a gigabyte, in every start. So a digest is noted with the file's device, inode, size, mtime and
ctime in ns, and holds as long as all of them stay. Every write changes the ctime, which no program can set: a file that
was damaged, swapped or restored with its old time is hashed again.

A file that changed in the last SETTLED seconds is not noted, as a second change could fall on the same tick of its
clock. Damage that changes none of these facts, as by a failing disk, is found within MOST_AGE, when the file is hashed
again, and at once by `depth models verify`, which hashes always.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

FOLDER_VARIABLE = "DEPTHCLI_CACHE"
FILE = ".digests"
LEAST_BYTES = 1 << 20  # of a file that is noted
SETTLED = 5.0  # seconds; file systems count time in steps of up to 2
MOST_AGE = 7 * 86400.0  # seconds
_MOST = 64  # notes
_BLOCK = 1 << 20


def cache_folder() -> Optional[Path]:
    """Return the user's cache folder, which may not exist: $DEPTHCLI_CACHE, or `depthcli` in the user's cache folder.

    None if the user has no cache folder, as in a container without a home.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    if os.environ.get("HOME") == "" and not os.environ.get("XDG_CACHE_HOME"):
        return None
    import platformdirs

    try:
        folder = platformdirs.user_cache_dir("depthcli", appauthor=False)
    except (RuntimeError, OSError, KeyError):  # by version and system
        return None
    return Path(folder) / "graphs" if os.path.isabs(folder) else None


def is_ours(path: Path) -> bool:
    """Return whether a file or folder belongs to the user or the system, and is not writable for everybody.

    root may use any owner's files, as containers often run as root with a user's files.
    """
    if sys.platform == "win32":
        return True
    facts, user = path.stat(), os.geteuid()
    return not facts.st_mode & stat.S_IWOTH and (user == 0 or facts.st_uid in (0, user))


def sha256_of(path: Path, *, afresh: bool = False) -> str:
    """Return the sha256 of a file's content in hex. afresh: read every byte. Raises OSError."""
    with open(path, "rb") as stream:
        before = os.fstat(stream.fileno())
        key = _key(before)
        known = None if afresh or before.st_size < LEAST_BYTES else _read_notes().get(key)
        if known is not None:
            return known[0]
        settled = time.time() - max(before.st_mtime, before.st_ctime) > SETTLED
        hasher = hashlib.sha256()
        while block := stream.read(_BLOCK):
            hasher.update(block)
        found = hasher.hexdigest()
        if settled and before.st_size >= LEAST_BYTES and key == _key(os.fstat(stream.fileno())):
            _note(key, found)
    return found


def forget() -> None:
    """Remove all notes, and what killed processes left of theirs. Raises OSError."""
    folder = cache_folder()
    for path in [] if folder is None else folder.glob(f"{FILE}*"):
        path.unlink(missing_ok=True)


def _key(facts: os.stat_result) -> str:
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _read_notes() -> dict[str, tuple[str, int]]:
    """Return {key: (sha256, time of hashing)} of what is noted and still holds; damaged lines are left out."""
    notes: dict[str, tuple[str, int]] = {}
    folder = cache_folder()
    with suppress(OSError, ValueError):
        if folder is not None and is_ours(folder) and is_ours(folder / FILE):
            now = time.time()
            for line in (folder / FILE).read_text(encoding="ascii").splitlines():
                text, _, check = line.rpartition(" ")
                key, sha256, hashed = text.rsplit(" ", 2) if check == _check(text) else ("", "", "0")
                if key and -SETTLED < now - int(hashed) < MOST_AGE:
                    notes[key] = sha256, int(hashed)
    return notes


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _note(key: str, sha256: str) -> None:
    """Note a digest, unless the folder does not allow it. Of two processes at once one may lose its note."""
    folder = cache_folder()
    if folder is None:
        return
    notes = {**_read_notes(), key: (sha256, int(time.time()))}
    texts = [f"{each} {digest} {hashed}" for each, (digest, hashed) in list(notes.items())[-_MOST:]]
    partial = folder / f"{FILE}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_ours(folder):
            partial.write_text("".join(f"{text} {_check(text)}\n" for text in texts), encoding="ascii")
            os.replace(partial, folder / FILE)
    except OSError:  # it is hashed again
        with suppress(OSError):
            partial.unlink()
