"""Decode video files and piped streams with FFmpeg's libraries, through PyAV."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

import numpy as np

from depthcli.errors import ClipError, DepthError, first_line
from depthcli.io.cameras.clips import camera_of_metadata
from depthcli.io.pictures.images import MAX_PIXELS, check_size, printable
from depthcli.io.video.clip import ClipInfo, Shown
from depthcli.io.video.clock import Clock, until_next
from depthcli.io.video.containers import is_protected, missing_bytes
from depthcli.io.video.tonemap import TRANSFERS, to_sdr
from depthcli.io.video.tracks import READABLE, VideoTrack, choose_track

# Allowed demuxers. libav would read a text file as a terminal recording, and open any file or address in a playlist.
# Those with sound only serve the error message.
CONTAINERS = (
    "apng,asf,av1,avi,dv,evc,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,swf,vc1,vvc,webm,wtv,yuv4mpegpipe,aac,ac3,aiff,amr,flac,mp3,wav"
)
_READ_BYTES = 1 << 18

# Numbers of libav: matrices from YUV to RGB (ITU-T H.273), ranges, and bits of a stream's disposition.
BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
LIMITED, FULL = 1, 2
ATTACHED_PICTURE = 1 << 10
_PURPOSES = {
    1 << 0: "default",
    1 << 1: "dub",
    1 << 3: "comment",
    1 << 7: "hearing_impaired",
    1 << 8: "visual_impaired",
    ATTACHED_PICTURE: "attached_pic",
    1 << 11: "timed_thumbnails",
    1 << 19: "dependent",
    1 << 20: "still_image",
}
HD_HEIGHT = 600  # frames without a matrix are BT.709 from this height on, as in players
_NO_TIMES = 0x80  # flag of formats without time stamps
_GENERATE_PTS = 1  # flag of containers, set by PyAV: invent missing presentation times


class Readable(Protocol):
    """A file or pipe that libav reads from."""

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes; none at the end."""

    def close(self) -> None:
        """Close it."""


def has_av() -> bool:
    """Return whether the module av can be imported; otherwise `io/ffmpeg_program.py` is used."""
    try:
        load_av()
    except DepthError:
        return False
    return True


def load_av() -> Any:
    """Return the module av. Raises DepthError if it cannot be imported."""
    try:
        import av
    except ImportError as error:
        raise DepthError(
            f"video needs PyAV or imageio-ffmpeg, and neither can be loaded: {first_line(error)}",
            "pip install av, or imageio-ffmpeg if av has no wheel; a folder of frames and raw RGB work without them",
        ) from error
    av.logging.set_level(None)  # messages of libav go into the errors, not onto the terminal
    return av


def reason_of(error: BaseException) -> str:
    """Return the message of a libav error, without its number and its file name."""
    return in_words(str(getattr(error, "strerror", None) or first_line(error)))


def in_words(message: str) -> str:
    """Return a message of FFmpeg, shortened for an error of ours."""
    if "Not yet implemented" in message:
        return "it uses a part of its format that FFmpeg cannot decode"
    return printable(message)[:100]


def protected(name: str) -> ClipError:
    """Return the error for an encrypted clip."""
    return ClipError(f"{name} is protected (DRM) and can be played only by its own player", "use a copy without DRM")


def open_container(av: Any, file: Readable) -> Any:
    """Return the container of an open file, which must stay open as long. Raises what PyAV raises."""
    # PyAV 15 hands `options` to streams too, and crashes if these are found while reading.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    # PyAV before 19 fails at text that is not UTF-8; later ones do not have the option.
    text = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(file, container_options=options, buffer_size=_READ_BYTES, **text)


class LibavSource:
    """A video file, or a stream from a pipe. Raises ClipError if no video in it can be decoded."""

    def __init__(self, file: Readable, name: str, path: Optional[Path] = None, max_pixels: int = MAX_PIXELS) -> None:
        self._name = name
        self._read = Damage(missing=missing_bytes(path) if path else 0)
        self._stack = contextlib.ExitStack()
        self._stack.callback(file.close)
        try:
            if path and is_protected(path):
                raise protected(name)
            self._av = load_av()
            self._container = self._open(file)
            self._stack.callback(self._container.close)
            self._container.flags &= ~_GENERATE_PTS
            self._stream, self._choice = self._best_stream()
            context = self._stream.codec_context
            check_size((context.width, context.height), self._name, max_pixels, ClipError)
            # With frame threads, damaged HEVC may wait for ever.
            self._stream.thread_type = "SLICE"
            self._clock = Clock(*self._rate(), "mp4" in self._container.format.name, self._stream.duration or 0)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                reason = self._read.reason() or f"holds {context.name} video of which no frame can be decoded"
                raise ClipError(f"{self._name} {reason}", "copy or download it again")
            first = self._first[1]
            self._turn = _turn(first)
            self._transfer = TRANSFERS.get(int(self._stream.codec_context.color_trc), "sdr")
            self.info = self._describe(first)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and the decoder, whose threads live as long as anything refers to it."""
        self._frames, self._first = iter(()), None
        self._stream = self._container = None
        self._stack.close()

    def shown(self) -> Iterator[Shown]:
        """Yield every frame that can be decoded; then raise ClipError if some could not."""
        yield from until_next(self._pixels(), self._clock.rest)
        self._read.complain(self._name)

    def _pixels(self) -> Iterator[tuple[Fraction, Callable[[], np.ndarray]]]:
        first, self._first = self._first, None
        if first is not None:
            yield first[0], partial(self._to_rgb, first[1])
            del first
            for time, frame in self._frames:
                yield time, partial(self._to_rgb, frame)

    # --- Opening ------------------------------------------------------------------------------------------------------

    def _open(self, file: Readable) -> Any:
        try:
            return open_container(self._av, file)
        except Exception as error:
            if self._read.missing:
                reason = "is truncated: it ends before the table of its frames does"
                raise ClipError(f"{self._name} {reason}", "copy or download it again") from error
            raise ClipError(f"{self._name} is no video, or none that can be read", READABLE) from error

    def _best_stream(self) -> tuple[Any, str]:
        """Return the chosen stream, and a note on the choice."""
        streams = {stream.index: stream for stream in self._container.streams.video}
        tracks = [_track(stream) for stream in streams.values()]
        index, note = choose_track(self._name, tracks, bool(self._container.streams.audio))
        return streams[index], note

    def _rate(self) -> tuple[Fraction, Fraction]:
        """Return (frames per second, unit of the time stamps)."""
        guessed, average = self._stream.guessed_rate, self._stream.average_rate
        rate = average if self._is_variable() or self._stream.frames == 1 else guessed or average
        return Fraction(rate or 25), Fraction(self._stream.time_base or 1 / Fraction(rate or 25))

    def _is_variable(self) -> bool:
        """Return whether the index gives a shortest frame duration that differs from the average."""
        if self._container.format.flags & _NO_TIMES:  # a bare stream, whose average is made up
            return False
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
        if self._choice:
            notes.append(self._choice)
        if self._turn:
            notes.append(self._turn.note)
        if self._transfer != "sdr":
            notes.append(f"HDR ({self._transfer.upper()}) tone-mapped to BT.709")
        if self._read.damaged:
            notes.append(f"{self._read.damaged} damaged packets before the first frame passed over")
            self._read.damaged = 0
        size = (first.height, first.width) if sideways else (first.width, first.height)
        aspect = 1 / aspect if sideways else aspect
        told = {**stream.metadata, **self._container.metadata}
        return ClipInfo(
            name=self._name,
            size=size,
            rate=rate,
            time_base=time_base,
            origin=self._clock.origin,
            frames=stream.frames or None,
            duration=duration,
            rotation=self._turn.degrees,
            pixel_aspect=aspect,
            variable=self._is_variable(),
            audio=bool(self._container.streams.audio),
            codec=context.name,
            pixel_format=first.format.name,
            bits=max(component.bits for component in first.format.components),
            transfer=self._transfer,
            camera=camera_of_metadata(told, size, float(aspect)),
            orientation=self._turn.orientation,
            notes=tuple(notes),
        )

    # --- Decoding -----------------------------------------------------------------------------------------------------

    def _decode(self) -> Iterator[tuple[Fraction, Any]]:
        """Yield (time, decoded frame), skipping damaged packets, which are counted."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except Exception as error:
                self._read.broken = reason_of(error)
                packet = None
            # A partial frame at the end of a truncated file. Elsewhere the flag is a warning, as in joined recordings.
            if packet is not None and packet.is_corrupt and self._read.missing:
                self._read.damaged += 1
                continue
            if packet is not None and packet.size > 0 and not packet.is_discard:
                self._read.packets += 1
                self._clock.packet(packet.pts, packet.dts, packet.duration)
            try:
                frames = self._stream.codec_context.decode(packet)
            except EOFError:
                return
            except Exception:
                self._read.damaged += 1
                frames = []
            for frame in frames:
                self._read.decoded += 1
                self._read.incomplete += frame.is_corrupt  # the decoder filled in what is missing from the frame before
                yield self._clock.place(frame.pts, frame.dts), frame
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
            # PyAV 15 applies matrix and range only if the ranges of source and RGB differ.
            source, other = (FULL, LIMITED) if full else (LIMITED, FULL)
            rgb = frame.reformat(
                format=target, src_colorspace=matrix, src_color_range=source, dst_color_range=other
            ).to_ndarray()
        return self._turn.apply(to_sdr(rgb, self._transfer) if deep else rgb)


@dataclass
class Damage:
    """What went wrong while a clip was read.

    missing: bytes that the headers announce and the file lacks. packets, decoded: packets sent to the decoder, and
    frames returned. damaged: packets it rejected. incomplete: frames it marked as corrupt. broken: error that ended the
    reading.
    """

    missing: int = 0
    packets: int = 0
    decoded: int = 0
    damaged: int = 0
    incomplete: int = 0
    broken: str = ""

    def reason(self) -> str:
        """Return what is wrong with the clip, or empty; complete after the last frame."""
        if self.missing:
            return f"is truncated: its last {self.missing} bytes are missing"
        if self.broken:
            return f"is damaged: {self.broken}"
        if self.damaged:
            return f"is damaged: {self.damaged} packet{'s' * (self.damaged != 1)} could not be decoded"
        if self.incomplete:
            return f"is damaged: {self.incomplete} frame{'s' * (self.incomplete != 1)} came incomplete"
        # Some decoders skip damaged packets silently. Half as many frames as packets is normal for interlaced fields.
        if 0 < 2 * self.decoded < self.packets:
            return f"is damaged: most of its {self.packets} packets could not be decoded"
        return ""

    def complain(self, name: str) -> None:
        """Raise ClipError if something is wrong."""
        reason, count = self.reason(), self.decoded
        if reason:
            message = f"{name} {reason}; {count} frame{'s' * (count != 1)} could be read"
            raise ClipError(message, "copy or download it again", count)


_RIGHT_ANGLES = ((1, 0), (0, 1), (-1, 0), (0, -1))  # cosine and sine, counterclockwise


class _Turn:
    """The rotation and mirroring that make a frame upright: the display matrix, rounded to right angles."""

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

    @property
    def orientation(self) -> int:
        """The EXIF orientation that says the same."""
        places = {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}
        turned = {(False, False): 5, (True, False): 6, (True, True): 7, (False, True): 8}
        return (turned if self.sideways else places)[self.flip_columns, self.flip_rows]

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        rgb = rgb.transpose(1, 0, 2) if self.sideways else rgb
        rgb = rgb[:, ::-1] if self.flip_columns else rgb
        return np.ascontiguousarray(rgb[::-1] if self.flip_rows else rgb)


def _turn(frame: Any) -> _Turn:
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV before 19 cannot name every kind of side data, and then gives none
        cosine, sine = _RIGHT_ANGLES[round(frame.rotation / 90) % 4]
        return _Turn((cosine, -sine, sine, cosine))
    if data is None:
        return _Turn((1, 0, 0, 1))
    m = struct.unpack("=9i", bytes(data)[:36])
    return _Turn((m[0], m[1], m[3], m[4]))


def disposition_of(stream: Any) -> int:
    """Return the bits of a stream's disposition, as libav numbers them; 0 for a value that PyAV does not know."""
    try:
        return int(getattr(stream.disposition, "value", stream.disposition))
    except ValueError:
        return 0


def _track(stream: Any) -> VideoTrack:
    bits, context = disposition_of(stream), stream.codec_context
    return VideoTrack(
        stream.index,
        context.width if context else 0,
        context.height if context else 0,
        frozenset(name for bit, name in _PURPOSES.items() if bits & bit),
        stream.frames,
        decodable=bool(context),
    )
