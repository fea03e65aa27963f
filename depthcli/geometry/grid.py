"""Triangles and points on the pixel grid of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from depthcli.geometry.edges import Edges


@dataclass(frozen=True, eq=False)
class GridMesh:
    """Triangles between pixels. rows, columns: (N,) pixels of the vertices. faces: (M, 3) uint32."""

    rows: np.ndarray
    columns: np.ndarray
    faces: np.ndarray


def grid_step(size: tuple[int, int], most: int) -> int:
    """Return the pixels between vertices so that no side of a map of (width, height) has more than `most` of them."""
    longest = max(size)
    return next(
        step for step in range(max(1, (longest - 1) // most), longest + 1) if len(_lines(longest, step)) <= most
    )


def thin(keep: np.ndarray, most: Optional[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns (N,) int32 of the pixels in an (H, W) mask, or on a regular grid if they are too many.

    most: None for all.
    """
    step = 1
    if most is not None:
        step = max(1, int(np.sqrt(keep.sum() / most)))
        while keep[step // 2 :: step, step // 2 :: step].sum() > most:
            step += 1
    rows, columns = (places.astype(np.int32) for places in np.nonzero(keep[step // 2 :: step, step // 2 :: step]))
    return (rows, columns) if step == 1 else (rows * step + step // 2, columns * step + step // 2)


def grid_mesh(
    z: np.ndarray, keep: np.ndarray, step: int, edges: Optional[Edges] = None, tolerance: float = 0.0
) -> GridMesh:
    """Return the triangles between every `step`-th pixel of an (H, W) map of depth, the last row and column included.

    A cell is split along the diagonal whose depths differ less. A triangle goes if a corner is outside `keep`, or if
    its depths differ by more than `tolerance` times the smallest while a corner, or a pixel near it, is uneven.
    Triangles are counterclockwise as the camera sees them.
    """
    rows, columns = (_lines(length, step) for length in z.shape)
    there = keep[np.ix_(rows, columns)]
    depth = np.where(there, z[np.ix_(rows, columns)], np.float32(0))
    uneven = None if edges is None else _near(edges.uneven, step)[np.ix_(rows, columns)]
    number = np.arange(depth.size, dtype=np.uint32).reshape(depth.shape)

    def corners(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]  # a b over c d

    a, b, c, d = corners(depth)
    has = corners(there)
    falling = abs(a - d) < abs(b - c)  # the diagonal from a to d
    falling = np.where(has[0] & has[3], falling | ~has[1] | ~has[2], False)
    found = []
    for triangle, wanted in (((0, 2, 3), falling), ((0, 3, 1), falling), ((0, 2, 1), ~falling), ((1, 2, 3), ~falling)):
        good = wanted.copy()
        for corner in triangle:
            good &= has[corner]
        if uneven is not None:
            three = np.stack([(a, b, c, d)[corner] for corner in triangle])
            torn = three.max(axis=0) - three.min(axis=0) > tolerance * three.min(axis=0)
            unevens = corners(uneven)
            good &= ~(torn & (unevens[triangle[0]] | unevens[triangle[1]] | unevens[triangle[2]]))
        found.append((good, np.stack([corners(number)[corner] for corner in triangle], axis=-1)))
    # Cell by cell, so that neighbours in space are neighbours in the file.
    good = np.stack([part for part, _ in found], axis=-1)
    faces = np.stack([part for _, part in found], axis=2)[good]
    used = np.zeros(depth.size, bool)
    used[faces.ravel()] = True
    renumbered = (np.cumsum(used) - 1).astype(np.uint32)
    places = np.flatnonzero(used)
    return GridMesh(rows[places // len(columns)], columns[places % len(columns)], renumbered[faces])


def _lines(length: int, step: int) -> np.ndarray:
    """Return every `step`-th of `length` places, and the last."""
    return np.unique(np.append(np.arange(0, length, step), length - 1))


def _near(mask: np.ndarray, step: int) -> np.ndarray:
    """Return where a pixel of the mask is within half a step: an edge may pass between two vertices."""
    import cv2

    if step == 1:
        return mask
    side = 2 * (step // 2) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
