"""How far a depth map is from the same map computed more exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MapDifference:
    """mean, greatest: absolute difference over the range of the exact map. rank: correlation of the pixels' order."""

    mean: float
    greatest: float
    rank: float


def compare_maps(wanted: np.ndarray, found: np.ndarray) -> MapDifference:
    """Return the difference of `found` from `wanted`, two maps of one shape."""
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    apart = np.abs(found - wanted) / (np.ptp(wanted) or 1)
    rank = float(np.corrcoef(_places(wanted), _places(found))[0, 1]) if wanted.size > 1 else 1.0
    return MapDifference(float(apart.mean()), float(apart.max()), rank)


def _places(values: np.ndarray) -> np.ndarray:
    """Return the (N,) places of N values in their order, from 0; equal values keep theirs."""
    order = np.empty(values.size)
    order[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size)
    return order
