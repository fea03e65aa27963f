"""Measure how steady the depth of a clip is, without a truth, frame by frame in constant memory.

D_t: (H, W) the map of frame t, of any kind and unit. contrast(D) = p98(D) - p2(D) of its values. A warped map is the
previous one, moved along the flow between the pictures (`temporal.flow`). Steady is not correct: a constant map scores
best, so read these metrics together with `contrast_kept` and the errors of `eval.metrics`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from depthcli.temporal.flow import Motion, find_motion, flow_size, small_gray, warp

_ENDS = 10  # frames at either end of a clip whose contrast is compared
_FLAT = 1e-12


@dataclass(frozen=True)
class Steadiness:
    """The steadiness of one clip; None if there are too few frames. Lower is steadier, except for contrast_kept.

    frames: number of maps.
    opw: OPW of NVDS (Wang et al. 2023), here with DIS flow: 10 mean(sum over R, G, B of exp(-50 (I_t - warped I)^2) *
        |N_t - warped N|), I from 0 to 1 and N = (D - median D) / mean |D - median D|; mean over all steps.
    flicker: mean |D_t - D_(t-1)| / contrast(D_t), mean over all steps; for clips without motion.
    flow_flicker: the same against the warped map, over pixels visible before, weighted by how alike the pictures are.
    range_jitter: mean of the standard deviations over time of p2 and p98, over the mean contrast.
    contrast_kept: mean contrast of the last 10 frames over that of the first 10; below 1 it faded. For clips that end
    as     they begin.
    """

    frames: int
    opw: float | None = None
    flicker: float | None = None
    flow_flicker: float | None = None
    range_jitter: float | None = None
    contrast_kept: float | None = None


class SteadinessMeter:
    """Measures the Steadiness of a clip, frame by frame, on the flow's grid (longer side 480 at most), except cuts."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # grey, colours, map
        self._steps = np.zeros(3)  # sums of opw, flicker, flow_flicker
        self._count = 0
        self._ends: list[np.ndarray] = []  # the first (p2, p98)
        self._latest: deque[np.ndarray] = deque(maxlen=_ENDS)
        self._frames = 0
        self._mean = np.zeros(2)  # of p2 and p98, and the sum of squares about it, after Welford
        self._squares = np.zeros(2)

    def add(self, rgb: np.ndarray, depth: np.ndarray, cut: bool = False) -> None:
        """Take the next frame (H', W', 3) uint8 and its finite (H, W) map. cut: a new shot begins with it."""
        size = flow_size(rgb.shape[1], rgb.shape[0])
        gray = small_gray(rgb)
        colors = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        values = cv2.resize(depth.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA)
        self._add_range(np.percentile(values, (2, 98)))
        if self._last is not None and not cut:
            before, colors_before, values_before = self._last
            motion = find_motion(before, gray)
            self._steps += (
                _opw(colors, colors_before, values, values_before, motion),
                _relative(float(np.abs(values - values_before).mean()), values),
                _flow_flicker(values, values_before, motion),
            )
            self._count += 1
        self._last = (gray, colors, values)

    def result(self) -> Steadiness:
        """Return the figures of all frames so far."""
        if not self._count:
            return Steadiness(self._frames)
        opw, flicker, flow_flicker = (self._steps / self._count).tolist()
        contrast = max(float(self._mean[1] - self._mean[0]), _FLAT)
        jitter = float(np.sqrt(self._squares / self._frames).mean()) / contrast
        first, last = (float(np.diff(np.mean(ends, axis=0))[0]) for ends in (self._ends, self._latest))
        return Steadiness(self._frames, opw, flicker, flow_flicker, jitter, last / max(first, _FLAT))

    def _add_range(self, ends: np.ndarray) -> None:
        self._frames += 1
        apart = ends - self._mean
        self._mean = self._mean + apart / self._frames
        self._squares = self._squares + apart * (ends - self._mean)
        if len(self._ends) < _ENDS:
            self._ends.append(ends)
        self._latest.append(ends)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return mean |one - other| / contrast(other) of two (H, W) maps."""
    low, high = np.percentile(other, (2, 98))
    return float(np.abs(one - other).mean() / max(high - low, _FLAT))


def cut_bleeding(
    after_cut: Iterable[tuple[np.ndarray, np.ndarray]], elsewhere: Iterable[tuple[np.ndarray, np.ndarray]]
) -> float:
    """Return how much more maps right after a cut differ from maps of single frames than maps elsewhere do.

    Each pair has two (H, W) maps of a frame: in the clip, and alone. The result is the quotient of the mean
    `difference` of both groups; infinite if only frames after cuts differ. Lower is better: 0 if a shot begins with the
    map of its first frame alone, 1 if a cut has no effect, above 1 if one shot shows in the next.
    """
    after, normal = (float(np.mean([difference(*pair) for pair in pairs])) for pairs in (after_cut, elsewhere))
    if normal <= _FLAT:
        return 0.0 if after <= _FLAT else float("inf")
    return after / normal


def _relative(change: float, values: np.ndarray) -> float:
    low, high = np.percentile(values, (2, 98))
    return change / max(float(high - low), _FLAT)


def _flow_flicker(values: np.ndarray, before: np.ndarray, motion: Motion) -> float:
    weight = motion.seen * motion.alike
    change = np.abs(values - warp(before, motion))
    return _relative(float((weight * change).sum() / max(float(weight.sum()), _FLAT)), values)


def _opw(
    colors: np.ndarray, colors_before: np.ndarray, values: np.ndarray, before: np.ndarray, motion: Motion
) -> float:
    weight = np.exp(-50 * np.square(colors - warp(colors_before, motion))).sum(axis=-1)
    return float(10 * (weight * np.abs(_normal(values) - warp(_normal(before), motion))).mean())


def _normal(values: np.ndarray) -> np.ndarray:
    apart = values - np.median(values)
    return apart / max(float(np.abs(apart).mean()), _FLAT)
