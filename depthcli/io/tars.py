"""Tars of pictures as webdataset writes them: members that share a key, one after another, are one sample.

A key is a member's name up to the first dot behind its last slash; what follows is its extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from depthcli.errors import PictureError, first_line
from depthcli.host.temporary import TemporaryFile
from depthcli.io.names import printable
from depthcli.io.pictures.files import is_picture

if TYPE_CHECKING:
    import tarfile

# As webdataset splits a name; one without an extension, or in a folder such as __meta__, is no part of a sample.
_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")
_ZEROS = bytes(512)  # a block of a tar


@dataclass(frozen=True, eq=False)
class LocalTar:
    """A tar on a disk here. name: for messages. changed: in ns, or 0. temporary: a copy of one elsewhere, removed when
    nothing refers to it any more.
    """

    name: str
    path: Path
    changed: int = 0
    temporary: Optional[TemporaryFile] = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "temporary": None}  # a copy of this in another process does not keep the file


@dataclass(frozen=True, eq=False)
class TarMember:
    """The picture of a sample. name: of the member. offset, size: of its bytes. problem: why it
    cannot be read, in one line."""

    tar: LocalTar
    name: str
    offset: int = 0
    size: int = 0
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.tar.name}/{self.name}"

    @property
    def changed(self) -> int:
        """When its tar changed last, in ns, or 0."""
        return self.tar.changed

    def read(self) -> bytes:
        """Return its bytes. Raises PictureError."""
        if self.problem:
            raise PictureError(self.problem)
        try:
            with self.tar.path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.size)
        except OSError as error:
            raise PictureError(f"{printable(str(self))} cannot be read: {error.strerror}") from error
        if len(content) < self.size:
            raise PictureError(f"{printable(str(self))} is cut short: its tar changed meanwhile")
        return content


def read_samples(tar: LocalTar) -> list[tuple[str, TarMember]]:
    """Return (key, its picture) of each sample of a tar, in order. Only the heads of its members are read.

    The picture is the member with an extension such as jpg, or the only one such as left.jpg; a sample without one
    cannot be read, which its member says. Raises PictureError for what is not a whole tar.
    """
    samples = groupby(((found[1], found[2], info) for info, found in _named(tar)), key=lambda item: item[0])
    return [(key, _picture_of(tar, key, [(end.lower(), info) for _, end, info in parts])) for key, parts in samples]


def _named(tar: LocalTar) -> Iterator[tuple[tarfile.TarInfo, re.Match[str]]]:
    for info in tar_members(tar):
        found = _NAME.fullmatch(info.name)
        if found and info.isreg() and not _META.match(info.name):
            yield info, found


def tar_members(tar: LocalTar) -> Iterator[tarfile.TarInfo]:
    """Yield the heads of a tar's members. Raises PictureError if it is no tar, or its end is missing."""
    import tarfile

    name, count = printable(tar.name), 0
    try:
        with tar.path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as opened:
            while (info := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # it keeps all of them otherwise
                count += 1
                yield info
            stream.seek(opened.offset)
            if stream.read(len(_ZEROS)) != _ZEROS:
                raise tarfile.ReadError
    except FileNotFoundError:
        raise PictureError(f"{name} does not exist") from None
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror or first_line(error)}") from error
    except tarfile.TarError as error:
        if count:
            raise PictureError(f"{name} is cut short after {count} files", "copy it again") from error
        raise PictureError(f"{name} is not a tar", "a compressed one has to be unpacked first") from error


def _picture_of(tar: LocalTar, key: str, parts: list[tuple[str, tarfile.TarInfo]]) -> TarMember:
    """Return the picture of a sample. parts: (extension, head) of its members."""
    pictures = [(end, info) for end, info in parts if is_picture(Path(f"x.{end}"))]
    plain = [(end, info) for end, info in pictures if "." not in end]
    name = printable(f"{tar.name}/{key}")
    (*_, (_, info)) = chosen = plain or pictures or parts
    if not pictures:
        return TarMember(tar, key, problem=f"{name} has no picture")
    if len(chosen) > 1:
        return TarMember(tar, key, problem=f"{name} has {len(chosen)} pictures: {', '.join(end for end, _ in chosen)}")
    if info.issparse():
        return TarMember(tar, info.name, problem=f"{name} is stored with holes, which are not read")
    return TarMember(tar, info.name, info.offset_data, info.size)


class TarWriter:
    """Writes a tar whose bytes follow from its members alone. Close it in the end."""

    def __init__(self, path: Path) -> None:
        import tarfile

        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, content: bytes) -> None:
        """Add a file. Raises OSError."""
        info = self._tar.tarinfo(name)  # time, owner and group are 0
        info.size = len(content)
        self._tar.addfile(info, BytesIO(content))
        self._tar.members.clear()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Write the end. Raises OSError."""
        self._tar.close()
