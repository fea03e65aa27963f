"""Shapes to files and back, by the suffix of the file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Callable

from depthcli.errors import DepthError, OutputError, UsageError
from depthcli.geometry.solids import OPENCV, OPENGL, Mesh, PointCloud, Shape, with_axes
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.arrays import memory_errors
from depthcli.io.codecs.facts import SCHEMA
from depthcli.io.points import glb, obj, page, pcd, ply
from depthcli.version import __version__

SUFFIXES = (".ply", ".glb", ".obj", ".pcd")
_WRITTEN = (*SUFFIXES, ".html")
FACTS: Mapping[str, Callable[[IO[bytes]], dict[str, Any]]] = {
    ".ply": ply.read_ply_facts,
    ".glb": glb.read_glb_facts,
    ".obj": obj.read_obj_facts,
    ".pcd": pcd.read_pcd_facts,
    ".html": page.read_page_facts,
    ".jpg": obj.read_texture_facts,
}
_FIRST_BYTES = 1 << 20
_READERS: Mapping[str, Callable[[bytes], Shape]] = {".ply": ply.read_ply, ".glb": glb.read_glb, ".pcd": pcd.read_pcd}


def write_shape(shape: Shape, path: Path | str) -> None:
    """Write points to .ply, .pcd or .glb, or a mesh to .glb, .obj or .html, atomically.

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
    """Write a shape in the format of a suffix that is one file: .ply, .pcd, .glb or .html."""
    if suffix == ".glb" and shape.axes is not None:
        shape = with_axes(shape, OPENGL)
    facts = signed(shape.facts)
    if suffix == ".obj":
        raise UsageError("OBJ is three files, and no stream holds them", "use glb, or name a file")
    if suffix == ".html":
        assert isinstance(shape, Mesh)
        page.write_page(shape, stream, facts)
    elif suffix == ".glb":
        glb.write_glb(shape, stream, facts)
    else:
        assert isinstance(shape, PointCloud)
        (ply.write_ply if suffix == ".ply" else pcd.write_pcd)(shape, stream, facts)


def read_shape(path: Path | str) -> Shape:
    """Return the points in a PLY or binary PCD file of any program, or points or the mesh in a GLB or OBJ file of ours.

    Raises OutputError for a file that is broken, cut short, or of another kind.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".html":
            raise OutputError(f"{path} is a page to look at, and is not read back", "write glb for other programs")
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
    """Return the axes of a format. glTF prescribes OpenGL's; by default PCD has OpenCV's, and the others OpenGL's."""
    if suffix == ".glb":
        return OPENGL
    return wanted or (OPENCV if suffix == ".pcd" else OPENGL)


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
    magic, is_cut_short = {
        ".ply": (ply.MAGIC, ply.is_ply_cut_short),
        ".pcd": (pcd.MAGIC, pcd.is_pcd_cut_short),
        ".glb": (glb.MAGIC, glb.is_glb_cut_short),
    }[suffix]
    return data.startswith(magic) and is_cut_short(data, size)


def check_holds(shape: Shape, path: Path) -> None:
    """Raise UsageError if the format of a path cannot hold a shape."""
    suffix = path.suffix.lower()
    if suffix not in _WRITTEN:
        raise UsageError(f"no format of points is written as {suffix or 'a bare name'}", f"use {', '.join(_WRITTEN)}")
    if isinstance(shape, Mesh) and suffix in (".ply", ".pcd"):
        raise UsageError(f"{suffix} holds points, and this is a mesh", "use .glb or .obj")
    if isinstance(shape, PointCloud) and suffix in (".obj", ".html"):
        raise UsageError(f"{suffix} holds a mesh, and these are points", "use .ply, .pcd or .glb")


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
