"""Accuracy of the depth of a clip with one scale and one shift for all of its frames: protocol depthcrafter.

Formulas: W. Hu et al., "DepthCrafter" (2024), and its benchmark; TAE: S. Chen et al., "Video Depth Anything" (2025).

Depth that is right in each frame and jumps between them is wrong here. Frames may come one by one, twice: their sums
give the fit, and their errors follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from depthcli.geometry.poses import square

NEAREST = 1e-3  # metres: true depth at or below it is unknown, and disparity is held above the same number
DELTA = 1.25
_EPSILON = 1e-8  # metres, added to the truth before it is inverted

PROTOCOL = (
    "depthcrafter: one scale and one shift of disparity for all frames of a clip, by least squares onto 1 / depth over "
    "all known elements nearer than the cap; disparity held at or above 0.001, inverted, held at or below the cap; "
    "AbsRel, RMSE, delta1: per frame, mean over its frames, then over the clips"
)


@dataclass(frozen=True)
class ClipScore:
    """abs_rel, rmse (metres), delta1: means over the frames. scale, shift: of disparity. frames: with true depth."""

    abs_rel: float
    rmse: float
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
        x, y = held(disparity[known]), 1 / (truth[known].astype(np.float64) + _EPSILON)
        self._sums += (len(x), x.sum(), y.sum(), x @ x, x @ y)

    def line(self) -> tuple[float, float]:
        """Return (scale, shift). Raises ValueError if nothing is known, or the prediction is one number."""
        count, x, y, xx, xy = self._sums
        variance = xx - x * x / count if count else 0.0
        if not variance > 1e-12 * xx:
            raise ValueError("the truth is unknown everywhere, or the prediction is the same everywhere")
        scale = (xy - x * y / count) / variance
        return float(scale), float((y - scale * x) / count)

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Return metres, float64, of disparity after the fit. Raises ValueError as `line`."""
        scale, shift = self.line()
        return np.clip(1 / np.maximum(scale * held(disparity) + shift, NEAREST), NEAREST, self.farthest)


def held(disparity: np.ndarray) -> np.ndarray:
    """Return disparity as float64, held at 0.001 at least, as the benchmark takes it."""
    return np.maximum(disparity.astype(np.float64), NEAREST)


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
        depth = fit.depth(disparity[known])
        ratio, apart = np.maximum(depth / target, target / depth), np.abs(depth - target)
        found.append(((apart / target).mean(), np.sqrt((apart**2).mean()), (ratio < DELTA).mean()))
    abs_rel, rmse, delta1 = np.mean(found, axis=0)
    return ClipScore(float(abs_rel), float(rmse), float(delta1), scale, shift, len(found))


def alignment_error(depths: Sequence[np.ndarray], intrinsics: np.ndarray, extrinsics: np.ndarray, far: float) -> float:
    """Return TAE, percent: how far the depth of a still scene differs from that of the frames beside it.

    Every frame's points are put into the next one's camera, and the other way; where a point meets a pixel, the
    difference of both depths counts, by the pixel's own. The mean over pixels, then over all pairs and both ways.
    depths: (H, W) each, metres, nearer than `far` where known. intrinsics: (3, 3). extrinsics: (N, 3, 4), world to
    camera. Raises ValueError for fewer than two frames, and if no point meets a pixel.
    """
    found = []
    for first in range(len(depths) - 1):
        for one, other in ((first, first + 1), (first + 1, first)):
            between = square(extrinsics[[one, other]])
            found.append(_meeting(depths[one], depths[other], intrinsics, between[1] @ np.linalg.inv(between[0]), far))
    known = [value for value in found if value is not None]
    if not known:
        raise ValueError("no point of a frame is seen in the next one")
    return 100 * float(np.mean(known))


def _meeting(
    depth: np.ndarray, other: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray, far: float
) -> Optional[float]:
    v, u = np.nonzero((depth > 0) & (depth < far))
    z = depth[v, u].astype(np.float64)
    points = (np.linalg.inv(intrinsics) @ np.stack([u, v, np.ones(len(u))])) * z
    moved = pose[:3, :3] @ points + pose[:3, 3:]
    ahead = moved[2] > 0
    x, y, z = intrinsics @ moved[:, ahead]
    column, row = (np.round(part / z).astype(np.int64) for part in (x, y))
    inside = (column >= 0) & (column < other.shape[1]) & (row >= 0) & (row < other.shape[0])
    met = np.zeros(other.shape)
    met[row[inside], column[inside]] = z[inside]
    both = (met > 0) & (other > 0) & (other < far)
    return float((np.abs(other - met)[both] / other[both]).mean()) if both.any() else None
