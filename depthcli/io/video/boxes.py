"""Tell players how a film shows two eyes: boxes in MP4 and MOV, a name in Matroska.

"Spherical Video V2 RFC" (github.com/google/spatial-media) defines st3d and sv3d, which stand at the end of the sample
entry of a video track. No muxer writes them unasked, so they are put into the finished file, before it gets its name.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional

from depthcli.host.atomic import temporary_path

# Of Matroska's element StereoMode, as FFmpeg names them, by the codes of st3d.
STEREO_MODES = {1: "top_bottom", 2: "left_right", 4: "right_left"}
TAGGED = ("mp4", "mov")  # containers that have these boxes
_PARENTS = (b"trak", b"mdia", b"minf", b"stbl")
_OFFSETS = {b"stco": 4, b"co64": 8}  # tables of where the data of a track lies in the file: bytes of each
_FULL = b"\0\0\0\0"  # version and flags
_QUARTER = 0x40000000  # of 0.32 fixed point: what is cut off at the left and right of a whole sphere
_VISUAL_ENTRY = 86  # bytes before the boxes in a sample entry, with its own length and kind
_MOST_HEADER = 1 << 28


@dataclass(frozen=True)
class _Box:
    """One box of a file. start: of its length; body: of its content; end: behind it."""

    kind: bytes
    start: int
    body: int
    end: int


def tag_film(path: Path, packing: int, half_sphere: bool) -> str:
    """Write into a finished MP4 or MOV how its frames show two eyes; return why not, or "".

    packing: 1 top-bottom, 2 left-right, 4 right-left. half_sphere: each eye is 180 degrees, equirectangular. The file
    is replaced by a whole one, or left as it was. Raises OSError.
    """
    with path.open("rb") as source:
        boxes = list(_top_boxes(source))
        moov = next((box for box in boxes if box.kind == b"moov"), None)
        if moov is None or moov.end - moov.start > _MOST_HEADER:
            return "its layout was not named in it: its header is not as expected"
        source.seek(moov.start)
        header = bytearray(source.read(moov.end - moov.start))
        whole = _Box(b"moov", 0, moov.body - moov.start, len(header))
        if any(box.kind == b"moof" for box in boxes) or any(_children(header, whole, b"mvex")):
            return "its layout was not named in it: the film is in fragments"
        tagged = _tagged(header, whole, moov.end, _boxes(packing, half_sphere))
        if tagged is None:
            return "its layout was not named in it: its header is not as expected"
        new = temporary_path(path.parent)
        try:
            with new.open("wb") as target:
                source.seek(0)
                _copy(source, target, moov.start)
                target.write(tagged)
                source.seek(moov.end)
                shutil.copyfileobj(source, target, 1 << 20)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
    return ""


def _boxes(packing: int, half_sphere: bool) -> bytes:
    """Return the boxes to add."""
    added = _box(b"st3d", _FULL + bytes([packing]))
    if half_sphere:
        pose = _box(b"prhd", _FULL + struct.pack(">3i", 0, 0, 0))  # yaw, pitch, roll
        bounds = _box(b"equi", _FULL + struct.pack(">4I", 0, 0, _QUARTER, _QUARTER))  # top, bottom, left, right
        added += _box(b"sv3d", _box(b"svhd", _FULL + b"depthcli\0") + _box(b"proj", pose + bounds))
    return added


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _tagged(header: bytearray, whole: _Box, end: int, added: bytes) -> Optional[bytearray]:
    """Return the header with the added boxes, and with offsets that count them; None if it is not as expected.

    end: of the header in the file; what lies behind it moves.
    """
    way = _way_to_entry(header, whole)
    if way is None:
        return None
    for box in _tables(header, whole):
        count = int.from_bytes(header[box.body + 4 : box.body + 8], "big")
        if not _shift(header, box, count, end, len(added)):
            return None
    for box in way:
        if not _lengthen(header, box, len(added)):
            return None
    header[way[-1].end : way[-1].end] = added
    return header


def _way_to_entry(header: bytearray, whole: _Box) -> Optional[Sequence[_Box]]:
    """Return the boxes around the first entry of the first video track, from the outermost to the entry itself."""
    for trak in _children(header, whole, b"trak"):
        for mdia in _children(header, trak, b"mdia"):
            handlers = [bytes(header[box.body + 8 : box.body + 12]) for box in _children(header, mdia, b"hdlr")]
            for minf in _children(header, mdia, b"minf") if handlers == [b"vide"] else ():
                for stbl in _children(header, minf, b"stbl"):
                    for stsd in _children(header, stbl, b"stsd"):
                        # Version, flags and a count come before the entries, which are boxes.
                        inside = _Box(stsd.kind, stsd.start, stsd.body + 8, stsd.end)
                        entry = next(_inside(header, inside), None)
                        if entry is not None and entry.end - entry.start >= _VISUAL_ENTRY:
                            return whole, trak, mdia, minf, stbl, stsd, entry
    return None


def _tables(header: bytearray, parent: _Box) -> Iterator[_Box]:
    """Yield the tables of offsets of all tracks."""
    for box in _inside(header, parent):
        if box.kind in _OFFSETS:
            yield box
        elif box.kind in _PARENTS:
            yield from _tables(header, box)


def _shift(header: bytearray, box: _Box, count: int, behind: int, by: int) -> bool:
    """Add to the offsets of a table that lie behind a place in the file; return whether they fit."""
    width = _OFFSETS[box.kind]
    start = box.body + 8
    if start + count * width > box.end:
        return False
    for place in range(start, start + count * width, width):
        offset = int.from_bytes(header[place : place + width], "big")
        if offset >= behind:
            if offset + by >= 1 << 8 * width:
                return False
            header[place : place + width] = (offset + by).to_bytes(width, "big")
    return True


def _lengthen(header: bytearray, box: _Box, by: int) -> bool:
    """Add to the length of a box; return whether it fits."""
    wide = int.from_bytes(header[box.start : box.start + 4], "big") == 1
    place, width = (box.start + 8, 8) if wide else (box.start, 4)
    length = box.end - box.start + by
    if length >= 1 << 8 * width:
        return False
    header[place : place + width] = length.to_bytes(width, "big")
    return True


def _children(header: bytearray, parent: _Box, kind: bytes) -> Iterator[_Box]:
    return (box for box in _inside(header, parent) if box.kind == kind)


def _inside(header: bytearray, parent: _Box) -> Iterator[_Box]:
    """Yield the boxes in a box of a header, by their places in it; nothing more after one that makes no sense."""
    position = parent.body
    while position + 8 <= parent.end:
        box = _box_at(bytes(header[position : position + 16]), position, parent.end)
        if box is None or box.end > parent.end:
            return
        yield box
        position = box.end


def _top_boxes(file: BinaryIO) -> Iterator[_Box]:
    """Yield the boxes of a file."""
    end = os.fstat(file.fileno()).st_size
    position = 0
    while position + 8 <= end:
        file.seek(position)
        box = _box_at(file.read(16), position, end)
        if box is None:
            return
        yield box
        position = box.end


def _box_at(head: bytes, position: int, end: int) -> Optional[_Box]:
    """Return the box that begins with these bytes: its length and its kind, 4 bytes each."""
    length, body = int.from_bytes(head[:4], "big"), 8
    if length == 1:  # it did not fit into 4 bytes
        length, body = int.from_bytes(head[8:16], "big"), 16
    if length == 0:  # to the end
        length = end - position
    return None if length < body else _Box(bytes(head[4:8]), position, position + body, position + length)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0 and (piece := source.read(min(count, 1 << 20))):
        target.write(piece)
        count -= len(piece)
