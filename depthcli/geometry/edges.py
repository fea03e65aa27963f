"""Flying pixels: those between two surfaces, where a soft edge of the map has depths that no surface has.

A pixel is one if depth varies much around it and if its neighbourhood is no plane: by the first alone, a road would
end 23 metres in front of the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthcli.geometry.planes import planes_in_bands

RANGE = 0.04  # of depth within 3x3 pixels, as a part of the depth
_UNEVEN = 0.005  # RMS of inverse depth less the plane of 7x7 pixels, as a part of the inverse depth
_RADIUS = 3
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, eq=False)
class Edges:
    """Where surfaces end, (H, W) bool each.

    flying: pixels between surfaces, to leave out. uneven: pixels whose neighbourhood is no plane; False where all of it
    is invalid.
    """

    flying: np.ndarray
    uneven: np.ndarray


def find_edges(z: np.ndarray, valid: np.ndarray, tolerance: float = RANGE, cell: int = 1) -> Edges:
    """Return the edges of an (H, W) map of depth, positive where `valid`.

    tolerance: least range of depth in 3x3 pixels, as a part of the depth. cell: pixels of the map across which its
    source had one; its edges are as much softer, so they are looked for in a map that is as much smaller.
    """
    if cell > 1:
        smaller = find_edges(_sampled(z, cell), _sampled(valid, cell), tolerance)
        flying, uneven = (_spread(mask, cell, z.shape) for mask in (smaller.flying, smaller.uneven))
        return Edges(flying & valid, uneven & valid)
    inverse = np.divide(1, z, out=np.zeros(z.shape, np.float32), where=valid)
    mask = None if valid.all() else valid
    uneven = np.empty(z.shape, bool)
    for rows, planes in planes_in_bands(inverse, mask, _RADIUS):
        uneven[rows] = planes.residual > _UNEVEN * inverse[rows]
    uneven &= valid
    return Edges(uneven & (_range(z, valid) > tolerance * z), uneven)


def _range(z: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the largest less the smallest depth in 3x3 pixels.

    A neighbour without depth is taken to go on as the one opposite begins: an edge that a hole begins at is half hidden
    by it, and its range would be half as large.
    """
    import cv2

    window = np.ones((3, 3), np.uint8)
    high = cv2.dilate(np.where(valid, z, np.float32(0)).astype(np.float32), window)
    low = cv2.erode(np.where(valid, z, np.finfo(np.float32).max).astype(np.float32), window)
    if not valid.all():
        rows, columns = np.nonzero(valid & (cv2.erode(valid.astype(np.uint8), window, borderValue=0) == 0))
        middle = z[rows, columns]
        known, depth = np.pad(valid, 1), np.pad(z, 1)
        for down, right in _NEIGHBOURS:
            hidden = ~known[rows + 1 + down, columns + 1 + right] & known[rows + 1 - down, columns + 1 - right]
            at = rows[hidden], columns[hidden]
            beyond = 2 * middle[hidden] - depth[at[0] + 1 - down, at[1] + 1 - right]
            high[at], low[at] = np.maximum(high[at], beyond), np.minimum(low[at], beyond)
    return np.where(valid, high - np.minimum(low, high), 0)


def cell_middles(length: int, cell: int) -> np.ndarray:
    """Return the middle pixels of the cells along a side; a last cell without one belongs to that before it."""
    return np.minimum(np.arange(0, max(1, length - cell // 2), cell) + cell // 2, length - 1)


def _sampled(values: np.ndarray, cell: int) -> np.ndarray:
    """Return the middle pixel of each cell."""
    return values[np.ix_(*(cell_middles(length, cell) for length in values.shape))]


def _spread(mask: np.ndarray, cell: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return for each pixel of a map what its cell has."""
    return mask[np.ix_(*(np.minimum(np.arange(n) // cell, cells - 1) for n, cells in zip(shape, mask.shape)))]
