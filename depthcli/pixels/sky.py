"""Sky as the networks of Depth Anything 3 see it: where it is, and how far it is put.

The official code takes one quantile of all pictures of a call, of a random part of their pixels. Here it is exact, and
of the arrays that it is given: one picture's depth does not depend on others.
"""

from __future__ import annotations

import numpy as np

SKY = 0.5  # from which on the network's answer counts as sky in the mask
_FILLED = 0.3  # from which on depth is replaced
_FEW = 10  # pixels of sky, or of anything else, that are not enough for the rule
_QUANTILE = 0.99


def sky_mask(answer: np.ndarray) -> np.ndarray:
    """Return where a network's answer, of any shape, is sky."""
    return np.asarray(answer >= SKY)


def fill_sky(depth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return float32 depth whose sky lies at the 0.99 quantile of everything else; both of any shape, larger is far.

    With ten pixels of sky or fewer, or of anything else, depth stays as it is. An answer from 0.3 on is sky here.
    """
    sky = answer >= _FILLED
    if min(int(sky.sum()), int(sky.size - sky.sum())) <= _FEW:
        return np.asarray(depth, np.float32)
    far = quantile(depth[~sky], _QUANTILE)
    return np.where(sky, far, depth).astype(np.float32)


def quantile(values: np.ndarray, share: float) -> np.float32:
    """Return a quantile of float32 numbers, linear between two of them."""
    return np.float32(np.quantile(np.asarray(values, np.float64), share))
