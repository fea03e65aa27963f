"""Alignment of depth known up to scale and shift, and ranks for its comparison. Numpy only."""

from __future__ import annotations

from typing import Optional

import numpy as np

_HUBER = 1.345 * 1.4826  # of the median distance: 95 % as good as least squares for errors without outliers


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


def fit_robust(p: np.ndarray, t: np.ndarray, shift: bool = True, times: int = 8) -> tuple[float, float]:
    """Return the (scale, shift) of scale p + shift that lies near t, with little weight on outliers; (0, mean) for a
    p without variance.

    p, t: of one shape. shift: False for a scale alone. Least squares with Huber's weights, a few times, in float64.
    """
    x, y = (np.asarray(values, np.float64).ravel() for values in (p, t))
    if x.min() == x.max():
        return 0.0, float(y.mean())
    weights = np.ones_like(x)
    scale = offset = 0.0
    for _ in range(times):
        total = weights.sum()
        middle, level = (weights @ x / total, weights @ y / total) if shift else (0.0, 0.0)
        variance = weights @ (x - middle) ** 2
        if variance <= 0:
            break
        scale = float(weights @ ((x - middle) * (y - level)) / variance)
        offset = float(level - scale * middle)
        apart = np.abs(scale * x + offset - y)
        limit = _HUBER * np.median(apart)
        if limit <= 0:  # more than half of them lie on the line
            break
        weights = np.minimum(1, limit / np.maximum(apart, limit))
    return scale, offset


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 ranks of (N,) values, the smallest 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
