"""Dense optical flow between two frames, on small grey pictures, and warping along it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LONG_SIDE = 480  # of the greys in pixels: 480x270 for 16:9, where DIS takes about 4 ms on one thread
_SHORT_SIDE = 32  # pixels at least: DIS searches down a pyramid and needs about 12
_SLACK, _SLACK_PER_PIXEL = 1.0, 0.05  # forward and backward flow may differ by 1 pixel and 5 % of the way
_PLAIN, _PATCH = 4.0, 7  # a 7x7 patch with a standard deviation below 4 grey levels has only noise
_PHOTOMETRIC = 50.0  # of OPW (Wang et al. 2023, NVDS): exp(-50 dI^2) with I from 0 to 1


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion from one frame to the next, on a small grid (h, w).

    back: (h, w, 2) float32, (x, y) in pixels of the grid: the point at p now was at p + back[p] before.
    seen: (h, w) bool, False if the point was hidden, outside the picture, or lost; True inside the picture for pixels
    without texture, where only `alike` counts.
    alike: (h, w) float32 from 0 to 1, exp(-50 dI^2): similarity of brightness, after the exposure change is removed.
    """

    back: np.ndarray
    seen: np.ndarray
    alike: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the grid."""
        return self.back.shape[1], self.back.shape[0]


def flow_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) of the small grey of a frame: no side above 480 or below 32."""
    scale = min(1.0, LONG_SIDE / max(width, height))
    return max(_SHORT_SIDE, round(width * scale)), max(_SHORT_SIDE, round(height * scale))


def small_gray(rgb: np.ndarray) -> np.ndarray:
    """Return the small (h, w) uint8 grey of an (H, W, 3) uint8 frame."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, flow_size(rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_AREA)


def find_motion(before: np.ndarray, now: np.ndarray) -> Motion:
    """Return the motion between two greys, (h, w) uint8 of one size; ValueError for two sizes.

    A pixel with texture is not seen if backward and forward flow disagree.
    """
    if before.shape != now.shape:
        raise ValueError(f"two frames of a clip have one size, not {before.shape} and {now.shape}")
    back, forth = dense_flow(now, before), dense_flow(before, now)
    where = places(back, (now.shape[1], now.shape[0]))
    seen = _undone(back, forth, where) | _plain(now)
    return Motion(back, seen & _inside(where), _alike(before, now, where))


def warp(values: np.ndarray, motion: Motion, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return (H, W) or (H, W, C) values of the previous frame, moved along the motion.

    values: of any size with the frame's aspect. The border is repeated outside the picture; see `motion.seen`.
    """
    return sample(values, places(motion.back, (values.shape[1], values.shape[0])), interpolation)


def dense_flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return (h, w, 2) float32: the point at p in the (h, w) uint8 `start` is at p + flow[p] in `end`.

    Dense inverse search (Kroeger et al. 2016), OpenCV's fast preset.
    """
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(start, end, np.empty(0, np.float32))


def places(flow: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, (height, width) float32 each: where the flow leads from each pixel.

    flow: (h, w, 2) of the picture at any size. size: (width, height) of the picture.
    """
    width, height = size
    x, y = (cv2.resize(np.ascontiguousarray(flow[..., axis]), size) for axis in (0, 1))
    np.multiply(x, np.float32(width / flow.shape[1]), out=x)
    np.multiply(y, np.float32(height / flow.shape[0]), out=y)
    np.add(x, np.arange(width, dtype=np.float32), out=x)
    np.add(y, np.arange(height, dtype=np.float32)[:, None], out=y)
    return x, y


def sample(
    values: np.ndarray, where: tuple[np.ndarray, np.ndarray], interpolation: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """Return the values at the places x and y, exact to 1/32 of a pixel; places outside repeat the border."""
    return cv2.remap(values, *where, interpolation, borderMode=cv2.BORDER_REPLICATE)


def _undone(back: np.ndarray, forth: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    forth_x, forth_y = (sample(np.ascontiguousarray(forth[..., axis]), where) for axis in (0, 1))
    back_x, back_y = back[..., 0], back[..., 1]
    length = cv2.magnitude(back_x, back_y)
    return cv2.magnitude(back_x + forth_x, back_y + forth_y) < _SLACK + _SLACK_PER_PIXEL * length


def _plain(gray: np.ndarray) -> np.ndarray:
    """Return the pixels without texture, such as clear sky, whose flow is arbitrary."""
    values = gray.astype(np.float32)
    mean = cv2.blur(values, (_PATCH, _PATCH))
    return cv2.blur(values * values, (_PATCH, _PATCH)) - mean * mean < _PLAIN**2


def _inside(where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    x, y = where
    height, width = x.shape
    return (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)


def _alike(before: np.ndarray, now: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    moved = sample(before, where).astype(np.float32)
    values = now.astype(np.float32)
    few = (slice(None, None, 4), slice(None, None, 4))
    exposure = np.median((values[few] + 1) / (moved[few] + 1))  # not the ratio of the means, which a new object moves
    change = (values - np.float32(exposure) * moved) * np.float32(1 / 255)
    return cv2.exp(np.float32(-_PHOTOMETRIC) * change * change)
