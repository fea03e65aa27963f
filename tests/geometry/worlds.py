"""What is needed to hold long scenes to reference outputs: transforms as 13 numbers, and points of whole chunks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from depthcli.camera import Camera, CameraSource
from depthcli.geometry.poses import to_world
from depthcli.geometry.rays import unproject
from depthcli.geometry.sim3 import Sim3


def from_numbers(numbers: np.ndarray) -> Sim3:
    """Return a transform of its scale, its rotation row by row, and its translation."""
    return Sim3(float(numbers[0]), numbers[1:10].reshape(3, 3).astype(float), numbers[10:].astype(float))


def to_numbers(transform: Sim3) -> np.ndarray:
    return np.concatenate([[transform.scale], transform.rotation.ravel(), transform.translation])


def chunk_points(arrays: Mapping[str, np.ndarray], views: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3) points of the world and (N,) confidences of some views of a chunk."""
    found = []
    for z, pose, matrix in zip(*(arrays[name][views] for name in ("depth", "extrinsics", "intrinsics"))):
        local = unproject(z, Camera(matrix.astype(float), CameraSource.GIVEN)).reshape(-1, 3)
        found.append(to_world(local, pose.astype(float)))
    return np.concatenate(found), arrays["conf"][views].ravel()


def random_turn(generator: np.random.Generator, angle: float) -> np.ndarray:
    """Return a rotation by an angle in radians about a random axis."""
    axis = generator.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
