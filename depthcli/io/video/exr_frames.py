"""Read OpenEXR frames of renderers as 8-bit RGB.

The conversion is constant, since one that adapts to each frame would flicker: values are linear light, 1.0 is white,
brighter values are clipped, the curve is that of sRGB, and NaN is black. Alpha is ignored, as it is premultiplied.

Read here: rows without compression, or with RLE or ZIP, of half, float or integer channels. PyAV reads what else FFmpeg
can decode (PIZ, PXR24, B44, tiles).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli.errors import PictureError
from depthcli.io.codecs.arrays import check_pixels
from depthcli.io.codecs.exr import attributes_of, unpacked
from depthcli.io.pictures.images import MAX_PIXELS, check_size, printable
from depthcli.io.pictures.levels import srgb
from depthcli.io.video.libav import has_av, load_av, reason_of

MAGIC = b"v/1\x01"
_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_NONE, _RLE, _ZIPS, _ZIP = 0, 1, 2, 3
_ROWS = {_NONE: 1, _RLE: 1, _ZIPS: 1, _ZIP: 16}  # of a block
_NAMES = {4: "PIZ", 5: "PXR24", 6: "B44", 7: "B44A", 8: "DWAA", 9: "DWAB"}
_TILED, _DEEP, _PARTS = 0x200, 0x800, 0x1000
_HEADER_BYTES = 1 << 20
_AGAIN = "copy or download it again"
_OTHERWISE = "write it with ZIP compression, or save it as 16-bit PNG"


@dataclass(frozen=True)
class _Header:
    """The header of a file. data, display: (left, top, right, bottom), inclusive. end: of the header, in bytes."""

    channels: dict[str, np.dtype[Any]]
    sampled: bool
    compression: int
    flags: int
    data: tuple[int, int, int, int]
    display: tuple[int, int, int, int]
    end: int
    ours: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture, whose data may be less or more."""
        left, top, right, bottom = self.display
        return right - left + 1, bottom - top + 1


def is_exr(path: Path) -> bool:
    """Return whether a file in a folder is meant to be an EXR frame: by its suffix, and not hidden."""
    return path.suffix.lower() == ".exr" and not path.name.startswith(".")


def exr_size(path: Path) -> Optional[tuple[int, int]]:
    """Return (width, height) by the header, None if it has none."""
    header = _try_header(path)
    return header.size if header else None


def exr_channels(path: Path) -> tuple[tuple[int, int], list[str]]:
    """Return the (width, height) of an OpenEXR file and the names of its channels. Raises what broken bytes lead to."""
    with path.open("rb") as file:
        header = _header(file.read(_HEADER_BYTES))
    return header.size, list(map(printable, header.channels))


def exr_numbers(data: bytes) -> np.ndarray:
    """Return the (H, W) float32 of the channel that holds depth in an OpenEXR file of any program.

    The channel is Z, one that ends in .Z (Blender's passes) or .depth, V, Y or R, the first of these that is there.
    Raises ValueError for a file without one, or of a kind that cannot be read here.
    """
    if not data.startswith(MAGIC):
        raise ValueError("it is not an OpenEXR file")
    header = _header(data)
    if header.compression not in _ROWS or header.flags & (_TILED | _DEEP | _PARTS) or header.sampled:
        kind = _NAMES.get(header.compression, "tiles, parts or deep pixels")
        raise ValueError(f"it has {kind}, which cannot be read here: write it with ZIP compression")
    check_pixels(*header.size)
    lower = {channel.lower(): channel for channel in header.channels}
    layers = [channel for channel in lower if channel.endswith((".z", ".depth"))]
    chosen = next((lower[name] for name in ("z", *layers, "depth", "v", "y", "r") if name in lower), None)
    if chosen is None:
        raise ValueError(f"it holds no depth, but the channels {', '.join(map(printable, list(header.channels)[:6]))}")
    others = [lower[name] for name in "gb" if name in lower] if chosen == lower.get("r") else []
    planes = _on_display(header, _planes(header, data, [chosen, *others]))
    if not all(
        np.array_equal(planes[..., 0], planes[..., place], equal_nan=True) for place in range(1, 1 + len(others))
    ):
        raise ValueError("its R, G and B differ: it holds a picture or points, and no depth")
    return planes[..., 0]


def is_our_exr(path: Path) -> bool:
    """Return whether an EXR file is a depth map that depthcli wrote."""
    header = _try_header(path)
    return bool(header and header.ours)


def read_exr_frame(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return (H, W, 3) uint8. Raises PictureError for a file that is broken, too large or of another kind."""
    name = printable(str(path))
    try:
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            raise PictureError(f"{name} is not an OpenEXR file", _AGAIN)
        header = _header(data)
        check_size(header.size, name, max_pixels)
        layer, colours = _colours(header, name)
        if header.compression in _ROWS and not header.flags & (_TILED | _DEEP | _PARTS) and not header.sampled:
            light = _on_display(header, _planes(header, data, colours))
        else:
            light = _by_libav(path, header, layer, name)
    except (PictureError, MemoryError):
        raise
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror or error}", "check the file") from error
    except Exception as error:  # whatever broken bytes lead to
        raise PictureError(f"{name} is damaged or not whole", _AGAIN) from error
    return srgb(light)


def _try_header(path: Path) -> Optional[_Header]:
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
        return _header(data) if data.startswith(MAGIC) else None
    except Exception:  # as above
        return None


def _header(data: bytes) -> _Header:
    (version,) = struct.unpack_from("<i", data, 4)
    found, end = attributes_of(data)
    channels: dict[str, np.dtype[Any]] = {}
    sampled, listed = False, found[b"channels"]
    position = 0
    while listed[position]:
        stop = listed.index(b"\0", position)
        kind, _, across, down = struct.unpack_from("<4i", listed, stop + 1)
        channels[listed[position:stop].decode()] = _TYPES[kind]
        sampled |= (across, down) != (1, 1)
        position = stop + 17
    windows = (struct.unpack("<4i", found[name]) for name in (b"dataWindow", b"displayWindow"))
    left_right = list(windows)
    for left, top, right, bottom in left_right:
        if right < left or bottom < top:
            raise ValueError("an empty window")
    ours = b"depthcli" in found
    return _Header(channels, sampled, found[b"compression"][0], version, left_right[0], left_right[1], end, ours)


def _colours(header: _Header, name: str) -> tuple[str, list[str]]:
    """Return the layer to show, and its channels: red, green, blue, or gray three times."""
    lower = {channel.lower(): channel for channel in header.channels}
    layers = [channel[:-1] for channel in lower if channel.endswith(("r", "y")) and channel[:-1][-1:] in ("", ".")]
    # The combined layer comes before the single passes of a render.
    layers.sort(key=lambda layer: (layer != "", not layer.endswith(("combined.", "rgba.", "beauty.")), layer))
    for layer in layers:
        for trio in ("rgb", "yyy"):
            if all(layer + letter in lower for letter in trio):
                chosen = [lower[layer + letter] for letter in trio]
                return chosen[0][: len(layer)].rstrip("."), chosen
    held = ", ".join(map(printable, list(header.channels)[:6]))
    raise PictureError(f"{name} holds no colours, but the channels {held}", "give frames with R, G and B")


def _planes(header: _Header, data: bytes, colours: Sequence[str]) -> np.ndarray:
    """Return (H, W, C) float32 of the data window, C channels in this order."""
    left, top, right, bottom = header.data
    width, height = right - left + 1, bottom - top + 1
    light = np.zeros((height, width, len(colours)), np.float32)
    starts, row_bytes = {}, 0
    for channel, kind in header.channels.items():
        starts[channel] = row_bytes
        row_bytes += kind.itemsize * width
    rows_of_block = _ROWS[header.compression]
    count = -(-height // rows_of_block)
    if header.end + 8 * count > len(data):
        raise ValueError("not whole")
    for offset in np.frombuffer(data, "<u8", count, header.end).tolist():
        row, length = struct.unpack_from("<2i", data, offset)
        row -= top
        rows = min(rows_of_block, height - row)
        packed = data[offset + 8 : offset + 8 + length]
        size = rows * row_bytes
        raw = packed if header.compression == _NONE else unpacked(packed, size, rle=header.compression == _RLE)
        table = np.frombuffer(raw, np.uint8, size).reshape(rows, row_bytes)
        for place, channel in enumerate(colours):
            kind, start = header.channels[channel], starts[channel]
            piece = np.ascontiguousarray(table[:, start : start + kind.itemsize * width])
            light[row : row + rows, :, place] = piece.view(kind)
    return light


def _on_display(header: _Header, light: np.ndarray) -> np.ndarray:
    """Return the displayed part of the data: a render may cover less, or more, than the display window."""
    if header.data == header.display:
        return light
    (left, top, right, bottom), shown = header.data, header.display
    width, height = header.size
    whole = np.zeros((height, width, light.shape[2]), np.float32)
    x0, y0, x1, y1 = max(left, shown[0]), max(top, shown[1]), min(right, shown[2]) + 1, min(bottom, shown[3]) + 1
    if x0 < x1 and y0 < y1:
        part = light[y0 - top : y1 - top, x0 - left : x1 - left]
        whole[y0 - shown[1] : y1 - shown[1], x0 - shown[0] : x1 - shown[0]] = part
    return whole


def _by_libav(path: Path, header: _Header, layer: str, name: str) -> np.ndarray:
    """Return (H, W, 3) float32 of the display window, as FFmpeg decodes it."""
    kind = "deep" if header.flags & _DEEP else _NAMES.get(header.compression, "an unknown compression")
    reason = f"{name} is OpenEXR of a kind that cannot be read here ({kind}{', tiled' * bool(header.flags & _TILED)})"
    if not has_av():
        raise PictureError(reason, f"pip install av, or {_OTHERWISE}")
    av = load_av()
    try:
        with path.open("rb") as file, av.open(file, format="exr_pipe") as container:
            stream = container.streams.video[0]
            if layer:
                stream.codec_context.options = {"layer": layer}
            frame = next(container.decode(stream))
            planes = list(_float_planes(frame))
    except Exception as error:
        raise PictureError(f"{reason}: {reason_of(error)}", _OTHERWISE) from error
    gray = frame.format.name.startswith("gray")
    return np.stack([planes[place] for place in ((0, 0, 0) if gray else (2, 0, 1))], axis=2)  # stored as G, B, R


def _float_planes(frame: Any) -> Iterator[np.ndarray]:
    kind = np.dtype("<f2" if "f16" in frame.format.name else "<f4")
    if "f16" not in frame.format.name and "f32" not in frame.format.name:
        raise ValueError(f"the pixel format {frame.format.name} is not supported")
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))
        yield np.ascontiguousarray(rows[: frame.height, : frame.width * kind.itemsize]).view(kind).astype(np.float32)
