"""The camera of a view: intrinsics, pose, and where they came from.

Conventions: OpenCV axes (x right, y down, z forward), world-to-camera extrinsics, pixel centres at integers.
Formats with other conventions convert when they are written or read.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

ASSUMED_VIEW = 60.0  # degrees; between the 45 of COLMAP and the 65 to 73 of the main cameras of phones


class CameraSource(str, enum.Enum):
    """Where a camera came from. Metres and shapes that rest on an ASSUMED one are only as good as the assumption."""

    GIVEN = "given"
    EXIF = "exif"
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


def pinhole(size: tuple[int, int], focal: float, source: CameraSource) -> Camera:
    """Return a camera with square pixels whose axis passes through the middle of the picture.

    size: (width, height) in pixels. focal: in pixels. Pixel centres are integers, so the middle is (size - 1) / 2.
    """
    width, height = size
    return Camera(np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]), source)


def assumed_camera(size: tuple[int, int]) -> Camera:
    """Return the camera to assume for a picture of (width, height): 60 degrees across its long side."""
    return pinhole(size, max(size) / 2 / math.tan(math.radians(ASSUMED_VIEW) / 2), CameraSource.ASSUMED)


def _matrix(name: str, given: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.array(given, dtype=np.float64)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be {shape} finite numbers, got {matrix.shape}")
    matrix.flags.writeable = False
    return matrix
