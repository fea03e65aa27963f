"""The camera of a view: intrinsics, pose, and where they came from.

Conventions: OpenCV axes (x right, y down, z forward), world-to-camera extrinsics, pixel centres at integers.
Formats with other conventions convert when they are written or read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional

import numpy as np


class CameraSource(str, enum.Enum):
    """Where a camera came from. Metres and shapes that rest on an ASSUMED one are only as good as the assumption."""

    GIVEN = "given"
    EXIF = "exif"
    PREDICTED = "predicted"
    ASSUMED = "assumed"


@dataclass(frozen=True, eq=False)
class Camera:
    """One pinhole camera. Raises ValueError for other shapes, infinite numbers, and focal lengths up to 0.

    intrinsics: (3, 3) float64, pixels of the upright picture. extrinsics: (3, 4) float64, world to camera, None if the
    pose is unknown.
    """

    intrinsics: np.ndarray
    source: CameraSource
    extrinsics: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        intrinsics = _matrix("intrinsics", self.intrinsics, (3, 3))
        if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
            raise ValueError(f"focal lengths must be positive, got {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g}")
        object.__setattr__(self, "intrinsics", intrinsics)
        object.__setattr__(self, "source", CameraSource(self.source))
        if self.extrinsics is not None:
            object.__setattr__(self, "extrinsics", _matrix("extrinsics", self.extrinsics, (3, 4)))


def _matrix(name: str, given: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.array(given, dtype=np.float64)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be {shape} finite numbers, got {matrix.shape}")
    matrix.flags.writeable = False
    return matrix
