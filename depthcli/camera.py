"""The camera of a view: intrinsics, pose, and where they came from.

Conventions: OpenCV axes (x right, y down, z forward), world-to-camera extrinsics, pixel centres at integers.
Formats with other conventions convert when they are written or read.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np

ASSUMED_VIEW = 60.0  # degrees; between the 45 of COLMAP and the 65 to 73 of the main cameras of phones
DIAGONAL_35 = math.hypot(36, 24)  # millimetres of the film, whose diagonal CIPA takes for the equivalent focal length
_RATIO_SLACK = 0.01
# What each EXIF orientation does to the axes of the stored picture: this matrix times (x, y) is the upright one's.
_TURNS = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}


class CameraSource(str, enum.Enum):
    """Where a camera came from. Metres and shapes that rest on an ASSUMED one are only as good as the assumption.

    EXIF_CROPPED: from the EXIF of a picture that was cropped since; its principal point is a guess.
    CLIP: from the metadata of a film, whose focal length is whole millimetres; stabilisation may crop by another 10 %.
    """

    GIVEN = "given"
    EXIF = "exif"
    EXIF_CROPPED = "exif-cropped"
    CLIP = "clip"
    PREDICTED = "predicted"
    ASSUMED = "assumed"


class LensModel(str, enum.Enum):
    """How a lens bends rays, with the parameters of OpenCV's functions of these names.

    RADIAL: k1 k2 p1 p2 k3, as in cv2.undistortPoints. FISHEYE: k1 k2 k3 k4, as in cv2.fisheye.undistortPoints.
    """

    RADIAL = "radial"
    FISHEYE = "fisheye"


_COEFFICIENTS = {LensModel.RADIAL: 5, LensModel.FISHEYE: 4}


@dataclass(frozen=True)
class Distortion:
    """What a lens adds to a pinhole. Raises ValueError for another count of coefficients, or infinite ones."""

    model: LensModel
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        model, coefficients = LensModel(self.model), tuple(map(float, self.coefficients))
        if len(coefficients) != _COEFFICIENTS[model] or not all(map(math.isfinite, coefficients)):
            raise ValueError(
                f"{model.value} distortion takes {_COEFFICIENTS[model]} finite numbers, got {coefficients}"
            )
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "coefficients", coefficients)

    def turned(self, axes: np.ndarray) -> Distortion:
        """Return the distortion after the picture's axes were turned or mirrored. axes: (2, 2), see `Camera.turned`.

        Only the tangential part has a direction: it moves a point p by r^2 q + 2 (q p) p with q = (p2, p1).
        """
        if self.model is LensModel.FISHEYE:
            return self
        k1, k2, p1, p2, k3 = self.coefficients
        p2, p1 = axes @ (p2, p1)
        return Distortion(self.model, (k1, k2, p1, p2, k3))


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera. Raises ValueError for other shapes, infinite numbers, and focal lengths up to 0.

    intrinsics: (3, 3) float64, pixels of the upright picture. extrinsics: (3, 4) float64, world to camera, None if the
    pose is unknown. distortion: of the lens; None is a pinhole.
    """

    intrinsics: np.ndarray
    source: CameraSource
    extrinsics: Optional[np.ndarray] = None
    distortion: Optional[Distortion] = None

    def __post_init__(self) -> None:
        intrinsics = _matrix("intrinsics", self.intrinsics, (3, 3))
        if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
            raise ValueError(f"focal lengths must be positive, got {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g}")
        object.__setattr__(self, "intrinsics", intrinsics)
        object.__setattr__(self, "source", CameraSource(self.source))
        if self.extrinsics is not None:
            object.__setattr__(self, "extrinsics", _matrix("extrinsics", self.extrinsics, (3, 4)))

    @property
    def focal(self) -> tuple[float, float]:
        """Focal lengths along x and y in pixels."""
        return float(self.intrinsics[0, 0]), float(self.intrinsics[1, 1])

    @property
    def center(self) -> tuple[float, float]:
        """Principal point (x, y) in pixels."""
        return float(self.intrinsics[0, 2]), float(self.intrinsics[1, 2])

    def resized(self, size: tuple[int, int], to: tuple[int, int]) -> Camera:
        """Return the camera of the picture after a resize. size, to: (width, height) before and after."""
        x, y = to[0] / size[0], to[1] / size[1]
        # A pixel centre at c is c + 0.5 from the edge, and the edges stay where they are.
        scale = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return replace(self, intrinsics=scale @ self.intrinsics)

    def cropped(self, left: float, top: float) -> Camera:
        """Return the camera of a part of the picture, which begins at this column and row."""
        return replace(self, intrinsics=np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ self.intrinsics)

    def turned(self, orientation: int, size: tuple[int, int]) -> Camera:
        """Return the camera of the picture after its EXIF orientation was applied.

        orientation: 1 to 8. size: (width, height) before. Raises ValueError for a pose or skew that would be mirrored.
        """
        if orientation == 1:
            return self
        axes = np.array(_TURNS[orientation], dtype=np.float64)
        # An axis that runs backwards counts from the last pixel centre.
        last = np.array(size) - 1.0
        cx, cy = axes @ self.center + np.where(axes.sum(axis=1) < 0, np.abs(axes) @ last, 0)
        fx, fy = np.abs(axes) @ self.focal
        extrinsics = self.extrinsics
        if (extrinsics is not None and np.linalg.det(axes) < 0) or self.intrinsics[0, 1]:
            raise ValueError("a mirrored picture has no pose, and a turned one no skew")
        if extrinsics is not None:
            turn = np.eye(3)
            turn[:2, :2] = axes
            extrinsics = turn @ extrinsics
        distortion = self.distortion and self.distortion.turned(axes)
        return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), self.source, extrinsics, distortion)


def pinhole(size: tuple[int, int], focal: float, source: CameraSource) -> Camera:
    """Return a camera with square pixels whose axis passes through the middle of the picture.

    size: (width, height) in pixels. focal: in pixels. Pixel centres are integers, so the middle is (size - 1) / 2.
    """
    width, height = size
    return Camera(np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]), source)


def assumed_camera(size: tuple[int, int]) -> Camera:
    """Return the camera to assume if none is known: 60 degrees across the long side. size: (width, height)."""
    return pinhole(size, max(size) / 2 / math.tan(math.radians(ASSUMED_VIEW) / 2), CameraSource.ASSUMED)


def equivalent_focal(size: tuple[int, int], millimetres: float) -> float:
    """Return the focal length in pixels for the one equivalent on 35 mm film, which both have the same diagonal view.

    size: (width, height) of the picture, in any orientation.
    """
    return millimetres * math.hypot(*size) / DIAGONAL_35


def same_ratio(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether one picture of (width, height) can be the other one resized: ratios within 1 %, or a pixel."""
    height = size[0] * other[1] / other[0]
    return abs(height - size[1]) <= max(1, _RATIO_SLACK * height)


def describe_camera(camera: Camera, size: Optional[tuple[int, int]]) -> dict[str, Any]:
    """Return the facts about a camera that files carry, JSON-ready. size: (width, height) of its picture, if known."""
    lens, skew = camera.distortion, float(camera.intrinsics[0, 1])
    return {
        "source": camera.source.value,
        **dict(zip(("fx", "fy", "cx", "cy"), (*camera.focal, *camera.center))),
        **({"skew": skew} if skew else {}),
        "size": None if size is None else list(size),
        "distortion": lens and {"model": lens.model.value, "coefficients": list(lens.coefficients)},
        **({} if camera.extrinsics is None else {"extrinsics": camera.extrinsics.tolist()}),
    }


def camera_of(facts: Mapping[str, Any]) -> Camera:
    """Return the camera that `describe_camera` described. Raises KeyError, TypeError and ValueError for other facts."""
    fx, fy, cx, cy = (float(facts[key]) for key in ("fx", "fy", "cx", "cy"))
    lens, pose = facts.get("distortion"), facts.get("extrinsics")
    return Camera(
        np.array([[fx, facts.get("skew", 0), cx], [0, fy, cy], [0, 0, 1]]),
        CameraSource(facts["source"]),
        None if pose is None else np.array(pose),
        Distortion(LensModel(lens["model"]), tuple(lens["coefficients"])) if lens else None,
    )


def _matrix(name: str, given: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.array(given, dtype=np.float64)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be {shape} finite numbers, got {matrix.shape}")
    matrix.flags.writeable = False
    return matrix
