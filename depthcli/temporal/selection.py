"""Which frames of a clip become the views of a scene.

All rules return indices in order, each once. None of them looks at pictures but `sharpness` and `shift`, which the last
rule takes the results of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable, Optional

import cv2
import numpy as np

from depthcli.errors import UsageError
from depthcli.temporal.flow import dense_flow, small_gray

_SLACK = 1e-6  # seconds; times are fractions with a time base, and rates are rounded


def every(total: int, stride: int) -> list[int]:
    """Return every `stride`-th of `total` frames, from the first. Raises UsageError for a stride below 1."""
    if stride < 1:
        raise UsageError(f"`stride` must be at least 1, got {stride}")
    return list(range(0, total, stride))


def evenly(total: int, count: int) -> list[int]:
    """Return `count` of `total` frames with the first and the last, as even as can be; all if there are no more.

    Raises UsageError for a count below 1.
    """
    if count < 1:
        raise UsageError(f"the count of frames must be at least 1, got {count}")
    if count >= total:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


def at_rate(times: Sequence[float], rate: float) -> list[int]:
    """Return the first frame at or after 0, 1/rate, 2/rate ... seconds after the first, by the frames' own times.

    times: of all frames, in seconds, not falling. Unlike a step of whole frames this holds for 29.97 frames a second,
    and for clips whose frames are not evenly spaced. Raises UsageError for a rate that is not positive.
    """
    takes = taker_at_rate(rate)
    return [index for index, moment in enumerate(times) if takes(moment)]


def taker_at_rate(rate: float) -> Callable[[float], bool]:
    """Return what tells, frame after frame, by its time whether `at_rate` takes it."""
    if not 0 < rate < math.inf:
        raise UsageError(f"`fps` must be positive, got {rate:g}")
    first: Optional[float] = None
    due = 0.0

    def takes(moment: float) -> bool:
        nonlocal first, due
        first = moment if first is None else first
        since = moment - first
        if since < due / rate - _SLACK:
            return False
        due = math.floor(since * rate + _SLACK * rate) + 1
        return True

    return takes


def sharpest(sharpness: Sequence[float], count: int) -> list[int]:
    """Return `count` frames, the sharpest of as many stretches of a clip of one length; all if there are no more.

    sharpness: of all frames, see the function of that name.
    """
    total = len(sharpness)
    if count < 1:
        raise UsageError(f"the count of frames must be at least 1, got {count}")
    if count >= total:
        return list(range(total))
    starts = [place * total // count for place in range(count + 1)]
    return [first + int(np.argmax(sharpness[first:end])) for first, end in zip(starts, starts[1:])]


def moved(shifts: Sequence[float], least: float, sharpness: Sequence[float] = ()) -> list[int]:
    """Return frames between which the picture moved by at least `least`, and the first.

    shifts: for each frame, how far it is from the one before (see `shift`); of the first it is not read. They add up.
    sharpness: of all frames; of those that are due until half as much again is moved, the sharpest is taken.
    """
    if not least > 0:
        raise UsageError(f"the least motion must be positive, got {least:g}")
    found, way = ([0] if shifts else []), 0.0
    index = 1
    while index < len(shifts):
        way += shifts[index]
        if way < least:
            index += 1
            continue
        best, further, extra = index, index, way
        while sharpness and further + 1 < len(shifts) and extra + shifts[further + 1] < 1.5 * least:
            further += 1
            extra += shifts[further]
            if sharpness[further] > sharpness[best]:
                best = further
        found.append(best)
        way, index = 0.0, best + 1
    return found


def sharpness(rgb: np.ndarray) -> float:
    """Return how sharp an (H, W, 3) uint8 frame is: the variance of the Laplacian of its small grey over its contrast.

    Frames of one clip can be compared, and an exposure that changes does not count.
    """
    gray = small_gray(rgb)
    contrast = float(gray.var()) + 1.0
    return float(cv2.Laplacian(gray, cv2.CV_64F).var()) / contrast


def shift(before: np.ndarray, now: np.ndarray) -> float:
    """Return how far a frame moved from another: the median length of the flow over the diagonal of the picture.

    before, now: (H, W, 3) uint8 of one size.
    """
    first, second = small_gray(before), small_gray(now)
    lengths = np.linalg.norm(dense_flow(second, first), axis=2)
    return float(np.median(lengths)) / math.hypot(*first.shape)
