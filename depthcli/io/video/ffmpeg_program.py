"""Clips through the program ffmpeg, where PyAV cannot be imported, as where no wheel of it fits the machine.

The program is the one that imageio-ffmpeg carries (or names: IMAGEIO_FFMPEG_EXE). There is no ffprobe beside it, so
facts are read from what ffmpeg itself says, with its level in front of each message:

- the description of the input, which ends every run without an output: streams, sizes, codecs, tags, turns. Its rates
  are rounded to two decimals and its seconds to a hundredth;
- the filter showinfo: exact rate, unit and time stamp of every frame, as they come out of the decoder and before
  anything is converted. Each of its messages is written before the pixels of its frame, so that a frame never waits;
- the sums at the end of the level "verbose": packets, frames and errors of the decoder.

Messages are taken from stderr by a thread, pixels from stdout by whoever wants the next frame; the program waits where
nobody does. It runs in its own process group, as Ctrl-C is for us to handle, and ends when it is killed, when we close
it, and, by its pipes, when we are gone.

To the encoder frames go in Matroska, whose raw video is little more than a time stamp in front of the pixels, so that a
variable rate arrives as it is.

What this reader does not know and PyAV's does: how many frames a file announces (None), the average rate beyond two
decimals where a rate varies, and whether what is turned by 180 degrees is mirrored instead (the pixels are right).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Callable, Optional, Union

import numpy as np

from depthcli.errors import ClipError, OutputError
from depthcli.io.pictures.images import MAX_PIXELS, check_size, printable
from depthcli.io.video.clip import ClipInfo, Shown, exact_rate
from depthcli.io.video.clock import Clock, until_next
from depthcli.io.video.containers import is_protected, missing_bytes
from depthcli.io.video.encodings import Encoding
from depthcli.io.video.extras import Along, cannot_hold, descriptive, of_a_part, timecode_at
from depthcli.io.video.libav import CONTAINERS, HD_HEIGHT, Damage, Readable, in_words, protected
from depthcli.io.video.tonemap import to_sdr
from depthcli.io.video.tracks import READABLE, VideoTrack, choose_track

# What a pipe is described by before the rest of it is decoded: enough for the headers of every container.
_HEAD_BYTES = 1 << 20
_SPEAK = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+verbose")
# Transfer characteristics, as ffmpeg names those of TRANSFERS.
_TRANSFERS = {"smpte2084": "pq", "arib-std-b67": "hlg"}
_UPRIGHT = {0: "", 90: "transpose=clock,", 180: "hflip,vflip,", 270: "transpose=cclock,"}


@cache
def find_program() -> Optional[str]:
    """Return the path of ffmpeg, None where there is none. Options used here are those of 5.1 and later."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def file_url(path: Path) -> str:
    """Return what ffmpeg takes for this file and nothing else, whatever its name begins with."""
    return f"file:{path}"


class Program:
    """A running ffmpeg. `lines` yields its messages until it ends."""

    def __init__(self, arguments: Sequence[str], stdin: bool = False, stdout: bool = False) -> None:
        program = find_program()
        assert program is not None
        apart: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            apart = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        self.process = subprocess.Popen(
            [program, *_SPEAK, *arguments],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            # A static build loads converters of text that were made for the machine's own C library, and crashes, as
            # 7.0.2 of imageio-ffmpeg 0.6 does at the service name of an MPEG-TS on Debian. With this it does not look
            # into the cache that leads there.
            env={**os.environ, "GCONV_PATH": os.path.dirname(program)},
            # Python ignores the signals of a broken pipe and of a file that may not grow, and so does the program then:
            # it says what happened instead of vanishing.
            restore_signals=False,
            **apart,
        )
        self._threads: list[threading.Thread] = []

    @property
    def stdin(self) -> IO[bytes]:
        """Where its input goes."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where its output comes from."""
        assert self.process.stdout is not None
        return self.process.stdout

    def lines(self) -> Iterator[str]:
        """Yield what it says, line by line."""
        assert self.process.stderr is not None
        with open(self.process.stderr.fileno(), "rb", closefd=False) as stream:
            for line in stream:
                yield line.decode("utf-8", "replace").rstrip()

    def beside(self, work: Any, *arguments: Any) -> None:
        """Do work on a thread until the program has ended."""
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> int:
        """Return its exit code when it has ended and all it said was read."""
        code = self.process.wait()
        self._threads[0].join()
        return code

    def close(self) -> None:
        """End it, and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(1)  # one may wait for ever for a pipe that is not ours
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


# --- What ffmpeg says of a file ---------------------------------------------------------------------------------------

_STREAM = re.compile(
    r"\[info\] (?P<grouped>  )?  Stream #0:(?P<index>\d+)\S*?(?:\((?P<language>\w+)\))?: "
    r"(?P<kind>Video|Audio|Subtitle|Data|Attachment): (?P<what>.*)"
)
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,]|$)")
_FORMAT = re.compile(r", (\w+)(?:\(([^()]*)\))?$")
_PURPOSE = re.compile(r" \(([a-z ]+)\)(?=(?: \([a-z ]+\))*$)")
_STILL = ", 1 fps, 1 tbr, 1 tbn"  # how the still picture in front of an AVIF sequence is listed
_FPS = re.compile(r", ([\d.]+)(k?) fps")
_TURN = re.compile(r"\[info\] +display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)
_TAG = re.compile(r"\[info\] {5,9}(\w+) *: (.*)")
_DURATION = re.compile(r"\[info\]   Duration: (\d+):(\d+):(\d+\.\d+)")


@dataclass
class StreamFacts:
    """A stream of a file as ffmpeg describes it. rate: the average one, rounded. turn: degrees clockwise to upright."""

    index: int
    kind: str
    codec: str
    language: str = ""
    width: int = 0
    height: int = 0
    pixel_format: str = ""
    tags: tuple[str, ...] = ()
    rate: Optional[Fraction] = None
    turn: float = 0
    purposes: frozenset[str] = frozenset()
    still: bool = False
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def colours(self) -> tuple[bool, str]:
        """Return whether the matrix is unknown, and the transfer: "sdr", "pq" or "hlg"."""
        names = next((tag.split("/") for tag in self.tags if tag not in _NO_COLOURS), ["unknown"])
        return _colours(names[0], names[-1])


# What else may stand in the brackets behind a pixel format: ranges, orders of fields, places of chroma.
_NO_COLOURS = frozenset(
    "tv,pc,progressive,top first,bottom first,top coded first (swapped),bottom coded first (swapped),"
    "left,center,topleft,top,bottomleft,bottom".split(",")
)


def _colours(matrix: str, transfer: str) -> tuple[bool, str]:
    return matrix in ("unknown", "unspecified"), _TRANSFERS.get(transfer, "sdr")


@dataclass
class FileFacts:
    """A file as ffmpeg describes it."""

    streams: list[StreamFacts]
    duration: Optional[float] = None
    container: str = ""
    chapters: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def audio(self) -> list[StreamFacts]:
        """Return the streams with sound."""
        return [stream for stream in self.streams if stream.kind == "Audio"]

    @property
    def videos(self) -> list[StreamFacts]:
        """Return the streams with video."""
        return [stream for stream in self.streams if stream.kind == "Video"]


def describe_file(path: Optional[Path], head: bytes = b"") -> Optional[FileFacts]:
    """Return what ffmpeg says of a file, or of the beginning of a pipe; None where it can make nothing of it."""
    program = Program(input_of(path), stdin=path is None)
    try:
        if path is None:
            program.beside(_feed, program.stdin, head, None)
        return _file_facts(program.lines())
    finally:
        program.close()


def input_of(path: Optional[Path], *options: str) -> list[str]:
    """Return the arguments that open a file, or stdin, as what it is and never as a list of other files."""
    if path and "\n" in str(path):  # the program repeats it, and it could say anything there
        raise ClipError(f"{printable(str(path))} has a line break in its name", "rename it, or install PyAV")
    safe = ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS]
    return [*safe, *options, "-i", file_url(path) if path else "pipe:0"]


def _file_facts(lines: Iterator[str]) -> Optional[FileFacts]:
    facts: Optional[FileFacts] = None
    grouped = False  # since 7.1 a track stands under the one that refers to it, as a video to its timecode
    for line in lines:
        if line.startswith("[info] Input #0"):
            facts = FileFacts([], container=line)
        elif facts is None:
            continue
        elif found := _DURATION.match(line):
            hours, minutes, seconds = found.groups()
            facts.duration = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        elif line.startswith("[info]   Stream group #0:"):
            grouped = True
        elif (found := _STREAM.match(line)) and (grouped or not found["grouped"]):
            if all(stream.index != int(found["index"]) for stream in facts.streams):  # listed in a group, and again
                facts.streams.append(_stream_facts(found))
        elif (found := _TURN.match(line)) and facts.streams:
            facts.streams[-1].turn = -float(found[1]) % 360
        elif line.startswith("[info]     Chapter #0:"):
            facts.chapters += 1
        elif found := _TAG.match(line):
            described = facts.streams[-1].metadata if facts.streams else {} if facts.chapters else facts.metadata
            described.setdefault(found[1].lower(), found[2])
    if facts:
        facts.streams.sort(key=lambda stream: stream.index)
    return facts


def _stream_facts(found: re.Match[str]) -> StreamFacts:
    what = found["what"]
    facts = StreamFacts(int(found["index"]), found["kind"], re.split(r"[ ,]", what)[0], found["language"] or "")
    facts.purposes = frozenset(purpose.replace(" ", "_") for purpose in _PURPOSE.findall(what))
    if facts.kind == "Video" and (size := _SIZE.search(what)):
        facts.width, facts.height = int(size[1]), int(size[2])
        if pixels := _FORMAT.search(what[: size.start()]):
            facts.pixel_format, facts.tags = pixels[1], tuple((pixels[2] or "").split(", "))
        facts.still = _STILL in what
        if (rate := _FPS.search(what)) and float(rate[1]):
            facts.rate = exact_rate(Fraction(rate[1]) * (1000 if rate[2] else 1))
    return facts


@cache
def _depths() -> dict[str, int]:
    """Return the bits per channel of each pixel format: the last column of ffmpeg's own list."""
    listed = subprocess.run([str(find_program()), "-hide_banner", "-pix_fmts"], capture_output=True, check=False)
    rows = [line.split() for line in listed.stdout.decode().splitlines()]
    return {row[1]: max(map(int, row[4].split("-"))) for row in rows if len(row) == 5 and row[4][0].isdigit()}


# --- Reading ----------------------------------------------------------------------------------------------------------

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
_LEVELLED = re.compile(r"^(?:\[[^\]]* @ [^\]]*\] )*\[(?:error|fatal)\] (?:Error .*?: )?(?P<text>.*)")


@dataclass(frozen=True)
class _Stamp:
    """What showinfo says of a frame. time_base, rate: of the frames from here on. aspect: 0 where unknown."""

    pts: Optional[int]
    duration: int
    size: tuple[int, int]
    pixel_format: str
    aspect: Fraction
    time_base: Fraction
    rate: Optional[Fraction]


class ProgramSource:
    """A video file, or a stream from a pipe, as LibavSource. Raises ClipError where it holds no video to decode."""

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
        """End the program and let go of the file."""
        if self._program:
            self._program.close()
        self._file.close()

    def shown(self) -> Iterator[Shown]:
        """Yield every frame that can be decoded; then raise ClipError where some could not."""
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
            VideoTrack(
                stream.index, stream.width, stream.height, stream.purposes, int(stream.still), stream.codec != "none"
            )
            for stream in streams.values()
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
            self._program.beside(_feed, self._program.stdin, self._head, self._file)
        return self._next()

    def _arguments(self) -> list[str]:
        unknown, transfer = self._colours
        # By slices, and the packets that are not whole, as LibavSource has them.
        options = [
            "-copyts",
            "-debug_ts",
            "-thread_type",
            "slice",
            *(["-fflags", "+discardcorrupt"] if self._read.missing else []),
        ]
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
        """Return frames per second: the exact one of the stream, or its average where that is another."""
        exact, average = stamp.rate, self._stream.rate
        return (average or exact if self._is_single() or self._is_variable(stamp) else exact) or Fraction(25)

    def _is_single(self) -> bool:
        """Return whether this is a clip of one frame, of which the least distance says nothing."""
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
        return ClipInfo(
            name=self._name,
            size=stamp.size,
            rate=self._rate(stamp),
            time_base=stamp.time_base,
            origin=self._clock.origin if self._clock else Fraction(0),
            duration=self._facts.duration,
            rotation=degrees,
            pixel_aspect=stamp.aspect or Fraction(1),
            variable=self._is_variable(stamp),
            audio=bool(self._facts.audio),
            codec=stream.codec,
            pixel_format=stream.pixel_format,
            bits=_depths().get(stream.pixel_format, 8),
            transfer=transfer,
            notes=tuple(notes),
        )

    # --- Decoding -----------------------------------------------------------------------------------------------------

    def _listen(self, program: Program) -> None:
        """Take what the program says, on a thread of its own: time stamps into a queue, the rest counted."""
        time_base, rate = Fraction(1), None
        begun = colours = False
        for line in program.lines():
            if not line.startswith("[") or line.startswith(
                "[info]  "
            ):  # what the file says of itself, in its own words
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
                self._said = _colours(found[1], found[2])
            elif _DECODED in line:
                begun = True
            elif _REFUSED.search(line):
                self._refused += 1
                self._before_first += not begun
            elif "corrupt decoded frame" in line:
                self._incomplete += 1
            elif found := _SUMS.search(line):
                self._read.packets, self._refused = int(found[1]), int(found[2])
            elif found := _LEVELLED.match(line):
                self._errors.append(found["text"])
                if "Error during demuxing" in line:
                    self._read.broken = in_words(found["text"])
        self._stamps.put(None)

    def _next(self) -> Optional[tuple[_Stamp, np.ndarray]]:
        """Return the next frame as stored; None where none follows."""
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
        """Settle what went wrong, when there is no further frame."""
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


def _read_head(file: Readable) -> bytes:
    pieces, missing = [], _HEAD_BYTES
    while missing and (piece := file.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _feed(stream: IO[bytes], head: bytes, file: Optional[Readable]) -> None:
    """Send the beginning of a pipe and then the rest of it to the program, as long as it takes any."""
    with contextlib.suppress(OSError, ValueError), stream:
        _write_all(stream, head)
        while file and (piece := file.read(1 << 16)):
            _write_all(stream, piece)


def _write_all(stream: IO[bytes], data: Union[bytes, memoryview]) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        view = view[stream.write(view) :]


# --- Writing ----------------------------------------------------------------------------------------------------------

_NANOSECONDS = 1_000_000_000  # the unit in Matroska here, much finer than any tick
# What raw video is called in Matroska: the fourcc that FFmpeg has for each layout.
_FOURCC = {"rgb24": b"RGB\x18", "gray16le": b"Y1\x00\x10", "yuv420p10le": b"Y3\x0b\x0a", "yuv422p10le": b"Y3\x0a\x0a"}
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


@dataclass(frozen=True)
class Track:
    """What is encoded. shape: (height, width). scale: ticks per second. start: of the first frame, in the clip."""

    encoding: Encoding
    shape: tuple[int, int]
    scale: int
    rate: Fraction
    pixel_aspect: Fraction
    comment: str
    along: Optional[Along]
    start: Fraction


class ProgramEncoder:
    """One video stream, and what goes along with it, written to one file.

    name: the file that the user asked for. notes: gets what could not be kept.
    """

    def __init__(self, path: Path, name: Path, track: Track, notes: list[str]) -> None:
        self._path, self._name, self._track, self._notes = path, name, track, notes
        self._said: deque[str] = deque(maxlen=50)
        source, maps = _extras(track, track.along, notes) if track.along else ([], [])
        self._program = Program(_encoder(path, track, source, maps), stdin=True)
        self._program.beside(self._listen, self._program)
        try:
            self._send(_matroska_head(_layout(track.encoding), track.shape, track.rate))
        except BaseException:
            self.close()
            raise

    def encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        """Take the next frame: (H, W, 3) uint8, or (H, W) uint16 gray; its time stamp and duration in ticks."""
        planes = [pixels] if self._track.encoding.lo is None else _planes(pixels, self._track.encoding)
        data = [np.ascontiguousarray(plane).data.cast("B") for plane in planes]
        start, length = (round(Fraction(t * _NANOSECONDS, self._track.scale)) for t in (ticks, duration))
        self._send(_matroska_frame(start, length, sum(map(len, data))), *data)

    def finish(self) -> None:
        """Wait until the file is whole. Raises OSError where the disk keeps it from that, else OutputError."""
        with contextlib.suppress(OSError):
            self._program.stdin.close()
        if self._program.wait():
            raise self._failure()
        for line in self._said:
            if found := re.search(r"\[in#1.*Error during demuxing: (.*)", line):
                self._notes.append(f"the sound ends early: {found[1]}")

    def close(self) -> None:
        """End the program, also in the middle."""
        self._program.close()

    def _send(self, *pieces: Union[bytes, memoryview]) -> None:
        try:
            for piece in pieces:
                _write_all(self._program.stdin, piece)
        except OSError:  # it has gone
            self._program.wait()
            raise self._failure() from None

    def _listen(self, program: Program) -> None:
        self._said.extend(line for line in program.lines() if "[error]" in line or "[fatal]" in line)

    def _failure(self) -> Exception:
        for number in _OF_THE_DISK:
            if any(os.strerror(number) in line for line in self._said):
                return OSError(number, os.strerror(number))
        texts = [found["text"] for line in self._said if (found := _LEVELLED.match(line))]
        reason = (texts[0] if texts else "ffmpeg ended").replace(file_url(self._path), "the file")
        return OutputError(f"cannot write {self._name}: {reason.replace(str(self._path), 'the file')}")


def _layout(encoding: Encoding) -> str:
    """Return the layout of frames for the program: colour is converted by it, gray comes as it is to be stored."""
    return "rgb24" if encoding.lo is None else encoding.pixel_format


def _encoder(path: Path, track: Track, source: list[str], maps: list[str]) -> list[str]:
    encoding = track.encoding
    span = "pc" if encoding.full else "tv"
    filters = [f"setparams=range={span}:colorspace=bt709:color_primaries=bt709:color_trc=bt709"]
    if encoding.lo is None:
        scale = f"scale=out_color_matrix=bt709:out_range={span}:flags=bilinear"
        filters = [scale, f"format={encoding.pixel_format}", *filters]
    if track.pixel_aspect != 1:
        filters.append(f"setsar={track.pixel_aspect.numerator}/{track.pixel_aspect.denominator}")
    return [
        *("-copyts", "-fpsprobesize", "0", "-f", "matroska", "-i", "pipe:0", *source),
        *("-map", "0:v:0", "-disposition:v:0", "default", "-map_chapters", "-1", *maps),
        # Not all at once, as that would take the names of chapters.
        *("-map_metadata:g", "-1", "-map_metadata:s", "-1"),
        *("-metadata", f"comment={track.comment}"),
        *("-vf", ",".join(filters), "-fps_mode", "passthrough", "-enc_time_base:v", f"1:{track.scale}"),
        *("-c:v", encoding.codec, "-threads:v", str(encoding.threads)),
        *(part for key, value in encoding.options for part in (f"-{key}:v", value)),
        *(("-tag:v", encoding.tag) if encoding.tag else ()),
        *("-flags:v", "+bitexact", "-fflags", "+bitexact"),
        *(part for key, value in encoding.muxer for part in (f"-{key}", value)),
        *("-f", encoding.container, "-y", file_url(path)),
    ]


def _planes(gray: np.ndarray, encoding: Encoding) -> list[np.ndarray]:
    """Return the planes of a gray frame: the codes, and chroma that says nothing where the layout has it."""
    planes = [encoding.codes(gray)]
    if encoding.pixel_format.startswith("yuv"):
        (height, width), (across, down) = gray.shape, encoding.even
        planes += [np.full((height // down, width // across), encoding.no_colour, "<u2")] * 2
    return planes


def _extras(track: Track, along: Along, notes: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments that open the clip, and those that keep of it what the container takes."""
    facts = describe_file(along.path)
    if facts is None:
        notes.append("sound, subtitles and timecode were left out, as the clip cannot be read again")
        return [], []
    container, said, parts = track.encoding.container, list(notes), set()
    # Sound of a broadcast is put into another form, which ends the program at the first packet that is damaged.
    broadcast = facts.container.startswith("[info] Input #0, mpegts,")
    maps: list[str] = []
    counts = {"Audio": 0, "Subtitle": 0}
    for stream in facts.streams:
        letter, kind = stream.kind[0].lower(), stream.kind.lower()
        if stream.kind not in counts:
            said.extend(_left_out(stream, facts))
        elif not along.whole:
            parts.add(kind)
        elif not _holds(container, along.path, stream.index, letter):
            said.append(cannot_hold(container, stream.codec, kind))
        elif broadcast and not _holds(container, along.path, stream.index, letter, whole=True):
            said.append(f"a track of damaged {stream.codec} {kind} was left out, as PyAV is not there")
        else:
            maps += ["-map", f"1:{stream.index}"]
            title = stream.metadata.get("title") or stream.metadata.get("name", "")
            for key, value in (("language", stream.language), ("title", title)):
                if value:
                    maps += [f"-metadata:s:{letter}:{counts[stream.kind]}", f"{key}={value}"]
            counts[stream.kind] += 1
    if counts["Audio"]:
        maps += ["-c:a", "copy"]
    if counts["Subtitle"]:
        maps += ["-c:s", "copy"]
    if facts.chapters and along.whole:
        maps += ["-map_chapters", "1"]
    elif facts.chapters:
        said.append("the chapters of a part of a clip were left out, as PyAV is not there")
    for key, value in descriptive(facts.metadata).items():
        maps += ["-metadata", f"{key}={value}"]
    every = [facts.metadata, *(stream.metadata for stream in facts.streams)]
    if timecode := next((tags["timecode"] for tags in every if "timecode" in tags), ""):
        rates = [stream.rate for stream in facts.videos if "attached_pic" not in stream.purposes]
        rate = next(filter(None, rates), track.rate)
        if ours := timecode_at(timecode, rate, track.start, track.rate):
            maps += ["-metadata:s:v:0", f"timecode={ours}"]
        else:
            said.append(f"the timecode {timecode} was left out: it does not fit the rate of the frames")
    notes[:] = dict.fromkeys([*said, *filter(None, [of_a_part(parts)])])
    if not {"-map", "-map_chapters"} & set(maps):
        return [], maps
    # In microseconds, in which ffmpeg counts.
    return input_of(along.path, "-itsoffset", f"{round(-along.origin * 1_000_000)}us"), maps


def _left_out(stream: StreamFacts, facts: FileFacts) -> list[str]:
    """Return the note for a stream that is neither sound nor subtitles, if it is not known otherwise."""
    if stream.kind == "Video":
        return ["the cover picture was left out"] * ("attached_pic" in stream.purposes)
    if "timecode" in stream.metadata or (facts.chapters and stream.codec == "bin_data"):
        return []
    what = "attachment" if stream.kind == "Attachment" else "data stream"
    name = stream.metadata.get("filename") or stream.metadata.get("handler_name") or f"{stream.index}"
    return [f"the {what} {printable(name)} was left out"]


def _holds(container: str, path: Path, number: int, kind: str, whole: bool = False) -> bool:
    """Return whether a container takes the first packet of a stream, or all, by trying: some list more than they do."""
    copied = [
        "-map",
        f"0:{number}",
        "-c",
        "copy",
        *(() if whole else (f"-frames:{kind}", "1")),
        "-f",
        container,
        "-y",
        file_url(Path(os.devnull)),
    ]
    program = Program([*input_of(path), *copied])
    try:
        program.beside(deque, program.lines(), 0)
        return program.wait() == 0
    finally:
        program.close()


# Matroska (RFC 9559) of one track: an element is its number, its length in 8 bytes, and what is in it.


def _element(number: str, content: bytes, more: int = 0) -> bytes:
    """Return an element; `more` bytes of it follow."""
    return bytes.fromhex(number) + (len(content) + more | 1 << 56).to_bytes(8, "big") + content


def _unsigned(number: str, value: int) -> bytes:
    return _element(number, value.to_bytes(8, "big"))


def _matroska_head(layout: str, shape: tuple[int, int], rate: Fraction) -> bytes:
    picture = _unsigned("B0", shape[1]) + _unsigned("BA", shape[0]) + _element("2EB524", _FOURCC[layout])
    track = [
        *(_unsigned("D7", 1), _unsigned("73C5", 1), _unsigned("83", 1), _element("86", b"V_UNCOMPRESSED")),
        *(_unsigned("23E383", round(_NANOSECONDS / rate)), _element("E0", picture)),
    ]
    unit = _unsigned("2AD7B1", 1)  # nanoseconds
    segment = bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7  # of unknown length
    header = _element("1A45DFA3", _element("4282", b"matroska"))
    return header + segment + _element("1549A966", unit) + _element("1654AE6B", _element("AE", b"".join(track)))


def _matroska_frame(start: int, duration: int, length: int) -> bytes:
    """Return what stands in front of the pixels of a frame: a cluster with nothing else."""
    block = _element("A1", b"\x81\x00\x00\x00", length)  # of track 1, 0 units after its cluster, no flags
    group = _element("A0", _unsigned("9B", duration) + block, length)
    return _element("1F43B675", _unsigned("E7", start) + group, length)
