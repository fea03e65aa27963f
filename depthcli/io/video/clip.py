"""What a clip is, wherever it comes from: its facts, its frames, and the choice of some of them by time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Callable, Optional, Protocol, Union

import numpy as np

from depthcli.camera import Camera
from depthcli.errors import ClipError, UsageError

Number = Union[int, float, Fraction]

# The rates of NTSC, usually written with decimals: 23.976 is 24000/1001.
_NTSC = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120, 240))


@dataclass(frozen=True)
class ClipInfo:
    """Facts about a clip before its frames are read.

    name: as given, for messages. size: (width, height) in pixels, upright. rate: frames per second, exact; the average
    if `variable`. time_base: unit of the time stamps in seconds. origin: time of the first frame on the clock of the
    file, in seconds. frames, duration (seconds): as announced, or None; often wrong, for progress only. rotation:
    degrees clockwise that made the frames upright. pixel_aspect: width of a pixel by its height. audio: there is sound.
    bits: per channel, as stored. transfer: "sdr", "pq" or "hlg". numbers: of a folder's frames, from their names, or
    empty. paths: of a folder's frames. camera: that the clip itself tells, or None. orientation: of EXIF, 1 to 8, that
    made the frames upright. notes: choices and conversions that a user should know.
    """

    name: str
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    origin: Fraction = Fraction(0)
    frames: Optional[int] = None
    duration: Optional[float] = None
    rotation: int = 0
    pixel_aspect: Fraction = Fraction(1)
    variable: bool = False
    audio: bool = False
    codec: str = ""
    pixel_format: str = "rgb24"
    bits: int = 8
    transfer: str = "sdr"
    numbers: tuple[int, ...] = ()
    paths: tuple[Path, ...] = ()
    camera: Optional[Camera] = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a clip.

    index: 0 for the first selected frame. time: seconds since the first frame of the whole clip. duration: seconds
    until the next frame, or None. rgb: (H, W, 3) uint8, upright, read-only.
    """

    index: int
    time: Fraction
    duration: Fraction
    rgb: np.ndarray


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame that is decoded but not yet converted: `pixels()` gives its (H, W, 3) uint8, upright."""

    time: Fraction
    duration: Fraction
    pixels: Callable[[], np.ndarray]


class FrameSource(Protocol):
    """Where frames come from: a file, a folder, a pipe."""

    info: ClipInfo

    def shown(self) -> Iterator[Shown]:
        """Yield every frame that can be decoded, in order and once; then raise ClipError if some could not."""

    def close(self) -> None:
        """Let go of the file."""


@dataclass(frozen=True)
class Selection:
    """The frames from `start` until before `end` (seconds), of these every `stride`-th, `max_frames` at most.

    fps: sample the clip at this rate: each tick takes the frame shown at that moment; the speed does not change.
    Raises UsageError for values that select nothing.
    """

    start: Optional[Number] = None
    end: Optional[Number] = None
    fps: Optional[Number] = None
    stride: int = 1
    max_frames: Optional[int] = None

    def __post_init__(self) -> None:
        start, end = exact(self.start or 0), self.end
        if start < 0 or (end is not None and exact(end) <= start):
            raise UsageError(f"no frame lies from {float(start):g} until before {float(end or 0):g} seconds")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"a rate of {float(self.fps):g} frames per second makes no sense", "1000 is the most")
        if self.stride < 1:
            raise UsageError(f"a stride of {self.stride} makes no sense", "1 takes every frame, 2 every second one")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"{self.max_frames} frames are none")

    @property
    def whole(self) -> bool:
        """Whether the clip is taken from its beginning to its end, so that its sound goes with it."""
        return not self.start and self.end is None and self.max_frames is None

    def rate(self, rate: Fraction) -> Fraction:
        """Return the frames per second that the selected frames have, exactly, for a clip with `rate`."""
        return (exact_rate(self.fps) if self.fps is not None else rate) / self.stride

    def count(self, info: ClipInfo) -> Optional[int]:
        """Return about how many frames will be selected; None if neither the clip nor the selection says."""
        seconds = info.duration
        if seconds is None and info.frames is not None:
            seconds = float(info.frames / info.rate)
        if seconds is not None:
            seconds = max(0.0, min(seconds, float(self.end or seconds)) - float(self.start or 0))
        elif self.end is not None:
            seconds = float(self.end) - float(self.start or 0)
        if self == Selection(max_frames=self.max_frames) and info.frames:
            count: Optional[int] = info.frames
        else:
            count = None if seconds is None else max(1, round(seconds * float(self.rate(info.rate))))
        limits = [number for number in (count, self.max_frames) if number is not None]
        return min(limits) if limits else None

    def choose(self, shown: Iterator[Shown], slack: Fraction = Fraction(0)) -> Iterator[Shown]:
        """Yield the selected frames; those of a frame that fps repeats share their `pixels`.

        slack: tolerance in seconds for time stamps that files round up.
        """
        start = exact(self.start or 0)
        end = None if self.end is None else exact(self.end)
        if self.fps is not None:
            chosen = _at_ticks(shown, start, end, 1 / exact_rate(self.fps), slack)
        else:
            chosen = _between(shown, start, end, slack)
        stop = None if self.max_frames is None else (self.max_frames - 1) * self.stride + 1
        strided = islice(chosen, 0, stop, self.stride)
        return (replace(item, duration=item.duration * self.stride) for item in strided)


def exact(seconds: Number) -> Fraction:
    """Return seconds as a fraction of at most a millionth."""
    return Fraction(seconds).limit_denominator(1_000_000)


def exact_rate(rate: Number) -> Fraction:
    """Return frames per second as the fraction that is meant: 23.976 is 24000/1001, 12.5 is 25/2."""
    value = exact(rate)
    # Closer than these lie to the whole rates beside them.
    return next((ntsc for ntsc in _NTSC if abs(ntsc - value) < Fraction(2, 1000)), value)


def frames_of(source: FrameSource, selection: Selection, skip: int = 0) -> Iterator[Frame]:
    """Yield the selected frames of a source. skip: the first so many are decoded but not converted.

    Raises ClipError, after the last decoded frame, if the clip is damaged or the size of its frames changes.
    """
    last: tuple[Optional[Callable[[], np.ndarray]], np.ndarray] = (None, np.empty(0, np.uint8))
    slack = min(source.info.time_base, 1 / (4 * source.info.rate))
    for index, item in enumerate(selection.choose(source.shown(), slack)):
        if index < skip:
            continue
        if item.pixels is not last[0]:
            rgb = item.pixels()
            if rgb.shape[1::-1] != source.info.size:
                sizes = "{}x{} instead of {}x{}".format(*rgb.shape[1::-1], *source.info.size)
                reason = f"{source.info.name} changes its size: {sizes} pixels at {float(item.time):.2f} seconds"
                raise ClipError(reason, "cut it there, or scale its parts to one size", index)
            rgb.flags.writeable = False
            last = item.pixels, rgb
        yield Frame(index, item.time, item.duration, last[1])


def _between(shown: Iterator[Shown], start: Fraction, end: Optional[Fraction], slack: Fraction) -> Iterator[Shown]:
    for item in shown:
        if end is not None and item.time + slack >= end:
            return
        if item.time + slack >= start:
            yield item


def _at_ticks(
    shown: Iterator[Shown], start: Fraction, end: Optional[Fraction], period: Fraction, slack: Fraction
) -> Iterator[Shown]:
    """Yield at start, start + period, ... the frame shown at that moment, to the end of the last one."""
    current: Optional[Shown] = None
    failure: Optional[ClipError] = None
    tick = 0

    def until(moment: Fraction) -> Iterator[Shown]:
        nonlocal tick
        while current is not None and (time := start + tick * period) < moment and (end is None or time < end):
            yield Shown(time, period, current.pixels)
            tick += 1

    try:
        for item in shown:
            if end is not None and start + tick * period >= end:
                return
            yield from until(item.time - slack)
            current = item
    except ClipError as error:  # what came before it counts
        failure = error
    if current is not None:
        yield from until(current.time + current.duration - slack)
    if failure:
        raise failure
