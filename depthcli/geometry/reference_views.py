"""Which view of a scene is the reference, by the views' class tokens: the strategies of Depth Anything 3."""

from __future__ import annotations

from typing import Callable

import numpy as np

FEWEST_TO_CHOOSE = 3  # of two views the first is the reference
_SMALL = 1e-8


def most_varied(tokens: np.ndarray) -> int:
    """Return the view whose similarities to the others have the largest range. tokens: (V, D) float32.

    If all views are alike, the two that are most alike have one range: the first is taken. In the official code
    rounding decides between them.
    """
    similar = similarities(tokens)[1]
    return int((similar.max(axis=1) - similar.min(axis=1)).argmax())


def most_average(tokens: np.ndarray) -> int:
    """Return the view in the middle of three ranges: similarity to the others, length and variance of the token."""
    unit, similar = similarities(tokens)
    features = (similar.sum(axis=1) / (len(unit) - 1), np.linalg.norm(tokens, axis=1), unit.var(axis=1, ddof=1))
    scaled = (np.abs((value - value.min()) / (np.ptp(value) + _SMALL) - 0.5) for value in features)
    return int(np.sum(list(scaled), axis=0).argmin())


def similarities(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class tokens (V, D) at length 1, and their cosine similarities (V, V) with 0 for each with itself."""
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    return unit, (unit @ unit.T) * (1 - np.eye(len(unit), dtype=unit.dtype))


# name -> the index of the reference view, from the views' class tokens (V, D) float32
REFERENCES: dict[str, Callable[[np.ndarray], int]] = {
    "saddle_balanced": most_average,
    "saddle_sim_range": most_varied,
    "first": lambda tokens: 0,
    "middle": lambda tokens: len(tokens) // 2,
}
