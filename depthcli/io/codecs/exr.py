"""OpenEXR files of depth: one float32 plane, written and read bit for bit, without a library.

"OpenEXR File Layout" (openexr.com): a header of attributes, a table of offsets, and blocks of 16 rows packed as ZIP.
The plane is stored four times: as `Z`, where compositors expect depth, and as `R`, `G` and `B`, because a file with
Z alone is black in most viewers and some readers, such as FFmpeg, cannot open it. The copies add 6 % on a smooth map.
Layers beside it have channels of their own: `conf`, and `sky`, which is 1 where there is sky and 0 elsewhere.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from depthcli.errors import OutputError
from depthcli.io.codecs.arrays import LAYERS, Held, check_pixels, memory_errors, read_bytes
from depthcli.io.codecs.quick_facts import TEXT_KEY, parse_facts

CHANNELS = ("B", "G", "R", "Z")  # the format wants them in the order of the alphabet
Z_ALONE = ("Z",)
ID_CHANNEL = "id"  # behind them: the number of the object that a pixel shows, 0 for none
MAGIC = struct.pack("<2i", 20000630, 2)
_FLOAT, _ZIP, _INCREASING_Y = 2, 3, 0
_LAYERS = ((), *((name,) for name in LAYERS), tuple(sorted(LAYERS)), (ID_CHANNEL,))  # that a file can have
_CONTENTS = (*((CHANNELS, layers) for layers in _LAYERS), (Z_ALONE, ()))
_BLOCK_ROWS = 16  # of ZIP
_LEVEL = 4
_FACTS = TEXT_KEY.encode()
_MOST_HEADER = 1 << 20


def write_exr(
    values: np.ndarray,
    target: IO[bytes],
    facts: Mapping[str, Any],
    layers: Mapping[str, np.ndarray] = {},
    channels: Sequence[str] = CHANNELS,
) -> None:
    """Write (H, W) float32 as they are: no scale, no gamma; facts become a text attribute named `depthcli`.

    layers: of LAYERS in arrays.py, by name; or ID_CHANNEL, whole numbers below 2**24, as compositors expect them.
    channels: that hold the values, CHANNELS or Z_ALONE.
    """
    height, width = values.shape
    names = sorted(layers)
    header = MAGIC + _header(width, height, facts, (*channels, *names))
    planes = [values] * len(channels) + [layers[name] for name in names]
    blocks = []
    for top in range(0, height, _BLOCK_ROWS):
        rows = [np.ascontiguousarray(plane[top : top + _BLOCK_ROWS], "<f4") for plane in planes]
        data = _packed(np.stack(rows, axis=1).tobytes())
        blocks.append(struct.pack("<2i", top, len(data)) + data)
    offsets = len(header) + 8 * len(blocks) + np.cumsum([0, *map(len, blocks[:-1])])
    target.write(header + offsets.astype("<u8").tobytes() + b"".join(blocks))


def read_exr(path: Path) -> Held:
    """Return what `write_exr` wrote, numbers as float32. Raises OutputError for any other file."""
    try:
        with memory_errors(path):
            return _read(read_bytes(path))
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist") from error
    except (OSError, ValueError, LookupError, struct.error, zlib.error, RecursionError) as error:
        raise OutputError(f"cannot read depth from {path}: {error}") from error


def read_exr_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises what broken bytes lead to."""
    attributes, _ = attributes_of(stream.read(_MOST_HEADER))
    return parse_facts(attributes[_FACTS].decode())


def is_exr_cut_short(stream: IO[bytes]) -> bool:
    """Return whether a file with the header of ours ends before its last block does."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    data = stream.read(_MOST_HEADER)
    try:
        attributes, position = attributes_of(data)
        _, height = _size(attributes)
        stream.seek(position + 8 * (-(-height // _BLOCK_ROWS) - 1))
        (offset,) = struct.unpack("<Q", stream.read(8))
        stream.seek(offset)
        _, length = struct.unpack("<2i", stream.read(8))
        return _FACTS in attributes and offset + 8 + length > size
    except (OSError, ValueError, LookupError, struct.error):
        return True


def _read(data: bytes) -> Held:
    if not data.startswith(MAGIC):
        raise ValueError("it is not one of ours")
    attributes, position = attributes_of(data)
    width, height = _size(attributes)
    own, names = next(
        (pair for pair in _CONTENTS if attributes[b"channels"] == _channel_list((*pair[0], *pair[1]))), ((), ())
    )
    if not own or attributes[b"compression"] != bytes([_ZIP]):
        raise ValueError("its channels are others than ours")
    check_pixels(width, height)
    if 8 * -(-height // _BLOCK_ROWS) > len(data) - position:
        raise ValueError("its table of blocks is cut short")
    kept = np.empty((1 + len(names), height, width), np.float32)
    for block in range(-(-height // _BLOCK_ROWS)):
        (offset,) = struct.unpack_from("<Q", data, position + 8 * block)
        row, length = struct.unpack_from("<2i", data, offset)
        if row != block * _BLOCK_ROWS or length < 0:
            raise ValueError("its blocks are not where they should be")
        rows = kept[:, row : row + _BLOCK_ROWS]
        channels = len(own) + len(names)
        size = rows[0].nbytes * channels
        planes = np.frombuffer(unpacked(data[offset + 8 : offset + 8 + length], size), "<f4")
        planes = planes.reshape(rows.shape[1], channels, width)[:, len(own) - 1 :]
        rows[:] = planes.transpose(1, 0, 2)
    layers = {name: layer for name, layer in zip(names, kept[1:]) if name in LAYERS}
    if "sky" in layers:
        layers["sky"] = layers["sky"] > 0.5
    return Held(kept[0], json.loads(attributes[_FACTS]), ~np.isnan(kept[0]), layers)


def _size(attributes: Mapping[bytes, bytes]) -> tuple[int, int]:
    left, top, right, bottom = struct.unpack("<4i", attributes[b"dataWindow"])
    return right - left + 1, bottom - top + 1


def _header(width: int, height: int, facts: Mapping[str, Any], channels: Sequence[str]) -> bytes:
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = (
        (b"channels", b"chlist", _channel_list(channels)),
        (b"compression", b"compression", bytes([_ZIP])),
        (b"dataWindow", b"box2i", window),
        (_FACTS, b"string", json.dumps(facts).encode()),
        (b"displayWindow", b"box2i", window),
        (b"lineOrder", b"lineOrder", bytes([_INCREASING_Y])),
        (b"pixelAspectRatio", b"float", struct.pack("<f", 1)),
        (b"screenWindowCenter", b"v2f", struct.pack("<2f", 0, 0)),
        (b"screenWindowWidth", b"float", struct.pack("<f", 1)),
    )
    return b"".join(b"%s\0%s\0%s%s" % (n, kind, struct.pack("<i", len(v)), v) for n, kind, v in attributes) + b"\0"


def _channel_list(names: Sequence[str]) -> bytes:
    layout = struct.pack("<i4B2i", _FLOAT, 0, 0, 0, 0, 1, 1)  # not perceptual; every pixel of every row
    return b"".join(name.encode() + b"\0" + layout for name in names) + b"\0"


def attributes_of(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """Return the attributes of an EXR file by name, and where its table of offsets begins."""
    found, position = {}, len(MAGIC)
    while data[position]:
        end_of_name = data.index(b"\0", position)
        end_of_kind = data.index(b"\0", end_of_name + 1)
        (length,) = struct.unpack_from("<i", data, end_of_kind + 1)
        start = end_of_kind + 5
        if length < 0:
            raise ValueError("an attribute has a negative length")
        found[data[position:end_of_name]] = data[start : start + length]
        position = start + length
    return found, position + 1


def _packed(raw: bytes) -> bytes:
    """Return ZIP as EXR has it: even bytes before odd ones, each as its difference to the one before, then deflated."""
    plain = np.frombuffer(raw, np.uint8)
    apart = np.concatenate([plain[::2], plain[1::2]])
    apart[1:] = apart[1:] - apart[:-1] + np.uint8(128)
    packed = zlib.compress(apart.tobytes(), _LEVEL)
    return packed if len(packed) < len(raw) else raw


def unpacked(data: bytes, size: int, rle: bool = False) -> bytes:
    """Return the bytes of a block that EXR packed as ZIP, or as RLE. Raises ValueError if it is not whole."""
    if len(data) == size:  # what packing would not have made smaller
        return data
    mixed = _run_lengths(data) if rle else _inflated(data, size)
    if len(mixed) != size:
        raise ValueError("a block is not as long as its rows")
    apart = np.frombuffer(mixed, np.uint8).astype(np.int64)
    apart[1:] -= 128
    apart = np.cumsum(apart).astype(np.uint8)
    plain = np.empty(size, np.uint8)
    half = (size + 1) // 2
    plain[::2], plain[1::2] = apart[:half], apart[half:]
    return plain.tobytes()


def _inflated(data: bytes, size: int) -> bytes:
    """Undo ZIP; a stream that goes on behind `size` bytes is not unpacked further, so that it takes no more memory."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, size + 1)
    if not unpacker.eof:
        raise ValueError("a block is not as long as its rows")
    return unpacked


def _run_lengths(data: bytes) -> bytes:
    """Undo RLE: a count below zero stands before so many bytes as they are, another before one that repeats."""
    pieces, position = [], 0
    while position < len(data):
        count = data[position]
        if count > 127:
            pieces.append(data[position + 1 : position + 257 - count])
            position += 257 - count
        else:
            pieces.append(data[position + 1 : position + 2] * (count + 1))
            position += 2
    return b"".join(pieces)
