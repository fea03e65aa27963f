"""Convert a DepthMap to a picture: the shown range, the 8- and 16-bit codes, and the colours.

Near is always white, or the last colour of the table. Codes, and how to read them back:

    code = floor(t * 255)         8 bit, truncated as the official scripts do; shown value t = (code + 0.5) / 255
    code = round(t * 65535)       16 bit
    t = (value - lo) / (hi - lo)  if large is near; 1 - t if large is far
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import cv2
import numpy as np

from depthcli.choices.settings import parse_colormap
from depthcli.depthmap import DepthMap

# ColorBrewer's Spectral, 11 classes (Cynthia Brewer, Apache-2.0); matplotlib's map of that name interpolates linearly.
_SPECTRAL = (
    "9e0142 d53e4f f46d43 fdae61 fee08b ffffbf e6f598 abdda4 66c2a5 3288bd 5e4fa2"
)  # fmt: skip
_BAND_PIXELS = 1 << 17  # of a map, made at a time: half a megabyte stays in the processor's cache


def color_table(name: str) -> np.ndarray:
    """Return (256, 3) uint8 RGB of a colour map, reversed if its name ends in `_r`; UsageError for an unknown name."""
    base, reverse = parse_colormap(name)
    table = _table(base)
    return table[::-1] if reverse else table


@functools.cache
def _table(name: str) -> np.ndarray:
    ramp = np.arange(256, dtype=np.uint8)
    if name == "gray":
        table = np.repeat(ramp[:, None], 3, axis=1)
    elif name == "Spectral":
        anchors = np.array([list(bytes.fromhex(anchor)) for anchor in _SPECTRAL.split()]) / 255
        at = np.linspace(0, 1, 256)
        columns = [np.interp(at, np.linspace(0, 1, len(anchors)), channel) for channel in anchors.T]
        table = (np.stack(columns, axis=1) * 255).astype(np.uint8)  # truncated, as the official scripts do
    else:
        code = getattr(cv2, f"COLORMAP_{name.upper()}")
        table = np.ascontiguousarray(cv2.applyColorMap(ramp[:, None], code)[:, 0, ::-1])
    table.flags.writeable = False
    return table


def nearness(depth: DepthMap, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Return (H, W) float32 from 0 (far end of the range) to 1 (near end); a flat map is 0 everywhere.

    value_range: (lo, hi) in the map's numbers, None for its smallest and largest. Values beyond are clipped.
    """
    out = np.zeros_like(depth.values)
    for rows, t in _nearness_in_bands(depth, value_range):
        out[rows] = t
    return out


def to_gray8(depth: DepthMap, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Return (H, W) uint8 codes, white is near."""
    codes = np.zeros(depth.values.shape, np.uint8)
    for rows, t in _nearness_in_bands(depth, value_range):
        codes[rows] = t * np.float32(255)
    return codes


def to_gray16(depth: DepthMap, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Return (H, W) uint16 codes, white is near."""
    codes = np.zeros(depth.values.shape, np.uint16)
    for rows, t in _nearness_in_bands(depth, value_range):
        codes[rows] = np.round(t.astype(np.float64) * 65535)
    return codes


def to_color(depth: DepthMap, colormap: str, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB."""
    table = np.ascontiguousarray(color_table(colormap))
    return cv2.applyColorMap(to_gray8(depth, value_range), table[:, None])


def _nearness_in_bands(depth: DepthMap, value_range: tuple[float, float] | None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and their nearness, float32, band by band; nothing for a flat map."""
    lo, hi = value_range or depth.range
    if not hi > lo:
        return
    width, height = depth.size
    band = max(1, _BAND_PIXELS // width)
    for top in range(0, height, band):
        rows = slice(top, top + band)
        # The order of the official scripts: subtract, divide, then scale to the code.
        t = depth.values[rows] - np.float32(lo)
        t /= np.float32(hi - lo)
        np.clip(t, 0, 1, out=t)
        yield rows, t if depth.kind.near_is_high else 1 - t


def codes_of_color(rgb: np.ndarray, colormap: str) -> np.ndarray:
    """Return the lowest (H, W) uint8 codes with these colours. Raises ValueError for a colour outside the table."""
    table = color_table(colormap).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(table, kind="stable")
    packed = rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    place = np.minimum(np.searchsorted(table[order], packed), 255)
    codes = order[place].astype(np.uint8)
    if not (table[codes] == packed).all():
        raise ValueError(f"the picture holds colours that are not in {colormap}")
    return codes
