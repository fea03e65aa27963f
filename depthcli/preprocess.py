"""Picture -> network input, with the reference's arithmetic: float64, bicubic, shorter side to the input size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthcli.errors import UsageError
from depthcli.zoo import PATCH

# ImageNet statistics of RGB in 0..1, as DINOv2 was trained with.
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
_SHARES = np.arange(256) / 255.0  # what a uint8 is of 255: the bits of dividing, at a quarter of the time
_BAND_PIXELS = 1 << 17  # of a picture, held in float64 at a time: 3 MB, which stay in the processor's cache


@dataclass(frozen=True)
class InputPlan:
    """How one picture becomes a network input, and back. Sizes are (width, height) in pixels."""

    picture_size: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Number of tokens the encoder works on, class token included."""
        return (self.input_size[0] // PATCH) * (self.input_size[1] // PATCH) + 1


def plan_input(width: int, height: int, shorter_side: int) -> InputPlan:
    """Return the input size the reference code takes for a picture.

    The shorter side is scaled to `shorter_side`; each side is then rounded to a multiple of 14 (half to even), or up
    where rounding would fall below `shorter_side`.
    """
    if shorter_side < PATCH:
        raise UsageError(f"an input size of {shorter_side} px is too small", f"--input-size is at least {PATCH}")
    scale = max(shorter_side / height, shorter_side / width)
    return InputPlan(
        (width, height), (_round_to_patch(width * scale, shorter_side), _round_to_patch(height * scale, shorter_side))
    )


def plan_clip_input(width: int, height: int, shorter_side: int) -> InputPlan:
    """Return the input size that the reference code takes for the frames of a clip.

    As for a picture, but a frame wider or higher than 16:9 (its limit is a ratio of 1.78) gets a shorter side: what it
    is longer than that is taken off, so that the memory stays that of 16:9.
    """
    ratio = max(width, height) / min(width, height)
    if ratio > 1.78:
        shorter_side = max(PATCH, round(int(shorter_side * 1.777 / ratio) / PATCH) * PATCH)
    return plan_input(width, height, shorter_side)


def to_network_input(rgb: np.ndarray, plan: InputPlan) -> np.ndarray:
    """Return (3, H, W) float32, normalised, for an upright (h, w, 3) uint8 RGB picture.

    The resize is bicubic without antialiasing on float64, and its overshoot is kept: rounding to 8 bit first would lose
    parity with the reference.
    """
    x = _resize_cubic(rgb, plan.input_size)
    out = np.empty((3, *x.shape[:2]), np.float32)
    for channel in range(3):  # one after the other, as numpy is slow over rows of three
        out[channel] = (x[..., channel] - MEAN[channel]) / STD[channel]
    return out


def _round_to_patch(length: float, minimum: int) -> int:
    rounded = int(np.round(length / PATCH)) * PATCH
    return rounded if rounded >= minimum else int(np.ceil(length / PATCH)) * PATCH


def _resize_cubic(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return rgb / 255 at (width, height), float64.

    OpenCV resizes along the rows, then along the columns; doing the first in bands of rows gives the same bits and
    never holds a large picture in float64. Rows that the second does not look at stay zero.
    """
    height, width = rgb.shape[:2]
    band = max(1, _BAND_PIXELS // width)
    used = _rows_used(height, size[1])
    narrow = np.zeros((height, size[0], 3))
    for start in range(0, len(used), band):
        rows = used[start : start + band]
        shares = cv2.LUT(rgb[rows], _SHARES)
        narrow[rows] = cv2.resize(shares, (size[0], len(rows)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(narrow, size, interpolation=cv2.INTER_CUBIC)


def _rows_used(source: int, target: int) -> np.ndarray:
    """Return the indices of the rows out of which a bicubic resize makes `target` rows: four around each position.

    OpenCV has positions in float32, which may round to the other side of a row: both sides count then.
    """
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    used = [np.floor(position + slack) + tap for slack in (-0.01, 0.01) for tap in (-1, 0, 1, 2)]
    return np.unique(np.clip(used, 0, source - 1).astype(np.intp))
