"""Pages of HTML: one file with a mesh, its picture and a small viewer that browsers open without a server.

The mesh is that of a map's pixels, so rays and triangles follow from the camera and the grid: what is stored are 16
bits of log depth for a vertex and 4 bits for a cell. Pages are for looking at, and are not read back.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import IO, Any, Optional

import numpy as np

from depthcli.camera import Camera, CameraSource
from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.errors import UsageError
from depthcli.geometry.solids import OPENCV, Mesh, with_axes
from depthcli.io.codecs.quick_facts import TEXT_KEY, parse_facts
from depthcli.pixels.colormap import color_table

MAGIC = b"<!doctype html>\n<!-- depthcli: depth in three dimensions -->\n"
END = b"</html>\n"
MOST_BYTES = 5_000_000  # of a page, to be sent by mail; a very fine mesh alone may take more
# The texture: as it is if it fits and graphics cards of phones take it, else JPEG of this quality, of the largest of
# these longer sides that fits.
_QUALITY = 85
_SIDES = (4096, 3072, 2048, 1536, 1024)
_STEPS = 65535  # of log depth, from 1; 0 is no vertex
_PINHOLE_SLACK = 1e-4  # of x/z and y/z
_FACTS = re.compile(rb'<script type="application/json" id="facts">(.*?)</script>', re.DOTALL)
_MOST_HEAD = 1 << 16
_REASON = "a page shows the mesh of a depth map, and this is another one"


@dataclass(frozen=True, eq=False)
class GridCodes:
    """A mesh on the pixel grid of a picture.

    rows, columns: (R,) and (C,) pixels of the grid's lines. numbers: (N,) places of the vertices among the R * C.
    cells: ((R - 1) * (C - 1),) uint8; bit k is the triangle of a cell that lacks its corner k, a b over c d.
    """

    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray
    cells: np.ndarray


def write_page(mesh: Mesh, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write a page. facts: of the file. Raises UsageError for a mesh that is not one of a depth map's pixels."""
    data = page_data(mesh, facts)
    spare = MOST_BYTES - len(page_bytes(data, facts))
    data["texture"] = packed(fitting_texture(mesh.texture, spare * 3 // 4))
    target.write(page_bytes(data, facts))


def page_data(mesh: Mesh, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the viewer draws, ready for JSON, without `texture`: the JPEG file in base64.

    Arrays are base64 of their little-endian bytes: `z` uint16 on the grid, 0 for no vertex, else
    `near` * (`far` / `near`) ** ((z - 1) / 65534); `cells` two to a byte, see GridCodes; `rays` None, or for a lens
    float32 (x/z, y/z) on the grid; `colors` (256, 3) uint8 from far to near. `step`: columns and rows of the grid, and
    pixels between them. `inverse`: colours run with 1/z. `fill`: cells without depth may be shown behind the mesh,
    because none was left out by a mask.
    """
    camera, size = mesh.camera, mesh.size
    if camera is None or size is None or mesh.axes is None or not len(mesh.faces):
        raise UsageError(_REASON, "use glb")
    points = with_axes(mesh, OPENCV).vertices.astype(np.float64)
    step = int(facts.get("shape", {}).get("step", 0))
    codes, z = grid_codes(mesh, step), points[:, 2]
    near, far = float(z.min()), float(z.max())
    if near <= 0:
        raise UsageError(_REASON, "use glb")
    return {
        "name": str(facts.get("source") or "depth"),
        "size": list(size),
        "step": [len(codes.columns), len(codes.rows), step],
        "camera": camera_data(camera),
        "unit": mesh.unit if camera.source is not CameraSource.ASSUMED else "arbitrary",
        "kind": str(facts.get("kind", "")),
        "model": str(facts.get("model_title") or facts.get("model") or ""),
        "near": near,
        "far": far,
        "inverse": facts.get("near_is") == "high",
        "fill": not facts.get("invalid_pixels"),
        **grid_data(codes, z, near, far),
        "rays": _bent_rays(points, codes, camera),
        "colors": colors_data(),
    }


def grid_data(codes: GridCodes, z: np.ndarray, near: float, far: float) -> dict[str, str]:
    """Return `z` and `cells` of page_data. z: (N,) depths of the vertices, from `near` to `far`."""
    span = max(np.log(far / near), 1e-9)
    grid = np.zeros(len(codes.rows) * len(codes.columns), "<u2")
    grid[codes.numbers] = 1 + np.round(np.log(z / near) / span * (_STEPS - 1))
    cells = np.zeros(len(codes.cells) + len(codes.cells) % 2, np.uint8)
    cells[: len(codes.cells)] = codes.cells
    return {"z": packed(grid.tobytes()), "cells": packed((cells[::2] | cells[1::2] << 4).tobytes())}


def camera_data(camera: Camera) -> dict[str, Any]:
    """Return a pinhole camera for the viewer."""
    matrix = camera.intrinsics
    places = {"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2), "skew": (0, 1)}
    return {"source": camera.source.value, **{name: float(matrix[place]) for name, place in places.items()}}


def colors_data() -> str:
    """Return `colors` of page_data."""
    return packed(color_table(DEFAULT_COLORMAP).tobytes())


def grid_codes(mesh: Mesh, step: int) -> GridCodes:
    """Return a mesh as codes on every `step`-th pixel. Raises UsageError if it is another mesh."""
    assert mesh.size is not None
    pixels = mesh.uv.astype(np.float64) * mesh.size - 0.5
    columns, rows = (grid_lines(length, step) for length in mesh.size)
    places = np.stack([np.searchsorted(rows, np.round(pixels[:, 1])), np.searchsorted(columns, np.round(pixels[:, 0]))])
    if step < 1 or (places.max(axis=1) >= (len(rows), len(columns))).any():
        raise UsageError(_REASON, "use glb")
    if np.abs(np.stack([rows[places[0]], columns[places[1]]]) - pixels[:, ::-1].T).max() > 0.1:
        raise UsageError(_REASON, "use glb")
    y, x = places[0][mesh.faces], places[1][mesh.faces]
    top, left = y.min(axis=1), x.min(axis=1)
    down, right = y - top[:, None], x - left[:, None]
    corners = np.sort(2 * down + right, axis=1)
    if max(down.max(), right.max()) > 1 or (np.diff(corners, axis=1) == 0).any():
        raise UsageError(_REASON, "use glb")
    cells = np.zeros((len(rows) - 1) * (len(columns) - 1), np.uint8)
    np.bitwise_or.at(cells, top * (len(columns) - 1) + left, np.left_shift(1, 6 - corners.sum(axis=1)).astype(np.uint8))
    return GridCodes(rows, columns, places[0] * len(columns) + places[1], cells)


def fitting_texture(jpeg: bytes, most: int, sides: Sequence[int] = _SIDES) -> bytes:
    """Return a picture as a JPEG file of at most `most` bytes and 4096 pixels a side, or the smallest that is made.

    sides: the longer sides that are tried, from the largest.
    """
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as file:
        longest = max(file.size)
        if len(jpeg) <= most and longest <= sides[0]:
            return jpeg
        picture = file.convert("RGB")
    best = jpeg
    for side in (min(longest, sides[0]), *(side for side in sides if side < min(longest, sides[0]))):
        smaller = picture.copy()
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        smaller.save(stream, "JPEG", quality=_QUALITY)
        best = stream.getvalue()
        if len(best) <= most:
            break
    return best


def read_page_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a page, empty if they are not ours. Raises ValueError."""
    head = stream.read(_MOST_HEAD)
    found = _FACTS.search(head) if head.startswith(MAGIC) else None
    return parse_facts(found[1].decode("ascii")) if found else {}


def grid_lines(length: int, step: int) -> np.ndarray:
    """Return every `step`-th of `length` pixels, and the last, as grid_mesh takes them."""
    return np.unique(np.append(np.arange(0, length, max(1, step)), length - 1))


def _bent_rays(points: np.ndarray, codes: GridCodes, camera: Camera) -> Optional[str]:
    """Return the rays of the grid, float32 in base64, if a lens bends them; None for a pinhole's."""
    columns, rows = np.meshgrid(codes.columns, codes.rows)
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    rays = (np.linalg.inv(camera.intrinsics) @ pixels)[:2].T
    seen = points[:, :2] / points[:, 2:]
    if np.abs(rays[codes.numbers] - seen).max() <= _PINHOLE_SLACK:
        return None
    rays[codes.numbers] = seen
    return packed(rays.astype("<f4").tobytes())


def page_bytes(data: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a page. data: what the viewer draws. facts: of the file.

    The page's policy has the digests of its scripts and its style: no other may run.
    """
    parts = {
        "policy": "default-src 'none'; img-src data:; "
        f"script-src {_digest('viewer.js')} {_digest('page.js')}; style-src {_digest('page.css')}",
        "title": html.escape(f"{data.get('name', '')} in three dimensions"),
        "facts": _json({**facts} if facts else {}),
        "data": _json(data),
        "style": _part("page.css"),
        "viewer": _part("viewer.js"),
        "page": _part("page.js"),
    }
    assert TEXT_KEY.encode() in MAGIC
    body = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))
    return MAGIC + body.encode() + END


def _json(value: Any) -> str:
    """Return JSON for a script element, which no text in it can end."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(content: bytes) -> str:
    """Return bytes as text, as the viewer takes them."""
    return base64.b64encode(content).decode("ascii")


@functools.cache
def _part(name: str) -> str:
    return (resources.files("depthcli.io.points") / "viewer" / name).read_text(encoding="utf-8")


def _digest(name: str) -> str:
    return f"'sha256-{packed(hashlib.sha256(_part(name).encode()).digest())}'"
