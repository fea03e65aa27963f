"""Read what Pillow cannot, or not exactly: binary Netpbm, PFM, Radiance HDR, Sun raster, and BMP with bit fields.

Headers are read and checked here before anything is decoded. OpenCV decodes HDR and Sun raster.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np

CUT = "the file is truncated"
_HEADER = 1 << 16  # bytes that are looked at for a header; comments may be long


@dataclass(frozen=True)
class Rare:
    """The header of a picture. size: (width, height).

    samples: decodes it to (H, W, C) uint8, uint16 (all 16 bits used) or float32; colours are RGB.
    alpha: the last channel is alpha. light: floats are light; otherwise their range is unknown.
    """

    size: tuple[int, int]
    samples: Callable[[], np.ndarray]
    alpha: bool = False
    light: bool = False


def open_netpbm(file: BinaryIO) -> Rare:
    """Return a P5, P6 or P7 (PAM)."""
    head = file.read(_HEADER)
    if head.startswith(b"P7"):
        fields = dict(re.findall(rb"^\s*(WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)\s+(\S+)", _before_end(head), re.MULTILINE))
        width, height, depth, top = (int(fields[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
        start = len(_before_end(head)) + len(b"ENDHDR\n")
    else:
        numbers, start = _numbers(head[2:], 3)
        width, height, top = (int(number) for number in numbers)
        depth, start = 3 if head.startswith(b"P6") else 1, start + 2
    if not (0 < top < 1 << 16 and 0 < depth <= 4):
        raise ValueError(f"its {depth} channels of values up to {top} are not supported")
    kind = np.dtype(np.uint8 if top < 256 else ">u2")
    _check_rest(file, start, width * height * depth * kind.itemsize)

    def samples() -> np.ndarray:
        stored = _stored(file, start, kind, (height, width, depth))
        full = 255 if top < 256 else 65535
        if top == full:
            return stored.astype(kind.newbyteorder("="), copy=False)
        return np.minimum(np.round(stored * (full / top)), full).astype(kind.newbyteorder("="))

    return Rare((width, height), samples, alpha=depth in (2, 4))


def open_pfm(file: BinaryIO) -> Rare:
    """Return a Pf (gray) or PF (colour): floats, the lowest row first; a negative scale says little-endian."""
    head = file.read(_HEADER)
    numbers, start = _numbers(head[2:], 3)
    width, height, scale = int(numbers[0]), int(numbers[1]), float(numbers[2])
    depth, kind = 3 if head.startswith(b"PF") else 1, np.dtype("<f4" if scale < 0 else ">f4")
    _check_rest(file, start + 2, width * height * depth * 4)

    def samples() -> np.ndarray:
        return _stored(file, start + 2, kind, (height, width, depth))[::-1].astype(np.float32)

    return Rare((width, height), samples, light=depth == 3)


def open_hdr(file: BinaryIO) -> Rare:
    """Return a Radiance picture in the usual order of rows."""
    found = re.search(rb"\n\n-Y (\d+) \+X (\d+)\n", file.read(_HEADER))
    if not found:
        raise ValueError("its rows are in an order that is not supported")
    size = int(found[2]), int(found[1])
    # A row is packed to 2 bytes for 127 equal ones of each of the four channels, with 4 bytes before it.
    _check_rest(file, found.end(), size[1] * min(size[0] * 4, 4 + 8 * (size[0] // 127)))
    return Rare(size, lambda: _by_opencv(file, size, cv2.IMREAD_UNCHANGED), light=True)


def open_sun(file: BinaryIO) -> Rare:
    """Return a Sun raster picture."""
    width, height, bits, _, packing, _, palette = struct.unpack(">7I", file.read(32)[4:])
    # Of packed ones 3 bytes hold up to 256.
    _check_rest(file, 32 + palette, width * height * bits // 8 // (100 if packing == 2 else 1))
    return Rare((width, height), lambda: _by_opencv(file, (width, height), cv2.IMREAD_COLOR))


def open_by_opencv(file: BinaryIO, size: tuple[int, int]) -> Rare:
    """Return a picture of light whose header has been read."""
    return Rare(size, lambda: _by_opencv(file, size, cv2.IMREAD_UNCHANGED), light=True)


def open_bit_fields(file: BinaryIO) -> Rare | None:
    """Return a BMP whose pixels are fields of bits at places that the file states; None for any other BMP."""
    head = file.read(70)
    start, length, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", head, 10)
    if packing not in (3, 6) or bits not in (16, 32) or length < 40:
        return None
    has_alpha = packing == 6 or length >= 56
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", head, 54)
    masks = masks[: 3 + (has_alpha and masks[3] > 0)]
    stride = -(-width * bits // 32) * 4
    size = (width, abs(height))
    if width < 1 or not height or not all(masks):
        raise ValueError("its header is damaged")

    def samples() -> np.ndarray:
        _check_rest(file, start, stride * (size[1] - 1) + width * bits // 8)
        stored = np.zeros(size[1] * stride, np.uint8)
        file.seek(start)
        file.readinto(stored.data)  # type: ignore[attr-defined]
        pixels = stored.view(f"<u{bits // 8}").reshape(size[1], -1)[:, :width]
        channels = [_field(pixels, mask) for mask in masks]
        if len(channels) == 4 and not channels[3].any():  # written without a thought of alpha
            channels[3][:] = 255
        return np.dstack(channels)[:: -1 if height > 0 else 1]

    return Rare(size, samples, alpha=len(masks) == 4)


def _field(pixels: np.ndarray, mask: int) -> np.ndarray:
    """Return (H, W) uint8 for one bit field of each pixel."""
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    values = (pixels & np.asarray(mask, pixels.dtype)) >> shift
    return (values >> (top.bit_length() - 8) if top > 255 else np.round(values * (255 / top))).astype(np.uint8)


def _before_end(head: bytes) -> bytes:
    return head[: head.index(b"ENDHDR\n")]


def _numbers(head: bytes, count: int) -> tuple[list[bytes], int]:
    """Return the first numbers behind a mark, and the end of the byte behind them; # begins a comment."""
    found = re.match(rb"(?:(?:\s|#[^\n]*\n)+([-+.\deE]+))" * count + rb"\s", head)
    if not found:
        raise ValueError("its header is damaged")
    return list(found.groups()), found.end()


def _check_rest(file: BinaryIO, start: int, need: int) -> None:
    if file.seek(0, os.SEEK_END) - start < need:
        raise ValueError(CUT)


def _stored(file: BinaryIO, start: int, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    file.seek(start)
    data = file.read(int(np.prod(shape)) * kind.itemsize)
    return np.frombuffer(data, kind).reshape(shape)


def _by_opencv(file: BinaryIO, size: tuple[int, int], flags: int) -> np.ndarray:
    """Return (H, W, C) RGB as OpenCV decodes it. Raises ValueError for a truncated file."""
    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
    if pixels is None or pixels.shape[1::-1] != size:
        raise ValueError("OpenCV cannot decode it")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.ascontiguousarray(pixels[..., ::-1]) if pixels.shape[2] == 3 else pixels
