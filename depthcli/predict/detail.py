"""Finer maps of large pictures: the network sees overlapping tiles, whose detail is added to the map of the whole.

A tile's own scale and shift mean nothing, and it does not see where it belongs. So the map of the whole picture keeps
its coarse shape, and of a tile only what is finer than that is taken, scaled to the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import cv2
import numpy as np

from depthcli.choices.model import DETAILS
from depthcli.pixels.alignment import fit_robust
from depthcli.pixels.preprocess import InputPlan, to_network_input
from depthcli.pixels.sampling import centred_taps, sample
from depthcli.pixels.tiles import Span, crop, plan_levels

OFF, EDGES, TILES, NEAREST = DETAILS
# Detail is what a Gauss filter of this part of a tile's shorter side removes.
_COARSE = 0.075
_CELLS = 8  # means of so many cells in a row and column are compared: the map of the whole shows no finer things
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def add_tiles(
    base: np.ndarray, rgb: np.ndarray, plan: InputPlan, run: Run, batch: int = 1, shift: bool = True
) -> np.ndarray:
    """Return the map of a whole picture, (h, w) float32, with the detail of its tiles, at the finest level's size.

    base: the map of the whole picture. rgb: (H, W, 3) uint8. plan: of the whole picture. run: gives the maps of network
    inputs, in the unit of `base`. batch: inputs per run. shift: maps have an unknown shift, not only a scale.
    """
    low, high = float(base.min()), float(base.max())
    wrap = plan.wrapped > 0
    for level in plan_levels(plan):
        width, height = level.size
        rows, columns = centred_taps(base.shape[0], height), centred_taps(base.shape[1], width, wrap)
        fine = sample(base, rows, columns)
        tiles = iter([(column, row) for row in level.rows for column in level.columns])
        while group := list(islice(tiles, batch)):
            for (column, row), answer in zip(group, run([_input(rgb, plan, *tile) for tile in group])):
                coarse = sample(base, rows.part(row.cells), columns.part(column.cells))
                found = sample(answer, row.taps, column.taps)
                detail = tile_detail(found, coarse, _COARSE * min(plan.input_size), shift)
                fine[np.ix_(row.cells, column.cells)] += row.weights[:, None] * column.weights * detail
        base = np.clip(fine, low, high, out=fine)
    return base


def _input(rgb: np.ndarray, plan: InputPlan, column: Span, row: Span) -> np.ndarray:
    pixels = crop(rgb, column, row)
    return to_network_input(pixels, InputPlan((column.length, row.length), plan.input_size, policy=plan.policy))


def tile_detail(found: np.ndarray, coarse: np.ndarray, scale: float, shift: bool = True) -> np.ndarray:
    """Return what a tile's map (h, w) adds to the coarse map of the same place.

    The tile is scaled to the map; one that contradicts it adds nothing. scale: of the Gauss filter, in cells.
    """
    size = max(1, coarse.shape[1] // _CELLS), max(1, coarse.shape[0] // _CELLS)
    few, wanted = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (found, coarse))
    factor = fit_robust(few, wanted, shift)[0]
    if factor <= 0:
        return np.zeros_like(coarse)
    apart = found * np.float32(factor) - coarse
    return apart - cv2.GaussianBlur(apart, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
