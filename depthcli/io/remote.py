"""Files in object stores: s3://, gs:// and any other address that fsspec opens.

An object appears whole: it is put in one request made of all its bytes, never through an open stream, which would
publish half an object if its writer failed. Credentials are found by the libraries, and never printed.
"""

from __future__ import annotations

import datetime
import random
import re
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Optional, TypeVar

import numpy as np

from depthcli.errors import DepthError, OutputError, PictureError, UsageError, first_line

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
# Addresses that are not places of files, and the package that opens some of the others.
_NOT_PLACES = ("http", "https", "ftp", "ftps", "rtsp", "rtmp", "udp", "srt", "file")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_PACKAGES = {"s3": "s3fs", "gcs": "gcsfs"}
_RETRIES = 7  # at least, of a request
_PATIENCE = 120.0  # seconds that a store may be away: a server that starts again, a link that comes back
_LONGEST_WAIT = 30.0  # seconds, of the last waits: full jitter below 0.5, 1, 2, ... 30
# Errors of the network that are no OSError in botocore, aiohttp and urllib3, by name, as these are not imported here.
_OF_TRANSPORT = frozenset(
    "HTTPClientError EndpointConnectionError ConnectionClosedError ResponseParserError ClientPayloadError"
    " IncompleteRead ClientConnectorError ServerDisconnectedError ClientOSError ReadTimeoutError".split()
)
T = TypeVar("T")


def is_remote(name: str) -> bool:
    """Return whether a name is the address of a place in a store, such as s3://bucket/photos."""
    found = _ADDRESS.fullmatch(name)
    return found is not None and found[1].lower() not in _NOT_PLACES


@dataclass(frozen=True)
class RemoteFile:
    """One object. place: that it lies in. name: below the place, with slashes. size: in bytes. changed: in ns, or 0."""

    place: RemotePlace
    name: str
    size: int
    changed: int

    def __str__(self) -> str:
        return self.place.address(self.name)

    def read(self) -> bytes:
        """Return its bytes. Raises PictureError."""
        try:
            return self.place.call(lambda: bytes(self.place.store.cat_file(self.place.key(self.name))))
        except Exception as error:
            raise PictureError(f"{self} cannot be read: {_reason(error)}") from error


@dataclass(frozen=True)
class RemotePlace:
    """A folder in a store.

    url: as it was named, without a slash at its end. store: fsspec's file system. root: key. retries: of a request that
    the network spoiled; None for two minutes of them.
    """

    url: str
    store: Any
    root: str
    retries: Optional[int] = None

    def address(self, name: str) -> str:
        """Return the address of a file below."""
        return f"{self.url}/{name}"

    def key(self, name: str) -> str:
        """Return the key of a file below, as the store knows it."""
        return f"{self.root}/{name}"

    def call(self, call: Callable[[], T]) -> T:
        """Make a call, again after errors of the transport (timeouts, 5xx, 429, broken connections).

        Raises the last error.
        """
        started, waited = time.monotonic(), 0.0
        for number in count():
            try:
                return call()
            except Exception as error:
                away = max(waited, time.monotonic() - started)
                enough = number >= (_RETRIES if self.retries is None else self.retries)
                if (enough and (self.retries is not None or away >= _PATIENCE)) or not _is_of_transport(error):
                    raise
            wait = random.uniform(0, min(_LONGEST_WAIT, 0.5 * 2**number))
            time.sleep(wait)
            waited += wait
        raise AssertionError("unreachable")

    def folders(self, skip: str = "") -> Iterator[tuple[str, list[RemoteFile]]]:
        """Yield (name of a folder, "" for the place itself; the files directly in it), from the outermost, sorted.

        skip: name of a folder not to enter. Raises UsageError if the place cannot be listed.
        """
        waiting = [""]
        while waiting:
            below = waiting.pop()
            folders, files = self._listed(below)
            yield below, files
            waiting.extend(reversed([name for name in folders if name != skip]))

    def files_in(self, below: str) -> list[RemoteFile]:
        """Return the files directly in a folder, sorted; none if there is no such folder. Raises UsageError."""
        return self._listed(below)[1]

    def _listed(self, below: str) -> tuple[list[str], list[RemoteFile]]:
        key = self.key(below) if below else self.root
        try:
            entries = self.call(lambda: list(self.store.ls(key, detail=True, refresh=True)))
        except FileNotFoundError:
            if below:  # removed meanwhile
                return [], []
            raise UsageError(f"{self.url} does not exist, or is empty", "check the address") from None
        except Exception as error:
            raise self._unreachable(error) from error
        named = [(str(entry["name"]).rstrip("/"), entry) for entry in entries]
        start = len(self.root) + 1
        relative = sorted(((name[start:], entry) for name, entry in named), key=lambda item: item[0])
        folders = [name for name, entry in relative if entry["type"] == "directory"]
        files = [
            self._file(name, entry) for name, entry in relative if entry["type"] == "file" and name not in ("", below)
        ]
        return folders, files

    def _file(self, name: str, entry: dict[str, Any]) -> RemoteFile:
        changed = entry.get("LastModified") or entry.get("updated") or entry.get("created") or entry.get("mtime") or 0
        if isinstance(changed, str):
            changed = datetime.datetime.fromisoformat(changed.replace("Z", "+00:00"))
        seconds = changed.timestamp() if isinstance(changed, datetime.datetime) else float(changed)
        return RemoteFile(self, name, int(entry.get("size") or 0), int(seconds * 1e9))

    def file(self, name: str) -> RemoteFile:
        """Return a file by its name, without a look at the store."""
        return RemoteFile(self, name, 0, 0)

    def names(self) -> NameSet:
        """Return the names of all files below, by one listing. Empty if there is nothing yet. Raises UsageError."""
        try:
            self.store.invalidate_cache()  # of earlier listings, also of another process's files
            found = self.call(lambda: self.store.find(self.root, **self._raising))
        except FileNotFoundError:
            found = []
        except Exception as error:
            raise self._unreachable(error) from error
        start = len(self.root) + 1
        return NameSet(np.unique(np.fromiter((hash(name[start:]) for name in found), np.int64)))

    def sizes(self) -> SizeTable:
        """Return the sizes of all files below, listed folder by folder. Raises UsageError."""
        hashes, sizes = array("q"), array("q")
        for _, files in self.folders():
            for file in files:
                hashes.append(hash(file.name))
                sizes.append(file.size)
        unique, first = np.unique(np.array(hashes, np.int64), return_index=True)
        return SizeTable(unique, np.array(sizes, np.int64)[first])

    @property
    def _raising(self) -> dict[str, str]:
        """The way to have errors of a listing: fsspec's own walk may take a folder that cannot be listed for empty."""
        import fsspec

        is_plain = type(self.store).find is fsspec.AbstractFileSystem.find
        return {"on_error": "raise"} if is_plain else {}

    def get(self, name: str) -> Optional[bytes]:
        """Return the bytes of a file, None if there is none. Raises UsageError."""
        try:
            return self.call(lambda: bytes(self.store.cat_file(self.key(name))))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unreachable(error) from error

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to a path here. Raises PictureError."""
        try:
            self.call(lambda: self.store.get_file(self.key(name), str(path)))
        except Exception as error:
            raise PictureError(f"{self.address(name)} cannot be read: {_reason(error)}") from error

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, in one request. Raises OutputError."""
        try:
            self.call(lambda: self.store.pipe_file(self.key(name), content))
        except Exception as error:
            raise OutputError(f"cannot write {self.address(name)}: {_reason(error)}") from error

    def _unreachable(self, error: Exception) -> DepthError:
        return UsageError(f"{self.url} cannot be opened: {_reason(error)}", "check the address and the credentials")


@dataclass(frozen=True, eq=False)
class NameSet:
    """A set of many names in 8 bytes for each. hashes: sorted."""

    hashes: np.ndarray

    def __contains__(self, name: str) -> bool:
        place = int(np.searchsorted(self.hashes, hash(name)))
        return place < len(self.hashes) and bool(self.hashes[place] == hash(name))


@dataclass(frozen=True, eq=False)
class SizeTable:
    """The sizes in bytes of many files, in 16 bytes for each. hashes: of their names, sorted."""

    hashes: np.ndarray
    sizes: np.ndarray

    def get(self, name: str) -> Optional[int]:
        """Return the size of a file, None if it is not there."""
        place = int(np.searchsorted(self.hashes, hash(name)))
        there = place < len(self.hashes) and self.hashes[place] == hash(name)
        return int(self.sizes[place]) if there else None


def open_place(url: str, retries: Optional[int] = None) -> RemotePlace:
    """Return the place of an address. Raises UsageError for an unknown protocol, and if its package is missing."""
    found = _ADDRESS.fullmatch(url)
    assert found is not None
    protocol, path = found[1].lower(), found[2]
    if not path.strip("/"):
        raise UsageError(f"{url} names no bucket", f"such as {protocol}://bucket/photos")
    if ".." in PurePosixPath(path).parts:
        raise UsageError(f"{url} has a step up in it", "name the folder itself")
    extra = _EXTRAS.get(protocol)
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        way_out = f"pip install 'depthcli[{extra}]'" if extra else f"install the package for {protocol}://"
        raise UsageError(
            f"{url} needs {_PACKAGES.get(extra or '', 'fsspec')}, which is not installed", way_out
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{url} is no address that can be opened: {first_line(error)}", "check its beginning"
        ) from error
    return RemotePlace(url.rstrip("/"), store, str(root).rstrip("/"), retries)


def _is_of_transport(error: BaseException) -> bool:
    """Return whether an error may be gone at the next try."""
    for each in (error, error.__cause__, error.__context__):
        if isinstance(each, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
            return False
        if isinstance(each, FileExistsError):
            return False
        code = getattr(each, "code", None) or getattr(each, "status", None)
        if isinstance(code, int) and (code == 429 or code >= 500):
            return True
        if isinstance(each, (TimeoutError, OSError)):
            return True
        if {kind.__name__ for kind in type(each).__mro__} & _OF_TRANSPORT:
            return True
    return False


def _reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket or file"
    if isinstance(error, PermissionError):
        return "access is denied"
    text = first_line(error)
    return text if text else type(error).__name__
