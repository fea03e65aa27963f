"""Compute the times of a clip's frames from the time stamps of its packets and frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Callable, Optional

import numpy as np

from depthcli.io.video.clip import Shown

_RESTART = Fraction(1)  # seconds: a larger jump back is a restarted clock, a smaller one is disorder
_KEPT = 256  # packets without their frames yet: more than any decoder holds back


class Clock:
    """Seconds since the first frame, strictly increasing.

    A frame's time is its presentation time (pts). The decoding time (dts) is used if there is no pts (AVI), or if pts
    went back more often than dts (some writers put the order of decoding there), as in FFmpeg. A frame without a time
    stamp comes one period after the one before it. A time stamp that is repeated or goes back a little becomes the
    least that increases. One that goes back by more than a second is a restarted clock and continues one period after
    the last frame.

    rate: frames per second. tick: the unit of the stamps in seconds. ordered: packets hold the time until the next one
    in the order of decoding (MP4), so only their sum tells when the last frame ends. length: of all frames, in ticks.
    """

    def __init__(self, rate: Fraction, tick: Fraction, ordered: bool = False, length: int = 0) -> None:
        self._period, self._tick, self._ordered = 1 / rate, tick, ordered
        self.origin = Fraction(0)
        self._zero: Optional[Fraction] = None
        self._last: Optional[Fraction] = None
        self._last_pts: Optional[int] = None
        self._last_dts: Optional[int] = None
        self._back_pts = self._back_dts = 0
        self._first_decoding: Optional[int] = None
        self._durations: dict[Optional[int], int] = {}
        self._length, self._longest = length, 0
        self._sum = self._packets = self._frames = 0
        self._last_duration = Fraction(0)

    def packet(self, pts: Optional[int], dts: Optional[int], duration: Optional[int]) -> None:
        """Register a packet before it is decoded. All are in ticks."""
        if not self._packets and pts is None:
            self._first_decoding = dts
        self._durations[pts] = duration or 0
        self._sum += duration or 0
        self._longest = max(self._longest, duration or 0)
        self._packets += 1
        if len(self._durations) > _KEPT:
            del self._durations[next(iter(self._durations))]

    def place(self, pts: Optional[int], dts: Optional[int] = None) -> Fraction:
        """Return the time of the next decoded frame."""
        self._frames += 1
        ticks = self._better(pts, dts)
        stamp = None if ticks is None else ticks * self._tick
        if self._last is None or self._zero is None:
            time = self._last + self._period if self._last is not None else Fraction(0)
            if stamp is not None and self._last is None:
                self._zero = stamp
                # Leaving the decoder takes a few frames, which the sound does not wait for.
                first = ticks if self._first_decoding is None else self._first_decoding
                self.origin = Fraction(first or 0) * self._tick
            else:
                self._zero = self._zero if stamp is None else stamp - time
        elif stamp is None:
            time = self._last + self._period
        else:
            time = stamp - self._zero
            if self._last - time > _RESTART:
                time = self._last + self._period
                self._zero = stamp - time
            elif time <= self._last:
                time = self._last + self._tick
        self._last = time
        self._last_duration = self._durations.pop(pts, 0) * self._tick if pts is not None else Fraction(0)
        return time

    def rest(self) -> Fraction:
        """Return the duration of the last frame."""
        # The header is more exact, but it also counts what is missing at the end.
        length = self._length if abs(self._length - self._sum) <= self._longest else self._sum
        left = length * self._tick - (self._last or 0)
        if self._ordered and self._packets == self._frames and left > 0:
            return left
        return self._last_duration or self._period

    def _better(self, pts: Optional[int], dts: Optional[int]) -> Optional[int]:
        if dts is not None:
            self._back_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._back_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        return pts if pts is not None and (dts is None or self._back_pts <= self._back_dts) else dts


def until_next(
    frames: Iterator[tuple[Fraction, Callable[[], np.ndarray]]], rest: Callable[[], Fraction]
) -> Iterator[Shown]:
    """Yield frames, given as (time, pixels), with the time until the next; rest() is the duration of the last one."""
    before = None
    for item in frames:
        if before:
            yield Shown(before[0], item[0] - before[0], before[1])
        before = item
    if before:
        yield Shown(before[0], rest(), before[1])
