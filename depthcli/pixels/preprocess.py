"""Picture -> network input, with the reference's arithmetic: float64, bicubic, shorter side to the input size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthcli.choices import check_input_size
from depthcli.zoo.rows import PATCH

# ImageNet statistics of RGB in 0..1, as DINOv2 was trained with.
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
_SHARES = np.arange(256) / 255.0  # what a uint8 is of 255: the bits of dividing, at a quarter of the time
_BAND_PIXELS = 1 << 17  # of a picture, held in float64 at a time: 3 MB, which stay in the processor's cache
# Longest network input, as a ratio of its sides; longer pictures are squeezed to it. Up to it the size is the
# reference's. Beyond it the squeezed strip agrees better with the depth of the whole photograph than the long one does.
MAX_RATIO = 4
_WRAPPED = 8  # a panorama gets an eighth of its width again at either side


@dataclass(frozen=True)
class InputPlan:
    """How one picture becomes a network input, and back. Sizes are (width, height) in pixels.

    wrapped: columns of the picture that the network sees again at either side, as a panorama goes on there; else 0.
    """

    picture_size: tuple[int, int]
    input_size: tuple[int, int]
    wrapped: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens the encoder works on, class token included."""
        return (self.input_size[0] // PATCH) * (self.input_size[1] // PATCH) + 1

    @property
    def map_size(self) -> tuple[int, int]:
        """Size of the picture's part of the network's answer: without the wrapped columns."""
        width, height = self.input_size
        picture = self.picture_size[0]
        return max(1, round(width * picture / (picture + 2 * self.wrapped))), height

    @property
    def ratio(self) -> float:
        """Width over height that suits the network's input: the picture's, limited, with the wrapped columns."""
        width, height = self.picture_size
        return min(max(width / height, 1 / MAX_RATIO), MAX_RATIO) * (width + 2 * self.wrapped) / width

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know: that the picture is squeezed."""
        width, height = self.picture_size
        if max(width, height) <= MAX_RATIO * min(width, height):
            return ()
        sides = f"{round(width / height, 1):.9g}:1" if width > height else f"1:{round(height / width, 1):.9g}"
        size = f"{self.input_size[1]}x{self.input_size[0]}"
        return (f"network input bounded to {size}, as the sides of the picture are {sides}",)


def plan_input(width: int, height: int, shorter_side: int, wrap: bool = False) -> InputPlan:
    """Return the input size the reference code takes for a picture, if its sides are within 4:1.

    The shorter side is scaled to `shorter_side`; each side is then rounded to a multiple of 14 (half to even), or up
    where rounding would fall below `shorter_side`. A longer picture gets the size of one of 4:1.
    wrap: add columns at the left and right, as for a panorama.
    """
    check_input_size(shorter_side)
    longest = MAX_RATIO * min(width, height)
    scale = max(shorter_side / height, shorter_side / width)
    columns, rows = (_round_to_patch(min(side, longest) * scale, shorter_side) for side in (width, height))
    plan = InputPlan((width, height), (columns, rows))
    return _wrapped(plan) if wrap else plan


def plan_clip_input(width: int, height: int, shorter_side: int, wrap: bool = False) -> InputPlan:
    """Return the input size that the reference code takes for the frames of a clip, if their sides are within 4:1.

    As for a picture, but a frame wider or higher than 16:9 (its limit is a ratio of 1.78) gets a shorter side: what it
    is longer than that is taken off, so that the memory stays that of 16:9.
    """
    ratio = min(max(width, height) / min(width, height), MAX_RATIO)
    if ratio > 1.78:
        shorter_side = max(PATCH, round(int(shorter_side * 1.777 / ratio) / PATCH) * PATCH)
    return plan_input(width, height, shorter_side, wrap)


def _wrapped(plan: InputPlan) -> InputPlan:
    """Return the plan with columns added at either side: whole patches, about an eighth of the width."""
    (width, height), picture = plan.input_size, plan.picture_size[0]
    added = max(1, round(width / (_WRAPPED * PATCH))) * PATCH
    return InputPlan(plan.picture_size, (width + 2 * added, height), max(1, round(added * picture / width)))


def wrap_columns(pixels: np.ndarray, columns: int) -> np.ndarray:
    """Return (H, W, ...) pixels with so many columns of the other edge at either side."""
    if not columns:
        return pixels
    return pixels[:, np.arange(-columns, pixels.shape[1] + columns) % pixels.shape[1]]


def to_network_input(rgb: np.ndarray, plan: InputPlan) -> np.ndarray:
    """Return (3, H, W) float32, normalised, for an upright (h, w, 3) uint8 RGB picture.

    The resize is bicubic without antialiasing on float64, and its overshoot is kept: rounding to 8 bit first would lose
    parity with the reference.
    """
    x = _resize_cubic(rgb, plan.input_size, plan.wrapped)
    out = np.empty((3, *x.shape[:2]), np.float32)
    for channel in range(3):  # one after the other, as numpy is slow over rows of three
        out[channel] = (x[..., channel] - MEAN[channel]) / STD[channel]
    return out


def _round_to_patch(length: float, minimum: int) -> int:
    rounded = int(np.round(length / PATCH)) * PATCH
    return rounded if rounded >= minimum else int(np.ceil(length / PATCH)) * PATCH


def _resize_cubic(rgb: np.ndarray, size: tuple[int, int], wrapped: int = 0) -> np.ndarray:
    """Return rgb / 255, with `wrapped` columns at either side, at (width, height), float64.

    OpenCV resizes along the rows, then along the columns; doing the first in bands of rows gives the same bits and
    never holds a large picture in float64. Rows that the second does not look at stay zero.
    """
    height, width = rgb.shape[:2]
    band = max(1, _BAND_PIXELS // (width + 2 * wrapped))
    used = _rows_used(height, size[1])
    narrow = np.zeros((height, size[0], 3))
    for start in range(0, len(used), band):
        rows = used[start : start + band]
        shares = cv2.LUT(wrap_columns(rgb[rows], wrapped), _SHARES)
        narrow[rows] = cv2.resize(shares, (size[0], len(rows)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(narrow, size, interpolation=cv2.INTER_CUBIC)


def _rows_used(source: int, target: int) -> np.ndarray:
    """Return the indices of the rows out of which a bicubic resize makes `target` rows: four around each position.

    OpenCV has positions in float32, which may round to the other side of a row: both sides count then.
    """
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    used = [np.floor(position + slack) + tap for slack in (-0.01, 0.01) for tap in (-1, 0, 1, 2)]
    return np.unique(np.clip(used, 0, source - 1).astype(np.intp))
