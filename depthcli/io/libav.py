"""Video files and piped streams, decoded by the libraries of FFmpeg through PyAV."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Optional, Protocol

import numpy as np

from depthcli.errors import ClipError, DepthError, first_line
from depthcli.io.clip import ClipInfo, Shown
from depthcli.io.images import MAX_PIXELS, printable
from depthcli.io.tonemap import TRANSFERS, to_sdr

# What may open a file. An explicit list, as libav takes a text file for a terminal recording, and a playlist for leave
# to open whatever file or address stands in it. Those with sound only are here to be told from files that are neither.
CONTAINERS = (
    "apng,asf,av1,avi,dv,evc,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,swf,vc1,vvc,webm,wtv,yuv4mpegpipe,aac,ac3,aiff,amr,flac,mp3,wav"
)
_READ_BYTES = 1 << 18
READABLE = "mp4, mov, mkv, webm, avi and other video files can be read"

# Matrices of ITU-T H.273 that turn YUV into RGB, as libav numbers them.
BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
LIMITED, FULL = 1, 2  # ranges, as libav numbers them
# What has no matrix in its header is BT.709 from this height on, as players have it; HD is 720 lines and more.
HD_HEIGHT = 600
# Of jumps back in time: more than this is a clock that starts again, less is disorder.
_RESTART = Fraction(1)


class Readable(Protocol):
    """What libav reads from: a file, or a pipe that has no more than this."""

    def read(self, count: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""

    def close(self) -> None:
        """Let go of it."""


def has_av() -> bool:
    """Return whether the module av can be imported. Where it cannot, `io/ffmpeg_program.py` takes its place."""
    try:
        load_av()
    except DepthError:
        return False
    return True


def load_av() -> Any:
    """Return the module av. Raises DepthError where it cannot be imported."""
    try:
        import av
    except ImportError as error:
        raise DepthError(
            f"video needs PyAV or imageio-ffmpeg, and neither can be loaded: {first_line(error)}",
            "pip install av, or imageio-ffmpeg where av has no wheel; a folder of frames and raw RGB work without them",
        ) from error
    av.logging.set_level(None)  # what libav says of a file goes into the errors and not onto the terminal
    return av


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise ClipError where a header claims more pixels than may be."""
    if width * height > max_pixels:
        megapixels = f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        reason = f"is too large: {width}x{height} pixels ({megapixels})"
        raise ClipError(f"{name} {reason}", "make it smaller first")


def open_container(av: Any, file: Readable) -> Any:
    """Return the open container of a file that stays open as long. Raises what PyAV raises."""
    # Not as `options`, which PyAV 15 hands to streams too, and crashes where these are found while reading.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    # Text that is not UTF-8 would fail a clip before PyAV 19, which no longer takes the option.
    text = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(file, container_options=options, buffer_size=_READ_BYTES, **text)


class LibavSource:
    """A video file, or a stream from a pipe. Raises ClipError where it holds no video that can be decoded."""

    def __init__(self, file: Readable, name: str, path: Optional[Path] = None, max_pixels: int = MAX_PIXELS) -> None:
        self._name = name
        self._read = Damage(missing=missing_bytes(path) if path else 0)
        self._stack = contextlib.ExitStack()
        self._stack.callback(file.close)
        try:
            self._av = load_av()
            self._errors = (self._av.FFmpegError, OSError, ValueError, EOFError)
            self._container = self._open(file)
            self._stack.callback(self._container.close)
            self._stream = self._best_stream()
            context = self._stream.codec_context
            check_size(self._name, context.width, context.height, max_pixels)
            # Not by frames: HEVC that is damaged can then wait for ever for a frame that never comes.
            self._stream.thread_type = "SLICE"
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise self._nothing()
            self._turn = _turn(self._first)
            self._transfer = TRANSFERS.get(int(self._stream.codec_context.color_trc), "sdr")
            self._clock = Clock(self._first, *self._rate())
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file and of the decoder, whose threads live as long as anything refers to it."""
        self._frames, self._first = iter(()), None
        self._stream = self._container = None
        self._stack.close()

    def shown(self) -> Iterator[Shown]:
        """Yield every frame that can be decoded; then raise ClipError where some could not."""
        first, self._first = self._first, None
        if first is not None:
            yield self._shown(first)
            del first
            for frame in self._frames:
                yield self._shown(frame)
        self._read.complain(self._name)

    def _shown(self, frame: Any) -> Shown:
        time, duration = self._clock.place(frame)
        return Shown(time, duration, lambda: self._to_rgb(frame))

    # --- Opening ------------------------------------------------------------------------------------------------------

    def _open(self, file: Readable) -> Any:
        try:
            return open_container(self._av, file)
        except self._errors as error:
            if self._read.missing:
                reason = "is truncated: it ends before the table of its frames does"
                raise ClipError(f"{self._name} {reason}", "copy or download it again") from error
            raise ClipError(f"{self._name} is no video, or none that can be read", READABLE) from error

    def _best_stream(self) -> Any:
        """Return the video stream with the most pixels, the first of several such."""
        streams = _videos(self._container)
        if not streams:
            what = "sound and no video" if self._container.streams.audio else "no video"
            raise ClipError(f"{self._name} holds {what}", READABLE)
        return max(streams, key=lambda stream: stream.codec_context.width * stream.codec_context.height)

    def _nothing(self) -> ClipError:
        codec = self._stream.codec_context.name
        return ClipError(
            f"{self._name} {self._read.reason() or f'holds {codec} video of which no frame can be decoded'}",
            "copy or download it again",
        )

    def _rate(self) -> tuple[Fraction, Fraction]:
        """Return (frames per second, unit of the time stamps)."""
        guessed, average = self._stream.guessed_rate, self._stream.average_rate
        rate = average if self._is_variable() or self._stream.frames == 1 else guessed or average
        return Fraction(rate or 25), Fraction(self._stream.time_base or 1 / Fraction(rate or 25))

    def _is_variable(self) -> bool:
        """Return whether the least distance of two frames, by the index, is not their average one."""
        guessed, average = self._stream.guessed_rate, self._stream.average_rate
        return bool(guessed and average and self._stream.frames != 1 and abs(guessed / average - 1) > 0.01)

    def _describe(self, first: Any) -> ClipInfo:
        stream, context = self._stream, self._stream.codec_context
        rate, time_base = self._rate()
        sideways = self._turn.sideways
        aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1) or Fraction(1)
        duration = None
        if stream.duration is not None:
            duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            duration = self._container.duration / self._av.time_base
        notes = []
        if (videos := len(_videos(self._container))) > 1:
            notes.append(f"stream {stream.index}, the largest of {videos} with video")
        if self._turn:
            notes.append(self._turn.note)
        if self._transfer != "sdr":
            notes.append(f"HDR ({self._transfer.upper()}) tone-mapped to BT.709")
        if self._read.damaged:
            notes.append(f"{self._read.damaged} damaged packets before the first frame passed over")
            self._read.damaged = 0
        return ClipInfo(
            name=self._name,
            size=(first.height, first.width) if sideways else (first.width, first.height),
            rate=rate,
            time_base=time_base,
            origin=self._clock.origin,
            frames=stream.frames or None,
            duration=duration,
            rotation=self._turn.degrees,
            pixel_aspect=1 / aspect if sideways else aspect,
            variable=self._is_variable(),
            audio=bool(self._container.streams.audio),
            codec=context.name,
            pixel_format=first.format.name,
            bits=max(component.bits for component in first.format.components),
            transfer=self._transfer,
            notes=tuple(notes),
        )

    # --- Decoding -----------------------------------------------------------------------------------------------------

    def _decode(self) -> Iterator[Any]:
        """Yield the decoded frames, past packets that are damaged; what went wrong is counted."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors as error:
                self._read.broken = first_line(error)
                packet = None
            # The half of a frame at the end of a file. Elsewhere it is but a warning, as where recordings were joined.
            if packet is not None and packet.is_corrupt and self._read.missing:
                self._read.damaged += 1
                continue
            self._read.packets += packet is not None and packet.size > 0 and not packet.is_discard
            try:
                frames = self._stream.codec_context.decode(packet)
            except EOFError:
                return
            except self._errors:
                self._read.damaged += 1
                frames = []
            for frame in frames:
                self._read.decoded += 1
                self._read.incomplete += frame.is_corrupt  # the decoder filled in what is missing from the frame before
                yield frame
            if packet is None or (packet.dts is None and packet.size == 0):
                return

    def _to_rgb(self, frame: Any) -> np.ndarray:
        deep = self._transfer != "sdr"
        matrix = int(frame.colorspace)
        if matrix == _UNSPECIFIED:
            matrix = BT709 if frame.height >= HD_HEIGHT else _BT601
        target = "rgb48le" if deep else "rgb24"
        if frame.format.is_rgb or frame.format.has_palette:
            rgb = frame.reformat(format=target).to_ndarray()
        else:
            full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
            # The range of RGB has no meaning, but PyAV 15 heeds matrix and range only where the two ranges differ.
            source, other = (FULL, LIMITED) if full else (LIMITED, FULL)
            rgb = frame.reformat(
                format=target, src_colorspace=matrix, src_color_range=source, dst_color_range=other
            ).to_ndarray()
        return self._turn.apply(to_sdr(rgb, self._transfer) if deep else rgb)


@dataclass
class Damage:
    """What went wrong with a clip while it was read.

    missing: bytes that its headers speak of and that are not there. packets, decoded: how many went into the decoder,
    and how many frames came out. damaged: packets that it refused. incomplete: frames that it says it mended. broken:
    what ended the reading too soon.
    """

    missing: int = 0
    packets: int = 0
    decoded: int = 0
    damaged: int = 0
    incomplete: int = 0
    broken: str = ""

    def reason(self) -> str:
        """Return what is wrong with the clip, empty where nothing is. Known when the last frame was decoded."""
        if self.missing:
            return f"is truncated: its last {self.missing} bytes are missing"
        if self.broken:
            return f"is damaged: {printable(self.broken)[:100]}"
        if self.damaged:
            return f"is damaged: {self.damaged} packet{'s' * (self.damaged != 1)} could not be decoded"
        if self.incomplete:
            return f"is damaged: {self.incomplete} frame{'s' * (self.incomplete != 1)} came incomplete"
        # Some decoders pass over what is damaged without a word. Half as many frames as packets can be in order, where
        # each packet is one field of an interlaced frame.
        if 0 < 2 * self.decoded < self.packets:
            return f"is damaged: most of its {self.packets} packets could not be decoded"
        return ""

    def complain(self, name: str) -> None:
        """Raise ClipError where something is wrong."""
        reason, count = self.reason(), self.decoded
        if reason:
            message = f"{name} {reason}; {count} frame{'s' * (count != 1)} could be read"
            raise ClipError(message, "copy or download it again", count)


class Clock:
    """Time stamps as they should be: seconds since the first frame, each later than the one before.

    A frame with no time stamp comes one period after the one before it. A time stamp that does not go on (repeated, or
    a little back) becomes the least that does. One that goes back by more than a second is a clock that started again,
    which goes on one period after the frame before.
    """

    def __init__(self, first: Any, rate: Fraction, time_base: Fraction) -> None:
        self._period, self._tick = 1 / rate, time_base
        self.origin = self._stamp(first) or Fraction(0)
        self._zero = self.origin
        self._last: Optional[Fraction] = None

    def place(self, frame: Any) -> tuple[Fraction, Fraction]:
        """Return when a frame is shown and for how long."""
        stamp, last = self._stamp(frame), self._last
        if last is None:
            time = Fraction(0)
        elif stamp is None:
            time = last + self._period
        else:
            time = stamp - self._zero
            if last - time > _RESTART:
                time = last + self._period
                self._zero = stamp - time
            elif time <= last:
                time = last + self._tick
        self._last = time
        duration = getattr(frame, "duration", None)  # which PyAV 14 does not tell
        return time, duration * (frame.time_base or self._tick) if duration else self._period

    def _stamp(self, frame: Any) -> Optional[Fraction]:
        return None if frame.pts is None else Fraction(frame.pts * (frame.time_base or self._tick))


class _Turn:
    """What makes a frame upright: the display matrix that cameras write, rounded to right angles."""

    def __init__(self, matrix: tuple[int, ...]) -> None:
        a, b, c, d = matrix  # x' = a x + c y, y' = b x + d y, both in pixels to the right and down
        self.sideways = abs(b) + abs(c) > abs(a) + abs(d)
        self.flip_columns, self.flip_rows = (c < 0, b < 0) if self.sideways else (a < 0, d < 0)
        mirrored = (self.flip_columns == self.flip_rows) if self.sideways else (self.flip_columns != self.flip_rows)
        if mirrored:
            self.degrees, self.note = 0, "mirrored as its header says"
        else:
            self.degrees = (270 if self.flip_rows else 90) if self.sideways else 180 * self.flip_rows
            self.note = f"turned by {self.degrees}° as its header says"

    def __bool__(self) -> bool:
        return self.sideways or self.flip_columns or self.flip_rows

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        rgb = rgb.transpose(1, 0, 2) if self.sideways else rgb
        rgb = rgb[:, ::-1] if self.flip_columns else rgb
        return np.ascontiguousarray(rgb[::-1] if self.flip_rows else rgb)


def _turn(frame: Any) -> _Turn:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _Turn((1, 0, 0, 1))
    m = struct.unpack("=9i", bytes(data)[:36])
    return _Turn((m[0], m[1], m[3], m[4]))


def _videos(container: Any) -> list[Any]:
    """Return the streams with video that can be decoded, but the cover of a song."""
    videos = (stream for stream in container.streams.video if stream.codec_context)
    return [stream for stream in videos if "ATTACHED_PIC" not in str(stream.disposition).upper()]


# --- Truncation -------------------------------------------------------------------------------------------------------


def missing_bytes(path: Path) -> int:
    """Return how many bytes an MP4, Matroska or AVI file lacks at its end, by what its own headers say.

    0 for a whole file, and where that cannot be told. Decoders take the end of the file for the end of the clip.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(12)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
                end = _end_of_boxes(file, size)
            elif head[:4] == b"\x1aE\xdf\xa3":
                end = _end_of_segment(file)
            elif head[:4] == b"RIFF" and size < 1 << 30:  # larger ones go on in further RIFFs, which older tools forget
                end = 8 + int.from_bytes(head[4:8], "little")
            else:
                end = 0
    except OSError:
        return 0
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last top-level box of an MP4 file ends: its length and kind come first, 4 bytes each."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # it did not fit into 4 bytes
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return size
        position += length
    return position


def _end_of_segment(file: BinaryIO) -> int:
    """Return where the segment of a Matroska file ends, which holds all but a header; 0 where it does not say."""
    file.seek(4)
    length = _ebml_length(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_length(file)
    return 0 if length is None else file.tell() + length


def _ebml_length(file: BinaryIO) -> Optional[int]:
    """Read a length as EBML has it: as many further bytes as the first has leading zeros; all ones are "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    further = 8 - first[0].bit_length()
    bits = 7 * (further + 1)
    value = int.from_bytes(first + file.read(further), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
