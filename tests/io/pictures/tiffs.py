"""TIFF files of any layout, written by rule: what a reader has to get right, byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


def write(
    samples: np.ndarray,
    photometric: int,
    *,
    bits: int = 0,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows: int = 0,
    packing: int = NONE,
    predictor: int = 1,
    fill: int = 1,
    tags: Mapping[int, Sequence[int]] | None = None,
) -> bytes:
    """Return a file of (H, W, C) samples. tile: (width, height). rows: of a strip, 0 for all. fill: 2 mirrors bits."""
    height, width, channels = samples.shape
    bits = bits or 8 * samples.itemsize
    across, down = tile or (width, rows or height)
    chunks = []
    for plane in np.dsplit(samples, channels) if planar else [samples]:
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across]
                if tile:
                    part = np.pad(part, ((0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)))
                chunks.append(packed(raw(part, bits, order, predictor, fill), packing))
    form = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    every: dict[int, Sequence[int]] = {256: [width], 257: [height], 258: [bits] * channels, 259: [packing]}
    every.update({262: [photometric], 266: [fill], 277: [channels], 284: [1 + planar], 317: [predictor]})
    every.update({339: [form] * channels, **(tags or {})})
    every.update({322: [across], 323: [down]} if tile else {278: [down]})
    return assemble(every, chunks, order, big)


def assemble(tags: Mapping[int, Sequence[int]], chunks: Sequence[bytes], order: str = "<", big: bool = False) -> bytes:
    """Return a file of tags, and of the strips or tiles whose places and lengths are added to these."""
    start = 16 if big else 8
    offsets = [start + sum(map(len, chunks[:index])) for index in range(len(chunks))]
    places = (324, 325) if 322 in tags else (273, 279)
    tags = {**tags, places[0]: offsets, places[1]: [len(chunk) for chunk in chunks]}
    end = start + sum(map(len, chunks))
    word, inline = ("Q", 8) if big else ("I", 4)
    directory = struct.pack(order + ("Q" if big else "H"), len(tags))
    place, behind = end + len(directory) + len(tags) * (20 if big else 12) + inline, b""
    for tag in sorted(tags):
        kind, form = (4, "I") if max(tags[tag]) > 65535 or tag in places else (3, "H")
        value = struct.pack(f"{order}{len(tags[tag])}{form}", *tags[tag])
        directory += struct.pack(f"{order}HH{word}", tag, kind, len(tags[tag]))
        if len(value) <= inline:
            directory += value.ljust(inline, b"\0")
        else:
            directory += struct.pack(order + word, place + len(behind))
            behind += value
    mark = struct.pack(f"{order}HHHQ", 43, 8, 0, end) if big else struct.pack(f"{order}HI", 42, end)
    return b"".join([b"II" if order == "<" else b"MM", mark, *chunks, directory, bytes(inline), behind])


def raw(part: np.ndarray, bits: int, order: str, predictor: int = 1, fill: int = 1) -> bytes:
    """Return the bytes of a strip or tile before they are packed."""
    height, width, channels = part.shape
    if predictor == 2:
        part = np.ascontiguousarray(part).view(f"u{part.itemsize}").copy()
        part[:, 1:] = part[:, 1:] - part[:, :-1]
    if predictor == 3:
        whole = np.ascontiguousarray(part, part.dtype.newbyteorder(">")).view(np.uint8)
        planes = whole.reshape(height, width * channels, -1).swapaxes(1, 2).reshape(height, -1, channels)
        less = planes.copy()
        less[:, 1:] = planes[:, 1:] - planes[:, :-1]
        return less.tobytes()
    if bits % 8:
        ones = (part.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        data = np.packbits(ones.astype(np.uint8).reshape(height, -1), axis=1)
    else:
        data = np.frombuffer(part.astype(part.dtype.newbyteorder(order)).tobytes(), np.uint8)
    if fill == 2:
        data = np.packbits(np.unpackbits(data.reshape(-1, 1), axis=1)[:, ::-1], axis=1)
    return data.tobytes()


def packed(data: bytes, packing: int) -> bytes:
    """Return packed bytes; the packers are correct, and save nothing."""
    if packing == LZW:  # codes of 9 bits, cleared before they would need a tenth
        codes = [code for at in range(0, len(data), 250) for code in (256, *data[at : at + 250])]
        ones = "".join(f"{code:09b}" for code in [*codes, 257])
        return int(ones.ljust(-(-len(ones) // 8) * 8, "0"), 2).to_bytes(-(-len(ones) // 8), "big")
    if packing == PACKBITS:
        parts = [data[at : at + 128] for at in range(0, len(data), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return zlib.compress(data) if packing == DEFLATE else data


def shared_colours(ycc: np.ndarray, across: int, down: int, rows: int, packing: int = NONE) -> bytes:
    """Return a YCbCr file whose blocks of across x down pixels share a colour, that of their first pixel."""
    height, width, _ = ycc.shape
    pad = ((0, -height % down), (0, -width % across), (0, 0))
    whole: Any = np.pad(ycc, pad, mode="edge")
    high, wide = whole.shape[0] // down, whole.shape[1] // across
    luma = whole[..., 0].reshape(high, down, wide, across).swapaxes(1, 2).reshape(high, wide, -1)
    blocks = np.concatenate([luma, whole[::down, ::across, 1:]], axis=2)
    parts = [blocks[top // down : -(-min(top + rows, height) // down)] for top in range(0, height, rows)]
    tags = {256: [width], 257: [height], 258: [8, 8, 8], 259: [packing], 262: [6], 277: [3], 278: [rows]}
    return assemble({**tags, 530: [across, down]}, [packed(part.tobytes(), packing) for part in parts])
