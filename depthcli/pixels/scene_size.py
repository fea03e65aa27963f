"""A view of a scene at the size of its photograph.

`edges.follow_edges`, which makes single maps finer, also draws values of one colour together: that bends plain walls by
some percent, which a single map can bear, and points of several views that must agree cannot.
"""

from __future__ import annotations

import enum
from dataclasses import replace

import cv2
import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.pixels.sampling import Taps, sample, taps_at
from depthcli.scene import Area, View

_SURFACES_APART = 0.1  # of depth between neighbours, as a part of it


class Enlarging(str, enum.Enum):
    """How depth is made finer.

    LINEAR: inverse depth between pixels, which keeps planes plane. EDGES: the same, but between two surfaces the depth
    of the neighbour with the photograph's colour. NEAREST: no number that was not there before; planes become steps.
    """

    EDGES = "edges"
    LINEAR = "linear"
    NEAREST = "nearest"


def at_picture_size(view: View, rgb: np.ndarray, how: Enlarging = Enlarging.EDGES) -> View:
    """Return a view whose map has the pixels of its picture, or of the part of it that the map covers.

    rgb: (H, W, 3) uint8, the upright picture. Where a neighbour has no depth, the nearest pixel's is taken; masks and
    validity are the nearest pixel's, confidence lies between pixels. Raises ValueError for a picture of another size.
    """
    if (rgb.shape[1], rgb.shape[0]) != view.picture_size:
        raise ValueError(f"the picture is {rgb.shape[1]}x{rgb.shape[0]}, and that of {view.name} {view.picture_size}")
    area, depth = view.area, view.depth
    left, top = max(0, round(area.left)), max(0, round(area.top))
    right = min(view.picture_size[0], round(area.left + area.width))
    bottom = min(view.picture_size[1], round(area.top + area.height))
    part = np.ascontiguousarray(rgb[top:bottom, left:right])
    # Places of the picture's pixel centres in the map, whose centres are the integers.
    x = (np.arange(left, right) + 0.5 - area.left) / view.scale[0] - 0.5
    y = (np.arange(top, bottom) + 0.5 - area.top) / view.scale[1] - 0.5
    near_x, near_y = (
        np.clip(np.floor(place + 0.5).astype(int), 0, length - 1) for place, length in zip((x, y), depth.size)
    )
    nearest = np.ix_(near_y, near_x)
    taps = taps_at(y, depth.size[1]), taps_at(x, depth.size[0])
    there = depth.values > 0 if depth.valid is None else depth.valid & (depth.values > 0)
    values = depth.values[nearest]
    if how is not Enlarging.NEAREST:
        inverse = np.divide(1, depth.values, out=np.zeros_like(depth.values), where=there)
        fine = sample(inverse, *taps)
        usable = _all_four(there, *taps) & (fine > 0)
        values = np.divide(1, fine, out=values.copy(), where=usable)
        if how is Enlarging.EDGES:
            small = view.picture
            if small is None:
                small = cv2.resize(part, depth.size, interpolation=cv2.INTER_AREA)
            _choose_at_edges(values, depth.values, there, part, small, *taps)
    finer = DepthMap(
        values,
        depth.kind,
        depth.provenance,
        depth.max_depth,
        None if depth.valid is None else depth.valid[nearest],
        None if depth.confidence is None else sample(depth.confidence, *taps),
        None if depth.sky is None else depth.sky[nearest],
        view.picture_camera.cropped(left, top),
    )
    return replace(view, depth=finer, picture=part, area=Area(left, top, right - left, bottom - top))


def _choose_at_edges(
    values: np.ndarray,
    coarse: np.ndarray,
    there: np.ndarray,
    rgb: np.ndarray,
    small: np.ndarray,
    rows: Taps,
    columns: Taps,
) -> None:
    """Overwrite (H, W) values between two surfaces by that of the four pixels around whose colour is the most alike.

    coarse, there, small: the map, where it has depth, and the picture at its size. Pixels of no depth are not chosen.
    """
    around = [(y, x) for y in (rows.first, rows.second) for x in (columns.first, columns.second)]
    low, high = np.full(values.shape, np.inf, np.float32), np.zeros(values.shape, np.float32)
    for y, x in around:
        z = coarse[np.ix_(y, x)]
        np.minimum(low, z, out=low)
        np.maximum(high, z, out=high)
    row, column = np.nonzero(high > (1 + _SURFACES_APART) * low)
    colours = rgb[row, column].astype(np.int32)
    corners = [(y[row], x[column]) for y, x in around]
    differences = [
        np.where(there[at], np.abs(small[at].astype(np.int32) - colours).sum(axis=1), 1 << 20) for at in corners
    ]
    best = np.argmin(differences, axis=0)
    found = np.stack([coarse[at] for at in corners])[best, np.arange(len(row))]
    good = np.stack([there[at] for at in corners]).any(axis=0)
    values[row[good], column[good]] = found[good]


def _all_four(there: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Return where all four pixels around a place have depth."""
    down = there[rows.first] & there[rows.second]
    return np.asarray(down[:, columns.first] & down[:, columns.second])
