"""Convert pictures of 16-bit, 32-bit and floating-point samples to 8 bits: one rule for each kind of sample.

16 bits: the upper byte, as cv2.imread; values that use a small part of the range are spread (`spread_of`).
Integers of 32 bits and gray floats: from least to greatest, as their range is unknown.
Colour floats: linear light from renderers; white is the 99th percentile, and the curve is that of sRGB.
"""

from __future__ import annotations

import numpy as np

NARROW = 1 << 13  # of the 65536 values of 16 bits: 32 of the 256 grays that the upper byte has
_AT_ONCE = 1 << 18  # values
_OUTER = 0.001  # share of the pixels left out at either end when 16 bits are spread
_WHITE_AT = 0.99  # share of the pixels that are darker than white, for linear light


def spread_of(values: np.ndarray) -> tuple[int, int] | None:
    """Return the (lowest, highest) value if the picture uses a small part of 16 bits, else None.

    Thermal cameras and sensors of 10 or 12 bits write such pictures; their upper bytes are almost equal. A thousandth
    of the pixels is ignored at either end, and so are 0 and 65535, which mark dead pixels.
    """
    counts = np.zeros(1 << 16, np.int64)
    for rows in bands(values):
        counts += np.bincount(values[rows].ravel(), minlength=1 << 16)
    total = counts.sum()
    counts[[0, -1]] = 0
    inside = counts.sum()
    if 2 * inside < total:
        return None
    lo, hi = (int(i) for i in np.searchsorted(np.cumsum(counts), [_OUTER * inside + 1, (1 - _OUTER) * inside]))
    return (lo, hi) if lo < hi < lo + NARROW else None


def from_16_bits(values: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Return (...) uint8 for uint16: the upper byte, or spread if they use a small part (see `spread_of`)."""
    part = spread_of(values)
    if part is None:
        return (values >> 8).astype(np.uint8)
    lo, hi = part
    warnings.append(f"nearly all of its 16-bit values lie from {lo} to {hi}; these were spread over 0 to 255")
    table = np.clip((np.arange(1 << 16) - lo) * (255 / (hi - lo)), 0, 255).round().astype(np.uint8)
    return table[values]


def stretched(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return (...) uint8: the finite values from least to greatest as 0 to 255, NaN as 0; one value alone is black."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("it holds no finite value")
    lo, hi = (float(extreme(values[finite])) for extreme in (np.min, np.max))
    bytes_ = np.empty(values.shape, np.uint8)
    for rows in bands(values):
        part = np.clip(np.nan_to_num(values[rows].astype(np.float64), nan=lo), lo, hi)
        bytes_[rows] = np.round((part - lo) * (255 / ((hi - lo) or 1)))
    notes.append(f"values from {lo:g} to {hi:g} scaled to 0..255")
    return bytes_


def from_light(light: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return (H, W, 3) uint8 with the curve of sRGB for linear light, (H, W, 3) float.

    White is the 99th percentile of the pixels' brightest channels. Negative values and NaN are black, infinity is
    white.
    """
    brightest = light.max(axis=2)
    positive = brightest[np.isfinite(brightest) & (brightest > 0)]
    if not positive.size:
        raise ValueError("it holds no light")
    place = min(positive.size - 1, int(_WHITE_AT * positive.size))
    white = float(np.partition(positive, place)[place])
    bytes_ = np.empty(light.shape, np.uint8)
    for rows in bands(light):
        bytes_[rows] = srgb(light[rows].astype(np.float64) / white)
    notes.append(f"taken for linear light: {white:g} is white, with the curve of sRGB")
    return bytes_


def srgb(light: np.ndarray) -> np.ndarray:
    """Return (...) uint8 for linear light, (...) float: 1.0 is white, brighter light is clipped, NaN is black."""
    light = np.clip(np.nan_to_num(light, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(np.uint8)


def bands(values: np.ndarray) -> list[slice]:
    """Return the rows to work on at a time, where the work takes many bytes for each pixel."""
    step = max(1, _AT_ONCE // max(1, values[0].size))
    return [slice(top, top + step) for top in range(0, len(values), step)]
