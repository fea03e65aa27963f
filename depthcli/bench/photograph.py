"""A synthetic photograph to measure with."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """Return the bytes of a JPEG with the spectrum of a photograph: smooth, with a little noise. seed: which one."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    picture += random.normal(0, 4, picture.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
