"""A picture as half a sphere, equirectangular, as headsets show it in its true size."""

from __future__ import annotations

import math

import cv2
import numpy as np

from depthcli.camera import ASSUMED_VIEW, Camera

_MOST_SIDE = 2880  # pixels of half a sphere: two of them are the 5760 that headsets play
_BAND_PIXELS = 1 << 18


def sphere_side(size: tuple[int, int]) -> int:
    """Return the side of the square of half a sphere that a picture of (width, height) needs, even.

    As many pixels per degree as the middle of a picture with the assumed field of view has, up to what headsets play.
    """
    focal = max(size) / 2 / math.tan(math.radians(ASSUMED_VIEW) / 2)
    return 2 * min(_MOST_SIDE // 2, max(1, round(math.pi * focal / 2)))


def sphere(rgb: np.ndarray, camera: Camera) -> np.ndarray:
    """Return (S, S, 3) uint8: the picture on half a sphere, black around it.

    rgb: (H, W, 3) uint8. camera: of the picture; its lens is taken as a pinhole. Columns are azimuth and rows
    elevation, -90 to 90 degrees: a direction (az, el) is seen at x = tan az, y = tan el / cos az.
    """
    side = sphere_side((rgb.shape[1], rgb.shape[0]))
    (fx, _, cx), (_, fy, cy), _ = camera.intrinsics
    angles = (np.arange(side, dtype=np.float64) + 0.5) / side * math.pi - math.pi / 2
    column = np.broadcast_to((fx * np.tan(angles) + cx).astype(np.float32), (side, side))
    out = np.empty((side, side, 3), np.uint8)
    band = max(1, _BAND_PIXELS // side)
    for top in range(0, side, band):
        rows = slice(top, top + band)
        y = fy * np.tan(angles[rows])[:, None] / np.cos(angles) + cy
        # Far outside the picture OpenCV's fixed-point numbers would overflow.
        x, y = (np.clip(part, -1e4, 6e4).astype(np.float32) for part in (column[rows], y))
        out[rows] = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out
