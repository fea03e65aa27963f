"""Points and meshes as values, and the axes they may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional, TypeVar, Union, cast

import numpy as np

from depthcli.camera import Camera

METRES, ARBITRARY = "m", "arbitrary"
OPENCV, OPENGL, ZUP = "opencv", "opengl", "zup"
# From OpenCV's axes (x right, y down, z forward), the camera's own. All are turns: handedness stays.
_FROM_OPENCV = {
    OPENCV: ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    OPENGL: ((1, 0, 0), (0, -1, 0), (0, 0, -1)),  # y up, z toward the viewer: OpenGL, glTF, USD, MeshLab
    ZUP: ((1, 0, 0), (0, 0, 1), (0, -1, 0)),  # y forward, z up: LAS, Blender's world
}


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in space.

    points: (N, 3) float32. colors: (N, 3) uint8, sRGB, or None. normals: (N, 3) float32 of length 1, or None.
    axes: opencv, opengl or zup; None if a foreign file does not tell. unit: "m" or "arbitrary"; None likewise.
    facts: what depthcli's files tell about the depth and the camera, ready for JSON. comments: lines of a foreign file.

    Raises ValueError for other shapes.
    """

    points: np.ndarray
    colors: Optional[np.ndarray] = None
    normals: Optional[np.ndarray] = None
    axes: Optional[str] = OPENCV
    unit: Optional[str] = ARBITRARY
    facts: Mapping[str, Any] = field(default_factory=dict)
    comments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _set(self, "points", _rows("points", self.points, np.float32, 3))
        for name, dtype in (("colors", np.uint8), ("normals", np.float32)):
            layer = getattr(self, name)
            if layer is not None:
                layer = _rows(name, layer, dtype, 3)
                if len(layer) != len(self.points):
                    raise ValueError(f"{len(layer)} {name} for {len(self.points)} points")
                _set(self, name, layer)
        _check_said(self.axes, self.unit)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with a picture on them.

    vertices: (N, 3) float32. uv: (N, 2) float32, place in the picture: (0, 0) is the corner at its top left, (1, 1) at
    its bottom right. faces: (M, 3) uint32, counterclockwise as the camera sees them. texture: a JPEG file.
    camera, size: the camera that the depth was seen with and the (width, height) of its picture; None if unknown.
    axes, unit, facts: as of PointCloud.

    Raises ValueError for other shapes, and for faces of vertices that are not there.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    texture: bytes
    axes: Optional[str] = OPENCV
    unit: Optional[str] = ARBITRARY
    camera: Optional[Camera] = None
    size: Optional[tuple[int, int]] = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _set(self, "vertices", _rows("vertices", self.vertices, np.float32, 3))
        _set(self, "uv", _rows("uv", self.uv, np.float32, 2))
        _set(self, "faces", _rows("faces", self.faces, np.uint32, 3))
        if len(self.uv) != len(self.vertices):
            raise ValueError(f"{len(self.uv)} uv for {len(self.vertices)} vertices")
        if self.faces.size and int(self.faces.max()) >= len(self.vertices):
            raise ValueError(f"a face has vertex {self.faces.max()} of {len(self.vertices)}")
        _check_said(self.axes, self.unit)


Shape = Union[PointCloud, Mesh]
S = TypeVar("S", bound=Shape)


def with_axes(shape: S, axes: str) -> S:
    """Return a shape turned to other axes, which its facts name too. Raises ValueError for unknown ones."""
    if axes not in _FROM_OPENCV or shape.axes is None:
        raise ValueError(f"cannot turn axes {shape.axes} to {axes}")
    turn = np.array(_FROM_OPENCV[axes], np.float32) @ np.array(_FROM_OPENCV[shape.axes], np.float32).T
    facts = dict(shape.facts)
    if "shape" in facts:
        facts["shape"] = {**facts["shape"], "axes": axes}
    if isinstance(shape, Mesh):
        return cast(S, replace(cast(Mesh, shape), vertices=turned(shape.vertices, turn), axes=axes, facts=facts))
    normals = None if shape.normals is None else turned(shape.normals, turn)
    return cast(S, replace(shape, points=turned(shape.points, turn), normals=normals, axes=axes, facts=facts))


def turn_to(axes: str) -> np.ndarray:
    """Return the (3, 3) float32 matrix, applied from the left, that turns OpenCV's axes to others."""
    return np.array(_FROM_OPENCV[axes], np.float32)


def turned(vectors: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return (N, 3) float32 vectors after a turn by right angles: numbers change places and signs, and no digit."""
    out = np.empty_like(vectors)
    for row, target in zip(turn, out.T):
        (source,) = np.flatnonzero(row)
        np.multiply(vectors[:, source], row[source], out=target)
    out += np.float32(0)  # -0 becomes 0, so that files do not depend on the way
    return out


def _set(value: Any, name: str, content: Any) -> None:
    object.__setattr__(value, name, content)


def _rows(name: str, given: np.ndarray, dtype: Any, columns: int) -> np.ndarray:
    array: np.ndarray = np.ascontiguousarray(given, dtype)
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{name} must be (N, {columns}), got {array.shape}")
    if array is given:
        array = array.view()
    array.flags.writeable = False
    return array


def _check_said(axes: Optional[str], unit: Optional[str]) -> None:
    if axes not in (None, *_FROM_OPENCV) or unit not in (None, METRES, ARBITRARY):
        raise ValueError(f"unknown axes {axes} or unit {unit}")
