"""Two eyes of one picture: how far each pixel moves for each eye, and what happens at the sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from depthcli.choices.stereo import StereoChoice
from depthcli.views.warp import Window, right_view

# Part of the parallax that each eye takes, by `view`.
_SHARES = {"both": (0.5, 0.5), "left": (1.0, 0.0), "right": (0.0, 1.0)}
_CALM = 4.0  # widths of the largest shift over which it fades towards a side that is stretched


class Eyes(NamedTuple):
    """What the left and the right eye see, (H, W, 3) uint8 each."""

    left: np.ndarray
    right: np.ndarray


def both_eyes(rgb: np.ndarray, near: np.ndarray, choice: StereoChoice, coarseness: float = 1.0) -> Eyes:
    """Return the eyes of a picture, `choice.swap` aside.

    rgb: (H, W, 3) uint8. near: (H, W) float32 from 0, farthest, to 1, as `nearness` returns it. coarseness: see
    `right_view`. Nearness at `choice.screen` stays in place; nearer pixels move right in the left eye and left in the
    right one, so they come out of the screen.
    """
    shares = _SHARES[choice.view]
    width = rgb.shape[1]
    largest = width * choice.strength / 100 * max(choice.screen, 1 - choice.screen) * max(shares)
    window = Window(largest / width) if choice.border == "crop" else Window()
    parallax = (near - np.float32(choice.screen)) * np.float32(width * choice.strength / 100)
    if choice.border == "stretch" and largest > 0:
        parallax *= _fading(width, _CALM * largest)

    def right(picture: np.ndarray, moved: np.ndarray, share: float) -> np.ndarray:
        return right_view(picture, moved * np.float32(share), choice.fill, window, coarseness)

    # The left eye of a picture is the right eye of its mirror image, mirrored.
    left = right(np.ascontiguousarray(rgb[:, ::-1]), np.ascontiguousarray(parallax[:, ::-1]), shares[0])
    return Eyes(np.ascontiguousarray(left[:, ::-1]), right(rgb, parallax, shares[1]))


def _fading(width: int, reach: float) -> np.ndarray:
    """Return (W,) float32 that rises from 0 at either side to 1 at a distance of `reach` pixels."""
    columns = np.arange(width, dtype=np.float32)
    return np.minimum(np.minimum(columns, columns[::-1]) / np.float32(reach), np.float32(1))
