"""Files that hold measured depth of a picture: dense or sparse maps, lists of pixels, COLMAP models, LiDAR clouds."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.camera import Camera, same_ratio
from depthcli.choices.metres import MetresChoice, Reference
from depthcli.depthmap import DepthKind
from depthcli.errors import DepthError, UsageError
from depthcli.geometry.metres import Points, thinned
from depthcli.geometry.rays import project
from depthcli.io.cameras.colmap import find_model
from depthcli.io.cameras.colmap_points import ColmapPoints
from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.arrays import read_bytes
from depthcli.io.codecs.files import read_depth, read_facts
from depthcli.io.points.files import read_shape

_CELL = 4  # pixels of a side, of which the nearest point of a cloud counts: those behind it shine through
_MAPS = (".png", ".npz", ".npy", ".exr", ".pfm", ".tif", ".tiff")
_LISTS = (".csv", ".txt")
_KNOWN = (
    "16-bit PNG, NPZ, NPY, EXR, PFM, TIFF, CSV of u,v,z, a depth file of depthcli, a COLMAP folder, or PLY with"
    " `cloud_to_camera`"
)
_Size = tuple[int, int]


class ReferenceFile:
    """Measured depth in a file or folder, read once.

    Raises UsageError, one line with the file and the reason, for what cannot be read or is no metric depth.
    """

    def __init__(self, reference: Reference, choice: MetresChoice) -> None:
        assert reference.path is not None
        self._reference, self._path, self._choice = reference, reference.path, choice
        self._colmap: Optional[ColmapPoints] = None
        self._kept: Optional[tuple[np.ndarray, np.ndarray, Optional[_Size]]] = None
        self._cloud: Optional[np.ndarray] = None
        self._by_stem: dict[str, Path] = {}
        with _Named(self._path):
            self._open()

    @property
    def is_metric(self) -> bool:
        """Whether its depth is in metres; that of COLMAP is in a unit of its own."""
        return self._colmap is None or self._choice.unit_of_colmap is not None

    @property
    def is_per_picture(self) -> bool:
        """Whether it has depth of several pictures, by their names."""
        return self._colmap is not None or bool(self._by_stem)

    def covers(self, picture: str) -> bool:
        """Return whether it has depth of a picture. picture: its path."""
        if self._colmap is not None:
            return self._colmap.seen_by(picture) is not None
        return not self._by_stem or Path(picture).stem in self._by_stem

    @property
    def needs_camera(self) -> bool:
        """Whether its points have to be projected into the picture."""
        return self._cloud is not None

    @property
    def fingerprint(self) -> str:
        """A text without spaces that changes with the content; for a folder of maps with their names and sizes."""
        digest = hashlib.sha256()
        for path in self._colmap.files if self._colmap else (self._path,):
            if path.is_file():
                digest.update(path.read_bytes())
        for stem, path in sorted(self._by_stem.items()):
            digest.update(f"{stem} {os.path.getsize(path)}".encode(errors="replace"))
        for extra in (self._choice.cloud_to_camera,) if self.needs_camera else ():
            digest.update(Path(str(extra)).read_bytes())
        return f"{re.sub(r'[^!-~]', '_', self._path.name)}:{digest.hexdigest()[:12]}"

    def points(self, picture: str, size: _Size, camera: Camera) -> Points:
        """Return the measured points of a picture. picture: its path. size: (width, height). Raises UsageError."""
        path = self._path
        with _Named(path):
            if self._colmap is not None:
                pixels, z, own = self._of_colmap(self._colmap, picture)
            elif self._cloud is not None:
                pixels, z = _seen(self._cloud, size, camera)
                own = size
            elif self._by_stem:
                stem = Path(picture).stem
                if stem not in self._by_stem:
                    raise UsageError(f"{path} has no depth of {Path(picture).name}", f"add {stem}.png, .npz or .csv")
                path = self._by_stem[stem]
                pixels, z, own = _read(path, self._reference.scale)
            else:
                assert self._kept is not None
                pixels, z, own = self._kept
        if own is not None and own != size:
            if not same_ratio(own, size):
                raise UsageError(
                    f"{path} is for {own[0]}x{own[1]} pixels, and the picture has {size[0]}x{size[1]}",
                    "give depth of the whole picture",
                )
            pixels = (pixels + 0.5) * np.array(size) / own - 0.5
        source = camera.source.value if self.needs_camera else ""
        return thinned(Points(pixels, z, self._reference.shown, source))

    def _open(self) -> None:
        path, suffix = self._path, self._path.suffix.lower()
        if path.is_dir():
            if find_model(path) is not None:
                self._colmap = ColmapPoints(path)
                return
            self._by_stem = {
                each.stem: each for each in sorted(path.iterdir()) if each.suffix.lower() in _MAPS + _LISTS
            }
            if not self._by_stem:
                raise UsageError(f"{path} holds neither a COLMAP model nor depth files", f"`scale_from` takes {_KNOWN}")
        elif suffix == ".ply":
            if self._choice.cloud_to_camera is None:
                raise UsageError(f"{path} is a cloud, whose place is unknown", "give `cloud_to_camera`")
            with _Named(self._choice.cloud_to_camera):
                pose = _read_pose(self._choice.cloud_to_camera)
            cloud = np.asarray(read_shape(path).points, np.float64)  # type: ignore[union-attr]
            self._cloud = cloud @ pose[:, :3].T + pose[:, 3]
        elif suffix in _MAPS + _LISTS:
            self._kept = _read(path, self._reference.scale)
        elif not path.exists():
            raise UsageError(f"{path} does not exist", f"`scale_from` takes at:u,v=METRES, {_KNOWN}")
        else:
            raise UsageError(f"{path} is no depth file", f"`scale_from` takes {_KNOWN}")

    def _of_colmap(self, model: ColmapPoints, picture: str) -> tuple[np.ndarray, np.ndarray, Optional[_Size]]:
        found, stored = model.seen_by(picture), read_cameras(model.cameras).of_picture(picture)
        if found is None or stored is None:
            raise UsageError(f"{self._path} has no picture {Path(picture).name}", "give the model of this picture")
        places, z = found
        return places - 0.5, z * (self._choice.unit_of_colmap or 1), stored.size


class _Named:
    """Within this context what readers raise is a UsageError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if isinstance(error, UsageError) or not isinstance(error, Exception) or isinstance(error, MemoryError):
            return
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{self._path} does not exist", "check the path") from error
        if isinstance(error, DepthError):  # which names the file
            raise UsageError(error.message, f"`scale_from` takes {_KNOWN}") from error
        reason = getattr(error, "strerror", None) or str(error)
        text = " ".join(str(reason).split())[:200] or type(error).__name__
        raise UsageError(f"cannot read depth from {self._path}: {text}", f"`scale_from` takes {_KNOWN}") from error


def _read(path: Path, scale: float) -> tuple[np.ndarray, np.ndarray, Optional[_Size]]:
    """Return (N, 2) pixels, (N,) metres, and the (width, height) of a map; None of a list."""
    suffix = path.suffix.lower()
    if suffix in _LISTS:
        return _read_list(path)
    if read_facts(path):
        depth = read_depth(path)
        if depth.kind is not DepthKind.METRIC_DEPTH:
            raise UsageError(f"{path} holds {depth.kind.value}, and no metres", "give measured depth")
        values = np.where(depth.valid, depth.values, 0) if depth.valid is not None else depth.values
    else:
        from depthcli.io.codecs.numbers import read_numbers  # most runs have no reference

        is_png = suffix == ".png"
        values = read_numbers(path, "depth", only_png16=is_png).astype(np.float64) / (scale if is_png else 1)
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero(np.isfinite(values) & (values > 0))
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    return pixels, values[rows, columns].astype(np.float64), (values.shape[1], values.shape[0])


def _read_list(path: Path) -> tuple[np.ndarray, np.ndarray, None]:
    """Read lines of u, v and z, separated by commas, semicolons or spaces; words are a title."""
    text = read_bytes(path).decode("utf-8-sig")
    lines = [
        re.split(r"[,;\s]+", line.strip()) for line in text.splitlines() if line.strip() and line.strip()[0] != "#"
    ]
    if lines and re.match(r"[A-Za-z]", lines[0][0]):
        lines = lines[1:]
    if not lines or any(len(line) != 3 for line in lines):
        raise ValueError("it is not lines of u,v,z")
    rows = np.array(lines, np.float64)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 2] > 0)]
    return rows[:, :2], rows[:, 2], None


def _read_pose(path: Path) -> np.ndarray:
    """Return (3, 4) of a text with 12 or 16 numbers, row by row."""
    words = re.split(r"[\[\],;\s]+", read_bytes(path).decode("utf-8-sig").strip(" \t\r\n[]"))
    if len(words) not in (12, 16):
        raise ValueError(f"it holds {len(words)} words, and not the 12 or 16 numbers of a matrix")
    pose = np.array(words, np.float64).reshape(-1, 4)
    if not np.isfinite(pose).all() or abs(abs(np.linalg.det(pose[:3, :3])) - 1) > 0.01:
        raise ValueError("its numbers are no rotation and translation")
    return pose[:3]


def _seen(cloud: np.ndarray, size: _Size, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and depths of points in the camera's axes: in each cell of the picture the nearest one."""
    width, height = size
    # Far outside of the picture a lens model may bend rays back into it.
    ahead = cloud[cloud[:, 2] > 1e-6]
    limit = 1.5 * np.hypot(width, height) / min(camera.focal)
    ahead = ahead[np.hypot(ahead[:, 0], ahead[:, 1]) <= limit * ahead[:, 2]]
    if not len(ahead):
        return np.empty((0, 2)), np.empty(0)
    pixels = project(ahead, camera)
    inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)
    pixels, z = pixels[inside], ahead[inside, 2]
    cells = ((pixels + 0.5) // _CELL).astype(np.int64) @ (1, 1 + width // _CELL)
    order = np.lexsort((z, cells))
    first = order[np.unique(cells[order], return_index=True)[1]]
    return pixels[first], z[first]
