"""The pictures and the points of a COLMAP model: images and points3D, .txt or .bin.

Formats: colmap.github.io/format.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Optional

import numpy as np

from depthcli.io.cameras.colmap import find_model, pose_of

POINT2D = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
TRACK = np.dtype([("image", "<i4"), ("index", "<i4")])
_IMAGE, _POINT = struct.Struct("<i7di"), struct.Struct("<Q3d3BdQ")


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A picture. pose: (3, 4) world to camera. camera: its number.

    rows: of POINT2D: places, with pixel centres at half numbers, and the numbers of their points; -1 for none.
    """

    number: int
    name: str
    pose: np.ndarray
    camera: int
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class ColmapPoint:
    """A point of the world. color: sRGB, 0 to 255. error: in pixels. track: rows of TRACK, the pictures that see it."""

    number: int
    place: tuple[float, float, float]
    color: tuple[int, int, int]
    error: float
    track: np.ndarray


def read_images(path: Path) -> list[ColmapImage]:
    """Return the pictures of images.txt or images.bin. Raises what broken bytes lead to: ValueError, struct.error."""
    if path.suffix == ".bin":
        return list(_binary_images(path.read_bytes()))
    return list(_text_images(path.read_text(encoding="utf-8", errors="replace")))


def read_points(path: Path) -> list[ColmapPoint]:
    """Return the points of points3D.txt or points3D.bin. Raises as `read_images`."""
    if path.suffix == ".bin":
        return list(_binary_points(path.read_bytes()))
    return list(_text_points(path.read_text(encoding="utf-8", errors="replace")))


class ColmapPoints:
    """Points in space and the pictures that see them, read when they are asked for.

    Raises ValueError for a model without images.* and points3D.*, and for files that are cut short.
    """

    def __init__(self, folder: Path) -> None:
        model = find_model(folder)
        if model is None:
            raise ValueError("it has no cameras.txt or cameras.bin of COLMAP")
        self.cameras = model
        self.files = tuple(model.with_name(f"{name}{model.suffix}") for name in ("images", "points3D"))
        for path in self.files:
            if not path.is_file():
                raise ValueError(f"it lacks {path.name}")

    def seen_by(self, picture: str) -> Optional[tuple[np.ndarray, np.ndarray]]:
        """Return the (N, 2) places, with pixel centres at half numbers, and (N,) depths z; None for no such picture.

        z is in the unit of the model, along the optical axis. picture: its path; the longest common end decides.
        """
        wanted = PurePosixPath(picture.replace("\\", "/")).parts[::-1]
        best, most = None, 0
        for name, item in self._images.items():
            parts = PurePosixPath(name).parts[::-1]
            common = next((n for n, (a, b) in enumerate(zip(parts, wanted)) if a != b), min(len(parts), len(wanted)))
            if common > most:
                best, most = item, common
        if best is None:
            return None
        pose, rows = best.pose, best.rows[best.rows["point"] >= 0]
        known = np.isin(rows["point"], self._points[0])
        rows = rows[known]
        world = self._points[1][np.searchsorted(self._points[0], rows["point"])]
        with np.errstate(all="ignore"):  # of a broken pose all are infinite, or NaN
            return rows["xy"].astype(np.float64), world @ pose[2, :3] + pose[2, 3]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the pictures, in the order of their file."""
        return tuple(self._images)

    @cached_property
    def _images(self) -> dict[str, ColmapImage]:
        return {image.name: image for image in read_images(self.files[0])}

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        """The sorted numbers of the points, and their (N, 3) places in the world."""
        points = read_points(self.files[1])
        numbers = np.array([point.number for point in points], np.int64)
        places = np.array([point.place for point in points], np.float64).reshape(-1, 3)
        order = np.argsort(numbers)
        return numbers[order], places[order]


def _text_images(text: str) -> Iterator[ColmapImage]:
    lines = iter([line for line in text.splitlines() if not line.startswith("#")])
    for line in lines:
        words = line.split(maxsplit=9)
        if not words:
            continue
        triples = np.array(next(lines, "").split(), np.float64).reshape(-1, 3)
        rows = np.empty(len(triples), POINT2D)
        rows["xy"], rows["point"] = triples[:, :2], triples[:, 2]
        yield ColmapImage(int(words[0]), words[9], pose_of([*map(float, words[1:8])]), int(words[8]), rows)


def _binary_images(data: bytes) -> Iterator[ColmapImage]:
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, *pose, camera = _IMAGE.unpack_from(data, at)
        end = data.index(b"\0", at + _IMAGE.size)
        name = data[at + _IMAGE.size : end].decode(errors="replace")
        (length,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + length * POINT2D.itemsize
        if at > len(data):
            raise ValueError("its images.bin is cut short")
        yield ColmapImage(number, name, pose_of(pose), camera, np.frombuffer(data, POINT2D, length, end + 9))


def _text_points(text: str) -> Iterator[ColmapPoint]:
    for line in text.splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            x, y, z, error = (float(words[place]) for place in (1, 2, 3, 7))
            red, green, blue = (int(word) for word in words[4:7])
            pairs = np.array(words[8:], np.int64).reshape(-1, 2)
            track = np.empty(len(pairs), TRACK)
            track["image"], track["index"] = pairs.T
            yield ColmapPoint(int(words[0]), (x, y, z), (red, green, blue), error, track)


def _binary_points(data: bytes) -> Iterator[ColmapPoint]:
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, x, y, z, red, green, blue, error, length = _POINT.unpack_from(data, at)
        start, at = at + _POINT.size, at + _POINT.size + length * TRACK.itemsize
        if at > len(data):
            raise ValueError("its points3D.bin is cut short")
        yield ColmapPoint(number, (x, y, z), (red, green, blue), error, np.frombuffer(data, TRACK, length, start))
