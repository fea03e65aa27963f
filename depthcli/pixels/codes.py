"""Numbers that tell a network of Depth Anything 3 where a patch or a place lies in the picture.

Rotary angles turn pairs of channels of queries and keys; sines and cosines of coordinates are added to the head's maps.
"""

from __future__ import annotations

import math

import numpy as np

ROTATION_BASE = 100.0
PLACE_BASE = 100.0
PLACE_SHARE = 0.1  # of the codes, added to a map


def rotary_angles(rows: int, cols: int, dim: int, across: bool = False) -> np.ndarray:
    """Return the angles (1 + rows * cols, dim) float32 of the class token and the patches. dim: channels of a head.

    A patch lies at (row + 1, column + 1) and the class token at (0, 0). across: as among views, where all patches lie
    at (1, 1). The first half of the channels is turned by the row, the second by the column: channel k of the dim / 4
    pairs of an axis by position * 100^(-4 k / dim).
    """
    where = np.ones((rows, cols, 2), np.float32) if across else np.moveaxis(np.indices((rows, cols)) + 1, 0, -1)
    positions = np.concatenate([np.zeros((1, 2)), where.reshape(-1, 2)]).astype(np.float32)
    pairs = dim // 4
    frequencies = np.float32(1) / np.float32(ROTATION_BASE) ** (np.arange(pairs, dtype=np.float32) / np.float32(pairs))
    angles = positions[:, :, None] * frequencies
    return np.concatenate([angles, angles], axis=-1).reshape(len(positions), dim)


def place_codes(channels: int, height: int, width: int, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of columns (C / 2, W) and of rows (C / 2, H), float32, times PLACE_SHARE.

    Half of a map's C channels tell the column, and half the row. Coordinates are 0 in the middle and 1 at the distance
    of half a diagonal; the outermost are half a cell further in. aspect: width over height of the picture.
    """
    diagonal = math.hypot(aspect, 1)
    spans = (aspect / diagonal * (width - 1) / width, 1 / diagonal * (height - 1) / height)
    count = channels // 4
    frequencies = PLACE_BASE ** (-np.arange(count) / count)
    codes = []
    for span, length in zip(spans, (width, height)):
        angles = frequencies[:, None] * np.linspace(-span, span, length).astype(np.float32)
        codes.append((PLACE_SHARE * np.concatenate([np.sin(angles), np.cos(angles)])).astype(np.float32))
    return codes[0], codes[1]
