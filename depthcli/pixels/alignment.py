"""Alignment of depth known up to scale and shift, and ranks for its comparison. Numpy only."""

from __future__ import annotations

from typing import Optional

import numpy as np


def fit_line(p: np.ndarray, t: np.ndarray) -> Optional[tuple[float, float]]:
    """Return the (scale, shift) that minimise the sum of (scale p + shift - t)^2; None if p has no variance.

    p, t: of one shape. Sums are centred and in float64, which keep their digits at low contrast.
    """
    mean_p, mean_t = p.mean(dtype=np.float64), t.mean(dtype=np.float64)
    x = (p - mean_p).ravel()
    variance = x @ x
    if variance == 0:
        return None
    scale = x @ (t - mean_t).ravel() / variance
    return scale, mean_t - scale * mean_p


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 ranks of (N,) values, the smallest 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def places(values: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 places of N values of any shape in their order, from 0; equal values keep theirs.

    int8 is judged by these and scores by `ranks`, which differ for equal values.
    """
    order = np.empty(values.size)
    order[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size)
    return order
