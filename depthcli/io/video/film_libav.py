"""Films through the libraries of FFmpeg (PyAV)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli.errors import OutputError
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.encodings import Encoding
from depthcli.io.video.extras import Along, Extras
from depthcli.io.video.film import FilmWriter, stereo_mode
from depthcli.io.video.libav import BT709, FULL, LIMITED, load_av, reason_of

_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no version of the encoder in what it writes
_DEFAULT = 1  # AV_DISPOSITION_DEFAULT: the track that players show


class LibavFilm(FilmWriter):
    """Writes a film through the libraries of FFmpeg."""

    def __init__(self, output: ClipOutput, encoding: Encoding, partial: Path) -> None:
        super().__init__(output, encoding, partial)
        self.av = load_av()
        self._extras: Optional[Extras] = None
        self._durations: dict[int, int] = {}  # of the frames that are in the encoder, by their time stamps
        with _os_errors(self.av, output.path):
            options = {"fflags": "+bitexact", **dict(encoding.muxer)}
            self._container = self.av.open(str(partial), "w", format=encoding.container, options=options)
        try:
            self._stream = self._video_stream()
            self._container.metadata["comment"] = self._comment
            if output.along:
                self._extras = self._open_extras(output.along)
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
        with _os_errors(self.av, self._output.path):
            if self._extras:
                self._extras.copy_until(Fraction(ticks, self._stamps.scale))
            self._write(self._stream.encode(frame))

    def finish(self) -> None:
        """See FilmWriter."""
        with _os_errors(self.av, self._output.path):
            self._write(self._stream.encode(None))
            if self._extras:
                self._extras.finish(self.length)
            self._container.close()

    def close(self) -> None:
        """See FilmWriter."""
        if self._extras:
            self._extras.close()
        try:
            self._container.close()
        except (self.av.FFmpegError, OSError, ValueError):  # the file is thrown away
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
        encoding, (height, width), rate = self._encoding, self.shape, self._output.timing.rate
        stream = self._container.add_stream(encoding.codec, rate=rate, options=dict(encoding.options))
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        stream.time_base = context.time_base = Fraction(1, self._stamps.scale)
        context.thread_count = encoding.threads
        context.flags |= _BITEXACT
        context.color_range = FULL if encoding.full else LIMITED
        context.colorspace = context.color_primaries = context.color_trc = BT709  # all three are 1 in ITU-T H.273
        stream.disposition = _DEFAULT
        if mode := stereo_mode(self._output, encoding, self.notes):
            stream.metadata["stereo_mode"] = mode
        if encoding.tag:
            context.codec_tag = encoding.tag
        aspect = self._output.pixel_aspect
        if aspect != 1:
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
    rows = np.frombuffer(plane, np.uint8)[: plane.line_size * len(values)].reshape(len(values), plane.line_size)
    rows[:, : values.shape[1] * values.itemsize] = np.ascontiguousarray(values).view(np.uint8)


@contextmanager
def _os_errors(av: Any, path: Path) -> Iterator[None]:
    """Raise errors of the disk as the OSError that atomic_path knows, all others as OutputError."""
    try:
        yield
    except av.FFmpegError as error:
        if error.errno in errno.errorcode:
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error
