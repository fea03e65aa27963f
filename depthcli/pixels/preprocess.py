"""Picture to network input with the reference's arithmetic: float64, resized and normalised by the row's policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Optional

import cv2
import numpy as np

from depthcli.zoo.rows import Bound, InputPolicy, Resize

_DEFAULT = InputPolicy()
_SHARES = np.arange(256) / 255.0  # of a uint8: the same bits as dividing, in a quarter of the time
_BAND_PIXELS = 1 << 15  # of a picture, held in float64 at a time: 0.8 MB, which stay in a cache and below mmap
# Largest ratio of the sides of a network input; longer pictures are squeezed to it. Their depth then agrees better with
# that of the whole photograph than the depth of a long strip does. Up to it the size is the reference's.
MAX_RATIO = 4
_WRAPPED = 8  # a panorama is continued by an eighth of its width on either side


@dataclass(frozen=True)
class InputPlan:
    """How one picture becomes a network input, and back. Sizes are (width, height) in pixels.

    wrapped: columns of a panorama repeated on either side, else 0. policy: of the model. fitted_from: the input size of
    the policy, if a backend replaced it by one it can run.
    """

    picture_size: tuple[int, int]
    input_size: tuple[int, int]
    wrapped: int = 0
    policy: InputPolicy = _DEFAULT
    fitted_from: Optional[tuple[int, int]] = None

    @property
    def tokens(self) -> int:
        """Number of tokens the encoder works on, class token included."""
        return (self.input_size[0] // self.policy.multiple) * (self.input_size[1] // self.policy.multiple) + 1

    @property
    def map_size(self) -> tuple[int, int]:
        """Size of the picture's part of the network's output: without the wrapped columns."""
        width, height = self.input_size
        picture = self.picture_size[0]
        return max(1, round(width * picture / (picture + 2 * self.wrapped))), height

    @property
    def ratio(self) -> float:
        """Width over height that suits the network's input: the picture's, limited, with the wrapped columns."""
        width, height = self.picture_size
        return min(max(width / height, 1 / MAX_RATIO), MAX_RATIO) * (width + 2 * self.wrapped) / width

    @property
    def stretch(self) -> float:
        """Change of the ratio of the picture's sides, as a logarithm: 0.01 is about 1 %."""
        width, height = self.input_size
        return abs(math.log(width / height / self.ratio))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: that the picture is squeezed, or stretched to a size that the backend can run."""
        notes = []
        width, height = self.picture_size
        squeezed = self.policy.bound not in (Bound.LONGER_SIDE, Bound.LONGER_SIDE_AT_MOST)
        if squeezed and max(width, height) > MAX_RATIO * min(width, height):
            sides = f"{round(width / height, 1):.9g}:1" if width > height else f"1:{round(height / width, 1):.9g}"
            notes.append(f"network input bounded to {by_height(self.input_size)}: the picture is {sides}")
        if self.fitted_from is not None:
            sizes = f"{by_height(self.input_size)} instead of {by_height(self.fitted_from)}"
            notes.append(f"network input {sizes}, stretched by {100 * self.stretch:.1f} %")
        return tuple(notes)

    def resized(self, size: int) -> InputPlan:
        """Return the plan of the same picture for another input size."""
        return plan_input(*self.picture_size, self.policy.with_size(size), self.wrapped > 0)


def plan_input(width: int, height: int, policy: InputPolicy, wrap: bool = False) -> InputPlan:
    """Return the plan of a picture: the reference's input size; where the shorter side is bounded, for at most 4:1.

    wrap: add columns at the left and right, as for a panorama.
    """
    if policy.bound is Bound.LONGER_SIDE_AT_MOST:
        return InputPlan((width, height), _at_most(width, height, policy), policy=policy)
    if policy.bound is Bound.LONGER_SIDE:
        columns, rows = (_nearest_multiple(side, policy.multiple) for side in _longer_side(width, height, policy.size))
        plan = InputPlan((width, height), (columns, rows), policy=policy)
        return _wrapped(plan) if wrap else plan
    shorter_side = _BOUNDS[policy.bound](width, height, policy)
    longest = MAX_RATIO * min(width, height)
    scale = max(shorter_side / height, shorter_side / width)
    columns, rows = (
        _round_to_multiple(min(side, longest) * scale, shorter_side, policy.multiple) for side in (width, height)
    )
    plan = InputPlan((width, height), (columns, rows), policy=policy)
    return _wrapped(plan) if wrap else plan


def _shorter_side(width: int, height: int, policy: InputPolicy) -> int:
    return policy.size


def _shorter_side_16_9(width: int, height: int, policy: InputPolicy) -> int:
    """Return a shorter side that keeps the memory of 16:9 (a ratio of 1.78 in the reference) for longer frames."""
    ratio = min(max(width, height) / min(width, height), MAX_RATIO)
    if ratio <= 1.78:
        return policy.size
    multiple = policy.multiple
    return max(multiple, round(int(policy.size * 1.777 / ratio) / multiple) * multiple)


def _longer_side(width: int, height: int, size: int) -> tuple[int, int]:
    """Return (width, height) of a picture whose longer side is `size`."""
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _at_most(width: int, height: int, policy: InputPolicy) -> tuple[int, int]:
    """Return the multiples nearest to the sides (half to even), with the longer one scaled to `size` if it exceeds it.

    The bound is checked after the rounding, as the official code of DepthCrafter does. A side is at least one multiple.
    """

    def rounded(scale: float) -> tuple[int, int]:
        columns, rows = (max(1, round(side * scale / policy.multiple)) * policy.multiple for side in (width, height))
        return columns, rows

    plain = rounded(1.0)
    return rounded(policy.size / max(width, height)) if max(plain) > policy.size else plain


def _nearest_multiple(length: int, multiple: int) -> int:
    """Return the nearest multiple, at least one; of two as near the larger."""
    return max(1, (2 * length + multiple) // (2 * multiple)) * multiple


_BOUNDS = {Bound.SHORTER_SIDE: _shorter_side, Bound.SHORTER_SIDE_16_9: _shorter_side_16_9}


def by_height(size: tuple[int, int]) -> str:
    """Return a size (width, height) as text, in the order used for networks: height x width."""
    return f"{size[1]}x{size[0]}"


def _wrapped(plan: InputPlan) -> InputPlan:
    """Return the plan with columns added on either side: whole patches, about an eighth of the width."""
    (width, height), picture, multiple = plan.input_size, plan.picture_size[0], plan.policy.multiple
    added = max(1, round(width / (_WRAPPED * multiple))) * multiple
    columns = max(1, round(added * picture / width))
    return replace(plan, input_size=(width + 2 * added, height), wrapped=columns)


def wrap_columns(pixels: np.ndarray, columns: int) -> np.ndarray:
    """Return (H, W, ...) pixels with so many columns of the other edge at either side."""
    if not columns:
        return pixels
    return pixels[:, np.arange(-columns, pixels.shape[1] + columns) % pixels.shape[1]]


def to_network_input(rgb: np.ndarray, plan: InputPlan) -> np.ndarray:
    """Return (3, H, W) float32, normalised, for an upright (h, w, 3) uint8 RGB picture.

    As in the reference, a bicubic resize works on float64, without antialiasing, and keeps its overshoot. A resize in
    steps works on uint8, and the rest on float32.
    """
    policy = plan.policy
    if policy.resize is Resize.STEPS:
        return _normalised(_resize_in_steps(rgb, plan), policy)
    x = _resize(rgb, plan.input_size, plan.wrapped, cv2.INTER_CUBIC)
    out = np.empty((3, *x.shape[:2]), np.float32)
    for channel in range(3):  # numpy is slow over rows of three
        out[channel] = (x[..., channel] - policy.mean[channel]) / policy.std[channel]
    return out


def _round_to_multiple(length: float, minimum: int, multiple: int) -> int:
    """Return the nearest multiple (half to even), or the one above if the nearest is less than `minimum`."""
    rounded = int(np.round(length / multiple)) * multiple
    return rounded if rounded >= minimum else int(np.ceil(length / multiple)) * multiple


def _resize(rgb: np.ndarray, size: tuple[int, int], wrapped: int, interpolation: int) -> np.ndarray:
    """Return rgb / 255, with `wrapped` columns on either side, at (width, height), float64.

    OpenCV resizes rows, then columns. Bands of rows give the same bits without a large picture in float64. Rows that
    the second step does not read stay zero.
    """
    height, width = rgb.shape[:2]
    band = max(1, _BAND_PIXELS // (width + 2 * wrapped))
    used = _rows_used(height, size[1])
    narrow = np.zeros((height, size[0], 3))
    for start in range(0, len(used), band):
        rows = used[start : start + band]
        shares = cv2.LUT(wrap_columns(rgb[rows], wrapped), _SHARES)
        narrow[rows] = cv2.resize(shares, (size[0], len(rows)), interpolation=interpolation)
    return cv2.resize(narrow, size, interpolation=interpolation)


def _resize_in_steps(rgb: np.ndarray, plan: InputPlan) -> np.ndarray:
    """Return (H, W, 3) uint8 at the input's size, first resized to the bounded side; a panorama in one step."""
    x = wrap_columns(rgb, plan.wrapped)
    if not plan.wrapped:
        x = resize_pixels(x, _longer_side(x.shape[1], x.shape[0], plan.policy.size))
    return resize_pixels(x, plan.input_size)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (h, w, 3) uint8 pixels at (width, height): by area to shrink, bicubic to enlarge."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    grows = size[0] > width or size[1] > height
    return cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)


def _normalised(pixels: np.ndarray, policy: InputPolicy) -> np.ndarray:
    """Return (3, H, W) float32 for (H, W, 3) uint8."""
    x = pixels.transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (policy.mean, policy.std))
    return (x - mean) / std


def _rows_used(source: int, target: int) -> np.ndarray:
    """Return the indices of the rows that a bicubic resize to `target` rows reads: four around each position.

    OpenCV's float32 positions may round to the other side of a row, so both sides count then.
    """
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    used = [np.floor(position + slack) + tap for slack in (-0.01, 0.01) for tap in (-1, 0, 1, 2)]
    return np.unique(np.clip(used, 0, source - 1).astype(np.intp))
