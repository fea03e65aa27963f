"""Read truth files: measured depth or disparity, NaN if unknown. One row per format.

In every format NaN, infinity, zero and negative numbers are unknown.
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
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.png import check_claim

METRES, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
_LEAST = float(np.finfo(np.float32).tiny)  # up to 1 / _LEAST depth and disparity are normal float32
_INFINITY = np.float64(np.inf).view(np.int64)


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one view. Raises PictureError for numbers out of the range of depth or disparity.

    values: (H, W) float64, above 0, NaN if unknown, read-only. kind: METRIC_DEPTH, in metres, or RELATIVE_DISPARITY,
    proportional to 1 / depth in any unit.
    """

    values: np.ndarray
    kind: DepthKind

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        values[~_is_positive(values)] = np.nan
        _check_range(values, "the truth")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in elements."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def metres(self) -> bool:
        """Whether the depth is in metres."""
        return self.kind is METRES

    @property
    def known(self) -> np.ndarray:
        """(H, W) bool."""
        return np.isfinite(self.values)

    @property
    def depth(self) -> np.ndarray:
        """(H, W) depth, large is far: metres, or the inverse of the disparity's unit."""
        return self.values if self.metres else 1 / self.values

    @property
    def disparity(self) -> np.ndarray:
        """(H, W) disparity, large is near: 1 / metres, or the unit of the file."""
        return 1 / self.values if self.metres else self.values

    def crop(self, top: int, left: int, bottom: int, right: int) -> Truth:
        """Return rows top to bottom and columns left to right, the last ones not included."""
        return Truth(self.values[top:bottom, left:right], self.kind)


@dataclass(frozen=True)
class TruthFormat:
    """One format, and what its numbers mean.

    scale: stored numbers per metre, or per unit of disparity. only_png16: only 16-bit PNG can be of this format; one of
    8 bits is refused as a preview. rotated: the 16 bits are rotated by three places to the left.
    """

    name: str
    what: str
    kind: DepthKind
    scale: float = 1.0
    only_png16: bool = False
    rotated: bool = False


FORMATS: dict[str, TruthFormat] = {
    row.name: row
    for row in (
        TruthFormat("nyu", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        TruthFormat("scannet", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        TruthFormat("open3d", "16-bit PNG, millimetres", METRES, 1000, only_png16=True),
        TruthFormat("kitti", "16-bit PNG, metres x 256", METRES, 256, only_png16=True),
        TruthFormat("tum", "16-bit PNG, metres x 5000", METRES, 5000, only_png16=True),
        TruthFormat("sun", "16-bit PNG, millimetres, bits rotated", METRES, 1000, only_png16=True, rotated=True),
        TruthFormat("depth", "PNG, NPZ, NPY or PFM, metres x scale", METRES),
        TruthFormat("disparity", "PNG, NPZ, NPY or PFM, proportional to 1 / depth", DISPARITY),
    )
}
OWN = "depthcli"  # files of depthcli, which state their kind
FORMAT_NAMES = (*FORMATS, OWN)


def read_truth(path: Path, format: str, scale: float | None = None, invalid: Sequence[float] = ()) -> Truth:
    """Return the truth in a file.

    format: one of FORMAT_NAMES. scale: stored numbers per metre or unit, None for the format's own. invalid: further
    stored numbers that mean unknown. Raises PictureError for a file that is missing, damaged or not of this format,
    OutputError if a file should be of depthcli and is not.
    """
    if format == OWN:
        return _read_own(path, invalid)
    row = FORMATS[format]
    stored = read_numbers(path, "disparity" if row.kind is DISPARITY else "depth", row.only_png16)
    unknown = _is_invalid(stored, invalid)
    if row.rotated:
        bits = stored.astype(np.uint16)
        stored = (bits >> 3) | (bits << 13)
    with np.errstate(invalid="ignore"):  # signalling NaN would cause a warning
        values = stored.astype(np.float64)
    values[unknown | ~_is_positive(values)] = np.nan
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        values /= row.scale if scale is None else scale
    _check_range(values, str(path))
    return Truth(values, row.kind)


def _is_positive(values: np.ndarray) -> np.ndarray:
    """Return where float64 numbers are finite and above 0.

    Bits are compared, as a backend that has run in this thread may let the CPU take subnormal numbers for 0.
    """
    bits = values.view(np.int64)
    return (bits > 0) & (bits < _INFINITY)


def _is_invalid(stored: np.ndarray, invalid: Sequence[float]) -> np.ndarray:
    """Return where a stored number is one of those, as its type rounds them (99.9 in float32)."""
    if stored.dtype.kind != "f":
        return np.isin(stored, invalid)
    with np.errstate(over="ignore"):
        return np.isin(stored, np.array(invalid, np.float64).astype(stored.dtype))


def _check_range(values: np.ndarray, what: str) -> None:
    """Raise PictureError for numbers so large or small that depth or disparity overflows."""
    wrong = (values < _LEAST) | (values > 1 / _LEAST)
    if wrong.any():
        hint = "check scale, invalid and format"
        raise PictureError(f"{what} holds {values[wrong][0]:.3g} once it is scaled, which is no depth", hint)


def _read_own(path: Path, invalid: Sequence[float]) -> Truth:
    depth = read_depth(path)
    values = np.where(_is_invalid(depth.values, invalid), np.nan, depth.values.astype(np.float64))
    if depth.kind is DepthKind.RELATIVE_DEPTH:
        with np.errstate(divide="ignore"):
            return Truth(1 / values, DISPARITY)
    return Truth(values, depth.kind)


def read_numbers(path: Path, array: str = "depth", only_png16: bool = False) -> np.ndarray:
    """Return the stored (H, W) numbers of a gray PNG, a PFM, an NPY or an NPZ, top row first.

    array: name of the array if an NPZ holds several. only_png16: refuse all but 16-bit PNG. Raises PictureError.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None or (only_png16 and reader is not _png):
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


def _png(data: bytes, array: str) -> np.ndarray:
    PngImageFile(io.BytesIO(data)).verify()  # the check sums, which loading leaves out
    bits, colour = data[24:26]
    if bits not in (8, 16) or colour != 0:  # fewer bits would be stretched to 8
        raise ValueError("it is not gray with 8 or 16 bits")
    image = PngImageFile(io.BytesIO(data))
    check_pixels(*image.size)
    check_claim(image, len(data))
    image.load()  # or numpy 1.22 hides that a file is cut short
    return np.asarray(image).astype(np.uint8 if bits == 8 else np.uint16)


def _npy(data: bytes, array: str) -> np.ndarray:
    return read_npy(io.BytesIO(data))


def _npz(data: bytes, array: str) -> np.ndarray:
    with open_npz(io.BytesIO(data)) as arrays:
        names = arrays.names
        if len(names) != 1 and array not in names:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}: one array is wanted, or one called {array}")
        return arrays.numbers(names[0] if len(names) == 1 else array)


def _pfm(data: bytes, array: str) -> np.ndarray:
    """Read `Pf`, width, height, scale, then rows of float32 from the bottom up.

    A negative scale means little-endian. Its size is ignored, as in all readers: Middlebury's files have 1/255.
    """
    head = re.match(rb"Pf\s{1,9}(\d{1,9})\s{1,9}(\d{1,9})\s{1,9}(-?[\d.eE+-]{1,50})\s", data)
    if not head:
        raise ValueError("it is not a gray PFM")
    width, height, scale = int(head[1]), int(head[2]), float(head[3])
    if len(data) - head.end() != 4 * width * height:
        raise ValueError(f"it has {len(data) - head.end()} bytes for {width}x{height} numbers of 4")
    return np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=head.end()).reshape(height, width)[::-1]


_READERS = {".png": _png, ".npz": _npz, ".npy": _npy, ".pfm": _pfm}
