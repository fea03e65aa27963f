"""A depth map as the body of an answer: one file, several in a ZIP, or bare numbers for a page."""

from __future__ import annotations

import json
import mimetypes
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import numpy as np

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.files import KINDS, write_still
from depthcli.io.codecs.formats import STILLS, Format, suffix_of
from depthcli.io.codecs.outputs import OutputSpec, check_extras
from depthcli.io.names import fitting_name
from depthcli.pixels.colormap import color_table

RAW: Mapping[str, np.dtype] = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4")}
RAW_TYPE = "application/octet-stream"
ZIP_TYPE = "application/zip"
# What the tables of a machine lack, or name in an older way.
_MEDIA_TYPES = {
    ".exr": "image/x-exr",
    ".glb": "model/gltf-binary",
    ".js": "text/javascript",
    ".npz": RAW_TYPE,
    ".usdz": "model/vnd.usdz+zip",
}
_SHORTEST_SIDE, _LONGEST_SIDE = 16, 1 << 14
_MOST_NAME = 200  # bytes of a file in a ZIP


@dataclass(frozen=True)
class Wanted:
    """What an answer holds. Raises UsageError for formats that do not go together, and for unusable names.

    formats: names of STILLS, or one of RAW. files: names of the files in a ZIP, one for each format; empty for those of
    the command line. max_side: longest side of bare numbers in pixels, None for the map's own.
    """

    formats: tuple[str, ...]
    colormap: str = DEFAULT_COLORMAP
    shape: ShapeChoice = ShapeChoice()
    files: tuple[str, ...] = ()
    max_side: Optional[int] = None

    def __post_init__(self) -> None:
        color_table(self.colormap)
        raw = [name for name in self.formats if name in RAW]
        if raw and len(self.formats) > 1:
            raise UsageError(f"{raw[0]} is an answer by itself", "ask for the other formats in another request")
        if self.max_side is not None and not raw:
            raise UsageError("max_side is for f16 and f32", "leave it out")
        if self.max_side is not None and not _SHORTEST_SIDE <= self.max_side <= _LONGEST_SIDE:
            raise UsageError(f"max_side must be {_SHORTEST_SIDE} to {_LONGEST_SIDE}, got {self.max_side}")
        if not raw:
            check_extras(self.formats)
        if self.files:
            self._check_files()

    def _check_files(self) -> None:
        if self.is_raw or len(self.files) != len(self.formats) or len(set(self.files)) < len(self.files):
            raise UsageError("file must name one file for each format", "each with another name")
        for name, format in zip(self.files, self.formats):
            plain = name == Path(name).name and name not in (".", "..") and name.isprintable() and "\\" not in name
            if not plain or len(name.encode()) > _MOST_NAME:
                raise UsageError(f"{name!r} is not the name of a file", "give a name without a folder")
            if suffix_of(name) != STILLS[format].suffix:
                raise UsageError(f"{format} is written as {STILLS[format].suffix}, not {name!r}")

    @property
    def is_raw(self) -> bool:
        """Whether the answer is bare numbers."""
        return self.formats[0] in RAW

    @property
    def is_zip(self) -> bool:
        """Whether the answer is a ZIP, whose files are those of the command line; they name the picture's digest."""
        return len(self.formats) > 1 or bool(self.files) or self.formats[0] == "obj"

    @property
    def outputs(self) -> OutputSpec:
        """The files, as the command line has them."""
        return OutputSpec(() if self.is_raw else self.formats, self.colormap, shape=self.shape)


@dataclass(frozen=True)
class Body:
    """The body of an answer. name: of the file. size: (width, height) of bare numbers, or of the map."""

    data: bytes
    media_type: str
    name: str
    size: tuple[int, int]


def render(depth: DepthMap, rgb: Optional[np.ndarray], name: str, wanted: Wanted) -> Body:
    """Return the answer for a depth map. rgb: (H, W, 3) uint8, its picture, or None without one. name: of the picture.

    Raises UsageError for a map that a format cannot hold.
    """
    stem = stem_of(name)
    if wanted.is_raw:
        numbers = raw_numbers(depth, RAW[wanted.formats[0]], wanted.max_side)
        return Body(numbers.tobytes(), RAW_TYPE, f"{stem}.{wanted.formats[0]}", (numbers.shape[1], numbers.shape[0]))
    if wanted.is_zip:
        names = wanted.files or tuple(fitting_name(Path(), stem, STILLS[each].still) for each in wanted.formats)
        return Body(_zip(depth, rgb, names, wanted), ZIP_TYPE, f"{stem}_depth.zip", depth.size)
    row = STILLS[wanted.formats[0]]
    data = _still(row, depth, rgb, wanted)
    return Body(data, media_type_of(row.suffix), stem + row.still, depth.size)


def stem_of(name: str) -> str:
    """Return what the names of a picture's files begin with. name: of the picture, perhaps empty."""
    return Path(name.replace("\0", "")).stem or "picture"


def raw_numbers(depth: DepthMap, dtype: np.dtype, max_side: Optional[int]) -> np.ndarray:
    """Return (h, w) numbers of a map, NaN where it is invalid. Each is a number of the map: none is a mean of two.

    max_side: longest side; the map is sampled down to it. Raises UsageError for numbers that float16 cannot hold.
    """
    values = depth.values if depth.valid is None else np.where(depth.valid, depth.values, np.float32(np.nan))
    height, width = values.shape
    if max_side is not None and max(height, width) > max_side:
        scale = max_side / max(height, width)
        values = values[_places(height, scale)][:, _places(width, scale)]
    most = float(np.finfo(dtype).max)
    if max(map(abs, depth.range)) > most:
        raise UsageError(f"{dtype.name} holds numbers up to {most:g}, and the map has {depth.range[1]:g}", "use f32")
    return values.astype(dtype)


def media_type_of(name: str) -> str:
    """Return the media type of a file by its suffix."""
    suffix = suffix_of(name if Path(name).suffix else f"x{name}")
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or RAW_TYPE


def meta_of(depth: DepthMap, size: tuple[int, int], about: Mapping[str, Any]) -> str:
    """Return the header Depth-Meta: the facts of the files as ASCII JSON, with the size of the answer's numbers."""
    return json.dumps({**facts_of(depth), "width": size[0], "height": size[1], **about}, ensure_ascii=True)


def disposition(name: str) -> str:
    """Return a header Content-Disposition that every browser understands, and no name can break."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "._- ") else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _places(length: int, scale: float) -> np.ndarray:
    """Return which rows or columns stand for a side that is made shorter."""
    short = max(1, round(length * scale))
    return np.minimum(((np.arange(short) + 0.5) * length / short).astype(np.intp), length - 1)


def _still(row: Format, depth: DepthMap, rgb: Optional[np.ndarray], wanted: Wanted) -> bytes:
    whole = BytesIO()
    write_still(row, depth, whole, wanted.colormap, rgb, wanted.shape)
    return whole.getvalue()


def _zip(depth: DepthMap, rgb: Optional[np.ndarray], names: Sequence[str], wanted: Wanted) -> bytes:
    """Return a ZIP of the files, stored, in their order; companions of a file follow it."""
    rows = zip(names, wanted.formats)
    return packed(entry for name, format in rows for entry in _files(name, STILLS[format], depth, rgb, wanted))


def packed(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a ZIP of files by (name, content), stored."""
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data)  # which has no date: equal answers are equal bytes
    return whole.getvalue()


def _files(
    name: str, row: Format, depth: DepthMap, rgb: Optional[np.ndarray], wanted: Wanted
) -> list[tuple[str, bytes]]:
    """Return (name, content) of a format's file, and of those that belong beside it."""
    alone = row.suffix != ".obj" if row.shape else KINDS[row.suffix].read_facts is not None
    if alone:
        return [(name, _still(row, depth, rgb, wanted))]
    with tempfile.TemporaryDirectory(prefix="depthcli-") as folder:
        path = Path(folder) / name
        replace(wanted.outputs, formats=(row.name,)).write(depth, rgb, (path,))
        others = sorted(item for item in Path(folder).iterdir() if item != path)
        return [(item.name, item.read_bytes()) for item in (path, *others)]
