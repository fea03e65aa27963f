"""Measure the depth of one object: statistics over the core of its mask, its position and its size.

Masks are cut at the edge of an object where networks blur depth and a detector's mask is coarse, so the outermost
pixels are left out. Numbers of relative maps are no metres: they give `nearness` alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import cv2
import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthMap
from depthcli.geometry.rays import rays_at
from depthcli.io.masks.found import ObjectMask

FILE_TRIM = 1.0  # pixels: masks from files are as sharp as their picture
LEAST_KNOWN = 10  # pixels with depth, below which nothing is measured
_LEAST_CORE, _CORE_SHARE = 50, 0.2  # pixels, and part of the mask; below, the innermost fifth is the core
_NEAREST = 2.0  # percentile that counts as the nearest: the very nearest pixel is often wrong
_MIXED = 0.5  # of the median: a wider spread is two things, or one that reaches far
_FAR_LIMIT = 0.99  # of a model's largest depth
_FULL_SHARE = 0.02  # of the fullest column or row: emptier ones are a finger or a twig, and do not count for the size
THIN, NO_DEPTH, MIXED, FAR_LIMIT, CUT = "thin", "no depth", "mixed", "far limit", "cut"


@dataclass(frozen=True, eq=False)
class Region:
    """A mask, cut to its bounds. A region has at least one pixel.

    left, top: of the part in the picture. mask: (h, w) bool. inner: (h, w) float32, distance of each pixel from the
    nearest one outside of the mask; the picture's border is no edge.
    """

    left: int
    top: int
    mask: np.ndarray
    inner: np.ndarray
    picture_size: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> Region:
        """Return the region of a (H, W) mask. Raises ValueError for an empty one."""
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if not columns.size:
            raise ValueError("a mask without pixels is no object")
        height, width = mask.shape
        # One pixel more on each side, where there is one, has the edge.
        left, right = max(0, int(columns[0]) - 1), min(width, int(columns[-1]) + 2)
        top, bottom = max(0, int(rows[0]) - 1), min(height, int(rows[-1]) + 2)
        part = np.ascontiguousarray(mask[top:bottom, left:right])
        inner: np.ndarray = np.full(part.shape, max(width, height), np.float32)
        if not part.all():
            inner = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return cls(left, top, part, inner, (width, height))

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def bounds(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in the picture: first columns and rows, and those behind the last."""
        columns, rows = np.flatnonzero(self.mask.any(axis=0)), np.flatnonzero(self.mask.any(axis=1))
        left, top = self.left + int(columns[0]), self.top + int(rows[0])
        return left, top, self.left + int(columns[-1]) + 1, self.top + int(rows[-1]) + 1

    @property
    def is_cut(self) -> bool:
        """Whether the mask reaches the picture's border, so that the object may go on beyond it."""
        left, top, right, bottom = self.bounds
        width, height = self.picture_size
        return left == 0 or top == 0 or right == width or bottom == height

    def core(self, trim: float) -> tuple[np.ndarray, bool]:
        """Return the (h, w) pixels farther than `trim` from the edge, and whether the mask is too thin for that."""
        core = self.inner > trim
        core &= self.mask
        count = int(np.count_nonzero(core))
        if count >= _LEAST_CORE and count >= _CORE_SHARE * self.area:
            return core, False
        inner = np.sort(self.inner[self.mask])
        least = inner[-max(1, round(_CORE_SHARE * len(inner)))]
        return self.mask & (self.inner >= least), True

    def cut_out(self, picture: np.ndarray) -> np.ndarray:
        """Return the part of a (H, W) array that the region covers."""
        height, width = self.mask.shape
        return picture[self.top : self.top + height, self.left : self.left + width]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of an object.

    area: pixels of the mask. n: pixels of the core with depth; known: their share of the core. flags: see the module.
    value: median of the map's own numbers, None without depth. nearness: the same from 0 (farthest) to 1 (nearest).
    All below are metres, None for relative depth: distance (median along the axis), nearest (2nd percentile) and its
    place (u, v) in pixels, p5 to p95, mad (median absolute deviation). With a camera also position (x, y, z) of the
    core's middle, range (its distance from the camera), width and height.
    """

    region: Region
    area: int
    n: int
    known: float
    flags: tuple[str, ...]
    value: Optional[float] = None
    nearness: Optional[float] = None
    distance: Optional[float] = None
    nearest: Optional[float] = None
    nearest_at: Optional[tuple[int, int]] = None
    percentiles: Optional[tuple[float, float, float, float]] = None
    mad: Optional[float] = None
    position: Optional[tuple[float, float, float]] = None
    width: Optional[float] = None
    height: Optional[float] = None

    @property
    def range(self) -> Optional[float]:
        """Distance from the camera along the ray, metres."""
        return None if self.position is None else math.hypot(*self.position)


def measure(item: ObjectMask, depth: DepthMap, trim: float) -> Measured:
    """Return the measures of an object. depth: at the size of the mask. trim: pixels to leave out along the edge.

    Raises ValueError for a mask without pixels.
    """
    region = Region.of(item.mask)
    core, thin = region.core(trim)
    values = region.cut_out(depth.values)
    known = core if depth.valid is None else core & region.cut_out(depth.valid)
    n = int(np.count_nonzero(known))
    share = n / int(np.count_nonzero(core))
    flags = [CUT] * region.is_cut + [THIN] * thin
    if n < LEAST_KNOWN:
        return Measured(region, region.area, n, share, (*flags, NO_DEPTH))
    numbers = values[known].astype(np.float64)
    median = float(np.median(numbers))
    shared = region, region.area, n, share
    if not depth.kind.is_metric:
        return Measured(*shared, tuple(flags), median, nearness_of(median, depth))
    p2, p5, p25, p75, p95 = (float(number) for number in np.percentile(numbers, (_NEAREST, 5, 25, 75, 95)))
    if p95 - p5 > _MIXED * median:
        flags.append(MIXED)
    if depth.max_depth is not None and median >= _FAR_LIMIT * depth.max_depth:
        flags.append(FAR_LIMIT)
    position, width, height = _in_space(region, core, median, depth.camera)
    return Measured(
        *shared,
        tuple(flags),
        median,
        nearness_of(median, depth),
        median,
        p2,
        _middle(region, known & (values <= p2)),
        (p5, p25, p75, p95),
        float(np.median(np.abs(numbers - median))),
        position,
        width,
        height,
    )


def nearness_of(value: float, depth: DepthMap) -> float:
    """Return a number of a map from 0 (its farthest) to 1 (its nearest); 0 in a flat map."""
    lo, hi = depth.range
    if not hi > lo:
        return 0.0
    part = min(1.0, max(0.0, (value - lo) / (hi - lo)))
    return part if depth.kind.near_is_high else 1 - part


def _in_space(
    region: Region, core: np.ndarray, z: float, camera: Optional[Camera]
) -> tuple[Optional[tuple[float, float, float]], Optional[float], Optional[float]]:
    """Return the position of the core's middle, and the width and height of the whole mask at its depth."""
    if camera is None:
        return None, None, None
    rows, columns = np.nonzero(core)
    u, v = region.left + columns.mean(), region.top + rows.mean()
    left, right = _extent(region.mask.sum(axis=0))
    top, bottom = _extent(region.mask.sum(axis=1))
    places = [
        (u, v),
        (region.left + left - 0.5, v),
        (region.left + right - 0.5, v),
        (u, region.top + top - 0.5),
        (u, region.top + bottom - 0.5),
    ]
    (x, y), west, east, north, south = rays_at(np.array(places), camera)
    return (float(x * z), float(y * z), z), float((east - west)[0] * z), float((south - north)[1] * z)


def _extent(counts: np.ndarray) -> tuple[int, int]:
    """Return the first column or row that counts, and the one behind the last."""
    full = np.flatnonzero(counts >= _FULL_SHARE * counts.max())
    return int(full[0]), int(full[-1]) + 1


def _middle(region: Region, pixels: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(pixels)
    return region.left + int(np.median(columns)), region.top + int(np.median(rows))
