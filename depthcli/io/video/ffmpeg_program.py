"""Run the program ffmpeg, used without PyAV, and read its descriptions of files.

The program is that of imageio-ffmpeg, or of IMAGEIO_FFMPEG_EXE. Without ffprobe, facts are read from its messages, each
with its level in front. A run without an output ends with the description of the input: streams, sizes, codecs, tags
and turns; rates are rounded to two decimals and seconds to a hundredth.

It runs in its own process group, because Ctrl-C is for us to handle. Its pipes end it if this process dies.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO, Any, Optional, Union

from depthcli.errors import ClipError
from depthcli.io.pictures.images import printable
from depthcli.io.video.clip import exact_rate
from depthcli.io.video.libav import CONTAINERS, Readable

_SPEAK = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+verbose")
# Transfer characteristics, as ffmpeg names those of TRANSFERS.
_TRANSFERS = {"smpte2084": "pq", "arib-std-b67": "hlg"}


@cache
def find_program() -> Optional[str]:
    """Return the path of ffmpeg, None if there is none. Options used here are those of 5.1 and later."""
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
            # it reports what happened instead of vanishing.
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
        """Yield its messages, line by line."""
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
        """Return its exit code when it has ended and all messages were read."""
        code = self.process.wait()
        self._threads[0].join()
        return code

    def close(self) -> None:
        """End it, and close its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(1)  # one may wait for ever for a pipe that is not ours
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


# --- Descriptions of files --------------------------------------------------------------------------------------------

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
ERROR_LINE = re.compile(r"^(?:\[[^\]]* @ [^\]]*\] )*\[(?:error|fatal)\] (?:Error .*?: )?(?P<text>.*)")
_TAG = re.compile(r"\[info\] {5,9}([\w.-]+) *: (.*)")
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
        return colours_of(names[0], names[-1])


# What else may stand in the brackets behind a pixel format: ranges, orders of fields, places of chroma.
_NO_COLOURS = frozenset(
    "tv,pc,progressive,top first,bottom first,top coded first (swapped),bottom coded first (swapped),"
    "left,center,topleft,top,bottomleft,bottom".split(",")
)


def colours_of(matrix: str, transfer: str) -> tuple[bool, str]:
    """Return whether the matrix is unknown, and the transfer: "sdr", "pq" or "hlg"."""
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
    """Return what a file, or the beginning of a pipe, holds; None if ffmpeg cannot tell."""
    program = Program(input_of(path), stdin=path is None)
    try:
        if path is None:
            program.beside(feed, program.stdin, head, None)
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


def feed(stream: IO[bytes], head: bytes, file: Optional[Readable]) -> None:
    """Send the beginning of a pipe and then the rest of it to the program, as long as it takes any."""
    with contextlib.suppress(OSError, ValueError), stream:
        write_all(stream, head)
        while file and (piece := file.read(1 << 16)):
            write_all(stream, piece)


def write_all(stream: IO[bytes], data: Union[bytes, memoryview]) -> None:
    """Write all bytes to an unbuffered stream."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[stream.write(view) :]
