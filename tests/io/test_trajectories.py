"""Paths of cameras: every format read back, told by its content, and broken ones refused in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import UsageError
from depthcli.geometry.poses import inverted, square
from depthcli.io.scenes.files import write_scene
from depthcli.io.trajectories import Trajectory, in_common, read_trajectory, write_kitti, write_matrices, write_tum
from tests.geometry.rooms import room

POSES = room().extrinsics


def written(name: str) -> Path:
    path, stream = Path(name), io.BytesIO()
    if name == "tum.txt":
        stream.write(b"# time tx ty tz qx qy qz qw\n")
        write_tum(POSES, (0.5, 1.0, 2.25), stream)
    elif name == "kitti.txt":
        write_kitti(POSES, stream)
    elif name == "camera_poses.txt":
        write_matrices(POSES, stream)
    elif name == "trajectory.log":
        for number, pose in enumerate(square(inverted(POSES))):
            rows = "\n".join(" ".join(map(repr, map(float, row))) for row in pose)
            stream.write(f"{number} {number} {number + 1}\n{rows}\n".encode())
    elif name == "seven":
        path.mkdir()
        for number, pose in enumerate(square(inverted(POSES))):
            np.savetxt(path / f"frame-{number:06d}.pose.txt", pose)
        return path
    else:
        write_scene(room(), ".", [name.partition(".")[0]])
        return path
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize(
    "name",
    ["tum.txt", "kitti.txt", "camera_poses.txt", "trajectory.log", "seven", "cameras.json", "transforms.json"],
)
def test_poses_are_read_back(name: str) -> None:
    found = read_trajectory(written(name))
    assert np.abs(found.extrinsics - POSES).max() < 1e-12
    assert (found.times is not None) == (name == "tum.txt")
    if found.times is not None:
        assert found.times.tolist() == [0.5, 1.0, 2.25]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot read"),
        ("not a path", "cannot read"),
        ("1 2 3 4 5 6 7 8\n1 2 3\n", "line 2 has 3 numbers, those before it 8"),
        ("1 0 0 0 0 0 0 0\n", "a quaternion is zero"),
        ("1 0 0 nan 0 0 0 1\n", "not finite"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "no rotation"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0\n", "mirrored"),
        ('{"frames": []}', "cannot read"),
    ],
)
def test_broken_paths_are_refused(content: str, reason: str) -> None:
    Path("path.txt").write_text(content)
    with pytest.raises(UsageError, match=reason) as error:
        read_trajectory(Path("path.txt"))
    assert "path.txt" in str(error.value) and "\n" not in str(error.value)


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"none\.txt does not exist"):
        read_trajectory(Path("none.txt"))


def test_cameras_belong_together_by_name_time_or_order() -> None:
    times = np.array([0.0, 1.0, 2.0])
    one, other = Trajectory(POSES, times), Trajectory(POSES[1:], times[1:] + 0.015)
    assert [part.tolist() for part in in_common(one, other)] == [[1, 2], [0, 1]]
    named = Trajectory(POSES, names=("a", "b", "c"))
    assert [part.tolist() for part in in_common(named, Trajectory(POSES, names=("c", "x", "a")))] == [[0, 2], [2, 0]]
    assert [part.tolist() for part in in_common(named, one)] == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(UsageError, match="3 and 2 cameras and nothing tells which belong together"):
        in_common(named, other)
    with pytest.raises(UsageError, match="0 of 3 and 3 cameras belong together"):
        in_common(one, Trajectory(POSES, times + 10))
