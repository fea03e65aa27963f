"""Read clips through the program ffmpeg, used without PyAV.

Exact rate, unit and time stamps come from the filter showinfo, which writes its message before the pixels of the frame.
The level "verbose" sums up packets, frames and decoder errors at the end. A thread reads messages from stderr; the
consumer reads pixels from stdout; the program waits for both.

Unlike PyAV's, this reader does not know the announced number of frames (None), the average rate beyond two decimals if
it varies, and whether a clip turned by 180 degrees is mirrored instead (the pixels are right).
"""

from __future__ import annotations

import re
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Callable, Optional

import numpy as np

from depthcli.errors import ClipError
from depthcli.io.cameras.clips import camera_of_metadata
from depthcli.io.pictures.images import MAX_PIXELS, check_size
from depthcli.io.video.clip import ClipInfo, Shown
from depthcli.io.video.clock import Clock, until_next
from depthcli.io.video.containers import is_protected, missing_bytes
from depthcli.io.video.ffmpeg_program import (
    ERROR_LINE,
    FileFacts,
    Program,
    StreamFacts,
    colours_of,
    describe_file,
    feed,
    find_program,
    input_of,
)
from depthcli.io.video.libav import HD_HEIGHT, Damage, Readable, in_words, protected
from depthcli.io.video.tonemap import to_sdr
from depthcli.io.video.tracks import READABLE, VideoTrack, choose_track

# What a pipe is described by before the rest of it is decoded: enough for the headers of every container.
_HEAD_BYTES = 1 << 20
_UPRIGHT = {0: "", 90: "transpose=clock,", 180: "hflip,vflip,", 270: "transpose=cclock,"}
_ORIENTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}  # of EXIF, by degrees clockwise
_RATE = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_FRAME = re.compile(
    r"n: *\d+ pts: *(?P<pts>\S+) +pts_time:\S+ +duration: *(?P<duration>-?\d+) .*?fmt:(?P<format>\w+) .*?"
    r"sar:(?P<sar>\d+/\d+) s:(?P<width>\d+)x(?P<height>\d+) "
)
_PACKET = re.compile(r"demuxer -> .*?type:video pkt_pts:(\S+) .*?pkt_dts:(-?\w+) .*?duration:(\d+) ")
_COLOURS = re.compile(r"color_range:\S+ color_space:(\S+) color_primaries:\S+ color_trc:(\S+)")
_SUMS = re.compile(r"Input stream #0:\d+ \(video\): (\d+) packets read .*?; \d+ frames decoded; (\d+) decode errors")
_REFUSED = re.compile(r"Error submitting packet to decoder|\] Decoding error: ")
# By the option debug_ts, from the decoder itself: the filters speak later, when it may have refused further packets.
_DECODED = "[info] decoder -> "


@dataclass(frozen=True)
class _Stamp:
    """The facts of showinfo about a frame. time_base, rate: of the frames from here on. aspect: 0 if unknown."""

    pts: Optional[int]
    duration: int
    size: tuple[int, int]
    pixel_format: str
    aspect: Fraction
    time_base: Fraction
    rate: Optional[Fraction]


class ProgramSource:
    """A video file, or a stream from a pipe, as LibavSource. Raises ClipError if it holds no video to decode."""

    def __init__(self, file: Readable, name: str, path: Optional[Path] = None, max_pixels: int = MAX_PIXELS) -> None:
        self._name, self._path, self._file = name, path, file
        self._read = Damage(missing=missing_bytes(path) if path else 0)
        self._program: Optional[Program] = None
        self._clock: Optional[Clock] = None
        try:
            if path and is_protected(path):
                raise protected(name)
            self._head = b"" if path else _read_head(file)
            self._facts = self._describe_file()
            self._stream, self._choice = self._best_stream()
            check_size((self._stream.width, self._stream.height), name, max_pixels, ClipError)
            self._colours = self._stream.colours
            first = self._begin()
            if path and first and self._said != self._colours:  # the frames know better than the header
                self._colours = self._said
                first = self._begin()
            if first is None:
                raise self._nothing()
            stamp = first[0]
            self._ordered = "mp4" in self._facts.container
            self._clock = Clock(self._rate(stamp), stamp.time_base, self._ordered)
            self._first_pts = stamp.pts
            self._first: Optional[tuple[Fraction, np.ndarray]] = self._place(stamp), first[1]
            self.info = self._describe(stamp)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the program and close the file."""
        if self._program:
            self._program.close()
        self._file.close()

    def shown(self) -> Iterator[Shown]:
        """Yield every frame that can be decoded; then raise ClipError if some could not."""
        assert self._clock is not None
        yield from until_next(self._pixels(), self._clock.rest)
        self._end()
        self._read.complain(self._name)

    def _pixels(self) -> Iterator[tuple[Fraction, Callable[[], np.ndarray]]]:
        item, self._first = self._first, None
        while item is not None:
            self._read.decoded += 1
            yield item[0], partial(self._to_rgb, item[1])
            following = self._next()
            item = following and (self._place(following[0]), following[1])

    def _place(self, stamp: _Stamp) -> Fraction:
        """Return when a frame is shown."""
        assert self._clock is not None
        self._take_packets(stamp.time_base)
        return self._clock.place(stamp.pts)

    def _take_packets(self, tick: Fraction) -> None:
        """Count the packets that were read since, but for those that an edit list leaves out at the end of an MP4."""
        while self._packets:
            pts, dts, duration = self._packets.popleft()
            begin = self._first_pts * tick if self._first_pts is not None else None
            length = self._facts.duration if self._ordered else None
            if pts is None or begin is None or length is None or pts * tick - begin < length:
                self._meant += 1
                assert self._clock is not None
                self._clock.packet(pts, dts, duration)

    # --- Opening ------------------------------------------------------------------------------------------------------

    def _describe_file(self) -> FileFacts:
        facts = describe_file(self._path, self._head)
        if facts is None:
            if self._read.missing:
                reason = "is truncated: it ends before the table of its frames does"
                raise ClipError(f"{self._name} {reason}", "copy or download it again")
            raise ClipError(f"{self._name} is no video, or none that can be read", READABLE)
        return facts

    def _best_stream(self) -> tuple[StreamFacts, str]:
        """Return the stream that is the clip, and a note on the choice."""
        streams = {stream.index: stream for stream in self._facts.videos}
        tracks = [
            VideoTrack(item.index, item.width, item.height, item.purposes, int(item.still), item.codec != "none")
            for item in streams.values()
        ]
        index, note = choose_track(self._name, tracks, bool(self._facts.audio))
        return streams[index], note

    def _nothing(self) -> ClipError:
        self._end()
        self._read.broken = ""  # that no frame came is what the program takes for the failure
        reason = self._read.reason() or f"holds {self._stream.codec} video of which no frame can be decoded"
        return ClipError(f"{self._name} {reason}", "copy or download it again")

    def _begin(self) -> Optional[tuple[_Stamp, np.ndarray]]:
        """Start to decode; return the first frame."""
        if self._program:
            self._program.close()
        self._stamps: SimpleQueue[Optional[_Stamp]] = SimpleQueue()
        self._errors: deque[str] = deque(maxlen=20)
        self._packets: deque[tuple[Optional[int], Optional[int], int]] = deque()
        self._refused = self._before_first = self._incomplete = self._meant = 0
        self._said = self._colours
        self._size: Optional[tuple[int, int]] = None
        self._program = Program(self._arguments(), stdin=self._path is None, stdout=True)
        self._program.beside(self._listen, self._program)
        if self._path is None:
            self._program.beside(feed, self._program.stdin, self._head, self._file)
        return self._next()

    def _arguments(self) -> list[str]:
        unknown, transfer = self._colours
        # By slices, and the packets that are not whole, as LibavSource has them.
        options = ["-copyts", "-debug_ts", "-thread_type", "slice"]
        if self._read.missing:
            options += ["-fflags", "+discardcorrupt"]
        turn = ""
        if self._stream.turn % 90:  # ffmpeg would turn by 7 degrees what was held by 7 degrees
            options.append("-noautorotate")
            turn = _UPRIGHT[round(self._stream.turn / 90) % 4 * 90]
        matrix = "bt709" if unknown and self._stream.height >= HD_HEIGHT else "bt601" if unknown else "auto"
        deep = transfer != "sdr"
        scale = f"scale=in_color_matrix={matrix}:out_range=pc:flags=bilinear"
        return [
            *input_of(self._path, *options),
            *("-map", f"0:{self._stream.index}"),
            *("-vf", f"{turn}showinfo=checksum=0,{scale},format={'rgb48le' if deep else 'rgb24'}"),
            *("-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"),
        ]

    def _rate(self, stamp: _Stamp) -> Fraction:
        """Return frames per second: the exact one of the stream, or its average if they differ."""
        exact, average = stamp.rate, self._stream.rate
        return (average or exact if self._is_single() or self._is_variable(stamp) else exact) or Fraction(25)

    def _is_single(self) -> bool:
        """Return whether this is a clip of one frame, so that the least distance of frames is unknown."""
        average, duration = self._stream.rate, self._facts.duration
        return bool(average and duration is not None and duration * average < Fraction(3, 2))

    def _is_variable(self, stamp: _Stamp) -> bool:
        """Return whether the rate that the least distance of frames makes is not their average one."""
        average = self._stream.rate
        if not stamp.rate or not average or self._is_single():
            return False
        return abs(stamp.rate / average - 1) > Fraction(1, 100)

    def _describe(self, stamp: _Stamp) -> ClipInfo:
        stream = self._stream
        transfer = self._colours[1]
        degrees = round(stream.turn / 90) % 4 * 90
        notes = []
        if self._choice:
            notes.append(self._choice)
        if degrees:
            notes.append(f"turned by {degrees}°{' or mirrored' * (degrees == 180)} as its header says")
        if transfer != "sdr":
            notes.append(f"HDR ({transfer.upper()}) tone-mapped to BT.709")
        if self._before_first:
            notes.append(f"{self._before_first} damaged packets before the first frame passed over")
        aspect = stamp.aspect or Fraction(1)
        told = {**stream.metadata, **self._facts.metadata}
        return ClipInfo(
            name=self._name,
            size=stamp.size,
            rate=self._rate(stamp),
            time_base=stamp.time_base,
            origin=self._clock.origin if self._clock else Fraction(0),
            duration=self._facts.duration,
            rotation=degrees,
            pixel_aspect=aspect,
            variable=self._is_variable(stamp),
            audio=bool(self._facts.audio),
            codec=stream.codec,
            pixel_format=stream.pixel_format,
            bits=_depths().get(stream.pixel_format, 8),
            transfer=transfer,
            camera=camera_of_metadata(told, stamp.size, float(aspect)),
            orientation=_ORIENTATIONS[degrees],
            notes=tuple(notes),
        )

    # --- Decoding -----------------------------------------------------------------------------------------------------

    def _listen(self, program: Program) -> None:
        """Take the messages of the program, on a thread: time stamps into a queue, the rest counted."""
        time_base, rate = Fraction(1), None
        begun = colours = False
        for line in program.lines():
            if not line.startswith("[") or line.startswith("[info]  "):  # text from the file
                continue
            # Its threads cut into each other's lines: this may stand in one line with what is looked for below.
            if found := _PACKET.search(line):
                pts, dts = (int(stamp) if stamp.lstrip("-").isdigit() else None for stamp in found.groups()[:2])
                if pts is None or pts >= 0:  # what an edit list leaves out lies before zero
                    self._packets.append((pts, dts, int(found[3])))
            if found := _FRAME.search(line):
                self._stamps.put(_stamp(found, time_base, rate))
            elif found := _RATE.search(line):
                time_base = Fraction(int(found[1]), int(found[2]))
                rate = Fraction(int(found[3]), int(found[4])) if int(found[3]) and int(found[4]) else None
            elif (found := _COLOURS.search(line)) and not colours:
                colours = True
                self._said = colours_of(found[1], found[2])
            elif _DECODED in line:
                begun = True
            elif _REFUSED.search(line):
                self._refused += 1
                self._before_first += not begun
            elif "corrupt decoded frame" in line:
                self._incomplete += 1
            elif found := _SUMS.search(line):
                self._read.packets, self._refused = int(found[1]), int(found[2])
            elif found := ERROR_LINE.match(line):
                self._errors.append(found["text"])
                if "Error during demuxing" in line:
                    self._read.broken = in_words(found["text"])
        self._stamps.put(None)

    def _next(self) -> Optional[tuple[_Stamp, np.ndarray]]:
        """Return the next frame as stored; None if none follows."""
        stamp = self._stamps.get()
        if stamp is None:
            return None
        self._size = self._size or stamp.size
        width, height = self._size
        pixels = np.empty((height, width, 3), np.uint8 if self._colours[1] == "sdr" else "<u2")
        if self._program is None or not _read_into(self._program.stdout, pixels):
            return None
        if stamp.size != self._size:  # ffmpeg scaled it to the first one's size, which is not asked for
            pixels = np.empty((*stamp.size[::-1], 3), pixels.dtype)
        return stamp, pixels

    def _end(self) -> None:
        """Find out what went wrong, when there is no further frame."""
        assert self._program is not None
        self._program.stdout.close()
        code = self._program.wait()
        if self._clock:
            self._take_packets(self.info.time_base)
            if self._ordered:
                self._read.packets = min(self._read.packets, self._meant)
        self._read.damaged = self._refused - self._before_first
        self._read.incomplete = self._incomplete
        if code and not self._read.reason():
            self._read.broken = in_words(self._errors[-1]) if self._errors else f"ffmpeg ended with {code}"

    def _to_rgb(self, pixels: np.ndarray) -> np.ndarray:
        return pixels if self._colours[1] == "sdr" else to_sdr(pixels, self._colours[1])


def _stamp(found: re.Match[str], time_base: Fraction, rate: Optional[Fraction]) -> _Stamp:
    over, under = map(int, found["sar"].split("/"))
    return _Stamp(
        pts=None if found["pts"] == "NOPTS" else int(found["pts"]),
        duration=int(found["duration"]),
        size=(int(found["width"]), int(found["height"])),
        pixel_format=found["format"],
        aspect=Fraction(over, under) if under else Fraction(0),
        time_base=time_base,
        rate=rate,
    )


def _read_into(stream: IO[bytes], pixels: np.ndarray) -> bool:
    """Fill an array; return whether there was enough."""
    view, done = pixels.data.cast("B"), 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            return False
        done += count
    return True


@cache
def _depths() -> dict[str, int]:
    """Return the bits per channel of each pixel format: the last column of ffmpeg's own list."""
    listed = subprocess.run([str(find_program()), "-hide_banner", "-pix_fmts"], capture_output=True, check=False)
    rows = [line.split() for line in listed.stdout.decode().splitlines()]
    return {row[1]: max(map(int, row[4].split("-"))) for row in rows if len(row) == 5 and row[4][0].isdigit()}


def _read_head(file: Readable) -> bytes:
    pieces, missing = [], _HEAD_BYTES
    while missing and (piece := file.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
