"""What the graphs of graphs/any_views.py need of a size: angles, codes and positions, in NumPy, the last sizes kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from depthcli.graphs.positions import resize_positions
from depthcli.pixels.codes import place_codes, rotary_angles
from depthcli.zoo.rows import PATCH, ViewsConfig

_KEPT = 4
RAY_SCALE = 8  # rays of a patch along a side


def pairs_apart(dim: int) -> list[int]:
    """Return an order of a head's channels in which both partners of a turn lie half a head apart.

    In the network they lie a quarter apart, in each of two halves.
    """
    quarters = [list(range(start, start + dim // 4)) for start in range(0, dim, dim // 4)]
    return [*quarters[0], *quarters[2], *quarters[1], *quarters[3]]


@dataclass(frozen=True)
class ViewTables:
    """The tables of one size of views. positions: (1, D, rows, cols).

    alone: cosines and sines (1 + rows * cols, d) of the rotary angles within a view. across: those of one view among
    others. codes: of the four reassembled maps, (1, rows * cols, C). places: codes of the finest map, of its columns
    (1, C, 1, W) and its rows (1, C, H, 1), each 0 in the other's channels. ray_places: the same for rays.
    """

    config: ViewsConfig
    rows: int
    cols: int
    positions: np.ndarray

    @cached_property
    def alone(self) -> list[np.ndarray]:
        """See the class."""
        return self._turns(across=False)

    @cached_property
    def across(self) -> list[np.ndarray]:
        """See the class."""
        return self._turns(across=True)

    @cached_property
    def codes(self) -> list[np.ndarray]:
        """See the class."""
        made = []
        for channels in self.config.out_channels:
            columns, rows = place_codes(channels, self.rows, self.cols, self.cols / self.rows)
            grid = (channels // 2, self.rows, self.cols)
            code = np.concatenate([np.broadcast_to(columns[:, None], grid), np.broadcast_to(rows[:, :, None], grid)])
            made.append(np.ascontiguousarray(code.reshape(1, channels, -1).transpose(0, 2, 1)))
        return made

    @cached_property
    def places(self) -> list[np.ndarray]:
        """See the class."""
        return self._places(PATCH)

    @cached_property
    def ray_places(self) -> list[np.ndarray]:
        """See the class."""
        return self._places(RAY_SCALE)

    def _turns(self, across: bool) -> list[np.ndarray]:
        dim = self.config.embed_dim // self.config.heads
        angles = rotary_angles(self.rows, self.cols, dim, across)[:, pairs_apart(dim)]
        return [np.cos(angles), np.sin(angles)]

    def _places(self, scale: int) -> list[np.ndarray]:
        channels = self.config.features // 2
        columns, rows = place_codes(channels, scale * self.rows, scale * self.cols, self.cols / self.rows)
        columns = np.concatenate([columns, np.zeros_like(columns)])
        rows = np.concatenate([np.zeros_like(rows), rows])
        return [columns[None, :, None, :], rows[None, :, :, None]]


@dataclass
class TablesBySize:
    """Makes the tables of sizes. trained: the trained positions (D, side, side)."""

    config: ViewsConfig
    trained: np.ndarray
    _kept: dict[tuple[int, int], ViewTables] = field(default_factory=dict)

    def of(self, image: np.ndarray) -> ViewTables:
        """Return the tables for views (V, 3, H, W)."""
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        if grid not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[grid] = ViewTables(self.config, *grid, resize_positions(self.trained, *grid))
        return self._kept[grid]
