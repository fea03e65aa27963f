"""Plan the tiles of a large picture: levels of overlapping pieces that the network sees at its own input size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from depthcli.pixels.preprocess import InputPlan
from depthcli.pixels.sampling import Taps, taps_at

# How many times finer than the map of the whole picture. A third level, of 8, takes four times as long and gained
# nothing on pictures with measured depth: its tiles show too little of the scene.
LEVELS = (2, 4)
_OVERLAP = 0.25  # least part of a tile that its neighbour sees too
_SLACK = 1.02  # rounded lengths need no further tile


@dataclass(frozen=True, eq=False)
class Span:
    """One tile along one axis.

    start, length: in the picture's pixels; a panorama's tiles go on over its right edge. cells: (N,) indices in the
    level's map. taps: where these lie in the tile's output. weights: (N,) float32; those of all tiles add up to 1.
    """

    start: int
    length: int
    cells: np.ndarray
    taps: Taps
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Level:
    """The tiles of one level. size: (width, height) of its map of the whole picture."""

    size: tuple[int, int]
    columns: tuple[Span, ...]
    rows: tuple[Span, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.columns) * len(self.rows)


def plan_levels(plan: InputPlan) -> tuple[Level, ...]:
    """Return the levels of a picture, the coarse ones first; none if the network sees most of its pixels anyway.

    A tile has the input size of the whole picture, is not stretched, and has no fewer pixels than the input.
    """
    return tuple(level for factor in LEVELS if (level := _level(plan, factor)) is not None)


def _level(plan: InputPlan, factor: int) -> Optional[Level]:
    width, height = plan.picture_size
    columns, rows = plan.input_size
    density = factor * max(columns / (width + 2 * plan.wrapped), rows / height)  # of the map, in cells per pixel
    if density > 1:
        return None
    size = max(1, round(width * density)), max(1, round(height * density))
    return Level(
        size,
        _spans(width, size[0], columns, density, plan.wrapped > 0),
        _spans(height, size[1], rows, density, False),
    )


def _spans(picture: int, cells: int, output: int, density: float, wrap: bool) -> tuple[Span, ...]:
    """Return the tiles along an axis of so many pixels and cells. output: length of a tile in the network's output."""
    length = min(picture, round(output / density))
    length += (picture - length) % 2  # so that one tile can lie in the middle
    step = length * (1 - _OVERLAP) * _SLACK
    if wrap:
        count = math.ceil(picture / step)
        starts = [index * picture // count for index in range(count)]
    else:
        gaps = math.ceil((picture - length) / step)
        ahead = [index * (picture - length) // max(1, gaps) for index in range(gaps // 2 + 1)]
        # The second half mirrors the first, so that a flipped picture has flipped tiles.
        starts = sorted({*ahead, *(picture - length - start for start in ahead)})
    centres = (np.arange(cells) + 0.5) * picture / cells  # in the picture, whose left edge is 0
    found = []
    for start in starts:
        inside = (centres - start) % picture if wrap else centres - start
        at = np.flatnonzero((inside >= 0) & (inside < length))
        found.append((start, at, inside[at]))
    # The weight grows smoothly from the tile's ends over the least overlap.
    raised = [_smooth(np.minimum(inside, length - inside) / (_OVERLAP * length)) + 1e-6 for _, _, inside in found]
    total = np.zeros(cells)
    for (_, at, _), weights in zip(found, raised):
        total[at] += weights
    return tuple(
        Span(
            start, length, at, taps_at(inside * output / length - 0.5, output), (weights / total[at]).astype(np.float32)
        )
        for (start, at, inside), weights in zip(found, raised)
    )


def _smooth(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def crop(rgb: np.ndarray, column: Span, row: Span) -> np.ndarray:
    """Return the pixels of a tile of an (H, W, 3) picture, contiguous."""
    lines = rgb[row.start : row.start + row.length]
    over = max(0, column.start + column.length - rgb.shape[1])
    if over:  # a panorama goes on at its other edge
        return np.concatenate([lines[:, column.start :], lines[:, :over]], axis=1)
    return np.ascontiguousarray(lines[:, column.start : column.start + column.length])
