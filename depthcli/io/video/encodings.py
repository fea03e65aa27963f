"""How each video format is encoded, whoever runs the encoder: rows of settings, sizes, codes and time stamps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Optional

import numpy as np


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded. lo, hi: the codes of gray 0 and 65535, None for colour. even: sizes have to be.

    least: shortest side of a frame that the encoder takes, in pixels.
    """

    container: str
    codec: str
    pixel_format: str
    options: tuple[tuple[str, str], ...]
    threads: int
    full: bool = True
    bits: int = 8
    lo: Optional[int] = None
    hi: int = 65535
    tag: str = ""
    even: tuple[int, int] = (2, 2)
    muxer: tuple[tuple[str, str], ...] = ()
    least: int = 0

    @property
    def no_colour(self) -> int:
        """Return the code of chroma for gray."""
        return 1 << (self.bits - 1)

    def codes(self, gray: np.ndarray) -> np.ndarray:
        """Return the codes of luma, (H, W) uint16, for gray of (H, W) uint16."""
        assert self.lo is not None
        return ((gray.astype(np.uint32) * (self.hi - self.lo) + 32767) // 65535 + self.lo).astype("<u2")

    def stored_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) in the file for (width, height) of frames: 4:2:0 and 4:2:2 have no odd sizes."""
        width, height = (-(-length // step) * step for length, step in zip(size, self.even))
        return height, width

    def described(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Return the facts about a file with frames of (height, width), for its sidecar."""
        facts: dict[str, Any] = {
            "codec": self.codec,
            "pixel_format": self.pixel_format,
            "range": "full" if self.full else "limited",
            "stored_size": [shape[1], shape[0]],
        }
        if self.lo is not None:
            # code = offset + gray / 65535 * scale
            facts["gray"] = {"bits": self.bits, "offset": self.lo, "scale": self.hi - self.lo}
        return facts


_FASTSTART = (("movflags", "+faststart"),)
# Constant, because the output of some encoders depends on the number of threads.
H264 = Encoding(
    "mp4",
    "libx264",
    "yuv420p",
    # mbtree is off: with it x264 on AVX-512 gave different bytes for one clip in three.
    # Depth is smooth: superfast is as good (42.6 dB) and as small as fast, and takes a third of its time.
    # No B-frames: MP4 derives a film's length from decoding times, which B-frames change at variable rates.
    (("crf", "20"), ("preset", "superfast"), ("x264-params", "mbtree=0:bframes=0")),
    threads=4,
    full=False,
    muxer=_FASTSTART,
)
HEVC10 = Encoding(
    "mp4",
    "libx265",
    "yuv420p10le",
    # No B-frames: with them x265 gives clips of one or two frames impossible time stamps.
    (("crf", "10"), ("preset", "fast"), ("x265-params", "log-level=none:info=0:pools=4:frame-threads=2:bframes=0")),
    threads=1,
    bits=10,
    lo=0,
    hi=1023,
    tag="hvc1",  # without which QuickTime does not play it
    muxer=_FASTSTART,
    least=48,  # x265 of 2023 to 2026 aborts the process for frames of 40x32 and 38x22; 64x48 and 71x50 are taken
)
FFV1 = Encoding(
    "matroska",
    "ffv1",
    "gray16le",
    (("level", "3"), ("slices", "4"), ("slicecrc", "1"), ("g", "1")),
    threads=4,
    bits=16,
    lo=0,
    even=(1, 1),
)
PRORES = Encoding(
    "mov",
    "prores_ks",
    "yuv422p10le",
    (("profile", "3"), ("vendor", "apl0")),
    threads=4,
    full=False,  # players take ProRes for limited range whatever it says
    bits=10,
    lo=64,
    hi=940,
    even=(2, 1),
    muxer=_FASTSTART,
)

# Photographs have more detail than depth.
_EYES = replace(H264, options=(("crf", "18"), ("preset", "veryfast"), ("x264-params", "mbtree=0:bframes=0")))
_MUXERS = {"mp4": ("mp4", _FASTSTART), "mov": ("mov", _FASTSTART), "mkv": ("matroska", ())}
# By the names of the formats.
ENCODINGS = {
    "mp4": H264,
    "side": H264,
    **dict.fromkeys(("crafter-gray", "crafter-inferno", "crafter-input"), H264),
    "ffv1": FFV1,
    "hevc10": HEVC10,
    "prores": PRORES,
    **{
        f"stereo-{suffix}{'-444' if whole else ''}": replace(
            _EYES, container=container, muxer=muxer, pixel_format="yuv444p" if whole else "yuv420p"
        )
        for suffix, (container, muxer) in _MUXERS.items()
        for whole in (False, True)
    },
}


def padded(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Repeat the last row and column if the file needs one more; nothing is scaled."""
    missing = [(0, want - have) for want, have in zip(shape, pixels.shape)]
    if not any(after for _, after in missing):
        return pixels
    return np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), mode="edge")


class Stamps:
    """Time stamps for a file: whole ticks of 1 / scale seconds, from 0 on, strictly increasing.

    A time within the source's rounding (at most a millisecond) of the rate's grid is put on it, so that 24000/1001
    survives sources in milliseconds.
    """

    _FINEST = 2_000_000  # ticks per second, what players still take

    def __init__(self, rate: Fraction, time_base: Fraction) -> None:
        self._rate = rate
        self._slack = min(time_base, 1 / (4 * rate), Fraction(1, 1000))
        both = math.lcm(rate.numerator, time_base.denominator)
        self.scale = next((s for s in (both, rate.numerator) if s <= self._FINEST), 90000)
        if self.scale < 1000:
            self.scale *= 1000
        self._first: Optional[Fraction] = None
        self._last = -1

    def length(self, duration: Optional[Fraction]) -> int:
        """Return for how many ticks the last frame is shown; one period for None."""
        period = 1 / self._rate
        if duration is None or abs(duration - period) <= self._slack:
            duration = period
        return max(1, round(duration * self.scale))

    def ticks(self, time: Fraction) -> int:
        """Return the next frame's time stamp."""
        if self._first is None:
            self._first = time
        time -= self._first
        nearest = round(time * self._rate) / self._rate
        if abs(nearest - time) <= self._slack:
            time = nearest
        self._last = max(self._last + 1, round(time * self.scale))
        return self._last
