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
_BAND_PIXELS = 1 << 22


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


def to_network_input(rgb: np.ndarray, plan: InputPlan) -> np.ndarray:
    """Return (3, H, W) float32, normalised, for an upright (h, w, 3) uint8 RGB picture.

    The resize is bicubic without antialiasing on float64, and its overshoot is kept: rounding to 8 bit first would lose
    parity with the reference.
    """
    x = _resize_cubic(rgb, plan.input_size)
    x -= MEAN
    x /= STD
    return np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)


def _round_to_patch(length: float, minimum: int) -> int:
    rounded = int(np.round(length / PATCH)) * PATCH
    return rounded if rounded >= minimum else int(np.ceil(length / PATCH)) * PATCH


def _resize_cubic(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return rgb / 255 at (width, height), float64.

    OpenCV resizes along the rows, then along the columns; doing the first in bands of rows gives the same bits and
    never holds a large picture in float64.
    """
    height, width = rgb.shape[:2]
    band = max(1, _BAND_PIXELS // width)
    narrow = np.empty((height, size[0], 3))
    for top in range(0, height, band):
        rows = rgb[top : top + band] / 255.0
        narrow[top : top + band] = cv2.resize(rows, (size[0], len(rows)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(narrow, size, interpolation=cv2.INTER_CUBIC)
