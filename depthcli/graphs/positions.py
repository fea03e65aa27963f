"""Resize the positions of a transformer's patches from the trained grid to that of a picture, in NumPy.

Equal to `nets.vit.interpolate_positions`: bicubic with a = -0.75 between pixel centres, scale (n + 0.1) / side, border
repeated.
"""

from __future__ import annotations

import numpy as np

# DINOv2's guard against a size that is rounded down. It moves every sample slightly.
OFFSET = 0.1
_A = -0.75


def resize_positions(trained: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Return the trained grid (D, side, side) float32 as (1, D, rows, cols) float32; unchanged at its own size."""
    side = trained.shape[-1]
    if (rows, cols) == (side, side):
        return trained[None]
    resized = _bicubic(rows, side) @ trained.astype(np.float64) @ _bicubic(cols, side).T
    return resized[None].astype(np.float32)


def _bicubic(target: int, source: int) -> np.ndarray:
    """Return the (target, source) float64 matrix that resizes one axis."""
    # In float32, as in torch: on 37 patches its rounding shows in the sixth digit.
    step = np.float32(1 / ((target + OFFSET) / source))
    position = step * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    first = np.floor(position).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        weight = _kernel(np.abs(position - (first + tap)))
        np.add.at(matrix, (np.arange(target), np.clip(first + tap, 0, source - 1)), weight)
    return matrix


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel (Keys, 1981) at distances of 0 to 2."""
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = ((_A * distance - 5 * _A) * distance + 8 * _A) * distance - 4 * _A
    return np.where(distance <= 1, near, far)
