"""A clip as a folder with one file per frame, each of them a depth file, or a shape, as of a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Optional, Union

import numpy as np

from depthcli.io.codecs.encode import check_pixels
from depthcli.io.codecs.files import Content, write_content
from depthcli.io.codecs.formats import TEXTURE_ENDING
from depthcli.io.video.clip_output import ClipOutput

_FRAME = re.compile(r"frame_(\d+)(\D.*)")


def frames_in(folder: Path, suffix: str) -> Iterator[tuple[Path, int]]:
    """Yield the files of frames in a folder, and what stands beside them, each with its number."""
    endings = {suffix, f"{suffix}.json"}
    if suffix == ".obj":
        endings |= {".mtl", TEXTURE_ENDING}
    for path in sorted(folder.glob("frame_*")):
        found = _FRAME.fullmatch(path.name)
        if found and found[2] in endings:
            yield path, int(found[1])


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

    def write(self, content: Union[np.ndarray, Content], time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Write a file. Facts of the frame go before those of the clip."""
        if not isinstance(content, Content):
            content = Content(content, {})
        if isinstance(content.body, np.ndarray):
            check_pixels(content.body, self._output.row.holds, self._output.size, alpha=True)
        index = len(self.times)
        frame = {"index": index, "time": float(time)}
        facts = {**self._output.facts, **content.facts, "frame": frame}
        self._save(replace(content, facts=facts), self._path(index, time))
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
        """Remove frames of another run from the folder, and what stands beside them."""
        for path, number in frames_in(self._output.path, self._suffix):
            if number not in self._numbers:
                path.unlink()

    def _save(self, content: Content, path: Path) -> None:
        write_content(self._output.row, content, path)

    def _number(self, index: int, time: Fraction) -> int:
        return index if self._output.number_of is None else self._output.number_of(time)

    def _path(self, index: int, time: Fraction) -> Path:
        return self._output.path / f"frame_{self._number(index, time):06d}{self._suffix}"
