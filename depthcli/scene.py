"""Several views of one place whose depths and cameras belong together.

Numpy only. A Scene is a value: exports read it, and none of them changes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Optional, Union, overload

import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthKind, DepthMap

_ROTATION_SLACK = 1e-3  # of R'R from the identity; float32 poses are within 1e-6


@dataclass(frozen=True)
class Area:
    """The part of a picture that a map covers, in pixels of the picture counted from its outer corner."""

    left: float
    top: float
    width: float
    height: float

    def inside(self, picture_size: tuple[int, int], map_size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of the map that show the picture: all, unless the map was padded.

        picture_size, map_size: (width, height) in pixels.
        """
        found = []
        for start, length, picture, pixels in zip(
            (self.left, self.top), (self.width, self.height), picture_size, map_size
        ):
            scale = length / pixels
            found.append(slice(max(0, round(-start / scale)), min(pixels, round((picture - start) / scale))))
        return found[1], found[0]


@dataclass(frozen=True, eq=False)
class View:
    """One view of a scene.

    depth: its map, with a pinhole camera whose extrinsics are known. name: of its picture, a relative path with
    slashes. picture: (H, W, 3) uint8 RGB at the size of the map, or None. picture_size: (width, height) of the upright
    picture, by default the map's. area: what the map covers of it, by default all.

    Raises ValueError for a map without a pose or with a lens, for a pose that is no rotation, and for a picture of
    another size.
    """

    depth: DepthMap
    name: str
    picture: Optional[np.ndarray] = None
    picture_size: tuple[int, int] = (0, 0)
    area: Area = Area(0, 0, 0, 0)

    def __post_init__(self) -> None:
        _check_name(self.name)
        camera = self.depth.camera
        if camera is None or camera.extrinsics is None:
            raise ValueError(f"{self.name}: a view of a scene needs a camera with a pose")
        if camera.distortion is not None:
            raise ValueError(f"{self.name}: a view of a scene is a pinhole's, without distortion")
        if self.depth.kind is DepthKind.RELATIVE_DISPARITY:
            raise ValueError(f"{self.name}: a view of a scene holds depth along the axis, not disparity")
        check_pose(camera.extrinsics, self.name)
        if self.picture is not None:
            _set(self, "picture", _pixels(self.picture, self.depth.size))
        if not all(self.picture_size):
            _set(self, "picture_size", self.depth.size)
        if not self.area.width:
            _set(self, "area", Area(0, 0, *self.picture_size))

    @property
    def camera(self) -> Camera:
        """The camera of the map."""
        assert self.depth.camera is not None
        return self.depth.camera

    @property
    def extrinsics(self) -> np.ndarray:
        """(3, 4) float64, world to camera."""
        assert self.camera.extrinsics is not None
        return self.camera.extrinsics

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the picture for one of the map, along x and y."""
        return self.area.width / self.depth.size[0], self.area.height / self.depth.size[1]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the map that show the picture."""
        return self.area.inside(self.picture_size, self.depth.size)

    @property
    def picture_camera(self) -> Camera:
        """The same camera for the picture at its own size."""
        whole = (self.area.width, self.area.height)
        resized = self.camera.resized(self.depth.size, whole)  # type: ignore[arg-type]
        return resized.cropped(-self.area.left, -self.area.top)

    def to_picture(self, pixels: np.ndarray) -> np.ndarray:
        """Return (N, 2) pixels (u, v) of the map as pixels of the picture; centres are integers in both."""
        return (pixels + 0.5) * self.scale - 0.5 + (self.area.left, self.area.top)


class ViewTable(Sequence[View]):
    """Views whose maps have one size, held as arrays: thousands of them take little more than their pixels.

    first: a view with what all share: the kind of depth, the sizes, the area and where it comes from. names: of the
    views. depths: (N, H, W) float32. valid: (N, H, W). confidence: (N, H, W), or None. pictures: (N, H, W, 3) uint8, or
    None. intrinsics: (N, 3, 3). extrinsics: (N, 3, 4). A view is made each time it is asked for.
    """

    def __init__(
        self,
        first: View,
        names: Sequence[str],
        depths: np.ndarray,
        valid: np.ndarray,
        confidence: Optional[np.ndarray],
        pictures: Optional[np.ndarray],
        intrinsics: np.ndarray,
        extrinsics: np.ndarray,
    ) -> None:
        self._first, self.names = first, tuple(names)
        self._depths, self._valid, self._confidence, self._pictures = depths, valid, confidence, pictures
        self.intrinsics, self.extrinsics = intrinsics, extrinsics

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> View: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[View, ...]: ...

    def __getitem__(self, number: Union[int, slice]) -> Union[View, tuple[View, ...]]:
        """Return a view by its number, or several."""
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        name, first = self.names[number], self._first
        depth = replace(
            first.depth,
            values=self._depths[number],
            valid=self._valid[number],
            confidence=None if self._confidence is None else self._confidence[number],
            camera=Camera(self.intrinsics[number], first.camera.source, self.extrinsics[number]),
            provenance=replace(first.depth.provenance, source=name),
        )
        picture = None if self._pictures is None else self._pictures[number]
        return View(depth, name, picture, first.picture_size, first.area)


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N Gaussians in the world, float32, view after view and row by row.

    means: (N, 3). scales: (N, 3), standard deviations along their own axes. rotations: (N, 4) quaternions x y z w with
    w >= 0. harmonics: (N, 3, 9), red, green and blue. opacities: (N,) 0 to 1.
    """

    means: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    harmonics: np.ndarray
    opacities: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """Ordered views of one place in one world.

    views: at least one, a tuple or a ViewTable, with names of their own and depth of one kind, which is also the unit
    of the cameras' places.
    facts: how it was made, ready for JSON: the model, the reference view, the scale and what it rests on.
    gaussians: of all pixels of all views, in its world and unit, from models that give them; else None.
    features: (V, rows, cols, D) float32, what the network's last block gives for each patch of each view; or None.

    Raises ValueError for no view, a name that two views have, and views of several kinds.
    """

    views: Sequence[View]
    facts: Mapping[str, Any] = field(default_factory=dict)
    gaussians: Optional[Gaussians] = None
    features: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        table = self.views if isinstance(self.views, ViewTable) else None
        if table is None:
            _set(self, "views", tuple(self.views))
        _set(self, "facts", MappingProxyType(dict(self.facts)))
        if not self.views:
            raise ValueError("a scene needs at least one view")
        names = self.names
        doubled = next((name for name, count in Counter(names).items() if count > 1), None)
        if doubled is not None:
            raise ValueError(f"two views of a scene are called {doubled}")
        if table is None and len({view.depth.kind for view in self.views}) > 1:
            raise ValueError("the views of a scene hold depth of several kinds")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the views."""
        return self.views.names if isinstance(self.views, ViewTable) else tuple(view.name for view in self.views)

    @property
    def kind(self) -> DepthKind:
        """What the numbers of all maps mean."""
        return self.views[0].depth.kind

    @property
    def unit(self) -> str:
        """Of depths and places: "m", or "arbitrary"."""
        return self.kind.unit or "arbitrary"

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(width, height) of all maps, None if they differ."""
        sizes = {view.depth.size for view in self.views}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def extrinsics(self) -> np.ndarray:
        """(N, 3, 4) float64, world to camera."""
        if isinstance(self.views, ViewTable):
            return self.views.extrinsics.copy()
        return np.stack([view.extrinsics for view in self.views])

    @property
    def intrinsics(self) -> np.ndarray:
        """(N, 3, 3) float64, in pixels of the maps."""
        if isinstance(self.views, ViewTable):
            return self.views.intrinsics.copy()
        return np.stack([view.camera.intrinsics for view in self.views])


def check_pose(extrinsics: np.ndarray, name: str = "pose") -> None:
    """Raise ValueError if the left part of a (3, 4) or (4, 4) matrix is no rotation, as of a mirrored or scaled one."""
    rotation = np.asarray(extrinsics)[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if not math.isfinite(error) or error > _ROTATION_SLACK:
        raise ValueError(f"{name}: its pose is no rotation: R R' differs from the identity by {error:.2g}")
    if np.linalg.det(rotation) < 0:
        raise ValueError(f"{name}: its pose is mirrored: the determinant of its rotation is -1")


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in name or "\n" in name:
        raise ValueError(f"a view is named by a relative path with slashes, not {name!r}")


def _pixels(given: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    pixels: np.ndarray = np.array(given)
    if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"the picture is {pixels.dtype} {pixels.shape}, its depth map {(height, width)}")
    pixels.flags.writeable = False
    return pixels


def _set(value: Any, name: str, content: Any) -> None:
    object.__setattr__(value, name, content)
