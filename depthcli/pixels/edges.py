"""Bring the edges of a coarse depth map to those of its photo, with sums over neighbours weighted by colour.

Every value is a weighted mean of values of the map, so none leaves its range and even depth stays even.
"""

from __future__ import annotations

import cv2
import numpy as np

from depthcli.pixels.sampling import centred_taps

_BAND_PIXELS = 1 << 16  # made at a time: the band and its weights stay in the processor's cache
_RADIUS, _TIMES = 3, 5  # of the sharpening, in cells of the map, and how often it is done
# How far colours may be apart: the scale of a Gauss curve over the sum of the three channels' differences.
_SAME_SURFACE, _SAME_COLOUR = 22.0, 13.0
_SAME_DEPTH = 0.3  # farther apart than this part of the map's contrast, values do not mix
_LEAST = 1e-6  # weight of a neighbour of another colour: the plain mean, if no colour fits


def follow_edges(values: np.ndarray, rgb: np.ndarray, wrap: bool = False) -> np.ndarray:
    """Return (H, W) float32 values at the size of the photo, with the photo's edges, for a smaller (h, w) map.

    rgb: (H, W, 3) uint8. wrap: left and right edges are joined. Time and memory are linear in the pixels.
    """
    height, width = rgb.shape[:2]
    rows, columns = values.shape
    if rows > height or columns > width:  # the photo has nothing to add
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    photo = _smaller(rgb, columns, rows)
    values = _sharpen(values, photo, wrap)
    # In steps of two at most: a cell that two surfaces share shrinks with each step, and hides less of the edge.
    for halvings in range(max(height // rows, width // columns).bit_length() - 1, -1, -1):
        size = max(columns, -(-width >> halvings)), max(rows, -(-height >> halvings))
        finer = _smaller(rgb, *size) if halvings else rgb
        values, photo = _upsample(values, photo, finer, wrap), finer
    return values


def _smaller(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)


def _sharpen(values: np.ndarray, photo: np.ndarray, wrap: bool) -> np.ndarray:
    """Return the map with its soft edges drawn together where the photo changes. photo: (h, w, 3) at its size.

    Each value becomes the mean of its neighbours with a like colour and a like depth, a few times.
    """
    contrast = _contrast(values)
    if contrast <= 0:
        return values
    height, width = values.shape
    band = max(1, _BAND_PIXELS // width)
    colours = _gauss_table(_SAME_SURFACE)
    unit = np.float32(contrast * _SAME_DEPTH)
    values = values / unit
    for _ in range(_TIMES):
        before, values = values, np.empty_like(values)
        for top in range(0, height, band):
            rows = np.clip(np.arange(top - _RADIUS, min(top + band, height) + _RADIUS), 0, height - 1)
            padded = _widened(before[rows], wrap)
            around = np.stack([_widened(plane, wrap) for plane in cv2.split(photo[rows])])
            values[top : top + band] = _mean_of_alike(padded, around, colours)
    values *= unit
    return values


def _mean_of_alike(padded: np.ndarray, around: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return one sharpening of a band of rows, without the margin of _RADIUS that both have.

    padded: (h, w) map, in units of the depth up to which values mix. around: (3, h, w) photo.
    """
    size = 2 * _RADIUS + 1
    inside = slice(_RADIUS, -_RADIUS)
    value = np.ascontiguousarray(padded[inside, inside])
    colour = np.ascontiguousarray(around[:, inside, inside])
    height, width = value.shape
    sums, total = value.copy(), np.ones_like(value)
    for down in range(size):
        for right in range(size):
            away = (down - _RADIUS) ** 2 + (right - _RADIUS) ** 2
            if not away:
                continue
            rows, columns = slice(down, down + height), slice(right, right + width)
            other = padded[rows, columns]
            near = other - value
            near *= near
            np.subtract(1, near, out=near)
            np.maximum(near, 0, out=near)
            near *= near
            near *= _colour_weight(colour, around[:, rows, columns], colours)
            near *= np.float32(np.exp(-away / (2 * (_RADIUS / 1.5) ** 2)))
            total += near
            near *= other
            sums += near
    return sums / total


def _upsample(values: np.ndarray, photo: np.ndarray, rgb: np.ndarray, wrap: bool) -> np.ndarray:
    """Return the map at the size of `rgb`: of the four cells around a pixel those count that have its colour."""
    height, width = rgb.shape[:2]
    y, x = centred_taps(values.shape[0], height), centred_taps(values.shape[1], width, wrap)
    colours = _gauss_table(_SAME_COLOUR)
    out = np.empty((height, width), np.float32)
    band = max(1, _BAND_PIXELS // width)
    planes = np.stack(cv2.split(photo))
    for top in range(0, height, band):
        part = slice(top, min(top + band, height))
        pixels, weight = np.stack(cv2.split(rgb[part])), y.weight[part, None]
        sums = np.zeros(pixels.shape[1:], np.float32)
        total = np.zeros_like(sums)
        for rows, down in ((y.first[part], 1 - weight), (y.second[part], weight)):
            used, place = np.unique(rows, return_inverse=True)
            for columns, right in ((x.first, 1 - x.weight), (x.second, x.weight)):
                share = _colour_weight(pixels, planes[:, used][:, :, columns][:, place], colours)
                share *= down
                share *= right
                total += share
                share *= values[used][:, columns][place]
                sums += share
        np.divide(sums, total, out=out[part])
    return out


def _colour_weight(one: np.ndarray, other: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 weights of two (3, H, W) uint8 arrays. table: weight for each sum of differences."""
    red, green, blue = map(cv2.absdiff, one, other)
    return cv2.LUT(cv2.add(cv2.add(red, green), blue), table)  # sums above 255 are 255


def _gauss_table(scale: float) -> np.ndarray:
    return (np.exp(-((np.arange(256) / scale) ** 2) / 2) + _LEAST).astype(np.float32)


def _widened(values: np.ndarray, wrap: bool) -> np.ndarray:
    """Return (H, W) values with _RADIUS more columns on either side."""
    return cv2.copyMakeBorder(values, 0, 0, _RADIUS, _RADIUS, cv2.BORDER_WRAP if wrap else cv2.BORDER_REPLICATE)


def _contrast(values: np.ndarray) -> float:
    """Return the distance of the 2nd and the 98th percentile of a map, from a small version of it."""
    size = min(values.shape[1], 256), min(values.shape[0], 256)
    low, high = np.percentile(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (2, 98))
    return float(high - low)
