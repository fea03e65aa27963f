"""Read PNG files by chunks: the header, and the pixels without the metadata.

Pillow refuses files whose texts or profiles are large or have a wrong checksum, although the pixels do not need them.
It also accepts pixels with a wrong checksum, which are refused here.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

CUT = "the file is truncated"
_MOST_UNPACKED = 1032  # bytes that Deflate makes of one
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour


@dataclass(frozen=True)
class Png:
    """The chunks of a file. size: (width, height). bits: per sample. channels: samples per pixel.

    exif: the block, or empty. frames: of an animation, else 1.
    chunks: kind, position and length of the picture's chunks; the last may be truncated.
    """

    size: tuple[int, int]
    bits: int
    channels: int
    exif: bytes
    frames: int
    chunks: tuple[tuple[bytes, int, int], ...]


def read_chunks(file: BinaryIO) -> Png:
    """Return what a file holds; pixels and texts are passed over unread. Raises ValueError if they are not whole."""
    end = file.seek(0, os.SEEK_END)
    position, chunks, exif, frames, own_frame = 8, [], b"", 1, False
    while position + 8 <= end:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        start = position + 8
        position = start + length + 4
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            chunks.append((kind, start, length))
        elif kind == b"eXIf" and length < 1 << 16 and position <= end:
            exif = file.read(length)
        elif kind == b"acTL" and length == 8:
            frames = int.from_bytes(file.read(4), "big")
        elif kind == b"fcTL" and not any(chunk[0] == b"IDAT" for chunk in chunks):
            own_frame = True  # the picture is the first of the animation, and not one for readers of stills
        elif kind == b"IEND":
            break
    if not chunks or chunks[0][0] != b"IHDR" or chunks[0][2] != 13:
        raise ValueError("its header is damaged")
    width, height, bits, colour = struct.unpack(">IIBB", _data(file, *chunks[0])[:10])
    return Png(
        (width, height),
        *(bits, _SAMPLES.get(colour, 1), exif, frames if own_frame or frames < 2 else frames + 1, tuple(chunks)),
    )


def only_pixels(file: BinaryIO, png: Png) -> BytesIO:
    """Return a PNG of the chunks that make the picture. Raises ValueError if one of them is damaged."""
    packed = sum(length for kind, _, length in png.chunks if kind == b"IDAT")
    if png.size[0] * png.size[1] * png.bits * png.channels > 8 * _MOST_UNPACKED * packed:
        raise ValueError(CUT)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, start, length in png.chunks:
        try:
            data = _data(file, kind, start, length)
        except ValueError:
            if kind == b"tRNS":  # as libpng does with all that the picture can do without
                continue
            raise
        parts += [struct.pack(">I", length), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
    parts += [bytes(4), b"IEND", struct.pack(">I", zlib.crc32(b"IEND"))]
    return BytesIO(b"".join(parts))


def _data(file: BinaryIO, kind: bytes, start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) < length:
        raise ValueError(CUT)
    if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(file.read(4), "big"):
        raise ValueError("the checksum of its pixels is wrong")
    return data
