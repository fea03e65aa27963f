"""The EXIF of a picture: its orientation, and the camera it was taken with."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from PIL import Image

from depthcli.camera import Camera, CameraSource, equivalent_focal, same_ratio
from depthcli.host.quiet import noise_of

_ORIENTATION, _MORE = 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35 = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0xA20E, 0xA20F, 0xA210
CAMERA_TAGS = {_FOCAL_LENGTH, _FOCAL_LENGTH_35, _WIDTH, _HEIGHT, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of a unit of resolution


@dataclass(frozen=True)
class Exif:
    """Facts from EXIF. orientation: 1 to 8, any other number counts as 1. tags: those of the camera, by number."""

    orientation: int = 1
    tags: Optional[dict[int, Any]] = None

    def __post_init__(self) -> None:
        if not 1 <= self.orientation <= 8:
            object.__setattr__(self, "orientation", 1)

    def upright_size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of the upright picture."""
        return stored[::-1] if self._turned else stored

    @property
    def _turned(self) -> bool:
        return self.orientation in (5, 6, 7, 8)

    def camera(self, stored: tuple[int, int]) -> Optional[Camera]:
        """Return the camera of the upright picture, or None. stored: (width, height) before it is turned.

        Focal length: the 35 mm equivalent, else from lens and sensor resolution. Principal point: the centre, which is
        a guess if the picture was cropped.
        """
        with suppress(Exception):  # a broken block is no reason to refuse the picture
            focal = self._focal(stored)
            if focal and all(0 < length < math.inf for length in focal):
                width, height = self.upright_size(stored)
                fx, fy = focal[::-1] if self._turned else focal
                intrinsics = np.array([[fx, 0, (width - 1) / 2], [0, fy, (height - 1) / 2], [0, 0, 1]])
                return Camera(intrinsics, CameraSource.EXIF_CROPPED if self._cropped(stored) else CameraSource.EXIF)
        return None

    def _taken(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of the picture as it was taken, in the orientation of this one if it was turned since.

        A program that turned the pixels may have left the old sides.
        """
        width, height = (int((self.tags or {}).get(tag, 0)) for tag in (_WIDTH, _HEIGHT))
        if width <= 0:
            return stored
        if height <= 0:
            return width, round(width * stored[1] / stored[0])
        return (height, width) if same_ratio((height, width), stored) else (width, height)

    def _cropped(self, stored: tuple[int, int]) -> bool:
        return not same_ratio(self._taken(stored), stored)

    def _focal(self, stored: tuple[int, int]) -> Optional[tuple[float, float]]:
        """Return the focal lengths along width and height in pixels; of a cropped picture, those of the whole one."""
        tags, taken = self.tags or {}, self._taken(stored)
        equivalent = float(tags.get(_FOCAL_LENGTH_35, 0))
        if 0 < equivalent < math.inf:
            pixels = equivalent_focal(taken if self._cropped(stored) else stored, equivalent)
            return pixels, pixels
        if not {_FOCAL_LENGTH, _X_RESOLUTION} <= set(tags):
            return None
        per_unit = float(tags[_FOCAL_LENGTH]) / _MILLIMETRES[int(tags.get(_RESOLUTION_UNIT, 2))]
        # The resolution is that of the picture as it was taken; this one may have been made smaller.
        scale = 1.0 if self._cropped(stored) else math.hypot(*stored) / math.hypot(*taken)
        x, y = (float(tags.get(tag, tags[_X_RESOLUTION])) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
        return per_unit * x * scale, per_unit * y * scale


def read_exif(load: Callable[[], Image.Exif]) -> Exif:
    """Return the facts in a block of EXIF. load: returns it; a block that is broken counts as none."""
    orientation, tags = 1, None
    with suppress(Exception):
        exif = load()
        orientation = int(exif.get(_ORIENTATION, 1))
        with noise_of():  # warnings about the camera's block say nothing about the picture
            tags = {tag: value for tag, value in exif.get_ifd(_MORE).items() if tag in CAMERA_TAGS}
    return Exif(orientation, tags)
