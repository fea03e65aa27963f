"""Frames for another program's stdin: raw, or y4m, whose header holds size and rate."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO, Optional

import numpy as np

from depthcli.errors import UsageError
from depthcli.io.codecs.encode import check_pixels
from depthcli.io.codecs.formats import Holds
from depthcli.io.video.clip_output import Timing


class PipeWriter:
    """Writes frames to a stream.

    holds: COLOR or SHADES. Raw is rgb24 or gray16le, row after row. y4m holds colour as 4:4:4 BT.709 in limited range,
    gray as 16 bit in full range (`mono16`, an extension of FFmpeg), at a constant rate. pixel_aspect: width of a pixel
    by its height, which y4m keeps.

    Raises UsageError for a time stamp off y4m's constant rate, BrokenPipeError if the reader has gone.
    """

    def __init__(
        self,
        stream: BinaryIO,
        holds: Holds,
        size: tuple[int, int],
        timing: Timing,
        y4m: bool = False,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.notes: list[str] = []
        self._stream, self._holds, self._size, self._timing, self._y4m = stream, holds, size, timing, y4m
        self._aspect = pixel_aspect
        self._count = 0
        self._first = Fraction(0)

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Send a frame; see FrameWriter."""
        check_pixels(pixels, self._holds, self._size)
        self._first = time if not self._count else self._first
        if self._y4m:
            self._check_time(time - self._first)
            if not self._count:
                self._stream.write(self._header())
            self._stream.write(b"FRAME\n")
        planes = _yuv444(pixels) if self._y4m and self._holds is Holds.COLOR else pixels
        self._stream.write(np.ascontiguousarray(planes, planes.dtype.newbyteorder("<")).tobytes())
        self._count += 1

    def _header(self) -> bytes:
        rate, (width, height) = self._timing.rate, self._size
        aspect = f"{self._aspect.numerator}:{self._aspect.denominator}"
        layout, full = ("444", "LIMITED") if self._holds is Holds.COLOR else ("mono16", "FULL")
        header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A{aspect} C{layout}"
        return f"{header} XCOLORRANGE={full}\n".encode()

    def _check_time(self, time: Fraction) -> None:
        if abs(time * self._timing.rate - self._count) > Fraction(1, 2):
            raise UsageError(
                f"y4m has one rate, and frame {self._count} comes at {float(time):.3f} seconds",
                "set the rate at which to read the clip with `fps`",
            )


# Rows of BT.709 for codes of 0 to 255: Y', Cb, Cr in limited range.
_TO_YUV = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5], [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748]],
    np.float32,
) * np.array([[219 / 255], [224 / 255], [224 / 255]], np.float32)


def _yuv444(rgb: np.ndarray) -> np.ndarray:
    planes = np.moveaxis(rgb.astype(np.float32) @ _TO_YUV.T, 2, 0) + np.array([16, 128, 128], np.float32)[:, None, None]
    return np.round(planes).astype(np.uint8)
