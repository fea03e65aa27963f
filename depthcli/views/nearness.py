"""Depth of any kind as nearness: disparity between the ends of a range, which is all that a moved view needs.

Parallax is proportional to disparity. The unknown shift of relative disparity moves the whole picture, and its unknown
scale is the strength; so neither has to be known.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from depthcli.depthmap import DepthKind, DepthMap

SHARES = (0.005, 0.995)  # of all values below the two ends, as in temporal.ranges
_MOST_SAMPLES = 1 << 20
_LEAST_SHARE = 1e-3  # of the farthest depth of a range: nearer ends count as this


def nearness(depth: DepthMap, shown: Optional[tuple[float, float]] = None) -> np.ndarray:
    """Return (H, W) float32 disparity, from 0 (far end of the range) to 1 (near end); values beyond are clipped.

    shown: (lo, hi) in the map's numbers; None for the range of the map, half a percent cut off on either side. A flat
    map is 0. Pixels without depth take that of the farther neighbour in their row.
    """
    disparity = _disparity(depth.values, depth.kind)
    if depth.valid is not None:
        disparity = fill_from_far(disparity, depth.valid)
    if shown is None:
        lo, hi = _ends(disparity)
    else:
        ends = np.array(shown, np.float32)
        if not depth.kind.near_is_high:  # depth that begins at the camera has no largest disparity
            ends = np.maximum(ends, ends.max() * np.float32(_LEAST_SHARE))
        lo, hi = sorted(map(float, _disparity(ends, depth.kind)))
    if not hi > lo:
        return np.zeros_like(disparity)
    near = np.minimum(disparity, np.float32(hi))  # also infinity, at 0 metres
    near -= np.float32(lo)
    near /= np.float32(hi - lo)
    return np.clip(near, 0, 1, out=near)


def fill_from_far(disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return (H, W) disparity whose invalid pixels have the smaller value of their valid neighbours left and right.

    What a sensor or a second camera does not see is mostly behind an edge. Rows without a valid pixel take the smallest
    valid value of all, or 0.
    """
    width = disparity.shape[1]
    columns = np.arange(width, dtype=np.int32)
    before = np.maximum.accumulate(np.where(valid, columns, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, columns, width)[:, ::-1], axis=1)[:, ::-1]
    least = disparity[valid].min() if valid.any() else np.float32(0)
    left = np.where(before >= 0, np.take_along_axis(disparity, np.maximum(before, 0), 1), np.inf)
    right = np.where(after < width, np.take_along_axis(disparity, np.minimum(after, width - 1), 1), np.inf)
    found = np.minimum(left, right)
    filled = np.where(valid, disparity, np.where(np.isfinite(found), found, least))
    return filled.astype(np.float32, copy=False)


def _disparity(values: np.ndarray, kind: DepthKind) -> np.ndarray:
    if kind.near_is_high:
        return values
    with np.errstate(divide="ignore"):
        return np.float32(1) / np.maximum(values, np.float32(0))


def _ends(disparity: np.ndarray) -> tuple[float, float]:
    step = max(1, round((disparity.size / _MOST_SAMPLES) ** 0.5))
    few = disparity[::step, ::step]
    few = few[np.isfinite(few)]
    if not few.size:
        return 0.0, 0.0
    lo, hi = (float(end) for end in np.quantile(few, SHARES))
    return (lo, hi) if hi > lo else (float(few.min()), float(few.max()))
