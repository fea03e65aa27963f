"""PFM, NPY and TIFF: float32 planes for other programs, written and read bit for bit.

Invalid pixels are infinite in PFM, as in Middlebury's files, and NaN in NPY and TIFF. TIFF carries the facts as its
ImageDescription. PFM and NPY have no place for them: they stand in a file beside it, named as the file and .json, with
the size and the check sum of the file that they belong to.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from depthcli.errors import OutputError
from depthcli.io.codecs.arrays import Held, check_pixels, read_bytes
from depthcli.io.codecs.numbers import npy_numbers, pfm_numbers
from depthcli.io.codecs.quick_facts import parse_facts
from depthcli.io.names import sidecar_of
from depthcli.io.pictures import tiff
from depthcli.io.pictures.tiff import Tag

_MOST_FACTS = 1 << 20  # bytes
_STRIP_BYTES = 1 << 17
_LEVEL = 1  # higher ones take longer and save nothing on floats
_SHORT, _LONG, _ASCII = 3, 4, 2
_DEFLATE, _FLOAT = 8, 3


def write_pfm(values: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write (H, W) float32: `Pf`, width and height, -1 for little-endian, then the rows from the bottom up."""
    height, width = values.shape
    plain = np.where(np.isnan(values), np.float32(np.inf), values)[::-1].astype("<f4")
    target.write(b"Pf\n%d %d\n-1.0\n" % (width, height) + plain.tobytes())


def write_npy(values: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write (H, W) float32 as `numpy.load` reads them."""
    np.lib.format.write_array(target, np.ascontiguousarray(values, "<f4"), version=(1, 0), allow_pickle=False)


def write_tiff(values: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write one gray page of float32 in strips, packed by Deflate (TIFF 6.0, and Adobe's technical note 3)."""
    height, width = values.shape
    rows = max(1, _STRIP_BYTES // (4 * width))
    plain = np.ascontiguousarray(values, "<f4")
    strips = [zlib.compress(plain[top : top + rows].data, _LEVEL) for top in range(0, height, rows)]
    text = json.dumps(facts).encode() + b"\0"  # ASCII
    counts = [len(strip) for strip in strips]
    entries: list[tuple[int, int, bytes]] = [
        (Tag.WIDTH, _LONG, struct.pack("<I", width)),
        (Tag.HEIGHT, _LONG, struct.pack("<I", height)),
        (Tag.BITS, _SHORT, struct.pack("<H", 32)),
        (Tag.COMPRESSION, _SHORT, struct.pack("<H", _DEFLATE)),
        (Tag.PHOTOMETRIC, _SHORT, struct.pack("<H", tiff.BLACK_IS_ZERO)),
        (tiff.DESCRIPTION, _ASCII, text),
        (Tag.STRIP_OFFSETS, _LONG, bytes(4 * len(strips))),
        (Tag.SAMPLES, _SHORT, struct.pack("<H", 1)),
        (Tag.ROWS_PER_STRIP, _LONG, struct.pack("<I", rows)),
        (Tag.STRIP_COUNTS, _LONG, struct.pack(f"<{len(strips)}I", *counts)),
        (Tag.PLANAR, _SHORT, struct.pack("<H", 1)),
        (Tag.FORMAT, _SHORT, struct.pack("<H", _FLOAT)),
    ]
    place = 8 + 2 + 12 * len(entries) + 4  # behind the directory
    first = place + sum(len(value) + len(value) % 2 for *_, value in entries if len(value) > 4)
    offsets = first + np.cumsum([0, *counts[:-1]])
    if first + sum(counts) >= 1 << 32:
        raise OutputError("TIFF cannot hold more than 4 GB", "use exr or npz")
    directory, beyond = [], []
    for tag, kind, value in entries:
        if tag == Tag.STRIP_OFFSETS:
            value = offsets.astype("<u4").tobytes()
        count = len(value) // {_SHORT: 2, _LONG: 4, _ASCII: 1}[kind]
        if len(value) > 4:
            directory.append(struct.pack("<HHII", tag, kind, count, place))
            beyond.append(value + b"\0" * (len(value) % 2))
            place += len(beyond[-1])
        else:
            directory.append(struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0"))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(directory) + bytes(4)
    target.write(b"".join([head, *beyond, *strips]))


def read_pfm(path: Path) -> Held:
    """Return the (H, W) float32, facts and mask of a file that has its facts beside it. Raises OutputError."""
    facts, data = _with_facts(path)
    values = pfm_numbers(data)
    return Held(values, facts, np.isfinite(values))


def read_npy(path: Path) -> Held:
    """Return the (H, W) float32, facts and mask of a file that has its facts beside it. Raises OutputError."""
    facts, data = _with_facts(path)
    values = npy_numbers(data)
    return Held(values, facts, ~np.isnan(values))


def read_tiff(path: Path) -> Held:
    """Return the (H, W) float32, facts and mask of one of our files. Raises what broken bytes lead to."""
    with path.open("rb") as file:
        facts = read_tiff_facts(file)
        if not facts:
            raise OutputError(f"{path} does not say what its numbers mean", "only depthcli's files can be read back")
        page = tiff.read_page(file)
        check_pixels(*page.size)
        values = tiff.read_samples(file, page)[..., 0]
    return Held(values, facts, ~np.isnan(values))


def read_tiff_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises what broken bytes lead to."""
    text = tiff.read_description(stream)
    return parse_facts(text) if text.startswith("{") else {}


def is_tiff_cut_short(stream: IO[bytes]) -> bool:
    """Return whether a file with our facts ends before its last strip does."""
    size = stream.seek(0, os.SEEK_END)
    try:
        page = tiff.read_page(stream)
        ends = map(sum, zip(page.tags[Tag.STRIP_OFFSETS], page.tags[Tag.STRIP_COUNTS]))
        return bool(read_tiff_facts(stream)) and max(ends) > size
    except (OSError, ValueError, LookupError):
        return True


def facts_beside(data: bytes, facts: Mapping[str, Any]) -> bytes:
    """Return the content of the file beside one that has no place for its facts."""
    about = {**facts, "file": {"bytes": len(data), "crc32": zlib.crc32(data)}}
    return (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()


def read_facts_beside(path: Path) -> dict[str, Any]:
    """Return the facts beside a file; empty if there are none, or they are of another file. Raises OSError."""
    facts, size = _beside(path)
    return facts if size == path.stat().st_size else {}


def is_shorter_than_beside(path: Path) -> bool:
    """Return whether a file has less bytes than the facts beside it say. Raises OSError."""
    try:
        return path.stat().st_size < _beside(path)[1]
    except ValueError:
        return False


def is_about_depth(beside: Path) -> bool:
    """Return whether a file holds facts of ours about another one."""
    try:
        return beside.stat().st_size <= _MOST_FACTS and "file" in parse_facts(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _beside(path: Path) -> tuple[dict[str, Any], int]:
    """Return the facts beside a file, and how many bytes they say that it has; {} and 0 if there are none."""
    beside = sidecar_of(path)
    if not beside.is_file() or beside.stat().st_size > _MOST_FACTS:
        return {}, 0
    facts = parse_facts(beside.read_text(encoding="utf-8"))
    about = facts.get("file")
    if not isinstance(about, dict) or not {"bytes", "crc32"} <= set(about):
        return {}, 0
    return facts, int(about["bytes"])


def _with_facts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = read_bytes(path)
    facts = read_facts_beside(path)
    if not facts:
        raise OutputError(f"{path} does not say what its numbers mean", "only depthcli's files can be read back")
    if facts["file"]["crc32"] != zlib.crc32(data):
        raise OutputError(f"{sidecar_of(path)} is about another file", "remove it, or copy both again")
    return facts, data
