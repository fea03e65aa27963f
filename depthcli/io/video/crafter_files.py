"""Files of DepthCrafter's own script beside its films: one array of all frames, and OpenEXR with Z alone."""

from __future__ import annotations

import io
import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import IO, Optional

import numpy as np

from depthcli.errors import OutputError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.encode import check_pixels
from depthcli.io.codecs.exr import Z_ALONE, write_exr
from depthcli.io.codecs.files import Content
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.frame_files import FolderWriter

_LEVEL = 4  # of deflate
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes at any time


class ArrayWriter:
    """Writes all frames as `depth`, (T, H, W) float32, of one NPZ file, frame by frame; see FrameWriter.

    The facts are `meta`, a JSON string. times: of the frames, in seconds. length: of the clip.
    """

    def __init__(self, output: ClipOutput, stream: IO[bytes]) -> None:
        if output.frames is None:
            raise ValueError("the number of frames must be known")
        self.notes: list[str] = []
        self.times: list[float] = []
        self.length = 0.0
        self._output = output
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._array = self._member("depth")
        width, height = output.size
        header = {"descr": "<f4", "fortran_order": False, "shape": (output.frames, height, width)}
        np.lib.format.write_array_header_1_0(self._array, header)

    def write(self, content: np.ndarray, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Take the next frame."""
        check_pixels(content, self._output.row.holds, self._output.size)
        self._array.write(np.ascontiguousarray(content, "<f4").tobytes())
        self.times.append(float(time))
        self.length = self.times[-1] - self.times[0] + float(duration or 1 / self._output.timing.rate)

    def has(self, index: int, time: Fraction) -> bool:
        """Return False: the file is written from its first frame."""
        return False

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Never called, as no frame is there already."""
        raise AssertionError("unreachable")

    def finish(self) -> None:
        """Write the facts. Raises OutputError if frames are missing."""
        if len(self.times) != self._output.frames:
            raise OutputError(
                f"cannot write {self._output.path}: {len(self.times)} of {self._output.frames} frames came"
            )
        self._array.close()
        whole = io.BytesIO()
        np.lib.format.write_array(whole, np.array(json.dumps(self._output.facts)))
        with self._member("meta") as member:
            member.write(whole.getvalue())

    def close(self) -> None:
        """Close the archive; an unfinished one is thrown away by its caller."""
        self._array.close()
        self._archive.close()

    def _member(self, name: str) -> IO[bytes]:
        info = zipfile.ZipInfo(f"{name}.npy", _DATE)
        info.compress_type = zipfile.ZIP_DEFLATED
        return self._archive.open(info, "w", force_zip64=True)


class CrafterFolder(FolderWriter):
    """Writes `frame_0000.exr` and so on, with the channel Z alone; see FrameWriter."""

    FORMAT = "crafter-exr"

    def __init__(self, output: ClipOutput) -> None:
        super().__init__(output)
        self._suffix = ".exr"

    def _save(self, content: Content, path: Path) -> None:
        with atomic_path(path) as partial, partial.open("wb") as stream:
            write_exr(np.asarray(content.body), stream, content.facts, channels=Z_ALONE)

    def _number(self, index: int, time: Fraction) -> int:
        return index

    def _path(self, index: int, time: Fraction) -> Path:
        return self._output.path / f"frame_{index:04d}{self._suffix}"
