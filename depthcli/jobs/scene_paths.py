"""Paths of cameras that are given for the views of a scene as text: TUM, KITTI, matrices, Open3D's log, 7-Scenes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Optional

import numpy as np

from depthcli.camera import Camera, CameraSource
from depthcli.errors import UsageError
from depthcli.io.cameras.stored import StoredCamera
from depthcli.io.trajectories import Trajectory, read_trajectory

INTRINSICS = "intrinsic.txt"  # beside a path: fx fy cx cy a line, as DA3-Streaming writes it
_TOGETHER = 0.02  # seconds between the time of a pose and that of its view
_SUFFIXES = ("", ".txt", ".log", ".tum", ".kitti", ".csv", ".freiburg")


@dataclass(frozen=True, eq=False)
class GivenPath:
    """The poses of a file or folder, in its order. intrinsics: (N, 4) fx fy cx cy of the pictures, or None."""

    path: Path
    found: Trajectory
    intrinsics: Optional[np.ndarray]

    @cached_property
    def fingerprint(self) -> str:
        """A text without spaces that changes with the poses, for manifests."""
        numbers = (self.found.extrinsics, self.found.times, self.intrinsics)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in numbers if one is not None))
        return f"{re.sub(r'[^!-~]', '_', self.path.name)}:{digest.hexdigest()[:12]}"

    def cameras(self, names: Sequence[str], indices: Optional[Sequence[int]] = None) -> list[StoredCamera]:
        """Return the pose of each view as a camera, which has no intrinsics if the path has none.

        names: of the views. indices: of the frames, where views are frames of a clip. Poses with times belong to the
        views whose names, or the last numbers in them, are those times; poses with names to those views; others, in
        their order, to the views, or to all frames of the clip. Raises UsageError for a view without a pose.
        """
        numbers = self._numbers(names, indices)
        poses = self.found.extrinsics
        return [
            StoredCamera(self._camera(number), None, name, pose=poses[number]) for name, number in zip(names, numbers)
        ]

    def _camera(self, number: int) -> Optional[Camera]:
        if self.intrinsics is None:
            return None
        fx, fy, cx, cy = self.intrinsics[number]
        return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), CameraSource.GIVEN)

    def _numbers(self, names: Sequence[str], indices: Optional[Sequence[int]]) -> list[int]:
        count = len(self.found)
        if self.found.times is not None:
            times = self.found.times
            wanted = np.array([_time_of(name) for name in names])
            nearest = np.abs(times[None] - wanted[:, None]).argmin(axis=1)
            bad = np.flatnonzero(~(np.abs(times[nearest] - wanted) <= _TOGETHER))
            if len(bad):
                name = names[int(bad[0])]
                raise UsageError(
                    f"{self.path} has no pose for {name}, at {wanted[int(bad[0])]:g}",
                    "the times of TUM are the numbers in the names of the views",
                )
            return [int(number) for number in nearest]
        if self.found.names is not None:
            places = {PurePosixPath(name).stem.split(".")[0]: number for number, name in enumerate(self.found.names)}
            found = [places.get(PurePosixPath(name).stem.split(".")[0]) for name in names]
            missing = next((name for name, number in zip(names, found) if number is None), None)
            if missing is not None:
                raise UsageError(f"{self.path} has no pose for {missing}", "each view needs one")
            return [number for number in found if number is not None]
        if count == len(names):
            return list(range(count))
        if indices is not None and max(indices) < count:
            return list(indices)
        raise UsageError(
            f"{self.path} has {count} poses for {len(names)} views", "give one for each view, in their order, or TUM"
        )


def given_path(path: Path) -> Optional[GivenPath]:
    """Return the path in a text or a folder of 7-Scenes; None for a file or folder of cameras. Raises UsageError."""
    seven = path.is_dir() and next(path.glob("frame-*.pose.txt"), None) is not None
    if not seven and (path.is_dir() or path.suffix.lower() not in _SUFFIXES or path.name in _OF_COLMAP):
        return None
    found = read_trajectory(path)
    if found.names is not None and not seven:
        return None
    return GivenPath(path, found, _intrinsics_beside(path, len(found)))


_OF_COLMAP = ("cameras.txt", "images.txt")


def _intrinsics_beside(path: Path, count: int) -> Optional[np.ndarray]:
    beside = path.parent / INTRINSICS
    if path.is_dir() or not beside.is_file():
        return None
    with suppress(ValueError, OSError):
        rows = np.loadtxt(beside, ndmin=2)
        if rows.shape == (count, 4) and np.isfinite(rows).all() and (rows[:, :2] > 0).all():
            return np.asarray(rows, np.float64)
    raise UsageError(f"{beside} is not fx fy cx cy for each of {count} poses", "move it away to have them found")


def _time_of(name: str) -> float:
    """Return the number that a name is, or the last one in it; NaN if there is none."""
    stem = PurePosixPath(name).stem
    with suppress(ValueError):
        return float(stem)
    digits = re.findall(r"\d+", stem)
    return float(digits[-1]) if digits else float("nan")
