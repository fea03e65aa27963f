"""Nearest points and means in boxes: clouds on a grid of cubes, in memory that grows with the clouds alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

import numpy as np

_OFFSETS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
_PER_BOX = 4.0  # points that a box of the first grid holds on average, were they spread over a surface
_AT_ONCE = 1 << 20  # pairs of points that are compared at a time
_MOST_BOXES = 1 << 20  # along one axis, so that three numbers fit into one of 64 bits


def nearest_distances(points: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 distance of each (N, 3) point from the nearest point of an (M, 3) cloud.

    Infinity if the cloud is empty. Boxes of a grid and their neighbours are searched; points that find nothing as near
    as a box is wide are looked for again in a grid twice as coarse. Raises ValueError for coordinates that are no
    finite numbers.
    """
    points, cloud = np.asarray(points, np.float64), np.asarray(cloud, np.float64)
    out = np.full(len(points), np.inf)
    if not len(cloud) or not len(points):
        return out
    if not (np.isfinite(points).all() and np.isfinite(cloud).all()):
        raise ValueError("a point is not finite")
    low = np.minimum(points.min(axis=0), cloud.min(axis=0))
    extent = float((np.maximum(points.max(axis=0), cloud.max(axis=0)) - low).max())
    if extent == 0:
        return np.zeros(len(points))
    own = float((cloud.max(axis=0) - cloud.min(axis=0)).max()) or extent
    width = max(own * np.sqrt(_PER_BOX / len(cloud)), extent / (_MOST_BOXES - 4))
    left = np.arange(len(points))
    while len(left):
        found = _in_boxes(points[left], cloud, low, width)
        done = (found <= width) | (width > 2 * extent)
        out[left[done]] = found[done]
        left, width = left[~done], 2 * width
    return out


def _in_boxes(points: np.ndarray, cloud: np.ndarray, low: np.ndarray, width: float) -> np.ndarray:
    """Return the distance of the nearest point in the 27 boxes around each point; infinity if there is none."""
    numbers = _numbers(np.floor((cloud - low) / width).astype(np.int64))
    order = np.argsort(numbers, kind="stable")
    numbers, ordered = numbers[order], cloud[order]
    boxes = np.floor((points - low) / width).astype(np.int64)
    best = np.full(len(points), np.inf)
    for offset in _OFFSETS:
        wanted = _numbers(boxes + offset)
        starts = np.searchsorted(numbers, wanted, side="left")
        counts = np.searchsorted(numbers, wanted, side="right") - starts
        for part in _parts(counts):
            some = np.arange(part.start, part.stop)[counts[part] > 0]
            if not len(some):
                continue
            many = counts[some]
            firsts = np.cumsum(many) - many
            members = np.arange(many.sum()) - np.repeat(firsts - starts[some], many)
            apart = ((np.repeat(points[some], many, axis=0) - ordered[members]) ** 2).sum(axis=1)
            best[some] = np.minimum(best[some], np.minimum.reduceat(apart, firsts))
    return np.sqrt(best)


def _numbers(boxes: np.ndarray) -> np.ndarray:
    """Return one number for each (N, 3) box; boxes are counted from -1."""
    x, y, z = (boxes + 1).T
    return (x * (_MOST_BOXES + 1) + y) * (_MOST_BOXES + 1) + z


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows whose counts add up to no more than fits into memory, or of one row."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def box_means(
    points: np.ndarray, width: float, values: Optional[np.ndarray] = None
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Return one point for each cube that has some: their mean, (M, 3) float64; and the means of (N, C) values.

    The grid begins half a box below the smallest coordinates, as in Open3D. Raises ValueError for a width that is not
    more than 0, or so small that there would be too many boxes.
    """
    points = np.asarray(points, np.float64)
    if not width > 0:
        raise ValueError(f"boxes are {width} wide")
    if not len(points):
        return points.reshape(-1, 3), values
    boxes = np.floor((points - (points.min(axis=0) - width / 2)) / width)
    if not boxes.max() < _MOST_BOXES:
        raise ValueError(f"boxes of {width:.3g} are too small for a cloud of this size")
    _, place, counts = np.unique(_numbers(boxes.astype(np.int64)), return_inverse=True, return_counts=True)
    place = place.reshape(-1)

    def means(of: np.ndarray) -> np.ndarray:
        columns = [np.bincount(place, weights=column, minlength=len(counts)) for column in of.T]
        return np.stack(columns, axis=1) / counts[:, None]

    return means(points), None if values is None else means(np.asarray(values, np.float64))
