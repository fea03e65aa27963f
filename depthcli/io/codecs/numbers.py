"""Numbers in files of other programs: one row per encoding, one reader per kind of file.

In every encoding NaN, infinity, zero and negative numbers are no depth.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from depthcli.depthmap import DepthKind
from depthcli.errors import DepthError, PictureError
from depthcli.io.codecs.arrays import check_pixels, open_npz, read_bytes, read_npy
from depthcli.io.codecs.encode import unrotated
from depthcli.io.codecs.formats import suffix_of
from depthcli.io.codecs.png import check_claim
from depthcli.io.pictures import tiff

METRES, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
_INFINITY = np.float64(np.inf).view(np.int64)


@dataclass(frozen=True)
class Encoding:
    """One encoding, and what its numbers mean.

    scale: stored numbers per metre, or per unit of disparity. only_png16: only 16-bit PNG can be of this format; one of
    8 bits is refused as a preview. rotated: the 16 bits are rotated by three places to the left.
    """

    name: str
    what: str
    kind: DepthKind
    scale: float = 1.0
    only_png16: bool = False
    rotated: bool = False


ENCODINGS: dict[str, Encoding] = {
    row.name: row
    for row in (
        Encoding("nyu", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        Encoding("scannet", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        Encoding("open3d", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        Encoding("kitti", "16-bit PNG, metres x 256", METRES, 256, only_png16=True),
        Encoding("tum", "16-bit PNG, metres x 5000", METRES, 5000, only_png16=True),
        Encoding("sun", "16-bit PNG, millimetres, bits rotated", METRES, 1000, only_png16=True, rotated=True),
        Encoding("depth", "PNG, TIFF, NPZ, NPY, PFM, EXR or DPT, metres x scale", METRES),
        Encoding("disparity", "PNG, TIFF, NPZ, NPY, PFM or EXR, proportional to 1 / depth", DISPARITY),
    )
}


def read_scaled(
    path: Path, encoding: Encoding, scale: float | None = None, invalid: Sequence[float] = (), array: str = ""
) -> np.ndarray:
    """Return (H, W) float64: metres, or disparity; NaN if unknown.

    scale: stored numbers per metre or unit, None for the encoding's own. invalid: further stored numbers that mean
    unknown. array: in an NPZ of several. Raises PictureError for a file that is missing, damaged or not of this
    encoding.
    """
    name = array or ("disparity" if encoding.kind is DISPARITY else "depth")
    stored = read_numbers(path, name, encoding.only_png16)
    unknown = is_invalid(stored, invalid)
    if encoding.rotated:
        stored = unrotated(stored)
    with np.errstate(invalid="ignore"):  # signalling NaN would cause a warning
        values = stored.astype(np.float64)
    values[unknown | ~is_positive(values)] = np.nan
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        values /= encoding.scale if scale is None else scale
    return values


def is_positive(values: np.ndarray) -> np.ndarray:
    """Return where float64 numbers are finite and above 0.

    Bits are compared, as a backend that has run in this thread may let the CPU take subnormal numbers for 0.
    """
    bits = values.view(np.int64)
    return (bits > 0) & (bits < _INFINITY)


def is_invalid(stored: np.ndarray, invalid: Sequence[float]) -> np.ndarray:
    """Return where a stored number is one of those, as its type rounds them (99.9 in float32)."""
    if stored.dtype.kind != "f":
        return np.isin(stored, invalid)
    with np.errstate(over="ignore"):
        return np.isin(stored, np.array(invalid, np.float64).astype(stored.dtype))


def read_numbers(path: Path, array: str = "depth", only_png16: bool = False) -> np.ndarray:
    """Return the stored (H, W) numbers of a gray PNG or TIFF, a PFM, an NPY, an NPZ or an EXR, top row first.

    array: name of the array if an NPZ holds several. only_png16: refuse all but 16-bit PNG. Raises PictureError.
    """
    reader = _READERS.get(suffix_of(path))
    if reader is None or (only_png16 and reader is not png_numbers):
        known = "16-bit PNG" if only_png16 else ", ".join(suffix[1:].upper() for suffix in _READERS)
        raise PictureError(f"{path} is not {known}", "another format may be meant")
    try:
        numbers = reader(read_bytes(path), array)
        if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "uif":
            raise ValueError(f"it holds {numbers.dtype} {numbers.shape}, not (H, W) numbers")
        if only_png16 and numbers.dtype == np.uint8:
            raise ValueError("it has 8 bits, as a preview has, where the format has 16")
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist", "check the path") from error
    except (DepthError, MemoryError):
        raise
    except Exception as error:  # readers of zip, npy and PNG raise many types for broken bytes
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or "it is damaged"
        raise PictureError(f"cannot read numbers from {path}: {reason}") from error
    return numbers


def png_numbers(data: bytes, array: str = "") -> np.ndarray:
    """Return the (H, W) uint8 or uint16 of a gray PNG. Raises what broken bytes lead to."""
    PngImageFile(io.BytesIO(data)).verify()  # the check sums, which loading leaves out
    bits, colour = data[24:26]
    if bits not in (8, 16) or colour != 0:  # fewer bits would be stretched to 8
        raise ValueError("it is not gray with 8 or 16 bits")
    image = PngImageFile(io.BytesIO(data))
    check_pixels(*image.size)
    check_claim(image, len(data))
    image.load()  # or numpy 1.22 hides that a file is cut short
    return np.asarray(image).astype(np.uint8 if bits == 8 else np.uint16)


def npy_numbers(data: bytes, array: str = "") -> np.ndarray:
    """Return the (H, W) numbers of an NPY file. Raises ValueError if it holds anything else."""
    return read_npy(io.BytesIO(data))


def _npz(data: bytes, array: str) -> np.ndarray:
    with open_npz(io.BytesIO(data)) as arrays:
        names = arrays.names
        if len(names) != 1 and array not in names:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}: one array is wanted, or one called {array}")
        return arrays.numbers(names[0] if len(names) == 1 else array)


def pfm_numbers(data: bytes, array: str = "") -> np.ndarray:
    """Return the numbers of `Pf`, width, height, scale, then rows of float32 from the bottom up.

    A negative scale means little-endian. Its size is ignored, as in all readers: Middlebury's files have 1/255.
    """
    head = re.match(rb"Pf\s{1,9}(\d{1,9})\s{1,9}(\d{1,9})\s{1,9}(-?[\d.eE+-]{1,50})\s", data)
    if not head:
        raise ValueError("it is not a gray PFM")
    width, height, scale = int(head[1]), int(head[2]), float(head[3])
    if len(data) - head.end() != 4 * width * height:
        raise ValueError(f"it has {len(data) - head.end()} bytes for {width}x{height} numbers of 4")
    return np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=head.end()).reshape(height, width)[::-1]


def _tiff(data: bytes, array: str) -> np.ndarray:
    file = io.BytesIO(data)
    page = tiff.read_page(file)
    if page.samples != 1 or page.colours != 1 or page.bits not in (8, 16, 32, 64) or tiff.is_for_pillow(page):
        raise ValueError("it is not gray with 8, 16, 32 or 64 bits")
    check_pixels(*page.size)
    return tiff.read_samples(file, page)[..., 0]


def _exr(data: bytes, array: str) -> np.ndarray:
    from depthcli.io.video.exr_frames import exr_numbers  # which needs the modules that need this one

    return exr_numbers(data)


def _dpt(data: bytes, array: str) -> np.ndarray:
    """Return the numbers of a DPT file, as Sintel has them: a tag, width, height, then rows of float32 from the top."""
    if data[:4] != _DPT_TAG:
        raise ValueError("it is no DPT file")
    width, height = (int(number) for number in np.frombuffer(data, "<i4", 2, 4))
    check_pixels(width, height)
    if len(data) != 12 + 4 * width * height:
        raise ValueError(f"it has {len(data) - 12} bytes for {width}x{height} numbers of 4")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width)


_DPT_TAG = np.float32(202021.25).tobytes()
_READERS = {
    ".png": png_numbers,
    ".npz": _npz,
    ".npy": npy_numbers,
    ".pfm": pfm_numbers,
    ".tiff": _tiff,
    ".exr": _exr,
    ".dpt": _dpt,
}
