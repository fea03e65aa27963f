"""Folders of results as a gallery: the rows of a manifest, or the scenes that Depth Anything 3 lays out."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.depthmap import DepthMap
from depthcli.errors import PictureError, UsageError
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.formats import FORMATS
from depthcli.io.pictures.images import read_picture
from depthcli.io.scenes.files import GLB, THUMBNAIL, VIS
from depthcli.jobs.manifest import DONE, FAILED, MANIFEST_NAME, SKIPPED, Manifest
from depthcli.pixels.colormap import to_color
from depthcli.serve.answers import media_type_of
from depthcli.serve.photos import jpeg_of
from depthcli.serve.problems import Refusal

MOST_ENTRIES = 200  # on one page
_THUMB_PIXELS = 100_000_000
_STATES = (DONE, SKIPPED, FAILED)
_ENDINGS = sorted(
    ((end, row.name) for row in FORMATS for end in {row.still, row.clip} if end), key=lambda pair: -len(pair[0])
)
# Formats whose numbers can be had, the exact ones first; and those that are pictures to look at.
_NUMBERS = ("npz", "exr", "tiff", "pfm", "npy", "gray", "mm", "color", "gray8")
_LOOKS = ("jpg", "color", "side", "rgbd", "gray8", "controlnet", "white", "gray", "normal")


@dataclass(frozen=True)
class Entry:
    """A result. files: its paths by format, each inside the gallery."""

    id: str
    name: str
    status: str
    error: str = ""
    model: str = ""
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def numbers(self) -> Optional[Path]:
        """The file that the numbers are read from, None if there is none."""
        return next((self.files[name] for name in _NUMBERS if name in self.files), None)

    @property
    def look(self) -> Optional[Path]:
        """The file that a small picture is made of, None if there is none."""
        return next((self.files[name] for name in _LOOKS if name in self.files), None) or self.numbers


class Gallery:
    """One folder of results. Threads may share it; it is read again when it has changed."""

    def __init__(self, number: int, folder: Path) -> None:
        self._number, self._folder = number, folder
        self.name = folder.resolve().name
        self._root = os.path.realpath(folder)
        self._seen: Any = None
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def entries(self, status: str = "") -> list[Entry]:
        """Return the results in their order. Raises UsageError for an unknown status."""
        if status and status not in _STATES:
            raise UsageError(f"unknown status {status!r}", f"choose from: {', '.join(_STATES)}")
        return [entry for entry in self._read().values() if not status or entry.status == status]

    def get(self, name: str) -> Optional[Entry]:
        """Return a result, None if it is not here."""
        return self._read().get(name)

    def _read(self) -> dict[str, Entry]:
        manifest = self._folder / MANIFEST_NAME
        with self._lock:
            try:
                found = os.stat(manifest)
                now: Any = (found.st_mtime_ns, found.st_size)
            except OSError:
                now = None
            if now is None or now != self._seen:
                made = self._of_manifest(manifest) if now else self._of_scenes()
                self._entries = {entry.id: entry for entry in made}
                self._seen = now
            return self._entries

    def _of_manifest(self, path: Path) -> Iterator[Entry]:
        for name, row in Manifest(path).rows.items():
            files: dict[str, Path] = {}
            for output in row["outputs"]:
                place = self._inside(output)
                if place is not None:
                    files.setdefault(_format_of(output), place)
            status, error, model = (str(row.get(key) or "") for key in ("status", "error", "model"))
            yield Entry(self._id(name), name, status, _without_folders(error, name), model, files)

    def _of_scenes(self) -> Iterator[Entry]:
        found = sorted({*self._folder.glob(f"*/{GLB}"), *self._folder.glob(f"*/*/{GLB}")})
        for path in found:
            relative = path.parent.relative_to(self._folder)
            frames = sorted((path.parent / VIS).glob("*")) if (path.parent / VIS).is_dir() else []
            wanted = {
                "glb": path,
                "jpg": path.parent / THUMBNAIL,
                **{f"vis-{frame.stem}": frame for frame in frames if media_type_of(frame.name).startswith("image/")},
            }
            files = {}
            for name, file in wanted.items():
                place = self._inside(str(file.relative_to(self._folder)))
                if place is not None:
                    files[name] = place
            yield Entry(self._id(relative.as_posix()), relative.as_posix(), DONE, files=files)

    def _inside(self, name: str) -> Optional[Path]:
        """Return the path of a file in the folder; None for one that is missing, or that leads out of it."""
        with suppress(OSError, ValueError):
            path = os.path.realpath(os.path.join(self._root, name))
            if os.path.commonpath([path, self._root]) == self._root and os.path.isfile(path):
                return Path(path)
        return None

    def _id(self, name: str) -> str:
        text = f"{self._number}/{name}".encode(errors="surrogateescape")
        return hashlib.blake2b(text, digest_size=8).hexdigest()


class Galleries:
    """All folders that a service shows."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._all = [Gallery(number, folder) for number, folder in enumerate(folders)]

    def page(self, gallery: int, status: str, cursor: str, limit: int, root: str) -> dict[str, Any]:
        """Return a page of results, JSON-ready. cursor: that of the page before. root: the path before /v1."""
        if not 0 <= gallery < len(self._all):
            raise Refusal(404, f"there is no gallery {gallery}")
        if cursor and not cursor.isdecimal():
            raise UsageError(f"{cursor!r} is not a cursor", "take the next of the page before")
        start, shown = int(cursor[:12] or 0), self._all[gallery]
        entries = shown.entries(status)
        items = [_describe(entry, root) for entry in entries[start : start + limit]]
        after = start + limit
        return {
            "gallery": gallery,
            "name": shown.name,
            "total": len(entries),
            "next": str(after) if after < len(entries) else None,
            "items": items,
        }

    def get(self, name: str) -> Entry:
        """Return a result. Raises Refusal."""
        found = next((entry for entry in (each.get(name) for each in self._all) if entry is not None), None)
        if found is None:
            raise Refusal(404, "there is no such result")
        return found

    def path_of(self, name: str, format: str) -> Path:
        """Return the file of a result. Raises Refusal."""
        path = self.get(name).files.get(format)
        if path is None:
            raise Refusal(404, f"the result has no {format}")
        return path

    def numbers(self, name: str) -> DepthMap:
        """Return the depth map of a result. Raises Refusal if it has none, OutputError if it cannot be read."""
        path = self.get(name).numbers
        if path is None:
            raise Refusal(404, "the result has no numbers")
        return read_depth(path)

    def thumb(self, name: str, max_side: int) -> bytes:
        """Return a small JPEG of a result. Raises Refusal if there is nothing to show."""
        path = self.get(name).look
        if path is None:
            raise Refusal(404, "the result has nothing to show")
        with suppress(PictureError):
            return jpeg_of(read_picture(path, max_pixels=_THUMB_PIXELS).rgb, max_side)
        return jpeg_of(to_color(read_depth(path), DEFAULT_COLORMAP)[..., :3], max_side)


def _describe(entry: Entry, root: str) -> dict[str, Any]:
    url = f"{root}/v1/gallery/{entry.id}"
    files = []
    for format, path in entry.files.items():
        with suppress(OSError):
            files.append(
                {
                    "format": format,
                    "name": path.name,
                    "size": path.stat().st_size,
                    "media_type": media_type_of(path.name),
                    "url": f"{url}/{quote(format, safe='')}",
                }
            )
    return {
        "id": entry.id,
        "name": entry.name,
        "status": entry.status,
        "error": entry.error,
        "model": entry.model,
        "thumb": f"{url}/thumb" if entry.look else None,
        "depth": entry.numbers is not None,
        "files": files,
    }


def _without_folders(error: str, name: str) -> str:
    """Return an error that names files and not where they lie, which is nobody's business on a page."""
    error = re.sub(rf"(?<![\w.])(?:[A-Za-z]:)?[/\\\\](?:[^:]*?[/\\\\])?{re.escape(name)}", lambda _: name, error)
    return re.sub(r"(?<![\w./:])/(?:[^\s/:]+/)+", "", error)


def _format_of(name: str) -> str:
    """Return the format of a result's file by its ending, or else its suffix without the dot."""
    found = next((format for ending, format in _ENDINGS if name.endswith(ending)), None)
    return found or Path(name).suffix.lower().lstrip(".") or "file"
