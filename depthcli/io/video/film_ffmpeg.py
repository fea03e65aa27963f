"""Write films through the program ffmpeg, used without PyAV.

Frames are piped as raw video in Matroska, which adds only a time stamp to each and so keeps a variable rate.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Optional, Union

import numpy as np

from depthcli.errors import OutputError
from depthcli.io.names import printable
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.encodings import Encoding
from depthcli.io.video.extras import Along, cannot_hold, descriptive, of_a_part, timecode_at
from depthcli.io.video.ffmpeg_program import (
    ERROR_LINE,
    FileFacts,
    Program,
    StreamFacts,
    describe_file,
    file_url,
    input_of,
    write_all,
)
from depthcli.io.video.film import FilmWriter, stereo_mode

_NANOSECONDS = 1_000_000_000  # the unit in Matroska here, much finer than any tick
# What raw video is called in Matroska: the fourcc that FFmpeg has for each layout.
_FOURCC = {"rgb24": b"RGB\x18", "gray16le": b"Y1\x00\x10", "yuv420p10le": b"Y3\x0b\x0a", "yuv422p10le": b"Y3\x0a\x0a"}
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


class ProgramFilm(FilmWriter):
    """Writes a film through the program."""

    def __init__(self, output: ClipOutput, encoding: Encoding, partial: Path) -> None:
        super().__init__(output, encoding, partial)
        self._errors: deque[str] = deque(maxlen=50)
        self._program: Optional[Program] = None

    def _begin(self, start: Fraction) -> None:
        along = self._output.along
        source, maps = _extras(along, self._encoding.container, start, self.notes) if along else ([], [])
        self._program = Program(self._arguments(source, maps), stdin=True)
        self._program.beside(self._listen, self._program)
        self._send(_matroska_head(_layout(self._encoding), self.shape, self._output.timing.rate))

    def _encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        planes = [pixels] if self._encoding.lo is None else _planes(pixels, self._encoding)
        data = [np.ascontiguousarray(plane).data.cast("B") for plane in planes]
        start, length = (round(Fraction(t * _NANOSECONDS, self._stamps.scale)) for t in (ticks, duration))
        self._send(_matroska_frame(start, length, sum(map(len, data))), *data)

    def finish(self) -> None:
        """See FilmWriter. Raises OSError if the disk keeps the film from being written, else OutputError."""
        assert self._program is not None
        with contextlib.suppress(OSError):
            self._program.stdin.close()
        if self._program.wait():
            raise self._failure()
        for line in self._errors:
            if found := re.search(r"\[in#1.*Error during demuxing: (.*)", line):
                self.notes.append(f"the sound ends early: {found[1]}")

    def close(self) -> None:
        """See FilmWriter."""
        if self._program:
            self._program.close()

    def _send(self, *pieces: Union[bytes, memoryview]) -> None:
        assert self._program is not None
        try:
            for piece in pieces:
                write_all(self._program.stdin, piece)
        except OSError:  # the program has ended
            self._program.wait()
            raise self._failure() from None

    def _listen(self, program: Program) -> None:
        self._errors.extend(line for line in program.lines() if "[error]" in line or "[fatal]" in line)

    def _failure(self) -> Exception:
        for number in _OF_THE_DISK:
            if any(os.strerror(number) in line for line in self._errors):
                return OSError(number, os.strerror(number))
        texts = [found["text"] for line in self._errors if (found := ERROR_LINE.match(line))]
        reason = (texts[0] if texts else "ffmpeg ended").replace(file_url(self._partial), "the file")
        return OutputError(f"cannot write {self._output.path}: {reason.replace(str(self._partial), 'the file')}")

    def _arguments(self, source: list[str], maps: list[str]) -> list[str]:
        encoding, aspect = self._encoding, self._output.pixel_aspect
        span = "pc" if encoding.full else "tv"
        mode = stereo_mode(self._output, encoding, self.notes)
        filters = [f"setparams=range={span}:colorspace=bt709:color_primaries=bt709:color_trc=bt709"]
        if encoding.lo is None:
            scale = f"scale=out_color_matrix=bt709:out_range={span}:flags=bilinear"
            filters = [scale, f"format={encoding.pixel_format}", *filters]
        if aspect != 1:
            filters.append(f"setsar={aspect.numerator}/{aspect.denominator}")
        return [
            *("-copyts", "-fpsprobesize", "0", "-f", "matroska", "-i", "pipe:0", *source),
            *("-map", "0:v:0", "-disposition:v:0", "default", "-map_chapters", "-1", *maps),
            # Not all at once, as that would take the names of chapters.
            *("-map_metadata:g", "-1", "-map_metadata:s", "-1"),
            *("-metadata", f"comment={self._comment}"),
            *(("-metadata:s:v:0", f"stereo_mode={mode}") if mode else ()),
            *("-vf", ",".join(filters), "-fps_mode", "passthrough", "-enc_time_base:v", f"1:{self._stamps.scale}"),
            *("-c:v", encoding.codec, "-threads:v", str(encoding.threads)),
            *(part for key, value in encoding.options for part in (f"-{key}:v", value)),
            *(("-tag:v", encoding.tag) if encoding.tag else ()),
            *("-flags:v", "+bitexact", "-fflags", "+bitexact"),
            *(part for key, value in encoding.muxer for part in (f"-{key}", value)),
            *("-f", encoding.container, "-y", file_url(self._partial)),
        ]


def _layout(encoding: Encoding) -> str:
    """Return the layout of frames for the program: colour is converted by it, gray comes as it is to be stored."""
    return "rgb24" if encoding.lo is None else encoding.pixel_format


def _planes(gray: np.ndarray, encoding: Encoding) -> list[np.ndarray]:
    """Return the planes of a gray frame: the codes, and neutral chroma if the layout has it."""
    planes = [encoding.codes(gray)]
    if encoding.pixel_format.startswith("yuv"):
        (height, width), (across, down) = gray.shape, encoding.even
        planes += [np.full((height // down, width // across), encoding.no_colour, "<u2")] * 2
    return planes


def _extras(along: Along, container: str, start: Fraction, notes: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments that open the clip, and those that copy what the container can hold.

    start: of the first frame, in seconds of the clip. notes: gets what is left out.
    """
    facts = describe_file(along.path)
    if facts is None:
        notes.append("sound, subtitles and timecode were left out, as the clip cannot be read again")
        return [], []
    left_out, parts = list(notes), set()
    # Sound of a broadcast is put into another form, which ends the program at the first packet that is damaged.
    broadcast = facts.container.startswith("[info] Input #0, mpegts,")
    maps: list[str] = []
    counts = {"Audio": 0, "Subtitle": 0}
    for stream in facts.streams:
        letter, kind = stream.kind[0].lower(), stream.kind.lower()
        if stream.kind not in counts:
            left_out.extend(_left_out(stream, facts))
        elif not along.whole:
            parts.add(kind)
        elif not _holds(container, along.path, stream.index, letter):
            left_out.append(cannot_hold(container, stream.codec, kind))
        elif broadcast and not _holds(container, along.path, stream.index, letter, whole=True):
            left_out.append(f"a track of damaged {stream.codec} {kind} was left out, as PyAV is not there")
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
        left_out.append("the chapters of a part of a clip were left out, as PyAV is not there")
    for key, value in descriptive(facts.metadata).items():
        maps += ["-metadata", f"{key}={value}"]
    every = [facts.metadata, *(stream.metadata for stream in facts.streams)]
    if timecode := next((tags["timecode"] for tags in every if "timecode" in tags), ""):
        rates = [stream.rate for stream in facts.videos if "attached_pic" not in stream.purposes]
        rate = next(filter(None, rates), along.rate)
        if ours := timecode_at(timecode, rate, start, along.rate):
            maps += ["-metadata:s:v:0", f"timecode={ours}"]
        else:
            left_out.append(f"the timecode {timecode} was left out: it does not fit the rate of the frames")
    notes[:] = dict.fromkeys([*left_out, *filter(None, [of_a_part(parts)])])
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
    part = () if whole else (f"-frames:{kind}", "1")
    copied = ("-map", f"0:{number}", "-c", "copy", *part, "-f", container, "-y", file_url(Path(os.devnull)))
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
