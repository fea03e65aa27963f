"""The range of values that a clip is shown in, found as it streams by, in memory that does not grow with its length."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import cv2
import numpy as np

SHARES = (0.005, 0.995)  # of all values that lie below the two ends: half a percent is cut off on either side
_BINS = 1 << 16
_EMPTY = (0.0, 0.0)


class ValueRange:
    """Robust range of any number of maps, of a shot or of a whole clip, from a histogram of 65 536 bins.

    The bins cover the values seen so far; when one falls outside, neighbouring bins are merged in pairs, which doubles
    what they cover, until all fit. Merging moves no value over a bin's border, so an end of the range is wrong by one
    bin at most, `bin_width`. The first map and an eighth more is what the bins cover at first, and never more than 4.3
    times what they have to: a bin is at most 1/15 000 of the largest distance between two values seen, unless the first
    map was flat and the others hardly differ from it.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._low = 0.0
        self._width = 0.0  # of a bin; 0 before the first map

    @property
    def bin_width(self) -> float:
        """By how much an end of the range may be wrong, in the values' unit."""
        return self._width

    def add(self, depth: np.ndarray) -> None:
        """Count the values of a finite (H, W) map."""
        low, high = float(depth.min()), float(depth.max())
        if not self._width:
            margin = (high - low) / 16 or max(abs(high), 1.0) * 1e-3
            self._low, self._width = low - margin, (high - low + 2 * margin) / _BINS
        self._cover(low, high)
        place = ((depth.ravel() - self._low) * (1 / self._width)).astype(np.int64)
        self._counts += np.bincount(np.clip(place, 0, _BINS - 1), minlength=_BINS)

    def range(self) -> tuple[float, float]:
        """Return (lo, hi), the quantiles 0.005 and 0.995 of all values. Raises ValueError where there is none."""
        total = int(self._counts.sum())
        if not total:
            raise ValueError("no map was added, so there is no range")
        below = np.cumsum(self._counts)
        low, high = (self._quantile(below, share * total) for share in SHARES)
        return low, high

    def state(self) -> dict[str, np.ndarray]:
        """Return all that is kept, as arrays of fixed names."""
        return {"counts": self._counts.copy(), "low": np.array(self._low), "width": np.array(self._width)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._counts = np.array(state["counts"], np.int64)
        self._low, self._width = float(state["low"]), float(state["width"])

    def _cover(self, low: float, high: float) -> None:
        """Merge bins in pairs, making room below or above, until low and high lie within."""
        while low < self._low or high >= self._low + _BINS * self._width:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            nothing = np.zeros(_BINS // 2, np.int64)
            if low < self._low:
                self._counts = np.concatenate([nothing, pairs])
                self._low -= _BINS * self._width
            else:
                self._counts = np.concatenate([pairs, nothing])
            self._width *= 2

    def _quantile(self, below: np.ndarray, wanted: float) -> float:
        """Return the value below which `wanted` values lie, as if those of a bin lay evenly in it."""
        place = int(np.searchsorted(below, wanted, side="left"))
        place = min(place, _BINS - 1)
        before = float(below[place - 1]) if place else 0.0
        inside = float(below[place]) - before
        return self._low + (place + (wanted - before) / inside if inside else place) * self._width


class StreamRange:
    """The range of each frame of a stream, which sees a little ahead and changes slowly.

    The range of frame t is the smallest and the largest of the frames' own ranges (quantiles 0.005 and 0.995) from t to
    t + ahead of the same shot, averaged over the past as `keep` times the last plus 1 - keep times the new. A new shot
    begins anew. So does iw3 (its decay 0.75, its buffer 30 frames). What lies outside is clipped when shown.

    ahead: frames by which an answer comes late; 0 for none. keep: 0 for no averaging, below 1.
    """

    def __init__(self, ahead: int = 30, keep: float = 0.9) -> None:
        if ahead < 0 or not 0 <= keep < 1:
            raise ValueError(f"ahead is 0 or more and keep from 0 to below 1, not {ahead} and {keep}")
        self._ahead, self._keep = ahead, keep
        self._waiting: deque[tuple[bool, float, float]] = deque()  # (begins a shot, lo, hi) of frames not yet answered
        self._last = _EMPTY
        self._started = False

    def add(self, depth: np.ndarray, cut: bool = False) -> list[tuple[float, float]]:
        """Take the next finite (H, W) map and return the ranges (lo, hi) that are due now, for the oldest frames first.

        cut: True where a new shot begins with this frame; then all frames before it are due.
        """
        due = self.finish() if cut else []
        self._waiting.append((cut or not self._started, *frame_range(depth)))
        self._started = True
        if len(self._waiting) > self._ahead:
            due.append(self._next())
        return due

    def finish(self) -> list[tuple[float, float]]:
        """Return the ranges of the frames that still wait: the clip has ended."""
        return [self._next() for _ in range(len(self._waiting))]

    def state(self) -> dict[str, np.ndarray]:
        """Return all that is kept, as arrays of fixed names; `ahead` and `keep` are not among it."""
        waiting = np.array(self._waiting, np.float64).reshape(-1, 3)
        return {"waiting": waiting, "last": np.array(self._last), "started": np.array(self._started)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._waiting = deque((bool(begins), float(low), float(high)) for begins, low, high in state["waiting"])
        self._last = (float(state["last"][0]), float(state["last"][1]))
        self._started = bool(state["started"])

    def _next(self) -> tuple[float, float]:
        low = min(frame[1] for frame in self._waiting)
        high = max(frame[2] for frame in self._waiting)
        begins = self._waiting.popleft()[0]
        keep = 0.0 if begins else self._keep
        self._last = (keep * self._last[0] + (1 - keep) * low, keep * self._last[1] + (1 - keep) * high)
        return self._last


def frame_range(depth: np.ndarray) -> tuple[float, float]:
    """Return (lo, hi) of one finite (H, W) map, its quantiles 0.005 and 0.995, from at most a few 10 000 pixels."""
    height, width = depth.shape
    scale = min(1.0, 256 / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Nearest: a mean of pixels would lose the ends.
    few = cv2.resize(depth.astype(np.float32, copy=False), size, interpolation=cv2.INTER_NEAREST)
    low, high = np.quantile(few, SHARES)
    return float(low), float(high)
