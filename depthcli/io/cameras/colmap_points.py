"""The points that a picture of a COLMAP model sees: images and points3D, .txt or .bin.

Formats: colmap.github.io/format.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Optional

import numpy as np

from depthcli.io.cameras.colmap import find_model, read_name

_POINT = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
_FIXED = struct.Struct("<i7di")
_TRACK = 8  # bytes of a picture that sees a point


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
        pose, rows = best
        rows = rows[rows["point"] >= 0]
        known = np.isin(rows["point"], self._points[0])
        rows = rows[known]
        world = self._points[1][np.searchsorted(self._points[0], rows["point"])]
        return rows["xy"].astype(np.float64), world @ pose[2, :3] + pose[2, 3]

    @cached_property
    def _images(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        path = self.files[0]
        if path.suffix == ".bin":
            with path.open("rb") as file:
                return dict(_binary_images(file))
        with path.open(encoding="utf-8", errors="replace") as lines:
            return dict(_text_images(iter(lines)))

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        """The sorted numbers of the points, and their (N, 3) places in the world."""
        path = self.files[1]
        rows = list(_binary_points(path.read_bytes()) if path.suffix == ".bin" else _text_points(path))
        numbers = np.array([number for number, _ in rows], np.int64)
        places = np.array([place for _, place in rows], np.float64).reshape(-1, 3)
        order = np.argsort(numbers)
        return numbers[order], places[order]


def _pose(turn: tuple[float, ...], move: tuple[float, ...]) -> np.ndarray:
    """Return (3, 4) world to camera of a quaternion w x y z and a translation."""
    w, x, y, z = np.array(turn) / (np.linalg.norm(turn) or 1)
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.c_[np.array(rotation), np.array(move)]


def _text_images(lines: Iterator[str]) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    for row in lines:
        if not row.strip() or row.startswith("#"):
            continue
        words = row.rstrip("\r\n").split(maxsplit=9)
        numbers = [float(word) for word in words[1:8]]
        triples = np.array(next(lines, "").split(), np.float64).reshape(-1, 3)
        rows = np.empty(len(triples), _POINT)
        rows["xy"], rows["point"] = triples[:, :2], triples[:, 2]
        yield words[9], (_pose(tuple(numbers[:4]), tuple(numbers[4:])), rows)


def _binary_images(file: BinaryIO) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    size = os.fstat(file.fileno()).st_size
    (count,) = struct.unpack("<Q", file.read(8))
    for _ in range(count):
        _, *numbers, _ = _FIXED.unpack(file.read(_FIXED.size))
        name = read_name(file).decode(errors="replace")
        (points,) = struct.unpack("<Q", file.read(8))
        if points * _POINT.itemsize > size - file.tell():
            raise ValueError("its images.bin is cut short")
        data = file.read(points * _POINT.itemsize)
        yield name, (_pose(tuple(numbers[:4]), tuple(numbers[4:])), np.frombuffer(data, _POINT))


def _text_points(path: Path) -> Iterator[tuple[int, tuple[float, ...]]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for row in lines:
            words = row.split(maxsplit=4)
            if words and not row.startswith("#"):
                yield int(words[0]), tuple(map(float, words[1:4]))


def _binary_points(data: bytes) -> Iterator[tuple[int, tuple[float, ...]]]:
    fixed = struct.Struct("<Q3d3BdQ")
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, x, y, z, _, _, _, _, track = fixed.unpack_from(data, at)
        at += fixed.size + _TRACK * track
        yield number, (x, y, z)
