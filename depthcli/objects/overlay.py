"""Show objects over the colours of depth: outlines, and what is known of each one's distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import cv2
import numpy as np

from depthcli.objects.document import Objects
from depthcli.objects.measure import CUT
from depthcli.pixels.colormap import to_color

# Okabe and Ito's colours for the colour-blind, without black and the yellow that white letters vanish on.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_DIMMED = 0.55  # of the depth's colours outside of objects
_UNKNOWN = 48  # gray of pixels without depth
_TINT = 0.35  # of an object's colour inside of it
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHORT_SIDE = 720.0  # of a picture whose letters have the font's own size
_PLACES = 8  # tried above and below the first one for a label that would cover another


def overlay(
    found: Objects,
    colormap: str,
    value_range: Optional[tuple[float, float]] = None,
    smooth: Sequence[Optional[float]] = (),
) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of the depth's colours with the outlines and labels of objects, far ones first.

    value_range: numbers at the ends of the colours, None for the map's own. smooth: distances to show instead.
    """
    width, height = found.depth.size
    picture = to_color(found.depth, colormap, value_range)
    if found.depth.valid is not None:
        picture[~found.depth.valid] = _UNKNOWN
    covered = np.zeros((height, width), bool)
    for item in found.masks:
        covered |= item.mask
    if found.masks:
        picture[~covered] = (picture[~covered] * _DIMMED).astype(np.uint8)
    scale = max(0.4, min(width, height) / _SHORT_SIDE)
    line = max(2, round(3 * scale))
    order = found.near_to_far()[::-1]
    for place in order:
        item, region = found.masks[place], found.measured[place].region
        color = color_of(place if item.track is None else item.track)
        part = region.cut_out(picture)
        part[region.mask] = ((1 - _TINT) * part[region.mask] + _TINT * np.array(color)).astype(np.uint8)
        outlines, _ = cv2.findContours(
            region.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(region.left, region.top)
        )
        cv2.drawContours(picture, outlines, -1, (255, 255, 255), line + 2)
        cv2.drawContours(picture, outlines, -1, color, line)
    taken: list[tuple[int, int, int, int]] = []
    for place in order[::-1]:  # the nearest has the first choice of its place
        item = found.masks[place]
        color = color_of(place if item.track is None else item.track)
        shown = smooth[place] if smooth else None
        _write(picture, text_of(found, place, shown), _anchor(found, place), color, scale, taken)
    return picture


def text_of(found: Objects, place: int, smooth: Optional[float] = None) -> str:
    """Return the label of an object: "person 2.01 m", or for relative depth "person, nearest", "person, 3rd".

    smooth: distance to show instead of that of the frame.
    """
    item, was, rank = found.masks[place], found.measured[place], found.ranks[place]
    name = item.name if item.track is None else f"{item.name} #{item.track}"
    distance = was.distance if smooth is None else smooth
    if distance is not None:
        return f"{name} {distance:.{2 if distance < 10 else 1}f} m"
    if rank is None:
        return f"{name}, no depth"
    return f"{name}, {'nearest' if rank == 0 else _ordinal(rank + 1)}"


def color_of(number: int) -> tuple[int, int, int]:
    """Return the RGB of an object or a track, always the same for one number."""
    return _COLORS[number % len(_COLORS)]


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _anchor(found: Objects, place: int) -> tuple[int, int]:
    """Return the innermost point of an object, where its label belongs."""
    region = found.measured[place].region
    inner = np.where(region.mask, region.inner, 0)
    if CUT in found.measured[place].flags and inner.min() == inner.max():
        return region.left + inner.shape[1] // 2, region.top + inner.shape[0] // 2
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return region.left + int(column), region.top + int(row)


def _write(
    picture: np.ndarray,
    text: str,
    at: tuple[int, int],
    color: tuple[int, int, int],
    scale: float,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write a label on a plate of its colour, where it fits into the picture and covers no other one."""
    height, width = picture.shape[:2]
    shown = text.encode("ascii", "replace").decode()  # all that the font has
    size = 0.6 * scale
    stroke = max(1, round(1.4 * scale))
    (wide, high), below = cv2.getTextSize(shown, _FONT, size, stroke)
    pad = max(2, round(4 * scale))
    wide, high = wide + 2 * pad, high + below + 2 * pad
    left = min(max(0, at[0] - wide // 2), max(0, width - wide))
    box = _free_place(left, at[1] - high // 2, wide, high, height, taken)
    taken.append(box)
    cv2.rectangle(picture, box[:2], (box[2] - 1, box[3] - 1), color, -1)
    cv2.putText(picture, shown, (box[0] + pad, box[3] - pad - below), _FONT, size, (255, 255, 255), stroke, cv2.LINE_AA)


def _free_place(
    left: int, top: int, wide: int, high: int, height: int, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    first: Optional[tuple[int, int, int, int]] = None
    for step in range(2 * _PLACES + 1):
        shift = (step + 1) // 2 * (high if step % 2 else -high)
        y = min(max(0, top + shift), max(0, height - high))
        box = (left, y, left + wide, y + high)
        first = first or box
        if not any(box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken):
            return box
    assert first is not None
    return first
