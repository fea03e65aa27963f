"""Which object is nearer, and which one hides another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Optional

import cv2
import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.objects.measure import LEAST_KNOWN, Measured, Region, nearness_of

_REACH, _RIM = 2.0, 4.0  # trims between masks that meet, and trims that their rims are wide
_LOG_RATIO = 0.05  # of depths: a smaller difference hides nothing
_DIFFERENCE = 0.05  # of nearness, for relative depth


@dataclass(frozen=True)
class Hiding:
    """One object in front of another where their masks meet.

    front, back: their places in the list. log_ratio: ln of the depth behind over the depth in front; None for relative
    depth, whose ratios are unknown.
    """

    front: int
    back: int
    log_ratio: Optional[float]


def ranks(objects: Sequence[Measured], near_is_high: bool) -> list[Optional[int]]:
    """Return the rank of each object, 0 for the nearest, None without depth. Of equal ones the larger comes first."""
    known = [place for place, item in enumerate(objects) if item.value is not None]
    sign = -1 if near_is_high else 1
    known.sort(key=lambda place: (sign * (objects[place].value or 0.0), -objects[place].area, place))
    order = {place: rank for rank, place in enumerate(known)}
    return [order.get(place) for place in range(len(objects))]


def hidings(objects: Sequence[Measured], depth: DepthMap, trim: float) -> list[Hiding]:
    """Return which object hides which, in the order of the list. trim: as of the measures."""
    found = []
    for a, b in combinations(range(len(objects)), 2):
        if objects[a].value is None or objects[b].value is None:
            continue
        hiding = _hiding(a, b, objects[a].region, objects[b].region, depth, trim)
        if hiding is not None:
            found.append(hiding)
    return found


def _hiding(a: int, b: int, one: Region, two: Region, depth: DepthMap, trim: float) -> Optional[Hiding]:
    near = _depths_where_they_meet(one, two, depth, trim)
    if near is None:
        return None
    z_a, z_b = near
    if depth.kind.is_metric:
        if min(z_a, z_b) <= 0:
            return None
        ratio = math.log(z_b / z_a)
        if abs(ratio) <= _LOG_RATIO:
            return None
        return Hiding(a, b, ratio) if ratio > 0 else Hiding(b, a, -ratio)
    difference = nearness_of(z_a, depth) - nearness_of(z_b, depth)
    if abs(difference) <= _DIFFERENCE:
        return None
    return Hiding(a, b, None) if difference > 0 else Hiding(b, a, None)


def _depths_where_they_meet(one: Region, two: Region, depth: DepthMap, trim: float) -> Optional[tuple[float, float]]:
    """Return the medians of both rims; None if the masks do not meet or too little depth is known there."""
    reach = math.ceil(_RIM * max(trim, 1.0))
    width, height = depth.size
    (l1, t1, r1, b1), (l2, t2, r2, b2) = one.bounds, two.bounds
    left, right = max(0, max(l1, l2) - reach), min(width, min(r1, r2) + reach)
    top, bottom = max(0, max(t1, t2) - reach), min(height, min(b1, b2) + reach)
    if left >= right or top >= bottom:
        return None
    window = slice(top, bottom), slice(left, right)
    masks = [_in_window(region, region.mask, window, False) for region in (one, two)]
    inners = [_in_window(region, region.inner, window, 0) for region in (one, two)]
    if not masks[0].any() or not masks[1].any():
        return None
    away = [cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for mask in masks]
    if away[1][masks[0]].min() > _REACH * max(trim, 1.0):
        return None
    values = depth.values[window]
    valid = True if depth.valid is None else depth.valid[window]
    medians = []
    for mine, other in ((0, 1), (1, 0)):
        rim = masks[mine] & ~masks[other] & (away[other] <= reach) & (inners[mine] > trim) & valid
        if np.count_nonzero(rim) < LEAST_KNOWN:
            return None
        medians.append(float(np.median(values[rim].astype(np.float64))))
    return medians[0], medians[1]


def _in_window(region: Region, part: np.ndarray, window: tuple[slice, slice], rest: float) -> np.ndarray:
    """Return an array of the region as it lies in a window of the picture; `rest` is outside of the region."""
    rows, columns = window
    out = np.full((rows.stop - rows.start, columns.stop - columns.start), rest, part.dtype)
    top, left = max(rows.start, region.top), max(columns.start, region.left)
    bottom = min(rows.stop, region.top + part.shape[0])
    right = min(columns.stop, region.left + part.shape[1])
    if top < bottom and left < right:
        out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part[
            top - region.top : bottom - region.top, left - region.left : right - region.left
        ]
    return out
