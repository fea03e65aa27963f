"""The output formats a user can name: one row each, and one function that writes all that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable

import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs import depth_files
from depthcli.io.names import fitting_name
from depthcli.pixels.colormap import DEFAULT_COLORMAP


@dataclass(frozen=True)
class OutputFormat:
    """One format: its name, what is put behind a picture's stem, what it is, and its writer."""

    name: str
    ending: str
    what: str
    write: Callable[[DepthMap, np.ndarray, IO[bytes], str], None]

    @property
    def suffix(self) -> str:
        """The file suffix, with its dot."""
        return Path(self.ending).suffix


FORMATS: dict[str, OutputFormat] = {
    row.name: row
    for row in (
        OutputFormat(
            "color",
            "_depth.png",
            "8-bit colour PNG",
            lambda depth, rgb, target, colormap: depth_files.write_color(depth, target, colormap),
        ),
        OutputFormat(
            "gray",
            "_depth_gray.png",
            "16-bit gray PNG: white is near, or millimetres for metric models",
            lambda depth, rgb, target, colormap: depth_files.write_gray16(depth, target),
        ),
        OutputFormat(
            "gray8",
            "_depth_gray8.png",
            "8-bit gray PNG, white is near",
            lambda depth, rgb, target, colormap: depth_files.write_gray8(depth, target),
        ),
        OutputFormat(
            "side",
            "_depth_side.png",
            "photo and colour side by side",
            lambda depth, rgb, target, colormap: depth_files.write_side(depth, rgb, target, colormap),
        ),
        OutputFormat(
            "npz",
            "_depth.npz",
            "float32 numbers of the model",
            lambda depth, rgb, target, colormap: depth_files.write_npz(depth, target),
        ),
    )
}
ENDINGS = tuple(row.ending for row in FORMATS.values())


@dataclass(frozen=True)
class OutputSpec:
    """What is written for each picture: the formats, and the colour map of the coloured ones.

    endings: what stands behind a picture's stem for each format, in place of the formats' own.
    """

    formats: tuple[str, ...] = ("color",)
    colormap: str = DEFAULT_COLORMAP
    endings: tuple[str, ...] = ()

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the files for one picture, from its output path without any ending."""
        endings = self.endings or [FORMATS[name].ending for name in self.formats]
        return tuple(stem.with_name(fitting_name(stem.parent, stem.name, ending)) for ending in endings)

    def warnings(self, depth: DepthMap) -> tuple[str, ...]:
        """Return what is doubtful about a map, and what the formats cannot hold of it, one line each."""
        doubts = depth.provenance.warnings(depth.size)
        clamped = depth_files.clamped_pixels(depth) if "gray" in self.formats else 0
        if not clamped:
            return doubts
        return (
            *doubts,
            f"{clamped} pixels are beyond the 65.535 m of a 16-bit PNG in millimetres and were clamped; npz holds all",
        )

    def write(self, depth: DepthMap, rgb: np.ndarray, paths: Sequence[Path]) -> None:
        """Write one file per format, each whole or not at all. rgb: the (H, W, 3) uint8 picture."""
        for name, path in zip(self.formats, paths):
            with atomic_path(path) as partial, partial.open("wb") as stream:
                FORMATS[name].write(depth, rgb, stream, self.colormap)


@dataclass(frozen=True)
class OneFile(OutputSpec):
    """One format into the very file that a user named."""

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (stem,)


def parse_formats(names: Sequence[str], known: Collection[str] = FORMATS, kind: str = "output") -> tuple[str, ...]:
    """Return the formats of `--format`, which may be repeated and may hold lists with commas; order kept, once each.

    known: the names there are; kind: what to call such a format. Raises UsageError for any other name, and for none.
    """
    wanted = [name.strip() for item in names for name in item.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"no {kind} format is called {name!r}", f"choose from: {', '.join(known)}")
    if not wanted:
        raise UsageError(f"no {kind} format given", f"choose from: {', '.join(known)}")
    return tuple(dict.fromkeys(wanted))


def write_depth(depth: DepthMap, path: Path | str, format: str | None = None, colormap: str = DEFAULT_COLORMAP) -> None:
    """Write one depth map to one file, whole or not at all.

    format: color, gray, gray8 or npz; None takes npz for a path that ends so, else gray (16 bit).
    Raises UsageError for a format that does not go with the path, OutputError where it cannot be written.
    """
    path = Path(path)
    name = format or ("npz" if path.suffix.lower() == ".npz" else "gray")
    (name,) = parse_formats([name])
    if FORMATS[name].suffix != path.suffix.lower():
        raise UsageError(f"{name} is written as {FORMATS[name].suffix}, not {path.suffix or 'a bare name'}")
    if name == "side":
        raise UsageError("a side-by-side picture needs the photo", "use depth_files.write_side")
    OneFile((name,), colormap).write(depth, np.empty((0, 0, 3), np.uint8), [path])
