"""The file of one picture, opened once for its header, its digest and its pixels."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Optional, Union

from depthcli.errors import PictureError
from depthcli.io.names import printable
from depthcli.io.pictures.files import open_picture_file

if TYPE_CHECKING:
    from depthcli.io.pictures.images import Picture
    from depthcli.io.remote import RemoteFile
    from depthcli.io.tars import TarMember

# The file whose digest was taken last: a film or an archive has one for each of its maps.
_last: tuple[tuple[Any, ...], str] = (), ""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return _digest(stream)


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


class PictureFile:
    """A picture's file, its bytes, or a part of a store or a tar. For one thread at a time.

    `close` it when it has been read. Digest and pixels come from the same open file, and its bytes are never held; an
    object is fetched when it is opened. Facts raise OSError or PictureError. A pipe or a device has none: reading it
    might never end.
    """

    def __init__(self, source: Union[Path, bytes, RemoteFile, TarMember], name: str) -> None:
        self._source = source
        self._name = str(source) if isinstance(source, Path) else name
        self._file: Optional[BinaryIO] = None
        self.name = Path(printable(name)).name  # as depth files have it

    @cached_property
    def _stat(self) -> Optional[os.stat_result]:
        if not isinstance(self._source, Path):
            return None
        found = os.stat(self._source)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a file", str(self._source))
        return found

    @property
    def file_size(self) -> int:
        """Size of the file."""
        if isinstance(self._source, bytes):
            return len(self._source)
        return self._source.size if self._stat is None else self._stat.st_size  # type: ignore[union-attr]

    @property
    def times(self) -> list[int]:
        """When the content and when the file changed last, in ns; the latter also tells a copy with an old time."""
        if self._stat is not None:
            return [self._stat.st_mtime_ns, self._stat.st_ctime_ns]
        changed = getattr(self._source, "changed", 0)  # of an object
        return [changed] if changed else []

    @cached_property
    def sha256(self) -> str:
        """Digest of the whole content."""
        global _last
        _ = self.file_size  # raises for a device
        key = (str(self._source), self.file_size, *self.times) if isinstance(self._source, Path) else ()
        if key and _last[0] == key:
            return _last[1]
        stream = self._open()
        stream.seek(0)
        _last = key, _digest(stream)
        return _last[1]

    def facts(self) -> dict[str, Any]:
        """Return what the manifest notes, ready for JSON."""
        return {"size": self.file_size, "times": self.times, "sha256": self.sha256}

    def is_as_noted(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the content is that of these facts; it is read only if the times differ."""
        if self.file_size != facts.get("size"):
            return False
        return (bool(self.times) and self.times == facts.get("times")) or self.sha256 == facts.get("sha256")

    def is_newer_than(self, found: os.stat_result) -> bool:
        """Return whether the picture changed after a file was written."""
        return self._stat is not None and self._stat.st_mtime_ns > found.st_mtime_ns

    @cached_property
    def size(self) -> Optional[tuple[int, int]]:
        """(width, height) of the upright picture, None if its header does not tell. Nothing is raised."""
        from depthcli.io.tars import TarMember

        if not isinstance(self._source, (Path, bytes, TarMember)):  # an object is not fetched for that
            return None
        try:
            from depthcli.io.pictures.images import picture_size

            return picture_size(self._open())
        except Exception:  # reading it will tell
            return None

    def read(self, keep_alpha: bool = False) -> Picture:
        """Return the picture. Raises PictureError."""
        from depthcli.io.pictures.images import read_picture

        try:
            return read_picture(self._open(), self._name, keep_alpha=keep_alpha)
        except PictureError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.ESTALE:
                raise
        self.close()  # on a network disk, another machine has replaced the file since it was opened
        return read_picture(self._open(), self._name, keep_alpha=keep_alpha)

    def read_bytes(self) -> bytes:
        """Return the whole content. Raises PictureError."""
        stream = self._open()
        try:
            stream.seek(0)
            return stream.read()
        except OSError as error:
            raise PictureError(f"{printable(self._name)} cannot be read: {error.strerror}", "check the disk") from error

    def close(self) -> None:
        """Close the file; it is opened again if it is needed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            with suppress(OSError):
                _ = self._stat  # before: of a picture that is replaced meanwhile, never newer than what is read
            source, name = self._source, printable(self._name)
            if isinstance(source, Path):
                self._file = open_picture_file(source, name)
            else:
                self._file = BytesIO(source if isinstance(source, bytes) else source.read())
        return self._file
