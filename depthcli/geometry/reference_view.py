"""Which view of a scene the others are seen from: the rules of Depth Anything 3, on the class tokens of its views."""

from __future__ import annotations

import enum

import numpy as np

_FEW = 3  # views, below which the first is the reference
_LEAST = 1e-8


class Reference(str, enum.Enum):
    """How the reference is chosen. The names are those of Depth Anything 3."""

    FIRST = "first"
    MIDDLE = "middle"
    SADDLE_BALANCED = "saddle_balanced"
    SADDLE_SIM_RANGE = "saddle_sim_range"


def choose_reference(tokens: np.ndarray, rule: Reference = Reference.SADDLE_BALANCED) -> int:
    """Return the index of the reference among views with (S, D) class tokens.

    saddle_balanced: the view whose similarity to the others, norm and variance are nearest to the middle of their
    ranges. saddle_sim_range: the one whose similarities to the others have the widest range.
    """
    count = len(tokens)
    if count < _FEW or rule is Reference.FIRST:
        return 0
    if rule is Reference.MIDDLE:
        return count // 2
    norms = np.linalg.norm(tokens, axis=1)
    directions = tokens / np.maximum(norms, _LEAST)[:, None]
    # The view itself counts as a similarity of 0, as in the reference.
    alike = directions @ directions.T - np.eye(count, dtype=tokens.dtype)
    if rule is Reference.SADDLE_SIM_RANGE:
        return int(np.argmax(alike.max(axis=1) - alike.min(axis=1)))
    measures = alike.sum(axis=1) / (count - 1), norms, directions.var(axis=1, ddof=1)
    return int(np.argmin(sum(np.abs(_in_range(measure) - 0.5) for measure in measures)))


def _in_range(values: np.ndarray) -> np.ndarray:
    """Return values from 0, the smallest, to 1."""
    return (values - values.min()) / (values.max() - values.min() + _LEAST)
