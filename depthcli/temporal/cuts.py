"""Detect cuts frame by frame on small pictures, without look-ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import cv2
import numpy as np

from depthcli.temporal.flow import dense_flow, places, sample

_SIZE = (64, 36)  # (width, height) of the pictures that are compared
_PAST = 48  # frames, two seconds of film, whose median score is the usual one
# Measured scores: up to 0.25 between frames of moving cameras and of a pan by a tenth of the picture per frame, 0.45 to
# 0.56 at a flash, 0.55 or more between unrelated photographs (median 1.0; above 0.71 for 99 % of 380 pairs).
_LEAST = 0.6
_TIMES = 3.0  # times the usual score: a cut out of a restless shot needs a larger step
_MOST = 1.0
_COLORS = 0.25  # weight of the histograms against the pictures themselves
_FLASH = 3  # frames within which the earlier shot may return after a flash
_DARK = 12.0  # grey levels: limit of contrast stretching, so that a fade does not end in noise


class CutDetector:
    """Detects for each frame, in order, whether a new shot begins with it.

    The score of a step is the mean absolute difference of two 64x36 luma pictures in standard deviations, after warping
    one along the flow, plus a quarter of the smaller of their histogram distances (luma, or hue with saturation, 0 to 1
    each). The flow removes pans, the standard deviations remove fades, flashes and exposure. A cut is a score above 0.6
    and above three times the median of the last 48.

    A white-out begins a shot, its end does not. Dissolves and fades through black are not found: each step is small.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._left: np.ndarray | None = None  # the last frame before the last cut, while it may come back
        self._since = 0  # frames since that cut
        self._scores: deque[float] = deque(maxlen=_PAST)

    def is_cut(self, rgb: np.ndarray) -> bool:
        """Return whether a new shot begins with this (H, W, 3) uint8 frame; False for the first one."""
        now = cv2.resize(rgb, _SIZE, interpolation=cv2.INTER_AREA)
        last, self._last = self._last, now
        if last is None:
            return False
        self._since += 1
        if self._since > _FLASH:
            self._left = None
        threshold = float(np.clip(_TIMES * np.median(self._scores), _LEAST, _MOST)) if self._scores else _LEAST
        score = _score(last, now)
        if score <= threshold:
            self._scores.append(score)
            return False
        if self._left is not None and _score(self._left, now) <= threshold:
            self._left = None
            return False
        self._left, self._since = last, 0
        self._scores.clear()
        return True

    def state(self) -> dict[str, np.ndarray]:
        """Return the state to restore from; a missing frame is an empty array."""
        nothing = np.zeros((0, 0, 3), np.uint8)
        return {
            "last": nothing if self._last is None else self._last.copy(),
            "left": nothing if self._left is None else self._left.copy(),
            "since": np.array(self._since),
            "scores": np.array(self._scores, np.float64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`."""
        last, left = (np.array(state[name], np.uint8) for name in ("last", "left"))
        self._last = last if last.size else None
        self._left = left if left.size else None
        self._since = int(state["since"])
        self._scores = deque((float(score) for score in state["scores"]), maxlen=_PAST)


def _score(before: np.ndarray, now: np.ndarray) -> float:
    """Return the difference of two small (h, w, 3) frames: 0 for equal ones, about 1 for unrelated ones."""
    gray_before, gray_now = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, now))
    moved = sample(_standard(gray_before), places(dense_flow(gray_now, gray_before), _SIZE))
    apart = float(np.abs(_standard(gray_now) - moved).mean())
    return apart + _COLORS * min(_distance(*map(_luma, (gray_before, gray_now))), _distance(*map(_hues, (before, now))))


def _standard(gray: np.ndarray) -> np.ndarray:
    values = gray.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), _DARK)


def _luma(gray: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([gray], [0], None, [32], [0, 256])
    return cv2.GaussianBlur(counts.reshape(1, -1), (5, 1), 0)  # (32,) in OpenCV 5, (32, 1) before


def _hues(rgb: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    return cv2.GaussianBlur(cv2.calcHist([hsv], [0, 1], None, [12, 6], [0, 180, 0, 256]), (3, 3), 0)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the distance of two histograms, 0 to 1: half the sum of absolute differences of their shares."""
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)
