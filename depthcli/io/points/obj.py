"""OBJ files (Wavefront) of a mesh: text, with a material in an MTL file and the picture in a JPEG beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from depthcli.errors import OutputError
from depthcli.geometry.solids import Mesh
from depthcli.io.codecs.formats import TEXTURE_ENDING
from depthcli.io.codecs.quick_facts import TEXT_KEY
from depthcli.io.points.layout import MOST_HEADER, parse_remarks, remarks

MAGIC = b"# Wavefront OBJ of depthcli\n"
END = b"# end\n"
MOST_VERTICES = 300_000  # as text, more take 35 MB and readers half a minute
_MATERIAL = "picture"
_BLOCK = 1 << 14  # lines that are formatted at a time
_MOST_COMMENT = 65_533  # bytes in a segment of a JPEG


def companions(path: Path) -> tuple[Path, Path]:
    """Return the material and the picture beside an OBJ file."""
    return path.with_suffix(".mtl"), path.with_name(path.stem + TEXTURE_ENDING)


def write_obj(mesh: Mesh, target: IO[bytes], facts: Mapping[str, Any], name: str) -> None:
    """Write vertices, places in the picture (from below, as OBJ has it) and faces. name: of the material's file.

    Raises OutputError for more vertices than text is good for.
    """
    if len(mesh.vertices) > MOST_VERTICES:
        raise OutputError(
            f"a mesh of {len(mesh.vertices)} vertices is too large for OBJ, which is text",
            "use a smaller `mesh_size`, or glb",
        )
    target.write(MAGIC)
    for line in remarks(mesh.axes, mesh.unit, facts):
        target.write(f"# {line}\n".encode("ascii"))
    target.write(f"mtllib {name}\nusemtl {_MATERIAL}\n".encode())
    _write_lines(target, "v %.9g %.9g %.9g\n", mesh.vertices)  # nine digits give float32 back
    _write_lines(target, "vt %.9g %.9g\n", np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1].astype(np.float64)], axis=1))
    _write_lines(target, "f %d/%d %d/%d %d/%d\n", np.repeat(mesh.faces.astype(np.int64) + 1, 2, axis=1))
    target.write(END)


def material(texture: str) -> bytes:
    """Return the MTL file that puts the picture on the mesh, without shading."""
    lines = (f"newmtl {_MATERIAL}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 0", f"map_Kd {texture}", "")
    return "\n".join(lines).encode()


def texture_with(jpeg: bytes, facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JPEG file with the facts in a comment, so that depthcli knows the picture as a result."""
    text = f"{TEXT_KEY} {json.dumps(facts)}".encode("ascii")
    if not facts or len(text) > _MOST_COMMENT:
        return jpeg
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def read_texture_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in the picture beside an OBJ file, empty if there are none. Raises ValueError."""
    head = stream.read(6)
    if not head.startswith(b"\xff\xd8\xff\xfe"):
        return {}
    return parse_remarks([stream.read(int.from_bytes(head[4:], "big") - 2).decode("ascii")])[0]


def read_obj(path: Path, data: bytes) -> Mesh:
    """Return the mesh in an OBJ file of depthcli, with the picture beside it. Raises ValueError, OSError."""
    if not data.startswith(MAGIC) or not data.endswith(END):
        raise ValueError("it was not written by depthcli, or is cut short")
    lines = data.splitlines()
    facts, said, _ = parse_remarks(line[2:].decode("ascii") for line in lines if line.startswith(b"# "))

    def rows(start: bytes) -> list[bytes]:
        return [line[len(start) :] for line in lines if line.startswith(start)]

    uv = _numbers(rows(b"vt "), 2)
    uv[:, 1] = 1 - uv[:, 1]
    return Mesh(
        vertices=_numbers(rows(b"v "), 3),
        uv=uv,
        faces=_numbers((line.replace(b"/", b" ") for line in rows(b"f ")), 6)[:, ::2].astype(np.int64) - 1,
        texture=companions(path)[1].read_bytes(),
        axes=said.get("axes"),
        unit=said.get("unit"),
        facts=facts,
    )


def read_obj_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError."""
    data = stream.read(MOST_HEADER)
    if not data.startswith(MAGIC):
        return {}
    return parse_remarks(line[2:].decode("ascii") for line in data.splitlines() if line.startswith(b"# "))[0]


def _write_lines(target: IO[bytes], form: str, rows: np.ndarray) -> None:
    """Write rows of numbers, many at a time: one call of % for each row takes three times as long."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        target.write((form * len(block) % tuple(block.ravel().tolist())).encode("ascii"))


def _numbers(lines: Iterable[bytes], columns: int) -> np.ndarray:
    return np.array(b" ".join(lines).split(), np.float64).reshape(-1, columns)
