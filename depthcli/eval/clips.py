"""Accuracy of the depth of a clip with one scale and one shift for all of its frames: protocol depthcrafter.

Depth that is right in each frame and jumps between them is wrong here. Frames may come one by one, twice: their sums
give the fit, and their errors follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

NEAREST = 1e-3  # metres: true depth at or below it is unknown, and disparity is held above the same number
CAPS = {"sintel": 70.0, "kitti": 80.0, "scannet": 10.0, "bonn": 10.0, "nyu": 10.0}  # metres; beyond it nothing counts
DELTA = 1.25


@dataclass(frozen=True)
class ClipScore:
    """abs_rel, delta1: means over the frames. scale, shift: of disparity. frames: that had true depth."""

    abs_rel: float
    delta1: float
    scale: float
    shift: float
    frames: int


class ClipFit:
    """The least-squares scale and shift from predicted disparity to 1 / depth, over all frames that are added."""

    def __init__(self, farthest: float) -> None:
        self.farthest = farthest
        self._sums = np.zeros(5)

    def known(self, truth: np.ndarray) -> np.ndarray:
        """Return where true depth counts."""
        return np.isfinite(truth) & (truth > NEAREST) & (truth < self.farthest)

    def add(self, disparity: np.ndarray, truth: np.ndarray) -> None:
        """Add a frame. disparity: (H, W), larger is nearer. truth: (H, W) metres, 0 or no number where unknown."""
        known = self.known(truth)
        x, y = disparity[known].astype(np.float64), 1 / truth[known].astype(np.float64)
        self._sums += (len(x), x.sum(), y.sum(), x @ x, x @ y)

    def line(self) -> tuple[float, float]:
        """Return (scale, shift). Raises ValueError if nothing is known, or the prediction is one number."""
        count, x, y, xx, xy = self._sums
        variance = xx - x * x / count if count else 0.0
        if not variance > 1e-12 * xx:
            raise ValueError("the truth is unknown everywhere, or the prediction is the same everywhere")
        scale = (xy - x * y / count) / variance
        return float(scale), float((y - scale * x) / count)


def score_clip(frames: Iterable[tuple[np.ndarray, np.ndarray]], fit: ClipFit) -> ClipScore:
    """Return the figures of (disparity, truth) frames after the fit of all of them.

    Disparity is held at 0.001 at least, then inverted, and depth is held at the fit's farthest distance. Raises
    ValueError as `ClipFit.line`, and for shapes that differ.
    """
    scale, shift = fit.line()
    found = []
    for disparity, truth in frames:
        if disparity.shape != truth.shape:
            raise ValueError(f"the prediction is {disparity.shape}, the truth {truth.shape}")
        known = fit.known(truth)
        if not known.any():
            continue
        target = truth[known].astype(np.float64)
        depth = np.minimum(1 / np.maximum(scale * disparity[known] + shift, NEAREST), fit.farthest)
        ratio = np.maximum(depth / target, target / depth)
        found.append(((np.abs(depth - target) / target).mean(), (ratio < DELTA).mean()))
    abs_rel, delta1 = np.mean(found, axis=0)
    return ClipScore(float(abs_rel), float(delta1), scale, shift, len(found))
