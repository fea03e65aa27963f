"""Pictures to the views of one scene, bit for bit as Depth Anything 3 prepares them.

Two resizes follow each other: one side to the wanted length, then both sides to multiples of 14, by a second resize or
by cutting. Inputs of several sizes are then cut to the smallest, as there, or padded to the largest; `plan_scene` tells
which and what it costs.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from depthcli.scene import Area

PATCH = 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PADDING = (124, 116, 104)  # RGB outside a padded picture: MEAN, which the network sees as 0


class Method(str, enum.Enum):
    """Which side is bounded, and how both become multiples of 14; the names are those of Depth Anything 3."""

    UPPER_BOUND_RESIZE = "upper_bound_resize"
    UPPER_BOUND_CROP = "upper_bound_crop"
    LOWER_BOUND_RESIZE = "lower_bound_resize"
    LOWER_BOUND_CROP = "lower_bound_crop"

    @property
    def bounds_longest(self) -> bool:
        """Whether the longest side gets the wanted length, and not the shortest."""
        return self.value.startswith("upper")

    @property
    def crops(self) -> bool:
        """Whether sides become multiples by cutting."""
        return self.value.endswith("crop")


@dataclass(frozen=True)
class ViewPlan:
    """How one picture becomes a view. Sizes are (width, height) in pixels.

    picture_size: of the picture. bounded: after the first resize. fitted: after the second. corner: (left, top) of the
    part of it that is kept; negative if the picture is padded. size: of that part, the network's input.
    """

    picture_size: tuple[int, int]
    bounded: tuple[int, int]
    fitted: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @property
    def area(self) -> Area:
        """What the input covers of the picture."""
        x, y = (picture / fitted for picture, fitted in zip(self.picture_size, self.fitted))
        return Area(self.corner[0] * x, self.corner[1] * y, self.size[0] * x, self.size[1] * y)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the input that show the picture: all, unless it is padded."""
        return self.area.inside(self.picture_size, self.size)

    def centred(self, size: tuple[int, int]) -> ViewPlan:
        """Return the plan whose input is so large, by cutting and padding on both sides."""
        left, top = ((mine - other) // 2 for mine, other in zip(self.size, size))
        return replace(self, corner=(self.corner[0] + left, self.corner[1] + top), size=size)

    def intrinsics(self, matrix: np.ndarray) -> np.ndarray:
        """Return a (3, 3) matrix of the picture as one of the input, as Depth Anything 3 computes it, in float32.

        Principal points are scaled without a half pixel, as is right for pixel centres at half numbers.
        """
        out = np.array(matrix, np.float64)
        steps = (self.picture_size, self.bounded), (self.bounded, self.fitted)
        for (width, height), (to_width, to_height) in steps:
            if (width, height) != (to_width, to_height):
                out[0] *= to_width / width
                out[1] *= to_height / height
        out[0, 2] -= self.corner[0]
        out[1, 2] -= self.corner[1]
        return out.astype(np.float32)


def plan_view(picture_size: tuple[int, int], length: int = 504, method: Method = Method.UPPER_BOUND_RESIZE) -> ViewPlan:
    """Return the plan of one picture. length: of the bounded side."""
    bound = max(picture_size) if method.bounds_longest else min(picture_size)
    scale = length / float(bound)
    bounded = picture_size
    if bound != length:
        bounded = max(1, round(picture_size[0] * scale)), max(1, round(picture_size[1] * scale))
    if not method.crops:
        fitted = _nearest_multiple(bounded[0]), _nearest_multiple(bounded[1])
        return ViewPlan(picture_size, bounded, fitted, (0, 0), fitted)
    size = tuple(max(PATCH, side // PATCH * PATCH) for side in bounded)
    if min(bounded) < PATCH:  # nothing can be cut from a side shorter than a patch
        fitted = max(PATCH, bounded[0]), max(PATCH, bounded[1])
    else:
        fitted = bounded
    corner = (fitted[0] - size[0]) // 2, (fitted[1] - size[1]) // 2
    return ViewPlan(picture_size, bounded, fitted, corner, (size[0], size[1]))


def plan_scene(
    sizes: Sequence[tuple[int, int]],
    length: int = 504,
    method: Method = Method.UPPER_BOUND_RESIZE,
    pad: bool = False,
) -> tuple[tuple[ViewPlan, ...], str]:
    """Return the plans of all pictures of a scene, of one input size, and a line if some are cut or padded.

    sizes: (width, height) of the pictures. pad: to the largest input, instead of cutting to the smallest.
    """
    plans = [plan_view(size, length, method) for size in sizes]
    choose = max if pad else min
    common = choose(plan.size[0] for plan in plans), choose(plan.size[1] for plan in plans)
    shared = tuple(plan if plan.size == common else plan.centred(common) for plan in plans)
    changed = [plan for plan in plans if plan.size != common]
    if not changed:
        return shared, ""
    by, whole = f"{common[0]}x{common[1]}", common[0] * common[1]
    if pad:
        share = max(1 - plan.size[0] * plan.size[1] / whole for plan in changed)
        done = f"{len(changed)} of {len(plans)} views are padded to {by}, up to {100 * share:.0f} % of their input"
    else:
        share = max(1 - whole / (plan.size[0] * plan.size[1]) for plan in changed)
        done = (
            f"{len(changed)} of {len(plans)} views are cut to {by} in their middle, and lose up to "
            f"{100 * share:.0f} % of their area"
        )
    return shared, f"pictures of several sizes: {done}"


def prepare_view(rgb: np.ndarray, plan: ViewPlan) -> np.ndarray:
    """Return the (H, W, 3) uint8 input of an upright (h, w, 3) uint8 RGB picture.

    Raises ValueError for a picture of another size.
    """
    return cut_view(fit_view(rgb, plan), plan)


def fit_view(rgb: np.ndarray, plan: ViewPlan) -> np.ndarray:
    """Return a picture of `plan.fitted`, before anything is cut or padded; as `prepare_view`."""
    if (rgb.shape[1], rgb.shape[0]) != plan.picture_size or rgb.dtype != np.uint8:
        raise ValueError(f"the picture is {rgb.dtype} {rgb.shape}, its plan for {plan.picture_size}")
    return _resized(_resized(rgb, plan.bounded), plan.fitted)


def cut_view(fitted: np.ndarray, plan: ViewPlan) -> np.ndarray:
    """Return the input of a picture that has been resized: its part, padded where the plan says so."""
    (left, top), (width, height) = plan.corner, plan.size
    part = fitted[max(0, top) : top + height, max(0, left) : left + width]
    if min(plan.corner) >= 0:
        return np.ascontiguousarray(part)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = _PADDING
    top, left = max(0, -top), max(0, -left)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def normalise(view: np.ndarray) -> np.ndarray:
    """Return the (3, H, W) float32 network input of a prepared (H, W, 3) uint8 view."""
    shares = view.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.array(three, np.float32)[:, None, None] for three in (MEAN, STD))
    return np.ascontiguousarray((shares - mean) / std)


def _nearest_multiple(side: int) -> int:
    """Return the nearest multiple of a patch, the larger one of two."""
    below = side // PATCH * PATCH
    return max(PATCH, below if side - below < below + PATCH - side else below + PATCH)


def _resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = rgb.shape[:2]
    if (width, height) == size:
        return rgb
    grows = size[0] > width or size[1] > height
    return cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
