"""A clip as a folder with one file per frame, each of them a depth file as of a picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.encode import check_pixels
from depthcli.io.codecs.files import KINDS
from depthcli.io.video.clip_output import ClipOutput


class FolderWriter:
    """Writes `frame_000000` and so on, each with the facts and its time; see FrameWriter.

    times: of the frames, in seconds. length: of the clip.
    """

    def __init__(self, output: ClipOutput) -> None:
        self.notes: list[str] = []
        self.times: list[float] = []
        self.length = 0.0
        self._numbers: set[int] = set()
        self._output, self._suffix = output, output.row.suffix

    def write(self, pixels: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Write a file."""
        check_pixels(pixels, self._output.row.holds, self._output.size)
        index = len(self.times)
        facts = {**self._output.facts, "frame": {"index": index, "time": float(time)}}
        with atomic_path(self._path(index, time)) as partial, partial.open("wb") as stream:
            KINDS[self._suffix].write(pixels, stream, facts)
        self.skip(time, duration)

    def has(self, index: int, time: Fraction) -> bool:
        """Return whether the file is there; then it is whole."""
        return self._output.keep and self._path(index, time).exists()

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Count a frame."""
        self._numbers.add(self._number(len(self.times), time))
        self.times.append(float(time))
        self.length = self.times[-1] - self.times[0] + float(duration or 1 / self._output.timing.rate)

    def remove_others(self) -> None:
        """Remove frames of another run from the folder."""
        for path in self._output.path.glob(f"frame_*{self._suffix}"):
            if path.stem[6:].isdigit() and int(path.stem[6:]) not in self._numbers:
                path.unlink()

    def _number(self, index: int, time: Fraction) -> int:
        return index if self._output.number_of is None else self._output.number_of(time)

    def _path(self, index: int, time: Fraction) -> Path:
        return self._output.path / f"frame_{self._number(index, time):06d}{self._suffix}"
