"""The files that are written for each picture. Their writers are imported when there is something to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Optional

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import OutputError
from depthcli.io.codecs.formats import STILLS, check_kind
from depthcli.io.names import fitting_name

if TYPE_CHECKING:
    import numpy as np

    from depthcli.depthmap import DepthMap
    from depthcli.kinds import DepthKind


def check_extras(formats: Sequence[str]) -> None:
    """Raise UsageError if one of these formats needs a package that is not installed."""
    if "laz" in formats:
        from depthcli.io.points.laz import load_laspy

        load_laspy()


@dataclass(frozen=True)
class OutputSpec:
    """Formats of each picture, the colour map, and how points and meshes are made.

    endings: replace the formats' endings behind a picture's stem. scene: see `pixels_of_still`.
    """

    formats: tuple[str, ...] = ("color",)
    colormap: str = DEFAULT_COLORMAP
    endings: tuple[str, ...] = ()
    shape: ShapeChoice = ShapeChoice()
    scene: Optional[tuple[float, float]] = None

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the files for one picture, from its output path without any ending."""
        endings = self.endings or [STILLS[name].still for name in self.formats]
        return tuple(stem.with_name(fitting_name(stem.parent, stem.name, ending)) for ending in endings)

    def keeping(self, photos: Iterable[Path]) -> OutputSpec:
        """Return what writes the same, and never into one of these photos."""
        return self

    def check_kind(self, kind: DepthKind) -> None:
        """Raise UsageError if one of the formats cannot hold this kind of depth."""
        for name in self.formats:
            check_kind(STILLS[name], kind)

    def warnings(self, depth: DepthMap) -> tuple[str, ...]:
        """Return what is doubtful about a map, and what the formats cannot hold of it, one line each."""
        return (*self.doubts(depth), *(loss_line(name, count) for name, count in self.losses(depth).items()))

    def doubts(self, depth: DepthMap) -> tuple[str, ...]:
        """Return what is doubtful about a map, one line each."""
        doubts = depth.provenance.warnings(depth.size)
        if any(STILLS[name].spatial for name in self.formats):
            from depthcli.geometry.shapes import remarks

            doubts += remarks(depth, shape=any(STILLS[name].shape for name in self.formats))
        return doubts

    def losses(self, depth: DepthMap) -> dict[str, int]:
        """Return how many pixels of a map are too far for each format that has a limit."""
        from depthcli.io.codecs.encode import clamped_pixels, in_millimetres
        from depthcli.io.codecs.stills import lost_pixels

        counts = {}
        for row in (STILLS[name] for name in self.formats):
            clamped = clamped_pixels(depth) if in_millimetres(row.holds, depth.kind) else 0
            counts[row.name] = clamped + lost_pixels(row, depth)
        return {name: count for name, count in counts.items() if count}

    def write(self, depth: DepthMap, rgb: Optional[np.ndarray], paths: Sequence[Path]) -> None:
        """Write one file per format, each whole or not at all. rgb: the (H, W, 3) uint8 picture, if there is one."""
        from depthcli.io.codecs.files import write_file

        for name, path in zip(self.formats, paths):
            write_file(STILLS[name], depth, path, self.colormap, rgb, self.shape, self.scene)


def loss_line(name: str, count: int) -> str:
    """Return what became of the pixels that are too far for a format."""
    from depthcli.io.codecs.stills import MOST_CODE

    row = STILLS[name]
    if not row.scale:
        text = "are beyond the 65.535 m of a 16-bit PNG in millimetres and were clamped; npz and exr hold all"
        return f"{count} pixels {text}"
    farthest = f"{MOST_CODE / row.scale:.6g} m that {name} can hold"
    return f"{count} pixels are beyond the {farthest}, and have no depth there; npz and exr hold all"


@dataclass(frozen=True)
class OneFile(OutputSpec):
    """One format into the very file that a user named."""

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (stem,)


@dataclass(frozen=True)
class OneStream(OutputSpec):
    """One format to a stream. stream: opened before anything is written. name: for messages."""

    name: str = "stdout"
    stream: Optional[BinaryIO] = None

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return nothing, as no file is written."""
        return ()

    def write(self, depth: DepthMap, rgb: Optional[np.ndarray], paths: Sequence[Path]) -> None:
        """Write the result when it is whole. Raises OutputError, and BrokenPipeError if the reader has left."""
        from depthcli.io.codecs.files import write_still

        whole = BytesIO()
        write_still(STILLS[self.formats[0]], depth, whole, self.colormap, rgb, self.shape, self.scene)
        self.send(whole.getvalue())

    def send(self, data: bytes) -> None:
        """Send a whole file. Raises as `write`."""
        assert self.stream is not None
        try:
            self.stream.write(data)
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {error.strerror}") from error
