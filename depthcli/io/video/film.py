"""A film: one video stream, and what goes along with it, in one file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.errors import OutputError
from depthcli.io.codecs.encode import check_pixels
from depthcli.io.video.boxes import STEREO_MODES
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.encodings import Encoding, Stamps, padded


class FilmWriter(ABC):
    """Base of the writers of films; see FrameWriter. partial: the file to write. shape: (height, width) in the file.

    A frame is held until the next one comes, because only then its duration is known.
    """

    def __init__(self, output: ClipOutput, encoding: Encoding, partial: Path) -> None:
        self.notes: list[str] = []
        self.count = 0
        self.shape = encoding.stored_shape(output.size)
        if min(self.shape) < encoding.least:
            size, least = "{}x{}".format(*output.size), encoding.least
            raise OutputError(
                f"{output.path} cannot hold frames of {size}: {output.row.name} takes {least}x{least} or more",
                "use `formats` ffv1",
            )
        self._output, self._encoding, self._partial = output, encoding, partial
        self._stamps = Stamps(output.timing.rate, output.timing.time_base)
        self._comment = json.dumps({**output.facts, "video": encoding.described(self.shape)}, ensure_ascii=False)
        self._held: Optional[np.ndarray] = None
        self._start = self._end = 0  # of the frame that is held, in ticks

    @property
    def length(self) -> Fraction:
        """Length of the film in seconds."""
        return Fraction(self._end, self._stamps.scale)

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Take a frame."""
        check_pixels(pixels, self._output.row.holds, self._output.size)
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
        """Return False: a film is written from its first frame to its last."""
        return False

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Raise ValueError: no frame of a film is there already."""
        raise ValueError("a frame cannot be left out of a film")

    @abstractmethod
    def _begin(self, start: Fraction) -> None:
        """Start the file. start: when the first frame is shown, in seconds of the clip."""

    @abstractmethod
    def _encode(self, pixels: np.ndarray, ticks: int, duration: int) -> None:
        """Take the next frame at the size in the file, its time stamp and its duration."""

    @abstractmethod
    def finish(self) -> None:
        """Write what the encoder still holds, and the rest of what goes along."""

    @abstractmethod
    def close(self) -> None:
        """Release the files, also of a film that is not complete."""


def stereo_mode(output: ClipOutput, encoding: Encoding, notes: list[str]) -> str:
    """Return the name that Matroska has for the way a film shows two eyes, "" for none and for other containers.

    notes: gets what is left out.
    """
    if output.packing is None or encoding.container != "matroska":
        return ""
    if output.half_sphere:
        notes.append("Matroska is not told that the eyes are half a sphere: write a .mp4")
    return STEREO_MODES[output.packing]
