"""Check video files by their headers: is a file complete, and is it encrypted?"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Optional

_MP4_HEADS = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp")
_MATROSKA, _ASF = b"\x1aE\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_MAX_HEADER = 1 << 26  # bytes of a header that are read

# --- Truncation -------------------------------------------------------------------------------------------------------


def missing_bytes(path: Path) -> int:
    """Return how many bytes an MP4, Matroska or AVI file lacks at its end, by its headers; 0 if unknown.

    Decoders take the end of the file for the end of the clip.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(12)
            if head[4:8] in _MP4_HEADS:
                end = _end_of_boxes(file, size)
            elif head[:4] == _MATROSKA:
                end = _end_of_segment(file)
            elif head[:4] == b"RIFF" and size < 1 << 30:  # larger ones go on in further RIFFs, which older tools forget
                end = 8 + int.from_bytes(head[4:8], "little")
            else:
                end = 0
    except OSError:
        return 0
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last top-level box of an MP4 file ends: its length and kind come first, 4 bytes each."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # it did not fit into 4 bytes
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return size
        position += length
    return position


def _end_of_segment(file: BinaryIO) -> int:
    """Return the end of the segment of a Matroska file, which holds all but a header; 0 if unknown."""
    file.seek(4)
    length = _ebml_length(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _ebml_length(file)
    return 0 if length is None else file.tell() + length


def _ebml_length(file: BinaryIO) -> Optional[int]:
    """Read an EBML length: as many further bytes as the first has leading zeros; all ones are "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    further = 8 - first[0].bit_length()
    bits = 7 * (further + 1)
    value = int.from_bytes(first + file.read(further), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


# --- Protection -------------------------------------------------------------------------------------------------------

# MP4: the boxes that lead to a track's coding, and the codings that stand for encrypted video (CENC, FairPlay).
_MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_MP4_PROTECTED = (b"encv", b"drmi")
# Matroska: the elements that lead to the encryption of a track.
_SEGMENT, _TRACKS, _TRACK, _TRACK_TYPE = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\x83"
_ENCODINGS, _ENCODING, _ENCRYPTION = b"\x6d\x80", b"\x62\x40", b"\x50\x35"
# ASF (WMV): three generations of the header object that only protected files have.
_ASF_PROTECTED = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
    bytes.fromhex("338505438169e6499b74ad12cb86d58c"),
)
_TS_PACKET, _TS_SYNC = 188, 0x47


def is_protected(path: Path) -> bool:
    """Return whether the video of an MP4, Matroska, WMV or MPEG-TS file is encrypted, by its headers."""
    try:
        with path.open("rb") as file:
            head = file.read(200 * _TS_PACKET)
            if head[4:8] in _MP4_HEADS:
                return _mp4_is_protected(file)
            if head[:4] == _MATROSKA:
                return _matroska_is_protected(file)
            if head[:8] == _ASF:
                return any(kind in head for kind in _ASF_PROTECTED)
            return _ts_is_scrambled(head)
    except (OSError, ValueError):
        return False


def _mp4_is_protected(file: BinaryIO) -> bool:
    position = 0
    while True:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return False
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if kind == b"moov":
            file.seek(position)
            return any(entry in _MP4_PROTECTED for entry in _mp4_codings(file.read(min(length, _MAX_HEADER))))
        if length < 8:
            return False
        position += length


def _mp4_codings(data: bytes) -> Iterator[bytes]:
    """Yield the kinds of the sample entries of every track."""
    position = 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if length < 8:
            return
        inside = data[position + 8 : position + length]
        if kind in _MP4_PARENTS:
            yield from _mp4_codings(inside)
        elif kind == b"stsd":  # version, flags and a count come before its entries, which are boxes
            entry = 8
            while entry + 8 <= len(inside) and (length_of := int.from_bytes(inside[entry : entry + 4], "big")) >= 8:
                yield inside[entry + 4 : entry + 8]
                entry += length_of
        position += length


def _matroska_is_protected(file: BinaryIO) -> bool:
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return False
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return False
    _ebml_length(file)
    for kind, length in _ebml_elements(file):
        if kind == _TRACKS:
            tracks = _ebml_children(file.read(min(length, _MAX_HEADER)))
            return any(kind == _TRACK and _is_protected_track(track) for kind, track in tracks)
        file.seek(length, os.SEEK_CUR)
    return False


def _is_protected_track(track: bytes) -> bool:
    parts = list(_ebml_children(track))
    if (_TRACK_TYPE, b"\1") not in parts:  # video
        return False
    encodings = (inside for kind, inside in parts if kind == _ENCODINGS)
    each = (inside for encoding in encodings for kind, inside in _ebml_children(encoding) if kind == _ENCODING)
    return any(kind == _ENCRYPTION for encoding in each for kind, _ in _ebml_children(encoding))


def _ebml_elements(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield (identifier, length) of the elements from here on; the consumer reads or skips the content."""
    while first := file.read(1):
        if not first[0]:
            return
        kind = first + file.read(8 - first[0].bit_length())
        length = _ebml_length(file)
        if length is None:
            return
        yield kind, length


def _ebml_children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    file = io.BytesIO(data)
    for kind, length in _ebml_elements(file):
        yield kind, file.read(length)


def _ts_is_scrambled(head: bytes) -> bool:
    packets = [head[at : at + 4] for at in range(0, len(head) - _TS_PACKET + 1, _TS_PACKET)]
    if len(packets) < 5 or any(packet[0] != _TS_SYNC for packet in packets):
        return False
    return sum(packet[3] >> 6 > 1 for packet in packets) > len(packets) / 2
