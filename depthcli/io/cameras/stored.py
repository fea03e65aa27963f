"""What a calibration file says: cameras, the size of their pictures, and whose they are."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Optional

import numpy as np

from depthcli.camera import Camera, CameraSource, Distortion, LensModel, pinhole

# Coefficients of LensModel; files may hold more of them as zeros.
_RADIAL, _FISHEYE = 5, 4


@dataclass(frozen=True, eq=False)
class StoredCamera:
    """One camera of a file.

    camera: in our convention, for a picture of `size`; None if the file has only the angle of view.
    size: (width, height) in pixels, None if the file does not tell.
    name: path of the picture that it belongs to, with or without suffix; empty for any.
    part: of a picture's path, as KITTI's image_02; empty for any. view: radians across a picture of any size.
    pose: (3, 4) float64, world to camera with OpenCV's axes, not looked at; None if the file does not tell. The camera
    has none: whoever asks for the intrinsics of one picture has no world.
    """

    camera: Optional[Camera]
    size: Optional[tuple[int, int]] = None
    name: str = ""
    part: str = ""
    view: Optional[float] = None
    pose: Optional[np.ndarray] = None

    def for_size(self, size: tuple[int, int]) -> Camera:
        """Return the camera; if the file has only its angle of view, that of a picture of (width, height)."""
        if self.camera is not None:
            return self.camera
        assert self.view is not None
        return pinhole(size, focal_of_angle(size[0], self.view), CameraSource.GIVEN)

    @cached_property
    def content(self) -> str:
        """The numbers as text; equal texts are equal cameras."""
        lens = self.camera and self.camera.distortion
        numbers = None if self.camera is None else self.camera.intrinsics.ravel().tolist()
        return repr((numbers, lens and (lens.model.value, lens.coefficients), self.size, self.view))


@dataclass(frozen=True, eq=False)
class CameraFile:
    """A calibration file.

    name: as the user gave it. title: of its format. cameras: at least one. notes: on how they were read.
    """

    name: str
    title: str
    cameras: tuple[StoredCamera, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """A text without spaces that changes with the cameras, for manifests."""
        digest = hashlib.sha256()
        for stored in self.cameras:
            digest.update(repr((stored.content, stored.name, stored.part)).encode(errors="replace"))
        return f"{re.sub(r'[^!-~]', '_', PurePosixPath(self.name).name)}:{digest.hexdigest()[:12]}"

    def of_picture(self, path: str) -> Optional[StoredCamera]:
        """Return the camera of the picture at a path; None if the file has several and none is of this picture.

        A camera whose name shares the longest end with the path wins; then the only camera of the file.
        """
        by_part = [stored for stored in self.cameras if stored.part and stored.part in path]
        if by_part:
            return by_part[0]
        if self.cameras[0].part:
            return self.cameras[0]
        parts = PurePosixPath(path.replace("\\", "/")).parts[::-1]
        if parts:
            found = self._by_name.get(parts[0]) or self._by_name.get(PurePosixPath(parts[0]).stem) or ()
            common = [_common(parts, PurePosixPath(stored.name).parts[::-1]) for stored in found]
            best = [stored for stored, length in zip(found, common) if length == max(common)]
            if len({stored.content for stored in best}) == 1:
                return best[0]
        return self.cameras[0] if self._is_one else None

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[StoredCamera]]:
        found: dict[str, list[StoredCamera]] = {}
        for stored in self.cameras:
            name = PurePosixPath(stored.name)
            for key in {name.name, name.stem} if name.name else ():
                found.setdefault(key, []).append(stored)
        return found

    @cached_property
    def _is_one(self) -> bool:
        return len({stored.content for stored in self.cameras}) == 1


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many folders of two paths, written backwards, are the same behind the file's name."""
    return next((n for n, (a, b) in enumerate(zip(one[1:], other[1:])) if a != b), min(len(one), len(other)) - 1)


def camera_from(
    focal: tuple[float, float], center: tuple[float, float], distortion: Optional[Distortion] = None, half: bool = False
) -> Camera:
    """Return a given camera. half: pixel centres lie at half numbers in the file, and are moved to integers.

    Raises ValueError for numbers that no camera has.
    """
    shift = 0.5 if half else 0.0
    (fx, fy), (cx, cy) = focal, center
    matrix = np.array([[fx, 0, cx - shift], [0, fy, cy - shift], [0, 0, 1]], dtype=np.float64)
    return Camera(matrix, CameraSource.GIVEN, distortion=distortion)


def camera_from_matrix(matrix: np.ndarray, distortion: Optional[Distortion] = None) -> Camera:
    """Return a given camera for a (3, 3) or larger matrix in our convention.

    Raises ValueError for anything but [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].
    """
    matrix = np.asarray(matrix, dtype=np.float64)[:3, :3]
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError("its matrix is not 3x3 finite numbers")
    fx, fy = matrix[0, 0], matrix[1, 1]
    if not np.allclose(matrix[2], (0, 0, 1)) or abs(matrix[1, 0]) > 1e-6 * abs(fy) or min(fx, fy) <= 0:
        raise ValueError("its matrix is not [fx 0 cx; 0 fy cy; 0 0 1]")
    if abs(matrix[0, 1]) > 1e-3 * fx:
        raise ValueError(f"its pixels are skewed (s = {matrix[0, 1]:g})")
    return camera_from((fx, fy), (matrix[0, 2], matrix[1, 2]), distortion)


def radial(coefficients: Sequence[float]) -> Optional[Distortion]:
    """Return the distortion of k1 k2 [p1 p2 k3 ...]; None for zeros. Raises ValueError for what goes beyond k3."""
    values = [*map(float, coefficients)]
    if any(values[_RADIAL:]):
        raise ValueError("its lens has coefficients beyond k1 k2 p1 p2 k3, which are not supported")
    values = (values + [0.0] * _RADIAL)[:_RADIAL]
    return Distortion(LensModel.RADIAL, tuple(values)) if any(values) else None


def fisheye(coefficients: Sequence[float]) -> Distortion:
    """Return the distortion of k1 [k2 k3 k4], also of zeros: such a lens is a fisheye too. Raises ValueError."""
    values = [*map(float, coefficients)]
    if any(values[_FISHEYE:]):
        raise ValueError(f"its fisheye lens has more than {_FISHEYE} coefficients, which are not supported")
    return Distortion(LensModel.FISHEYE, tuple((values + [0.0] * _FISHEYE)[:_FISHEYE]))


def focal_of_angle(width: float, radians: float) -> float:
    """Return the focal length in pixels for an angle of view across a width. Raises ValueError for no such angle."""
    if not 0 < radians < math.pi:
        raise ValueError(f"its angle of view is {math.degrees(radians):g} degrees")
    return width / 2 / math.tan(radians / 2)
