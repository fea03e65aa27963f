"""Depth files: each format's writer beside its reader; the round trip is the test.

Every file carries the same JSON block (PNG text field `depthcli`, NPZ array `meta`): what `describe` says of the map,
and under `encoding` how the stored codes become the map's own numbers again.

Invalid pixels are NaN in an NPZ, 0 in gray PNGs, where valid ones begin at 1 then, and transparent in colour PNGs.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from depthcli.depthmap import DepthKind, DepthMap, describe, from_description
from depthcli.errors import DepthError, OutputError
from depthcli.io.codecs.arrays import check_pixels, memory_errors, open_npz
from depthcli.io.pictures.images import MAX_PIXELS
from depthcli.pixels import colormap as colors
from depthcli.version import __version__

SCHEMA = "depthcli/1"
TEXT_KEY = "depthcli"
MILLIMETRES = 1000.0
FARTHEST_MILLIMETRE = 65535
# How codes become numbers, as files say it.
IN_MILLIMETRES = {"code": "millimetres", "scale": MILLIMETRES}
SIDE_GAP = 50  # white pixels between photo and depth, as in the official scripts
# zlib's level and strategy for colour, 8-bit gray and 16-bit gray; see docs/log.md for sizes and times
_COLOR_PACKING = (4, zlib.Z_DEFAULT_STRATEGY)
_GRAY8_PACKING = (1, zlib.Z_RLE)
_GRAY16_PACKING = (2, zlib.Z_DEFAULT_STRATEGY)
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_MOST_UNPACKED = 1032  # bytes that Deflate makes of one
_BAND_BYTES = 1 << 19  # of a picture, packed at a time: what stays in the processor's cache


def write_npz(depth: DepthMap, target: IO[bytes]) -> None:
    """Write float32 numbers at the picture's size, uncompressed: `depth` (H, W) and `meta`, a JSON string."""
    values = depth.values if depth.valid is None else np.where(depth.valid, depth.values, np.float32(np.nan))
    write_arrays(values, facts_of(depth), target)


def write_arrays(values: np.ndarray, facts: Mapping[str, Any], target: IO[bytes]) -> None:
    """Write the two arrays of an NPZ: values (H, W) float32, and facts as JSON."""
    whole = io.BytesIO()  # a zip file that meets a full disk in its middle complains once more when it is collected
    np.savez(whole, depth=values, meta=np.array(json.dumps(facts)))
    with whole.getbuffer() as content:  # given back also where the disk is full
        target.write(content)


def write_color(depth: DepthMap, target: IO[bytes], colormap: str = colors.DEFAULT_COLORMAP) -> None:
    """Write an 8-bit RGB PNG; RGBA where pixels are invalid."""
    _write_png(_masked_color(depth, colormap), target, depth, _codes(depth, colormap))


def write_side(depth: DepthMap, rgb: np.ndarray, target: IO[bytes], colormap: str = colors.DEFAULT_COLORMAP) -> None:
    """Write photo, 50 white pixels and coloured depth side by side as an 8-bit RGB PNG. rgb: (H, W, 3) uint8."""
    gap = np.full((len(rgb), SIDE_GAP, 3), 255, np.uint8)
    encoding = {**_codes(depth, colormap), "left": rgb.shape[1] + SIDE_GAP}
    left = np.hstack([rgb, gap])
    if depth.valid is not None:
        left = np.dstack([left, np.full(left.shape[:2], 255, np.uint8)])
    _write_png(np.hstack([left, _masked_color(depth, colormap)]), target, depth, encoding)


def write_gray8(depth: DepthMap, target: IO[bytes]) -> None:
    """Write an 8-bit gray PNG, white is near."""
    if depth.valid is None:
        _write_png(colors.to_gray8(depth), target, depth, _codes(depth))
    else:
        codes = 1 + colors.nearness(depth) * np.float32(254)
        _write_png(_masked(codes, depth.valid, np.uint8), target, depth, _codes(depth, scale=254, offset=-0.5))


def write_gray16(depth: DepthMap, target: IO[bytes]) -> None:
    """Write a 16-bit gray PNG: white is near for relative kinds, millimetres for metric depth.

    Depth beyond 65.535 m is stored as 65535; `clamped_pixels` tells how many pixels that were.
    """
    if depth.kind is DepthKind.METRIC_DEPTH:
        encoding = {**IN_MILLIMETRES, "clamped_pixels": clamped_pixels(depth)}
        millimetres = to_millimetres(depth)
        if depth.valid is not None:
            millimetres = _masked(np.maximum(millimetres, 1), depth.valid, np.uint16)
        _write_png(millimetres, target, depth, encoding)
    elif depth.valid is not None:
        codes = 1 + np.round(colors.nearness(depth).astype(np.float64) * 65534)
        _write_png(_masked(codes, depth.valid, np.uint16), target, depth, _codes(depth, scale=65534, offset=-1.0))
    else:
        _write_png(colors.to_gray16(depth), target, depth, _codes(depth, scale=65535, offset=0.0))


def _masked(codes: np.ndarray, valid: np.ndarray, kind: type[np.unsignedinteger[Any]]) -> np.ndarray:
    """Return (H, W) codes of a type, 0 where they are not valid."""
    return np.where(valid, codes, 0).astype(kind)


def _masked_color(depth: DepthMap, colormap: str) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, or (H, W, 4) with alpha where pixels are invalid; these are black and transparent."""
    rgb = colors.to_color(depth, colormap)
    if depth.valid is None:
        return rgb
    return np.where(depth.valid[..., None], np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), np.uint8(0))


def to_millimetres(depth: DepthMap) -> np.ndarray:
    """Return (H, W) uint16 millimetres of a metric map; beyond 65.535 m it is 65535."""
    millimetres = np.round(depth.values.astype(np.float64) * MILLIMETRES)
    return np.clip(millimetres, 0, FARTHEST_MILLIMETRE).astype(np.uint16)


def clamped_pixels(depth: DepthMap) -> int:
    """Return how many pixels of a metric map are too far for 16-bit millimetres."""
    if depth.kind is not DepthKind.METRIC_DEPTH or np.round(depth.range[1] * MILLIMETRES) <= FARTHEST_MILLIMETRE:
        return 0
    values = depth.values if depth.valid is None else depth.values[depth.valid]
    return int((np.round(values.astype(np.float64) * MILLIMETRES) > FARTHEST_MILLIMETRE).sum())


def read_depth(path: Path | str) -> DepthMap:
    """Return the depth map that one of the writers above wrote, to the precision of its codes.

    Raises OutputError for a file that is not ours or not whole, PictureError for a map that is too large.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise OutputError(f"{path} is not a file")
        with memory_errors(path), np.errstate(all="ignore"):
            values, facts, valid = _read_npz(path) if path.suffix.lower() == ".npz" else _read_png(path)
            return from_description(values, facts, valid if "invalid_pixels" in facts else None)
    except DepthError:
        raise
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist") from error
    except Exception as error:  # what zip, npy, PNG and JSON readers raise on broken bytes has no common class
        raise OutputError(f"cannot read depth from {path}: {' '.join(str(error).split()) or 'it is broken'}") from error


def read_facts(path: Path) -> dict[str, Any]:
    """Return the JSON block of one of our PNG or NPZ files without reading the map; empty for any other file."""
    try:
        with path.open("rb") as stream:
            if path.suffix.lower() != ".npz":
                return _facts_of(PngImageFile(stream))
            with open_npz(stream) as arrays:
                return _facts_in(arrays.text("meta"))
    except Exception:  # whatever a stranger's file holds, it is not ours
        return {}


def is_cut_short(path: Path) -> bool:
    """Return whether a file begins as ours do and lacks its end, as a copy that was interrupted. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(64)
        if head.startswith(_PNG_HEAD):
            stream.seek(-min(len(_PNG_END), len(head)), 2)
            return stream.read() != _PNG_END
    return head.startswith(b"PK") and b"depth.npy" in head and not zipfile.is_zipfile(path)


def _facts_of(image: PngImageFile) -> dict[str, Any]:
    return _facts_in(image.info.get(TEXT_KEY, "{}"))


def _facts_in(text: str) -> dict[str, Any]:
    facts = json.loads(text)
    return facts if isinstance(facts, dict) and facts.get("schema") == SCHEMA else {}


def _read_npz(path: Path) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    with path.open("rb") as stream, open_npz(stream) as arrays:
        if not {"depth", "meta"} <= set(arrays.names):
            raise OutputError(f"{path} was not written by depthcli: it lacks `depth` or `meta`")
        values, facts = arrays.numbers("depth"), json.loads(arrays.text("meta"))
    valid = ~np.isnan(values)
    return (np.where(valid, values, 0) if "invalid_pixels" in facts else values), facts, valid


def _read_png(path: Path) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    # Not Image.open, whose limit on the number of pixels is below what we write.
    with path.open("rb") as stream:
        image = PngImageFile(stream)
        facts = _facts_of(image)
        if not facts:
            raise OutputError(
                f"{path} does not say what its numbers mean", "only files that depthcli wrote can be read back"
            )
        check_pixels(*image.size, most=2 * MAX_PIXELS + SIDE_GAP * image.size[1])  # beside a photo it is twice as wide
        check_claim(image, path.stat().st_size)
        image.load()  # or numpy 1.22 hides that a file is cut short
        stored = np.asarray(image)
    encoding = facts["encoding"]
    if encoding["code"] == "millimetres":
        return stored.astype(np.float32) / np.float32(encoding["scale"]), facts, stored > 0
    valid = stored > 0
    if encoding["colormap"]:
        stored = stored[:, encoding.get("left", 0) :]
        valid = stored[..., 3] > 0 if stored.shape[2] == 4 else np.ones(stored.shape[:2], bool)
        table = colors.color_table(encoding["colormap"])
        stored = colors.codes_of_color(np.where(valid[..., None], stored[..., :3], table[0]), encoding["colormap"])
    t = np.clip((stored.astype(np.float64) + encoding["offset"]) / encoding["scale"], 0, 1)
    if facts["near_is"] == "low":
        t = 1 - t
    lo, hi = encoding["lo"], encoding["hi"]
    return (lo + t * (hi - lo)).astype(np.float32), facts, valid


def check_claim(image: PngImageFile, size: int) -> None:
    """Raise ValueError if a file of `size` bytes cannot hold the pixels that its header claims.

    For pictures of at least 8 bits: a damaged header can ask for gigabytes.
    """
    width, height = image.size
    if width * height * len(image.getbands()) > _MOST_UNPACKED * size:
        raise ValueError(f"its header claims {width}x{height} pixels, more than its {size} bytes can hold")


def _codes(depth: DepthMap, colormap: str | None = None, scale: int = 255, offset: float = 0.5) -> dict[str, Any]:
    return in_nearness(depth.range, colormap, scale, offset)


def in_nearness(
    value_range: tuple[float, float], colormap: str | None = None, scale: int = 255, offset: float = 0.5
) -> dict[str, Any]:
    """Return how codes become numbers: near is t = (code + offset) / scale, and t runs from lo to hi."""
    lo, hi = value_range
    return {"code": "nearness", "scale": scale, "offset": offset, "lo": lo, "hi": hi, "colormap": colormap}


def facts_of(depth: DepthMap) -> dict[str, Any]:
    """Return what every file says of a map, with the name of the form it is said in."""
    return {"schema": SCHEMA, **describe(depth), "depthcli": __version__}


def _write_png(pixels: np.ndarray, target: IO[bytes], depth: DepthMap, encoding: dict[str, Any]) -> None:
    """Write (H, W, 3) uint8, (H, W) uint8 or (H, W) uint16 pixels and what they mean."""
    texts = {
        TEXT_KEY: json.dumps({**facts_of(depth), "encoding": encoding}, ensure_ascii=False),
        "Description": f"{depth.kind.meaning}; model {depth.provenance.model_title or depth.provenance.model}",
    }
    write_png(pixels, target, texts)


def write_png(pixels: np.ndarray, target: IO[bytes], texts: Mapping[str, str]) -> None:
    """Write (H, W, 3 or 4) uint8, (H, W) uint8 or (H, W) uint16 pixels, and text fields.

    Not by Pillow, which tries five filters on each row: half of its time, and for depth maps "up" alone packs as well.
    """
    color, bits = pixels.ndim == 3, 8 * pixels.itemsize
    kind = 0 if not color else 6 if pixels.shape[2] == 4 else 2
    level, strategy = _COLOR_PACKING if color else _GRAY8_PACKING if bits == 8 else _GRAY16_PACKING
    target.write(_PNG_HEAD)
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
