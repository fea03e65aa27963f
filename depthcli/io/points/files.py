"""Shapes to files and back, by the suffix of the file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Callable

from depthcli.errors import DepthError, OutputError, UsageError
from depthcli.geometry.solids import OPENCV, OPENGL, ZUP, Mesh, PointCloud, Shape, with_axes
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.arrays import memory_errors
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.points import glb, laz, obj, page, pcd, ply, usdz
from depthcli.version import __version__

SUFFIXES = (".ply", ".glb", ".obj", ".pcd", ".laz", ".las")  # of shapes that are read
FACTS: Mapping[str, Callable[[IO[bytes]], dict[str, Any]]] = {
    ".ply": ply.read_ply_facts,
    ".glb": glb.read_glb_facts,
    ".obj": obj.read_obj_facts,
    ".pcd": pcd.read_pcd_facts,
    ".laz": laz.read_laz_facts,
    ".las": laz.read_laz_facts,
    ".usdz": usdz.read_usdz_facts,
    ".html": page.read_page_facts,
    ".jpg": obj.read_texture_facts,
}
_OPENGL_ONLY = (".glb", ".usdz")
_AXES = {".pcd": OPENCV, ".laz": ZUP}
_FIRST_BYTES = 1 << 20
_READERS: Mapping[str, Callable[[bytes], Shape]] = {
    ".ply": ply.read_ply,
    ".glb": glb.read_glb,
    ".pcd": pcd.read_pcd,
    ".laz": laz.read_laz,
    ".las": laz.read_laz,
}
_POINT_WRITERS = {".ply": ply.write_ply, ".pcd": pcd.write_pcd, ".laz": laz.write_laz}
_MESH_WRITERS = {".usdz": usdz.write_usdz, ".html": page.write_page}
_WRITTEN = (".ply", ".pcd", ".laz", ".glb", ".obj", *_MESH_WRITERS)


def write_shape(shape: Shape, path: Path | str) -> None:
    """Write points to .ply, .pcd, .laz or .glb, or a mesh to .glb, .obj, .usdz or .html, atomically.

    Beside an OBJ file stand its material and its picture; all three are there before the OBJ file appears.
    Raises UsageError if the format cannot hold the shape, OutputError if the file cannot be written.
    """
    path = Path(path)
    check_holds(shape, path)
    if path.suffix.lower() == ".obj":
        assert isinstance(shape, Mesh)
        _write_obj_files(shape, path)
        return
    with atomic_path(path) as partial, partial.open("wb") as stream:
        write_to_stream(shape, path.suffix.lower(), stream)


def write_to_stream(shape: Shape, suffix: str, stream: IO[bytes]) -> None:
    """Write a shape in the format of a suffix that is one file: all but .obj."""
    if suffix in _OPENGL_ONLY and shape.axes is not None:
        shape = with_axes(shape, OPENGL)
    facts = signed(shape.facts)
    if suffix == ".obj":
        raise UsageError("OBJ is three files, and no stream holds them", "use glb, or name a file")
    if suffix in _MESH_WRITERS:
        assert isinstance(shape, Mesh)
        _MESH_WRITERS[suffix](shape, stream, facts)
    elif suffix == ".glb":
        glb.write_glb(shape, stream, facts)
    else:
        assert isinstance(shape, PointCloud)
        _POINT_WRITERS[suffix](shape, stream, facts)


def read_shape(path: Path | str) -> Shape:
    """Return the points in a PLY, binary PCD, LAS or LAZ file of any program, or the shape in our GLB or OBJ file.

    Raises OutputError for a file that is broken, cut short, or of another kind.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in _MESH_WRITERS:
            raise OutputError(f"{path} is to look at, and is not read back", "write glb for other programs")
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise OutputError(f"{path} is not a file")
        with memory_errors(path):
            data = path.read_bytes()
            if path.suffix.lower() == ".obj":
                return obj.read_obj(path, data)
            return _READERS[path.suffix.lower()](data)
    except DepthError:
        raise
    except FileNotFoundError as error:
        raise OutputError(f"{error.filename or path} does not exist") from error
    except KeyError as error:
        if path.suffix.lower() in SUFFIXES:
            raise OutputError(f"cannot read {path}: it lacks {error}") from error
        raise OutputError(f"{path} is no file of points", f"known are {', '.join(SUFFIXES)}") from error
    except (OSError, ValueError, LookupError, TypeError, struct.error, RecursionError) as error:
        raise OutputError(f"cannot read {path}: {' '.join(str(error).split()) or 'it is broken'}") from error


def axes_for(suffix: str, wanted: str | None = None) -> str:
    """Return the axes of a format: some prescribe OpenGL's; others have what their readers expect by default."""
    if suffix in _OPENGL_ONLY:
        return OPENGL
    return wanted or _AXES.get(suffix, OPENGL)


def is_shape_cut_short(suffix: str, stream: IO[bytes]) -> bool:
    """Return whether a file begins as ours do and lacks its end. Raises OSError."""
    size = stream.seek(0, 2)
    stream.seek(0)
    data = stream.read(_FIRST_BYTES)
    if suffix == ".obj":
        stream.seek(-min(len(obj.END), size), 2)
        return data.startswith(obj.MAGIC) and stream.read() != obj.END
    if suffix == ".html":
        stream.seek(-min(len(page.END), size), 2)
        return data.startswith(page.MAGIC) and stream.read() != page.END
    if suffix == ".usdz":
        stream.seek(-min(usdz.END_BYTES, size), 2)
        return data.startswith(b"PK") and not stream.read().startswith(usdz.END)
    magic, is_cut_short = {
        ".ply": (ply.MAGIC, ply.is_ply_cut_short),
        ".pcd": (pcd.MAGIC, pcd.is_pcd_cut_short),
        ".glb": (glb.MAGIC, glb.is_glb_cut_short),
        ".laz": (laz.MAGIC, laz.is_laz_cut_short),
    }[suffix]
    return data.startswith(magic) and is_cut_short(data, size)


def check_holds(shape: Shape, path: Path) -> None:
    """Raise UsageError if the format of a path cannot hold a shape."""
    suffix = path.suffix.lower()
    if suffix not in _WRITTEN:
        raise UsageError(f"no format of points is written as {suffix or 'a bare name'}", f"use {', '.join(_WRITTEN)}")
    if isinstance(shape, Mesh) and suffix in _POINT_WRITERS:
        raise UsageError(f"{suffix} holds points, and this is a mesh", "use .glb or .obj")
    if isinstance(shape, PointCloud) and suffix in (".obj", *_MESH_WRITERS):
        raise UsageError(f"{suffix} holds a mesh, and these are points", "use .ply, .pcd, .laz or .glb")


def signed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as every file of ours carries them; none if there are none."""
    return {"schema": SCHEMA, **facts, "depthcli": __version__} if facts else {}


def _write_obj_files(mesh: Mesh, path: Path) -> None:
    facts = signed(mesh.facts)
    about, picture = obj.companions(path)
    with atomic_path(path) as partial:
        with partial.open("wb") as stream:
            obj.write_obj(mesh, stream, facts, about.name)
        for beside, content in (
            (picture, obj.texture_with(mesh.texture, facts)),
            (about, obj.material(picture.name)),
        ):
            with atomic_path(beside) as part:
                part.write_bytes(content)
