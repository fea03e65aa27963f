"""Clips of which all is known: pictures of smooth noise, how they move, and depth as a fickle network gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np


def smooth_noise(height: int, width: int, sigma: float, seed: int) -> np.ndarray:
    """Return (height, width) float32 from 0 to 1."""
    values = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    values = cv2.GaussianBlur(values, (0, 0), sigma)
    return (values - values.min()) / (values.max() - values.min())


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Return (height, width, 3) float32 from 0 to 255, with texture everywhere."""
    tone = np.random.default_rng(seed).uniform(0.4, 1, 3)
    return np.stack([255 * tone[c] * smooth_noise(height, width, 2.5, seed + 9) for c in range(3)], axis=-1)


def with_noise(rgb: np.ndarray, seed: int, sigma: float = 3.0, gain: float = 1.0) -> np.ndarray:
    """Return the picture as a sensor sees it, uint8."""
    noise = np.random.default_rng(seed).normal(0, sigma, rgb.shape)
    return np.clip(gain * rgb + noise, 0, 255).astype(np.uint8)


def scene_depth(height: int, width: int, seed: int = 3) -> np.ndarray:
    """Return (height, width) float32 from 1 to 4: hills, and a block with sharp edges before them."""
    depth = 1 + 2 * smooth_noise(height, width, height / 9, seed)
    depth[height // 4 : height * 3 // 4, width // 4 : width // 2] += 1
    return depth


@dataclass(frozen=True, eq=False)
class Frame:
    """rgb: (H, W, 3) uint8. true: (H, W) the depth the network should give; depth: what it gives."""

    rgb: np.ndarray
    true: np.ndarray
    depth: np.ndarray


def fickle(true: np.ndarray, noise: float, seed: int, gain: float = 0.1, shift: float = 0.1) -> np.ndarray:
    """Return a map in a scale of its own, with blurred noise of a share of the contrast; gain and shift at random."""
    random = np.random.default_rng(seed)
    blurred = cv2.GaussianBlur(random.normal(size=true.shape).astype(np.float32), (0, 0), 4)
    blurred *= noise * contrast(true) / max(float(blurred.std()), 1e-9)
    return ((true + blurred) * random.uniform(1 - gain, 1 + gain) + random.uniform(-shift, shift)).astype(np.float32)


def contrast(depth: np.ndarray) -> float:
    low, high = np.percentile(depth, (2, 98))
    return float(high - low)


def slope(depth: np.ndarray, true: np.ndarray) -> float:
    """Return how much of the true contrast a map has: noise, however much, does not count."""
    apart = true - true.mean()
    return float(((depth - depth.mean()) * apart).sum() / (apart * apart).sum())


def still(frames: int, noise: float, size: tuple[int, int] = (160, 90), **jitter: float) -> Iterator[Frame]:
    """A scene in which nothing moves, under an exposure that does."""
    width, height = size
    rgb, true = picture(height, width, 1), scene_depth(height, width)
    for t in range(frames):
        exposure = np.random.default_rng(1000 + t).uniform(0.95, 1.05)
        yield Frame(with_noise(rgb, t, gain=exposure), true, fickle(true, noise, 2000 + t, **jitter))


def moved(values: np.ndarray, x: float, y: float, size: tuple[int, int]) -> np.ndarray:
    """Return the (width, height) window of a large picture whose corner is at (x, y)."""
    matrix = np.float32([[1, 0, -x], [0, 1, -y]])
    return cv2.warpAffine(values, matrix, size, flags=cv2.INTER_CUBIC)


def pan(frames: int, noise: float, step: tuple[float, float] = (1.3, 0.4)) -> Iterator[Frame]:
    """A window that moves by a part of a pixel over a large scene."""
    size = (160, 90)
    width, height = int(size[0] + frames * step[0] + 4), int(size[1] + frames * step[1] + 4)
    rgb, true = picture(height, width, 1), scene_depth(height, width)
    for t in range(frames):
        x, y = step[0] * t, step[1] * t
        seen = moved(true, x, y, size)
        yield Frame(with_noise(moved(rgb, x, y, size), t), seen, fickle(seen, noise, 2000 + t))


def passing(frames: int, noise: float, step: int = 2, plain: bool = False) -> Iterator[tuple[Frame, np.ndarray]]:
    """A textured disc that passes before a still scene, or before a clear sky, and where it is: (H, W) bool."""
    rgb, behind = picture(90, 160, 1), scene_depth(90, 160)
    if plain:
        rgb = np.full_like(rgb, 220)
    cover = 255 - picture(90, 160, 50)
    row, column = np.mgrid[:90, :160]
    for t in range(frames):
        x = 15 + step * t
        disc = np.hypot(column - x, row - 45) < 18
        frame = np.where(disc[..., None], np.roll(cover, step * t, axis=1), rgb)
        true = np.where(disc, np.float32(5.5), behind)
        yield Frame(with_noise(frame, t), true, fickle(true, noise, 2000 + t)), disc
