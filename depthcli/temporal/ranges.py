"""Find the range of values in which a clip is shown, frame by frame in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import cv2
import numpy as np

SHARES = (0.005, 0.995)  # of all values below the two ends: half a percent is cut off on either side
_BINS = 1 << 16
_EMPTY = (0.0, 0.0)


class ValueRange:
    """Robust range of any number of maps, from a histogram of 65 536 bins.

    The bins first cover the range of the first map and an eighth more. If a value falls outside, neighbouring bins are
    merged in pairs until it fits, so an end of the range is wrong by at most one bin, `bin_width`. The bins cover at
    most 4.3 times the range of the values, so a bin is at most 1/15 000 of that range, unless the first map was flat
    and the others hardly differ from it.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._low = 0.0
        self._width = 0.0  # width of a bin; 0 before the first map

    @property
    def bin_width(self) -> float:
        """The largest error of an end of the range, in the unit of the values."""
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
        """Return (lo, hi), the quantiles 0.005 and 0.995 of all values. Raises ValueError if there are none."""
        total = int(self._counts.sum())
        if not total:
            raise ValueError("no map was added, so there is no range")
        below = np.cumsum(self._counts)
        low, high = (self._quantile(below, share * total) for share in SHARES)
        return low, high

    def state(self) -> dict[str, np.ndarray]:
        """Return the state to restore from."""
        return {"counts": self._counts.copy(), "low": np.array(self._low), "width": np.array(self._width)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`."""
        self._counts = np.array(state["counts"], np.int64)
        self._low, self._width = float(state["low"]), float(state["width"])

    def _cover(self, low: float, high: float) -> None:
        """Merge bins in pairs, making room below or above, until low and high fit."""
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
        """Return the value with `wanted` values below it, interpolated inside its bin."""
        place = int(np.searchsorted(below, wanted, side="left"))
        place = min(place, _BINS - 1)
        before = float(below[place - 1]) if place else 0.0
        inside = float(below[place]) - before
        return self._low + (place + (wanted - before) / inside if inside else place) * self._width


class StreamRange:
    """The range of each frame of a stream, from a few frames ahead, changing slowly.

    The range of frame t spans the quantiles 0.005 and 0.995 of frames t to t + ahead of the shot, averaged over the
    past: `keep` times the last range plus 1 - keep times the new one. A new shot has no past. (iw3: decay 0.75, 30
    frames.)

    ahead: delay in frames. keep: from 0, no averaging, to below 1.
    """

    def __init__(self, ahead: int = 30, keep: float = 0.9) -> None:
        if ahead < 0 or not 0 <= keep < 1:
            raise ValueError(f"ahead must be at least 0 and keep from 0 to below 1, got {ahead} and {keep}")
        self._ahead, self._keep = ahead, keep
        self._waiting: deque[tuple[bool, float, float]] = deque()  # (begins a shot, lo, hi) of frames without a range
        self._last = _EMPTY
        self._started = False

    def add(self, depth: np.ndarray, cut: bool = False) -> list[tuple[float, float]]:
        """Take the next finite (H, W) map; return the ranges (lo, hi) that are complete, oldest first.

        cut: a new shot begins with this frame, which completes all earlier ones.
        """
        due = self.finish() if cut else []
        self._waiting.append((cut or not self._started, *frame_range(depth)))
        self._started = True
        if len(self._waiting) > self._ahead:
            due.append(self._next())
        return due

    def finish(self) -> list[tuple[float, float]]:
        """Return the ranges of the remaining frames after the last one."""
        return [self._next() for _ in range(len(self._waiting))]

    def state(self) -> dict[str, np.ndarray]:
        """Return the state to restore from, without `ahead` and `keep`."""
        waiting = np.array(self._waiting, np.float64).reshape(-1, 3)
        return {"waiting": waiting, "last": np.array(self._last), "started": np.array(self._started)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`."""
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
    """Return (lo, hi) of one finite (H, W) map: its quantiles 0.005 and 0.995, from at most 65 536 pixels."""
    height, width = depth.shape
    scale = min(1.0, 256 / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Nearest, as a mean of pixels would lose the ends.
    few = cv2.resize(depth.astype(np.float32, copy=False), size, interpolation=cv2.INTER_NEAREST)
    low, high = np.quantile(few, SHARES)
    return float(low), float(high)
