"""Depth files: each kind's writer beside its reader. Every file states what its numbers mean (facts.py)."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthMap, from_description
from depthcli.errors import DepthError, OutputError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs import exr, floats, png
from depthcli.io.codecs.arrays import LAYERS, Held, layers_of, memory_errors, read_npz, read_npz_facts, write_npz
from depthcli.io.codecs.formats import (
    SHAPE_SUFFIXES,
    STILLS,
    TEXTURE_ENDING,
    Format,
    Holds,
    implied_format,
    parse_formats,
    suffix_of,
)
from depthcli.io.codecs.stills import pixels_of_still
from depthcli.io.names import sidecar_of
from depthcli.pixels.colormap import to_color

if TYPE_CHECKING:
    from depthcli.geometry.solids import Shape


@dataclass(frozen=True)
class FileKind:
    """One kind of file: its writer and its readers.

    write: takes pixels, the open file and the facts. read: returns what the file of a path holds.
    read_facts: returns the facts of an open file; None if they stand in a file beside it.
    layered: confidence and sky have a place in it; then `write` also takes `layers`.
    """

    write: Callable[..., None]
    read: Callable[[Path], Held]
    read_facts: Optional[Callable[[IO[bytes]], dict[str, Any]]]
    layered: bool = False


KINDS = {
    ".png": FileKind(png.write_depth_png, png.read_depth_png, png.read_png_facts),
    ".npz": FileKind(write_npz, read_npz, read_npz_facts, layered=True),
    ".exr": FileKind(exr.write_exr, exr.read_exr, exr.read_exr_facts, layered=True),
    ".tiff": FileKind(floats.write_tiff, floats.read_tiff, floats.read_tiff_facts),
    ".pfm": FileKind(floats.write_pfm, floats.read_pfm, None),
    ".npy": FileKind(floats.write_npy, floats.read_npy, None),
}


def write_file(
    format: Format,
    depth: DepthMap,
    path: Path,
    colormap: str = DEFAULT_COLORMAP,
    rgb: Optional[np.ndarray] = None,
    shape: ShapeChoice = ShapeChoice(),
    scene: Optional[tuple[float, float]] = None,
) -> None:
    """Write a file whole or not at all; arguments as of `write_still`.

    Beside an OBJ stand its material and picture, and beside a file without a place for its facts these.
    """
    write_content(format, content_of(format, depth, colormap, rgb, shape, scene), path)


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds. body: the pixels of its format, or the points or mesh. facts: of the file.

    layers: confidence and sky, for kinds of files that have a place for them.
    """

    body: Union[np.ndarray, Shape]
    facts: Mapping[str, Any]
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)


def content_of(
    format: Format,
    depth: DepthMap,
    colormap: str = DEFAULT_COLORMAP,
    rgb: Optional[np.ndarray] = None,
    shape: ShapeChoice = ShapeChoice(),
    scene: Optional[tuple[float, float]] = None,
    ends: Optional[tuple[float, float]] = None,
) -> Content:
    """Return what the file of a picture or frame holds; arguments as of `write_still` and `pixels_of_still`."""
    if format.shape:
        solid = _shape_of(format, depth, colormap, rgb, shape)
        return Content(solid, solid.facts)
    kind = KINDS.get(format.suffix)  # films have none
    layers = layers_of(depth) if kind is not None and kind.layered else {}
    return Content(*pixels_of_still(format, depth, colormap, rgb, scene, ends), layers)


def write_content(format: Format, content: Content, path: Path) -> None:
    """Write a file whole or not at all, with the files that stand beside it."""
    body, facts = content.body, content.facts
    if not isinstance(body, np.ndarray):
        from depthcli.io.points.files import write_shape

        write_shape(replace(body, facts=facts), path)
        return
    if KINDS[format.suffix].read_facts is None:
        _write_with_facts(format, body, facts, path)
        return
    with atomic_path(path) as partial, partial.open("wb") as stream:
        _write_pixels(KINDS[format.suffix], content, stream)


def _write_pixels(kind: FileKind, content: Content, stream: IO[bytes]) -> None:
    if kind.layered:
        kind.write(content.body, stream, content.facts, content.layers)
    else:
        kind.write(content.body, stream, content.facts)


def _write_with_facts(format: Format, pixels: np.ndarray, facts: Mapping[str, Any], path: Path) -> None:
    """Write a file and, before it appears, the facts beside it."""
    whole = io.BytesIO()
    KINDS[format.suffix].write(pixels, whole, facts)
    data = whole.getvalue()
    if os.path.lexists(sidecar_of(path)) and not floats.is_about_depth(sidecar_of(path)):
        raise OutputError(
            f"{sidecar_of(path)} is there and is not of depthcli", "move it away, or use another `output`"
        )
    with atomic_path(path) as partial:
        partial.write_bytes(data)
        with atomic_path(sidecar_of(path)) as about:
            about.write_bytes(floats.facts_beside(data, facts))


def write_still(
    format: Format,
    depth: DepthMap,
    target: IO[bytes],
    colormap: str = DEFAULT_COLORMAP,
    rgb: Optional[np.ndarray] = None,
    shape: ShapeChoice = ShapeChoice(),
    scene: Optional[tuple[float, float]] = None,
) -> None:
    """Write the file of a picture. rgb: (H, W, 3) uint8, the picture, for formats that show it.

    shape: how points and meshes are made; without `rgb` they have the colours of depth. scene: see `pixels_of_still`.
    Raises UsageError for a map that the format cannot hold.
    """
    if format.shape:
        from depthcli.io.points.files import write_to_stream

        write_to_stream(_shape_of(format, depth, colormap, rgb, shape), format.suffix, target)
        return
    _write_pixels(KINDS[format.suffix], content_of(format, depth, colormap, rgb, shape, scene), target)


def write_depth(depth: DepthMap, path: Path | str, format: str | None = None, colormap: str = DEFAULT_COLORMAP) -> None:
    """Write one depth map to one file, atomically.

    format: one of STILLS but those beside the photo; None: by the suffix, and gray (16 bit) for PNG.
    Points and meshes have the colours of depth; for the photo's use `points`, `mesh` and `write_shape`.
    Raises UsageError if the format does not match the path, OutputError if the file cannot be written.
    """
    path = Path(path)
    (name,) = parse_formats([format or implied_format(path, "gray")])
    row = STILLS[name]
    if row.suffix != suffix_of(path):
        raise UsageError(f"{name} is written as {row.suffix}, not {path.suffix or 'a bare name'}")
    if row.beside:
        raise UsageError("a side-by-side picture needs the photo", "use write_still of depthcli.io.codecs.files")
    write_file(row, depth, path, colormap)


def read_depth(path: Path | str) -> DepthMap:
    """Return the depth map in a file of depthcli, to the precision of its pixels.

    Raises OutputError for a foreign or incomplete file, PictureError for a map that is too large.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise OutputError(f"{path} is not a file")
        if path.suffix.lower() in SHAPE_SUFFIXES:
            way_out = "" if path.suffix.lower() in (".html", ".usdz") else "depthcli.read_shape reads it"
            raise OutputError(f"{path} holds points or a mesh, and no depth map", way_out)
        with memory_errors(path), np.errstate(all="ignore"):
            held = _kind_of(path).read(path)
            masked = "invalid_pixels" in held.facts
            layers = {LAYERS[name]: layer for name, layer in held.layers.items()}
            return from_description(held.values, held.facts, held.valid if masked else None, **layers)
    except DepthError:
        raise
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist") from error
    except Exception as error:  # what zip, npy, PNG and JSON readers raise on broken bytes has no common class
        raise OutputError(f"cannot read depth from {path}: {' '.join(str(error).split()) or 'it is broken'}") from error


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in one of our files without reading the map; empty for any other file."""
    try:
        with path.open("rb") as stream:
            return _facts_reader(path)(stream)
    except Exception:  # whatever a stranger's file holds, it is not ours
        return {}


def is_cut_short(path: Path) -> bool:
    """Return whether a file begins as ours do and lacks its end, as a copy that was interrupted. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(64)
        if head.startswith(png.HEAD):
            stream.seek(-min(len(png.END), len(head)), 2)
            return stream.read() != png.END
        if head.startswith(exr.MAGIC):
            return exr.is_exr_cut_short(stream)
        if head[:4] in (b"II*\0", b"MM\0*"):
            return floats.is_tiff_cut_short(stream)
        if path.suffix.lower() in SHAPE_SUFFIXES:
            from depthcli.io.points.files import is_shape_cut_short

            return is_shape_cut_short(path.suffix.lower(), stream)
    if path.suffix.lower() in KINDS and _kind_of(path).read_facts is None:
        return floats.is_shorter_than_beside(path)
    return head.startswith(b"PK") and b"depth.npy" in head and not zipfile.is_zipfile(path)


def _facts_reader(path: Path) -> Callable[[IO[bytes]], dict[str, Any]]:
    if path.suffix.lower() in SHAPE_SUFFIXES or path.name.endswith(TEXTURE_ENDING):
        from depthcli.io.points.files import FACTS

        return FACTS[path.suffix.lower()]
    return _kind_of(path).read_facts or (lambda _: floats.read_facts_beside(path))


def _shape_of(format: Format, depth: DepthMap, colormap: str, rgb: Optional[np.ndarray], choice: ShapeChoice) -> Shape:
    """Return the points or the mesh for a format, in the axes that its readers expect or a user wants."""
    from depthcli.geometry.shapes import mesh, points
    from depthcli.io.points.files import axes_for

    if rgb is None:
        rgb = to_color(depth, colormap)
    choice = replace(choice, axes=axes_for(format.suffix, choice.axes))
    return (mesh if format.holds is Holds.MESH else points)(depth, rgb, choice)


def _kind_of(path: Path) -> FileKind:
    return KINDS.get(suffix_of(path), KINDS[".png"])
