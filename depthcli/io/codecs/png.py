"""PNG files of depth: pixels and the facts about them in the text field `depthcli`, written and read."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from depthcli.errors import OutputError
from depthcli.io.codecs.arrays import Held, check_pixels
from depthcli.io.codecs.encode import decode
from depthcli.io.codecs.formats import SIDE_GAP
from depthcli.io.codecs.quick_facts import TEXT_KEY, parse_facts
from depthcli.io.pictures.images import MAX_PIXELS

# zlib's level and strategy for colour, 8-bit gray and 16-bit gray; see docs/log.md for sizes and times
_COLOR_PACKING = (4, zlib.Z_DEFAULT_STRATEGY)
_GRAY8_PACKING = (1, zlib.Z_RLE)
_GRAY16_PACKING = (2, zlib.Z_DEFAULT_STRATEGY)
HEAD = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
_MOST_UNPACKED = 1032  # bytes that Deflate makes of one
_BAND_BYTES = 1 << 19  # of a picture, packed at a time: what stays in the processor's cache


def write_depth_png(pixels: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write pixels and facts, and a description for people, which frames of a clip leave to the sidecar."""
    texts = {TEXT_KEY: json.dumps(facts, ensure_ascii=False)}
    if "frame" not in facts:
        texts["Description"] = f"{facts['meaning']}; model {facts['model_title'] or facts['model']}"
    write_png(pixels, target, texts)


def read_depth_png(path: Path) -> Held:
    """Return the (H, W) float32 numbers, the facts and the mask of a file. Raises what broken bytes lead to."""
    # Not Image.open, whose limit on the number of pixels is below what we write.
    with path.open("rb") as stream:
        image = PngImageFile(stream)
        facts = _facts_in(image)
        if not facts:
            raise OutputError(f"{path} does not say what its numbers mean", "only depthcli's files can be read back")
        if {"stereo", "effect", "objects"} & set(facts):
            raise OutputError(f"{path} shows a picture and is not a depth map", "give the depth that it was made of")
        check_pixels(*image.size, most=2 * MAX_PIXELS + SIDE_GAP * image.size[1])  # beside a photo it is twice as wide
        check_claim(image, path.stat().st_size)
        image.load()  # or numpy 1.22 hides that a file is cut short
        pixels = np.asarray(image)
    values, valid = decode(pixels, facts)
    return Held(values, facts, valid)


def read_png_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if there are none. Raises what broken bytes lead to."""
    return _facts_in(PngImageFile(stream))


def _facts_in(image: PngImageFile) -> dict[str, Any]:
    return parse_facts(image.info.get(TEXT_KEY, "{}"))


def check_claim(image: PngImageFile, size: int) -> None:
    """Raise ValueError if a file of `size` bytes is too small for the pixels in its header (8 bits or more each)."""
    width, height = image.size
    if width * height * len(image.getbands()) > _MOST_UNPACKED * size:
        raise ValueError(f"its header claims {width}x{height} pixels, more than its {size} bytes can hold")


def write_png(pixels: np.ndarray, target: IO[bytes], texts: Mapping[str, str]) -> None:
    """Write (H, W, 3 or 4) uint8, (H, W) uint8 or (H, W) uint16 pixels, and text fields.

    Pillow tries five filters on each row, which takes half of its time; for depth maps "up" alone packs as well.
    """
    color, bits = pixels.ndim == 3, 8 * pixels.itemsize
    kind = 0 if not color else 6 if pixels.shape[2] == 4 else 2
    level, strategy = _COLOR_PACKING if color else _GRAY8_PACKING if bits == 8 else _GRAY16_PACKING
    target.write(HEAD)
    _write_chunk(target, b"IHDR", struct.pack(">2I5B", *pixels.shape[1::-1], bits, kind, 0, 0, 0))
    for key, text in texts.items():
        _write_chunk(target, b"iTXt", key.encode() + b"\0\0\0\0\0" + text.encode())  # not compressed, no language
    packer = zlib.compressobj(level, strategy=strategy)
    for rows in _filtered(pixels):
        _write_chunk(target, b"IDAT", packer.compress(rows.data))
    _write_chunk(target, b"IDAT", packer.flush())
    _write_chunk(target, b"IEND", b"")


def _write_chunk(target: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":  # a packer that still waits for more gives nothing
        target.write(struct.pack(">I", len(data)) + kind)
        target.write(data)
        target.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield bands of rows as PNG packs them: a 2 for the filter "up", then the bytes less those of the row above."""
    pixels = pixels.reshape(len(pixels), -1)
    band = max(1, _BAND_BYTES // pixels[0].nbytes)
    above = np.zeros(pixels[0].nbytes, np.uint8)
    for top in range(0, len(pixels), band):
        rows = np.ascontiguousarray(pixels[top : top + band], pixels.dtype.newbyteorder(">")).view(np.uint8)
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = 2
        np.subtract(rows[0], above, out=filtered[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        above = rows[-1]
        yield filtered
