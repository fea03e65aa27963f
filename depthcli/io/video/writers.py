"""Clips out: one row per format, and one way to write any of them, frame by frame.

    with video_writer("mp4", path, size, Timing.of(clip.info, selection), facts) as writer:
        for frame in ...:
            writer.write(pixels, frame.time)

What is given to a writer is ready: colours, codes or numbers. The same frames give the same bytes, whatever the number
of cores and the day, so that a job that was interrupted ends with the files of one that was not.
"""

from __future__ import annotations

import errno
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO, Callable, Optional, Protocol

import numpy as np

from depthcli.errors import OutputError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.depth_files import TEXT_KEY, write_arrays, write_png
from depthcli.io.codecs.exr import write_exr
from depthcli.io.video.clip import ClipInfo, Selection
from depthcli.io.video.encodings import FFV1, H264, HEVC10, PRORES, Encoding, Stamps, padded
from depthcli.io.video.extras import Along, Extras
from depthcli.io.video.ffmpeg_program import ProgramEncoder, Track, find_program
from depthcli.io.video.libav import BT709, FULL, LIMITED, has_av, load_av, reason_of

# What a writer takes: its dtype and its axes behind the height and the width.
COLOR, GRAY16, VALUES = "color", "gray16", "values"
_TAKES: dict[str, tuple[type, tuple[int, ...]]] = {
    COLOR: (np.uint8, (3,)),
    GRAY16: (np.uint16, ()),
    VALUES: (np.float32, ()),
}


@dataclass(frozen=True)
class Timing:
    """When frames are shown.

    rate: frames per second, exact; the average where it varies. time_base: the unit in which the time stamps were
    given, in seconds. origin: what time 0 is on the clock of the clip, which its sound follows, in seconds.
    """

    rate: Fraction
    time_base: Fraction
    origin: Fraction = Fraction(0)

    @classmethod
    def of(cls, info: ClipInfo, selection: Selection) -> Timing:
        """Return the timing of what is selected of a clip."""
        rate = selection.rate(info.rate)
        return cls(rate, info.time_base if selection.fps is None else 1 / rate, info.origin)


class Writer(Protocol):
    """What takes the frames of one clip. notes: what could not be kept, known when the clip is whole."""

    notes: list[str]

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Take the next frame and when it is shown, in seconds; the first frame of all comes at 0 in the file.

        duration: how long, for the last frame; one period where None. pixels: as the format takes them (`takes`).
        Raises OutputError, DiskFullError where the disk is full.
        """

    def has(self, index: int, time: Fraction) -> bool:
        """Return whether an earlier run has written this frame: the next to come is then passed to `skip`."""

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Take note of a frame that is there already."""


@dataclass(frozen=True)
class VideoFormat:
    """One format: its name, what is put behind a clip's stem (a file, or a folder of files), and what it is.

    takes: what `Writer.write` is given: "color" (H, W, 3) uint8, "gray16" (H, W) uint16, or "values" (H, W) float32.
    """

    name: str
    ending: str
    what: str
    takes: str
    open: Callable[[_Order], Any] = field(repr=False)

    @property
    def folder(self) -> bool:
        """Whether a clip becomes a folder of files, and not one file."""
        return not Path(self.ending).suffix


@dataclass(frozen=True)
class _Order:
    """What is to be written. size: (width, height) of the frames as given."""

    format: VideoFormat
    path: Path
    size: tuple[int, int]
    timing: Timing
    facts: Mapping[str, Any]
    along: Optional[Along]
    pixel_aspect: Fraction
    made_of: Mapping[str, Any]
    number_of: Optional[Callable[[Fraction], int]]
    keep: bool


@contextmanager
def video_writer(
    format: str,
    path: Path,
    size: tuple[int, int],
    timing: Timing,
    facts: Mapping[str, Any],
    source: Optional[Path] = None,
    pixel_aspect: Fraction = Fraction(1),
    made_of: Mapping[str, Any] = MappingProxyType({}),
    number_of: Optional[Callable[[Fraction], int]] = None,
    keep: bool = False,
    whole: bool = True,
) -> Iterator[Writer]:
    """Write one clip; the file appears, with its sidecar, when the block ends well, and not at all when it does not.

    Of a folder each file appears when it is whole, and the sidecar in the end. The sidecar is `<path>.json`: `facts`,
    and under `video` what the file is and how its codes become the numbers again.

    size: (width, height) of the frames. source: the clip that they show, at its speed: what the film can hold of its
    sound, subtitles, chapters, timecode and title goes along, and what it cannot hold is named in the notes. Formats in
    folders take nothing along. whole: all of that clip is shown; sound and subtitles go along only then. made_of: goes
    into the sidecar alone, for whoever has to tell whether the file is still what it should be. number_of: the number
    of the frame at a time, for the names of files in a folder; counted from 0 where None. keep: files in that folder
    are of a run that wrote the very same and was interrupted, so that they need not be written again.

    Raises UsageError for an unknown format, OutputError where it cannot be written or not one frame came.
    """
    if format not in VIDEO_FORMATS:
        raise UsageError(f"no video format is called {format!r}", f"choose from: {', '.join(VIDEO_FORMATS)}")
    row = VIDEO_FORMATS[format]
    along = Along(source, whole, timing.origin, timing.rate) if source and not row.folder else None
    order = _Order(row, path, size, timing, facts, along, pixel_aspect, made_of, number_of, keep)
    with row.open(order) as writer:
        yield writer


def side_by_side(rgb: np.ndarray, colored: np.ndarray) -> np.ndarray:
    """Return the source beside its coloured depth, both (H, W, 3) uint8, as (H, 2 W, 3) for the format `side`."""
    return np.hstack([rgb, colored])


# --- One file with a container ----------------------------------------------------------------------------------------


_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no version of the encoder in what it writes
_DEFAULT = 1  # AV_DISPOSITION_DEFAULT: the track that players show
_SQUARE = Fraction(1)


@contextmanager
def _open_file(order: _Order, encoding: Encoding) -> Iterator[Writer]:
    path = order.path
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"cannot write {path}: it is a pipe, a device or a folder", "use another -o")
    # A file without its sidecar is not taken for whole, so no file ever lies beside the sidecar of another.
    sidecar_of(path).unlink(missing_ok=True)
    kind = _LibavWriter if has_av() or not find_program() else _ProgramWriter
    with atomic_path(path) as partial:
        writer = kind(order, encoding, partial)
        try:
            yield writer
            if not writer.count:
                raise OutputError(f"cannot write {path}: not one frame came")
            writer.encode_held()
            writer.finish()
        finally:
            writer.close()
    described = {**encoding.described(writer.shape), "duration": float(writer.length)}
    _write_sidecar(path, order, writer.count, described, writer.notes)


class _FileWriter(ABC):
    """One video stream, and what goes along with it, in one file. shape: (height, width) in the file.

    A frame is held until the next one comes: only then is it known how long it is shown. What a source, an encoder or a
    container makes of durations differs, and the length of the file is made of them.
    """

    def __init__(self, order: _Order, encoding: Encoding) -> None:
        self.notes: list[str] = []
        self.count = 0
        self.shape = encoding.stored_shape(order.size)
        self._order, self._encoding = order, encoding
        self._stamps = Stamps(order.timing.rate, order.timing.time_base)
        facts = {**order.facts, "video": encoding.described(self.shape)}
        self._comment = json.dumps(facts, ensure_ascii=False)
        self._held: Optional[np.ndarray] = None
        self._start = self._end = 0  # of the frame that is held

    @property
    def length(self) -> Fraction:
        """How long the film is, in seconds."""
        return Fraction(self._end, self._stamps.scale)

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Encode a frame; see Writer."""
        _check(pixels, self._order)
        ticks = self._stamps.ticks(time)
        if self._held is None:
            self._begin(time)
        else:
            self._end = ticks
            self.encode_held()
        self._held, self._start = padded(pixels, self.shape), ticks
        self._end = ticks + self._stamps.length(duration)
        self.count += 1

    def encode_held(self) -> None:
        """Encode the frame that is held."""
        assert self._held is not None
        self._encode(self._held, self._start, self._end - self._start)

    def has(self, index: int, time: Fraction) -> bool:
        """See Writer. One file is written from its first frame to its last."""
        return False

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """See Writer. Never asked for, as nothing is there."""
        raise ValueError("a frame cannot be left out of a file")

    @abstractmethod
    def _begin(self, start: Fraction) -> None:
        """Start the file. start: when the first frame is shown, in seconds of the clip."""

    @abstractmethod
    def _encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        """Take the next frame as large as it is stored, its time stamp and its duration."""

    @abstractmethod
    def finish(self) -> None:
        """Write what the encoder still holds, and the rest of what goes along."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files, also of one that is not whole."""


class _ProgramWriter(_FileWriter):
    """By the program ffmpeg, where there is no PyAV."""

    def __init__(self, order: _Order, encoding: Encoding, partial: Path) -> None:
        super().__init__(order, encoding)
        self._partial = partial
        self._encoder: Optional[ProgramEncoder] = None

    def _begin(self, start: Fraction) -> None:
        order = self._order
        track = Track(
            encoding=self._encoding,
            shape=self.shape,
            scale=self._stamps.scale,
            rate=order.timing.rate,
            pixel_aspect=order.pixel_aspect,
            comment=self._comment,
            along=order.along,
            start=start,
        )
        self._encoder = ProgramEncoder(self._partial, order.path, track, self.notes)

    def _encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        assert self._encoder is not None
        self._encoder.encode(pixels, ticks, duration)

    def finish(self) -> None:
        """See _FileWriter."""
        assert self._encoder is not None
        self._encoder.finish()

    def close(self) -> None:
        """See _FileWriter."""
        if self._encoder:
            self._encoder.close()


class _LibavWriter(_FileWriter):
    """By the libraries of FFmpeg."""

    def __init__(self, order: _Order, encoding: Encoding, partial: Path) -> None:
        super().__init__(order, encoding)
        self.av = load_av()
        self._extras: Optional[Extras] = None
        self._durations: dict[int, int] = {}  # of the frames that are in the encoder, by their time stamps
        with _os_errors(self.av, order.path):
            options = {"fflags": "+bitexact", **dict(encoding.muxer)}
            self._container = self.av.open(str(partial), "w", format=encoding.container, options=options)
        try:
            self._stream = self._video_stream()
            self._container.metadata["comment"] = self._comment
            if order.along:
                self._extras = self._open_extras(order.along)
        except BaseException:
            self.close()
            raise

    def _begin(self, start: Fraction) -> None:
        if self._extras:
            self._extras.begin(self._stream, start)

    def _encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        frame = self._frame(pixels)
        frame.pts, frame.time_base = ticks, Fraction(1, self._stamps.scale)
        self._durations[ticks] = duration
        with _os_errors(self.av, self._order.path):
            if self._extras:
                self._extras.copy_until(Fraction(ticks, self._stamps.scale))
            self._write(self._stream.encode(frame))

    def finish(self) -> None:
        """See _FileWriter."""
        with _os_errors(self.av, self._order.path):
            self._write(self._stream.encode(None))
            if self._extras:
                self._extras.finish(self.length)
            self._container.close()

    def close(self) -> None:
        """See _FileWriter."""
        if self._extras:
            self._extras.close()
        try:
            self._container.close()
        except (self.av.FFmpegError, OSError, ValueError):  # of what is thrown away nothing else is wanted
            pass

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts)
            self._container.mux(packet)

    def _open_extras(self, along: Along) -> Optional[Extras]:
        try:
            return Extras(self.av, along, self._container, self.notes)
        except (self.av.FFmpegError, OSError, ValueError) as error:
            lost = "sound, subtitles and timecode were left out, as the clip cannot be read again"
            self.notes.append(f"{lost}: {reason_of(error)}")
            return None

    def _video_stream(self) -> Any:
        encoding, (height, width), rate = self._encoding, self.shape, self._order.timing.rate
        stream = self._container.add_stream(encoding.codec, rate=rate, options=dict(encoding.options))
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        stream.time_base = context.time_base = Fraction(1, self._stamps.scale)
        context.thread_count = encoding.threads
        context.flags |= _BITEXACT
        context.color_range = FULL if encoding.full else LIMITED
        context.colorspace = context.color_primaries = context.color_trc = BT709  # all three are 1 in ITU-T H.273
        stream.disposition = _DEFAULT
        if encoding.tag:
            context.codec_tag = encoding.tag
        aspect = self._order.pixel_aspect
        if aspect != _SQUARE:
            context.sample_aspect_ratio = aspect
            if encoding.container == "matroska":
                self.notes.append(f"PyAV writes no pixel aspect into Matroska: the pixels of {aspect} show as square")
        return stream

    def _frame(self, pixels: np.ndarray) -> Any:
        encoding = self._encoding
        if encoding.lo is None:
            frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame = frame.reformat(
                format=encoding.pixel_format,
                dst_colorspace=BT709,
                src_color_range=FULL,
                dst_color_range=FULL if encoding.full else LIMITED,
            )
        else:
            # The planes are filled here: libav's own conversion scales gray from one range to another unasked.
            height, width = pixels.shape
            frame = self.av.VideoFrame(width, height, encoding.pixel_format)
            _fill(frame.planes[0], encoding.codes(pixels))
            for plane in frame.planes[1:]:
                _fill(plane, np.full((plane.height, plane.width), encoding.no_colour, "<u2"))
        frame.color_range = FULL if encoding.full else LIMITED
        frame.colorspace = BT709
        return frame


def _fill(plane: Any, values: np.ndarray) -> None:
    """Copy values into a plane, whose rows may be longer than they are."""
    rows = np.frombuffer(plane, np.uint8)[: plane.line_size * len(values)].reshape(len(values), plane.line_size)
    rows[:, : values.shape[1] * values.itemsize] = np.ascontiguousarray(values).view(np.uint8)


# --- A folder of files ------------------------------------------------------------------------------------------------


def _png(pixels: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    write_png(pixels, target, {TEXT_KEY: json.dumps(facts, ensure_ascii=False)})


def _npz(values: np.ndarray, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    write_arrays(values, facts, target)


@contextmanager
def _open_folder(order: _Order, suffix: str, write: Callable[[np.ndarray, IO[bytes], Mapping[str, Any]], None]) -> Any:
    # While frames of one run lie beside those of another, no sidecar says that the folder is whole.
    sidecar_of(order.path).unlink(missing_ok=True)
    writer = _FolderWriter(order, suffix, write)
    yield writer
    for path in order.path.glob(f"frame_*{suffix}"):
        if path.stem[6:].isdigit() and int(path.stem[6:]) not in writer.numbers:  # of another run
            path.unlink()
    if not writer.count:
        raise OutputError(f"cannot write {order.path}: not one frame came")
    described = {"times": writer.times, "duration": writer.length}
    _write_sidecar(order.path, order, writer.count, described, writer.notes)


class _FolderWriter:
    """One file per frame, `frame_000000` the first unless frames have numbers of their own.

    Each holds the facts, and its own place in the clip.
    """

    def __init__(self, order: _Order, suffix: str, write: Callable[..., None]) -> None:
        self.notes: list[str] = []
        self.times: list[float] = []
        self.length = 0.0
        self.numbers: set[int] = set()
        self._order, self._suffix, self._write = order, suffix, write

    @property
    def count(self) -> int:
        return len(self.times)

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Write a file; see Writer."""
        _check(pixels, self._order)
        facts = {**self._order.facts, "frame": {"index": self.count, "time": float(time)}}
        path = self._path(self.count, time)
        with atomic_path(path) as partial, partial.open("wb") as stream:
            self._write(pixels, stream, facts)
        self.skip(time, duration)

    def has(self, index: int, time: Fraction) -> bool:
        """See Writer. A file that is there is whole."""
        return self._order.keep and self._path(index, time).exists()

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """See Writer."""
        self.numbers.add(self._number(self.count, time))
        self.times.append(float(time))
        self.length = self.times[-1] - self.times[0] + float(duration or 1 / self._order.timing.rate)

    def _number(self, index: int, time: Fraction) -> int:
        return index if self._order.number_of is None else self._order.number_of(time)

    def _path(self, index: int, time: Fraction) -> Path:
        return self._order.path / f"frame_{self._number(index, time):06d}{self._suffix}"


# --- A pipe -----------------------------------------------------------------------------------------------------------


class PipeWriter:
    """Frames for another program's stdin: raw, or y4m, which says its size and rate itself.

    takes: "color" or "gray16". Raw is rgb24 or gray16le, row after row. y4m holds colour as 4:4:4 BT.709 in limited
    range, gray as 16 bit in full range (`mono16`, an extension of FFmpeg), and one rate for all frames. pixel_aspect:
    width of a pixel by its height, which y4m keeps.

    Raises UsageError where y4m is to hold a time stamp that its rate does not have, and BrokenPipeError where the other
    program has gone.
    """

    def __init__(
        self,
        stream: BinaryIO,
        takes: str,
        size: tuple[int, int],
        timing: Timing,
        y4m: bool = False,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.notes: list[str] = []
        self._stream, self._takes, self._size, self._timing, self._y4m = stream, takes, size, timing, y4m
        self._aspect = pixel_aspect
        self._count = 0
        self._first = Fraction(0)

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Send a frame; see Writer."""
        _check_pixels(pixels, self._takes, self._size)
        self._first = time if not self._count else self._first
        if self._y4m:
            self._check_time(time - self._first)
            if not self._count:
                self._stream.write(self._header())
            self._stream.write(b"FRAME\n")
        planes = _yuv444(pixels) if self._y4m and self._takes == COLOR else pixels
        self._stream.write(np.ascontiguousarray(planes, planes.dtype.newbyteorder("<")).tobytes())
        self._count += 1

    def _header(self) -> bytes:
        rate, (width, height) = self._timing.rate, self._size
        aspect = f"{self._aspect.numerator}:{self._aspect.denominator}"
        layout, full = ("mono16", "FULL") if self._takes == GRAY16 else ("444", "LIMITED")
        header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A{aspect} C{layout}"
        return f"{header} XCOLORRANGE={full}\n".encode()

    def _check_time(self, time: Fraction) -> None:
        if abs(time * self._timing.rate - self._count) > Fraction(1, 2):
            raise UsageError(
                f"y4m has one rate, and frame {self._count} comes at {float(time):.3f} seconds",
                "give the rate to read the clip with",
            )


# Rows of BT.709 for codes of 0 to 255: Y', Cb, Cr in limited range.
_TO_YUV = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5], [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748]],
    np.float32,
) * np.array([[219 / 255], [224 / 255], [224 / 255]], np.float32)


def _yuv444(rgb: np.ndarray) -> np.ndarray:
    """Return (3, H, W) uint8."""
    planes = np.moveaxis(rgb.astype(np.float32) @ _TO_YUV.T, 2, 0) + np.array([16, 128, 128], np.float32)[:, None, None]
    return np.round(planes).astype(np.uint8)


# --- What they share --------------------------------------------------------------------------------------------------


def _check(pixels: np.ndarray, order: _Order) -> None:
    _check_pixels(pixels, order.format.takes, order.size)


def _check_pixels(pixels: np.ndarray, takes: str, size: tuple[int, int]) -> None:
    dtype, channels = _TAKES[takes]
    if pixels.dtype != dtype or pixels.shape != (*size[::-1], *channels):
        raise ValueError(f"{pixels.dtype} of {pixels.shape} for a clip of {takes} of {size[0]}x{size[1]} pixels")


def sidecar_of(path: Path) -> Path:
    """Return where a file, or a folder of files, is described."""
    return path.with_name(path.name + ".json")


def _write_sidecar(path: Path, order: _Order, count: int, described: dict[str, Any], notes: list[str]) -> None:
    video = {
        "format": order.format.name,
        "frames": count,
        "rate": str(order.timing.rate),
        "size": list(order.size),
        **({"pixel_aspect": str(order.pixel_aspect)} if order.pixel_aspect != _SQUARE else {}),
        **described,
        "notes": notes,
    }
    with atomic_path(sidecar_of(path)) as partial:
        text = json.dumps({**order.facts, "video": video, "made_of": dict(order.made_of)}, ensure_ascii=False, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _os_errors(av: Any, path: Path) -> Iterator[None]:
    """Turn what libav says of the disk into the OSError that atomic_path knows, the rest into OutputError."""
    try:
        yield
    except av.FFmpegError as error:
        if error.errno in errno.errorcode:
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error


VIDEO_FORMATS: dict[str, VideoFormat] = {
    row.name: row
    for row in (
        VideoFormat(
            "mp4",
            "_depth.mp4",
            "coloured depth as H.264, which plays everywhere",
            COLOR,
            lambda order: _open_file(order, H264),
        ),
        VideoFormat(
            "side",
            "_depth_side.mp4",
            "the clip and coloured depth side by side as H.264",
            COLOR,
            lambda order: _open_file(order, H264),
        ),
        VideoFormat(
            "ffv1",
            "_depth.mkv",
            "16-bit gray without loss, FFV1 in Matroska",
            GRAY16,
            lambda order: _open_file(order, FFV1),
        ),
        VideoFormat(
            "hevc10",
            "_depth_hevc.mp4",
            "10-bit gray as HEVC, small",
            GRAY16,
            lambda order: _open_file(order, HEVC10),
        ),
        VideoFormat(
            "prores",
            "_depth.mov",
            "10-bit gray as ProRes 422 HQ, for editors",
            GRAY16,
            lambda order: _open_file(order, PRORES),
        ),
        VideoFormat(
            "png16",
            "_depth_png",
            "a folder of 16-bit gray PNG",
            GRAY16,
            lambda order: _open_folder(order, ".png", _png),
        ),
        VideoFormat(
            "exr",
            "_depth_exr",
            "a folder of EXR, float32 numbers of the model in Z and RGB",
            VALUES,
            lambda order: _open_folder(order, ".exr", write_exr),
        ),
        VideoFormat(
            "npz",
            "_depth_npz",
            "a folder of NPZ, float32 numbers of the model",
            VALUES,
            lambda order: _open_folder(order, ".npz", _npz),
        ),
    )
}
