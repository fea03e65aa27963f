"""Features of a network as colours: their three main directions, the same for all views, are red, green and blue."""

from __future__ import annotations

import numpy as np

_PERCENT = (1, 99)  # of a direction's numbers, over all views: the ends of its colour
_CHANNELS = 3


def feature_colors(features: np.ndarray) -> np.ndarray:
    """Return (V, rows, cols, 3) uint8 colours of (V, rows, cols, D) features.

    Principal components of all views together, so that one colour means one thing in all of them; the first is red. A
    component's sign is that for which its largest weight is positive. A direction in which nothing differs is 128.

    Raises ValueError for NaN and infinity, and for anything but four axes.
    """
    if features.ndim != 4 or not features.size:
        raise ValueError(f"features are (V, rows, cols, D), not {features.shape}")
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("the features hold NaN or infinity")
    flat -= flat.mean(axis=0)
    directions = _main_directions(flat)
    colors = np.full((len(flat), _CHANNELS), 128, np.uint8)
    for channel, direction in enumerate(directions):
        along = flat @ direction
        low, high = np.percentile(along, _PERCENT)
        if high - low > 1e-9 * max(np.abs(flat).max(), 1e-300):
            colors[:, channel] = np.round(255 * np.clip((along - low) / (high - low), 0, 1))
    return colors.reshape(*features.shape[:-1], _CHANNELS)


def _main_directions(flat: np.ndarray) -> np.ndarray:
    """Return up to three (D,) unit directions of (N, D) centred numbers, by falling variance."""
    _, vectors = np.linalg.eigh(flat.T @ flat)
    found = vectors[:, ::-1].T[:_CHANNELS]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    return np.asarray(found * np.where(largest < 0, -1, 1))
