"""Paths of cameras as text: TUM, KITTI, plain 4x4 matrices, Open3D's log, and the folders of 7-Scenes.

All of them hold camera to world; a Trajectory holds world to camera, as everything else here. Formats are told by
their content. What is written here is read back to the same poses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

import numpy as np

from depthcli.errors import DepthError, UsageError
from depthcli.geometry.poses import inverted, quaternions_of, rigid, rotations_of, square
from depthcli.io.cameras.files import read_cameras
from depthcli.scene import check_pose

_FRAME = re.compile(r"frame-(\d+)\.pose\.txt")
_HINT = "paths are TUM (8 numbers a line), KITTI (12), 4x4 matrices (16), Open3D's log, 7-Scenes, and files of cameras"
_TOGETHER = 0.02  # seconds between two times that are the same, as in the tools of TUM
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Cameras in order.

    extrinsics: (N, 3, 4) float64, world to camera. times: (N,) seconds, rising, or None. names: of the views, or None.
    """

    extrinsics: np.ndarray
    times: Optional[np.ndarray] = None
    names: Optional[tuple[str, ...]] = None

    def __len__(self) -> int:
        return len(self.extrinsics)


def read_trajectory(path: Path) -> Trajectory:
    """Return the path of cameras in a text file, a folder of 7-Scenes, or a file or folder of cameras with poses.

    Raises UsageError, one line with the file and the reason.
    """
    try:
        if path.is_dir():
            frames = sorted(
                (int(match[1]), entry) for entry in path.iterdir() if (match := _FRAME.fullmatch(entry.name))
            )
            if frames:
                return _seven_scenes(frames)
        elif path.stat().st_size <= _MOST_BYTES:
            text = path.read_bytes()
            if b"\0" not in text[:4096]:
                found = _of_text(text.decode("utf-8-sig"))
                if found is not None:
                    return _checked(found)
        return _of_cameras(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read a path of cameras from {path}: {error}", _HINT) from error


def write_tum(extrinsics: np.ndarray, times: Sequence[float], target: IO[bytes]) -> None:
    """Write (N, 3, 4) poses as TUM: time, place and quaternion x y z w of camera to world."""
    back = inverted(np.asarray(extrinsics, np.float64))
    rows = np.column_stack([np.asarray(times, np.float64), back[:, :, 3], quaternions_of(back[:, :, :3])])
    _write(rows, target)


def write_kitti(extrinsics: np.ndarray, target: IO[bytes]) -> None:
    """Write (N, 3, 4) poses as KITTI: the first three rows of camera to world."""
    _write(inverted(np.asarray(extrinsics, np.float64)).reshape(-1, 12), target)


def write_matrices(extrinsics: np.ndarray, target: IO[bytes]) -> None:
    """Write (N, 3, 4) poses as the camera_poses.txt of DA3-Streaming: 16 numbers of camera to world a line."""
    _write(square(inverted(np.asarray(extrinsics, np.float64))).reshape(-1, 16), target)


def write_intrinsics(intrinsics: np.ndarray, target: IO[bytes]) -> None:
    """Write (N, 3, 3) matrices as the intrinsic.txt of DA3-Streaming: fx fy cx cy a line."""
    _write(np.asarray(intrinsics, np.float64)[:, (0, 1, 0, 1), (0, 1, 2, 2)], target)


def in_common(one: Trajectory, other: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the cameras that belong together, (M,) each.

    By names if both have them, by times within 0.02 s if both have those, else by order. Raises UsageError for two
    orders of different lengths, and if fewer than two belong together.
    """
    if one.names is not None and other.names is not None:
        places = {name: number for number, name in enumerate(other.names)}
        pairs = [(number, places[name]) for number, name in enumerate(one.names) if name in places]
    elif one.times is not None and other.times is not None:
        pairs = _by_times(one.times, other.times)
    elif len(one) == len(other):
        pairs = [(number, number) for number in range(len(one))]
    else:
        raise UsageError(
            f"the paths have {len(one)} and {len(other)} cameras and nothing tells which belong together",
            "TUM files have times, files of cameras have names",
        )
    if len(pairs) < 2:
        raise UsageError(
            f"{len(pairs)} of {len(one)} and {len(other)} cameras belong together", "two at least are needed"
        )
    found = np.array(pairs, np.intp)
    return found[:, 0], found[:, 1]


def _by_times(one: np.ndarray, other: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of nearest times; each is taken once, the nearest pair first."""
    after = np.clip(np.searchsorted(other, one), 1, max(1, len(other) - 1))
    candidates = [
        (abs(one[i] - other[j]), i, j) for i in range(len(one)) for j in {after[i] - 1, min(after[i], len(other) - 1)}
    ]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for apart, i, j in sorted(candidates):
        if apart <= _TOGETHER and i not in pairs and int(j) not in taken:
            pairs[i] = int(j)
            taken.add(int(j))
    return sorted(pairs.items())


def _write(rows: np.ndarray, target: IO[bytes]) -> None:
    for row in rows:
        target.write((" ".join(repr(float(number)) for number in row) + "\n").encode("ascii"))


def _of_text(text: str) -> Optional[Trajectory]:
    """Return the path in a text; None if it is of another kind, such as JSON. Raises ValueError for a broken one."""
    lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    try:
        rows = [[float(number) for number in line] for line in lines]
    except ValueError:
        return None
    lengths = [len(row) for row in rows]
    if not rows or lengths[0] not in (3, 4, 8, 12, 16):
        return None
    if lengths[0] == 3 and len(rows) % 5 == 0 and lengths == [3, 4, 4, 4, 4] * (len(rows) // 5):
        blocks = [rows[start + 1 : start + 5] for start in range(0, len(rows), 5)]
        return Trajectory(_inverse(np.array(blocks)))
    if lengths[0] < 8:
        return None
    wrong = next((number for number, length in enumerate(lengths) if length != lengths[0]), None)
    if wrong is not None:
        raise ValueError(f"line {wrong + 1} has {lengths[wrong]} numbers, those before it {lengths[0]}")
    table = np.array(rows)
    if lengths[0] == 8:
        table = table[np.argsort(table[:, 0], kind="stable")]
        if not (np.linalg.norm(table[:, 4:], axis=1) > 0).all():
            raise ValueError("a quaternion is zero")
        back = np.concatenate([rotations_of(table[:, 4:]), table[:, 1:4, None]], axis=2)
        return Trajectory(inverted(back), times=table[:, 0])
    return Trajectory(_inverse(table.reshape(len(table), -1, 4)))


def _inverse(back: np.ndarray) -> np.ndarray:
    """Return world to camera. Raises ValueError for numbers and rotations that are none."""
    if not np.isfinite(back).all():
        raise ValueError("a pose is not finite")
    for number, one in enumerate(back):
        check_pose(one, f"camera {number + 1}")
    return inverted(rigid(back))


def _checked(found: Trajectory) -> Trajectory:
    if not np.isfinite(found.extrinsics).all():
        raise ValueError("a pose is not finite")
    return found


def _seven_scenes(frames: Sequence[tuple[int, Path]]) -> Trajectory:
    matrices = []
    for _, path in frames:
        rows = np.array([float(number) for number in path.read_text("ascii").split()])
        if rows.size != 16:
            raise ValueError(f"{path.name} has {rows.size} numbers, not 16")
        matrices.append(rows.reshape(4, 4))
    return Trajectory(_inverse(np.stack(matrices)), names=tuple(f"frame-{number:06d}" for number, _ in frames))


def _of_cameras(path: Path) -> Trajectory:
    try:
        stored = [camera for camera in read_cameras(path).cameras if camera.pose is not None]
    except DepthError as error:
        raise ValueError(error.message) from error
    if not stored:
        raise ValueError("no camera in it has a pose")
    poses = np.stack([np.asarray(camera.pose, np.float64)[:3] for camera in stored])
    names = tuple(camera.name for camera in stored)
    return Trajectory(poses, names=names if all(names) and len(set(names)) == len(names) else None)
