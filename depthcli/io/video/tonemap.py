"""Tone-map HDR video (PQ, HLG) to the 8-bit BT.709 pictures that networks were trained on.

In numpy, because PyAV's wheels lack FFmpeg's zscale. Light is decoded by ITU-R BT.2100, mapped from BT.2020 to BT.709
primaries (BT.2087), compressed by the curve of BT.2390 from the usual mastering peak (1000 nits) to the white of SDR
(203 nits, BT.2408), and encoded for an SDR screen (BT.1886).
"""

from __future__ import annotations

from functools import cache

import numpy as np

TRANSFERS = {16: "pq", 18: "hlg"}  # transfer characteristics of ITU-T H.273

PEAK = 1000.0  # nits: BT.2100's nominal peak for HLG, and the usual one of PQ masters; brighter light is clipped
WHITE = 203.0  # nits: HDR reference white of BT.2408, which becomes 255

# BT.2100-2, table 4: PQ.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100-2, table 5: HLG, and the luminance of BT.2020 that its OOTF works on.
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * np.log(4 * _A)
_SYSTEM_GAMMA = 1.2  # at a peak of 1000 nits
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# BT.2087-0, linear light of BT.2020 to BT.709.
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_STEPS = 4096  # of the tables: 12 bits of code in, and more than enough of light out
_BAND_PIXELS = 1 << 18


def to_sdr(rgb: np.ndarray, transfer: str) -> np.ndarray:
    """Return (H, W, 3) uint8 BT.709 for (H, W, 3) uint16 codes of BT.2020 in full range. transfer: "pq" or "hlg"."""
    sdr = np.empty(rgb.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // rgb.shape[1])
    for top in range(0, len(rgb), rows):  # in bands, as the light of a whole frame is 6 times its bytes
        sdr[top : top + rows] = _band_to_sdr(rgb[top : top + rows], transfer)
    return sdr


def pq_light(code: np.ndarray) -> np.ndarray:
    """Return nits of screen light for PQ codes of 0 to 1."""
    power = np.power(code, 1 / _M2)
    return 10000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def pq_code(nits: np.ndarray) -> np.ndarray:
    """Return PQ codes of 0 to 1 for nits of screen light."""
    power = np.power(nits / 10000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_scene_light(code: np.ndarray) -> np.ndarray:
    """Return scene light of 0 to 1 for HLG codes of 0 to 1."""
    return np.where(code <= 0.5, np.square(code) / 3, (np.exp((code - _C) / _A) + _B) / 12)


def compressed(nits: np.ndarray) -> np.ndarray:
    """Return nits up to WHITE for nits up to PEAK: BT.2390's curve, a straight line and from its knee a spline."""
    top = pq_code(np.asarray(PEAK))
    code = np.minimum(pq_code(nits) / top, 1)
    most = pq_code(np.asarray(WHITE)) / top
    knee = 1.5 * most - 0.5
    t = np.clip((code - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_light(np.where(code < knee, code, spline) * top)


def _band_to_sdr(codes: np.ndarray, transfer: str) -> np.ndarray:
    light = _light_table(transfer)[codes >> 4]
    if transfer == "hlg":  # the OOTF of BT.2100: light of the scene to light of the screen
        luminance = np.maximum(light @ _LUMINANCE, 1e-6)
        light = light * (PEAK * luminance ** np.float32(_SYSTEM_GAMMA - 1))[..., None]
    light = np.clip(light @ _TO_BT709.T, 0, PEAK)
    # The brightest channel is compressed and the others in proportion, which keeps the hue.
    brightest = light.max(axis=2)
    index = np.sqrt(brightest * np.float32(1 / PEAK)) * (_STEPS - 1)
    light *= _gain_table()[index.astype(np.int32)][..., None]
    index = np.sqrt(np.minimum(light * np.float32(1 / WHITE), 1)) * (_STEPS - 1) + 0.5
    return _screen_table()[index.astype(np.int32)]


# Tables that are not indexed by codes use the square root of light, for enough steps in the dark.


@cache
def _light_table(transfer: str) -> np.ndarray:
    code = np.linspace(0, 1, _STEPS)
    return (pq_light(code) if transfer == "pq" else hlg_scene_light(code)).astype(np.float32)


@cache
def _gain_table() -> np.ndarray:
    nits = np.square(np.linspace(0, 1, _STEPS)) * PEAK
    nits[0] = nits[1]
    return (compressed(nits) / nits).astype(np.float32)


@cache
def _screen_table() -> np.ndarray:
    """BT.1886: a screen shows code^2.4."""
    return np.round(255 * np.power(np.square(np.linspace(0, 1, _STEPS)), 1 / 2.4)).astype(np.uint8)
