"""Bilinear sampling with pixel centres aligned, so that a map and its picture lie on each other at every size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Taps:
    """For each of N places on an axis: the two indices around it, and the (N,) float32 weight of the second."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray

    def part(self, at: np.ndarray | slice) -> Taps:
        """Return the taps of some places."""
        return Taps(self.first[at], self.second[at], self.weight[at])


def taps_at(position: np.ndarray, length: int, wrap: bool = False) -> Taps:
    """Return the taps at positions on an axis of `length` samples, whose centres are the integers.

    wrap: the axis is a circle; otherwise positions beyond its ends take the end's value.
    """
    if wrap:
        first = np.floor(position).astype(np.intp)
        return Taps(first % length, (first + 1) % length, (position - first).astype(np.float32))
    position = np.clip(position, 0, length - 1)
    first = np.minimum(position.astype(np.intp), max(0, length - 2))
    return Taps(first, np.minimum(first + 1, length - 1), (position - first).astype(np.float32))


def centred_taps(source: int, target: int, wrap: bool = False) -> Taps:
    """Return the taps that resize an axis of `source` samples to `target`."""
    return taps_at((np.arange(target) + 0.5) * source / target - 0.5, source, wrap)


def sample(values: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Return (N, M) float32 values at N rows and M columns of (H, W) values."""
    used, place = np.unique(np.concatenate([rows.first, rows.second]), return_inverse=True)
    lines = values[used]
    x = columns.weight
    wide = lines[:, columns.first] * (1 - x) + lines[:, columns.second] * x
    y = rows.weight[:, None]
    count = len(rows.first)
    return wide[place[:count]] * (1 - y) + wide[place[count:]] * y
