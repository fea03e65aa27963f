"""Quilts: many views of one picture in one, as displays of light fields by Looking Glass show them.

docs.lookingglassfactory.com: rows from below, the leftmost view first; the name of the file ends in
`_qsCOLUMNSxROWSaRATIO`.
"""

from __future__ import annotations

import cv2
import numpy as np

from depthcli.views.warp import right_view

COLUMNS, ROWS = 8, 6
_MOST = 4096  # pixels of a side, as in the vendor's own quilts
# Percent of the width by which near and far move against each other from the first view to the last: with more, the
# stretched surroundings of near things are seen in the outer views.
_PARALLAX = 6.0


def quilt(rgb: np.ndarray, near: np.ndarray, coarseness: float = 1.0) -> np.ndarray:
    """Return (H, W, 3) uint8, COLUMNS times ROWS views. The middle of the nearness stays in place.

    rgb: (H, W, 3) uint8. near: (H, W) float32 from 0, farthest, to 1. coarseness: as of `right_view`.
    """
    height, width = near.shape
    factor = min(1.0, _MOST / (COLUMNS * width), _MOST / (ROWS * height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if factor < 1:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        near = cv2.resize(near, size, interpolation=cv2.INTER_AREA)
    whole = np.empty((ROWS * size[1], COLUMNS * size[0], 3), np.uint8)
    shift = (near - np.float32(0.5)) * np.float32(size[0] * _PARALLAX / 100)
    count = COLUMNS * ROWS
    for number in range(count):
        row, column = ROWS - 1 - number // COLUMNS, number % COLUMNS
        view = _seen_from(rgb, shift, number / (count - 1) - 0.5, max(1.0, coarseness * factor))
        whole[row * size[1] : (row + 1) * size[1], column * size[0] : (column + 1) * size[0]] = view
    return whole


def quilt_ending(size: tuple[int, int]) -> str:
    """Return what stands behind the stem of a quilt's file. size: (width, height) of the picture."""
    return f"_qs{COLUMNS}x{ROWS}a{size[0] / size[1]:.3g}.png"


def _seen_from(rgb: np.ndarray, shift: np.ndarray, place: float, coarseness: float) -> np.ndarray:
    """Return a view from -0.5, the leftmost, to 0.5. From the left it is the same in the mirror."""
    if place < 0:
        mirrored = np.ascontiguousarray(rgb[:, ::-1]), np.ascontiguousarray(shift[:, ::-1])
        return np.ascontiguousarray(_seen_from(*mirrored, -place, coarseness)[:, ::-1])
    return right_view(rgb, shift * np.float32(place), coarseness=coarseness)
