"""A plane through the neighbours of every pixel, fitted by sums over a square window.

A plane in space is linear in inverse depth, d = a u + b v + c, however steep it is: this is what the residual tells
apart from an edge, and what gives normals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.geometry.rays import bands

_FEWEST = 6  # pixels; three always lie on a plane


@dataclass(frozen=True, eq=False)
class Planes:
    """The least-squares plane around each pixel, float64.

    across, down: slopes of the values per pixel to the right and downward. level: the plane's value at the pixel.
    residual: RMS of the values less the plane; infinity if the window has too few pixels for one.
    """

    across: np.ndarray
    down: np.ndarray
    level: np.ndarray
    residual: np.ndarray


def planes_in_bands(values: np.ndarray, valid: Optional[np.ndarray], radius: int) -> Iterator[tuple[slice, Planes]]:
    """Yield rows and their planes, band by band, for an (H, W) map.

    valid: (H, W) bool, None if all are; other pixels do not count. radius: 3 is a window of 7x7 pixels.
    """
    height, width = values.shape
    for rows in bands((width, height)):
        first, last = max(0, rows.start - radius), min(height, rows.stop + radius)
        inner = slice(rows.start - first, rows.stop - first)
        mask = None if valid is None else valid[first:last]
        part = values[first:last].astype(np.float64)
        yield rows, _planes(part if mask is None else np.where(mask, part, 0.0), mask, radius, inner)


def _planes(values: np.ndarray, mask: Optional[np.ndarray], radius: int, inner: slice) -> Planes:
    ones, ramp = np.ones(2 * radius + 1), np.arange(-radius, radius + 1.0)
    if mask is None:
        n, sx, sy, sxx, sxy, syy = _moments_of_all(values.shape, ones, ramp, inner)
    else:
        weights = mask.astype(np.float64)
        kernels = ((ones, ones), (ramp, ones), (ones, ramp), (ramp * ramp, ones), (ramp, ramp), (ones, ramp * ramp))
        n, sx, sy, sxx, sxy, syy = (_sums(weights, across, down, inner) for across, down in kernels)
    sd = _sums(values, ones, ones, inner)
    sxd, syd = _sums(values, ramp, ones, inner), _sums(values, ones, ramp, inner)
    sdd = _sums(values * values, ones, ones, inner)
    count = np.maximum(n, 1)
    # Sums of products of differences from the window's means.
    cxx, cxy, cyy = sxx - sx * sx / count, sxy - sx * sy / count, syy - sy * sy / count
    mean = sd / count
    cxd, cyd, cdd = sxd - sx * mean, syd - sy * mean, sdd - sd * mean
    determinant = cxx * cyy - cxy * cxy
    good = (n >= _FEWEST) & (determinant > 1e-9 * cxx * cyy)
    scale = 1 / np.where(good, determinant, 1.0)
    across = np.where(good, (cxd * cyy - cyd * cxy) * scale, 0.0)
    down = np.where(good, (cyd * cxx - cxd * cxy) * scale, 0.0)
    level = mean - (across * sx + down * sy) / count
    squares = np.maximum(cdd - across * cxd - down * cyd, 0) / count
    return Planes(across, down, level, np.where(good, np.sqrt(squares), np.inf))


def _sums(values: np.ndarray, across: np.ndarray, down: np.ndarray, inner: slice) -> np.ndarray:
    """Return the sums of (H, W) values over a window, weighted by the products of two (N,) kernels."""
    import cv2

    return cv2.sepFilter2D(values, cv2.CV_64F, across, down, borderType=cv2.BORDER_CONSTANT)[inner]


def _moments_of_all(shape: tuple[int, ...], ones: np.ndarray, ramp: np.ndarray, inner: slice) -> tuple[Any, ...]:
    """Return count, sums of x, y, xx, xy and yy of windows in which every pixel of the map counts."""

    def along(length: int, kernel: np.ndarray) -> np.ndarray:
        # The window of pixel i reaches to i + k for each k of the kernel, if the map does.
        places = np.arange(length)[:, None] + np.arange(len(kernel)) - len(kernel) // 2
        return ((places >= 0) & (places < length)) @ kernel

    rows, columns = shape
    y0, y1, y2 = (along(rows, kernel)[inner, None] for kernel in (ones, ramp, ramp * ramp))
    x0, x1, x2 = (along(columns, kernel)[None] for kernel in (ones, ramp, ramp * ramp))
    return y0 * x0, y0 * x1, y1 * x0, y0 * x2, y1 * x1, y2 * x0
