"""Sky in the answers of Depth Anything 3: which pixels it is, and the depth they get.

A network knows no depth of the sky; the map gets there one that is as far as its farthest things.
"""

from __future__ import annotations

import numpy as np

# The depth of pixels from FILLED on is replaced; the mask holds those from SKY on. Both are those of the reference.
FILLED = 0.3
SKY = 0.5
_FEWEST = 10  # pixels: with no more sky or no more else, the depth stays
_FAR = 0.99  # quantile of the depth elsewhere


def fill_sky(depth: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Return depth (H, W) float32 whose sky is as far as the 0.99 quantile of the rest of this picture.

    sky: (H, W), as the network gives it. The quantile is exact; the reference takes it from a sample of all pictures
    of a call, which is the same for one picture of at most 100,000 pixels.
    """
    found = sky >= FILLED
    rest = depth[~found]
    if min(rest.size, depth.size - rest.size) <= _FEWEST:
        return depth
    filled: np.ndarray = np.where(found, _quantile(rest, _FAR), depth)
    return filled


def is_sky(sky: np.ndarray) -> np.ndarray:
    """Return the mask (H, W) bool of a network's sky, of any size."""
    found: np.ndarray = sky >= SKY
    return found


def _quantile(values: np.ndarray, share: float) -> np.float32:
    """Return a quantile of values (N,), interpolated between neighbours, without sorting all."""
    place = np.float32(share) * np.float32(values.size - 1)
    first = int(place)
    last = min(first + 1, values.size - 1)
    low, high = np.partition(values, (first, last))[[first, last]]
    return np.float32(low + (high - low) * (place - np.float32(first)))
