"""Read truth files: measured depth or disparity, NaN if unknown. One row per format.

In every format NaN, infinity, zero and negative numbers are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depthcli.depthmap import DepthKind
from depthcli.errors import PictureError
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.numbers import DISPARITY, ENCODINGS, METRES, is_invalid, is_positive, read_scaled

_LEAST = float(np.finfo(np.float32).tiny)  # up to 1 / _LEAST depth and disparity are normal float32


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
        values[~is_positive(values)] = np.nan
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


OWN = "depthcli"  # files of depthcli, which state their kind
FORMAT_NAMES = (*ENCODINGS, OWN)


def read_truth(path: Path, format: str, scale: float | None = None, invalid: Sequence[float] = ()) -> Truth:
    """Return the truth in a file.

    format: one of FORMAT_NAMES. scale: stored numbers per metre or unit, None for the format's own. invalid: further
    stored numbers that mean unknown. Raises PictureError for a file that is missing, damaged or not of this format,
    OutputError if a file should be of depthcli and is not.
    """
    if format == OWN:
        return _read_own(path, invalid)
    row = ENCODINGS[format]
    values = read_scaled(path, row, scale, invalid)
    _check_range(values, str(path))
    return Truth(values, row.kind)


def _check_range(values: np.ndarray, what: str) -> None:
    """Raise PictureError for numbers so large or small that depth or disparity overflows."""
    wrong = (values < _LEAST) | (values > 1 / _LEAST)
    if wrong.any():
        hint = "check scale, invalid and format"
        raise PictureError(f"{what} holds {values[wrong][0]:.3g} once it is scaled, which is no depth", hint)


def _read_own(path: Path, invalid: Sequence[float]) -> Truth:
    depth = read_depth(path)
    values = np.where(is_invalid(depth.values, invalid), np.nan, depth.values.astype(np.float64))
    if depth.kind is DepthKind.RELATIVE_DEPTH:
        with np.errstate(divide="ignore"):
            return Truth(1 / values, DISPARITY)
    return Truth(values, depth.kind)
