"""Poses of cameras as arrays: inverses, quaternions, and the codes that networks read and answer.

Extrinsics are world to camera, (N, 3, 4), with OpenCV's axes. Quaternions are x, y, z, w.
"""

from __future__ import annotations

import numpy as np

_NEAREST = 0.1  # smallest distance that the network's poses are divided by
_LEAST_TANGENT = 1e-6


def square(extrinsics: np.ndarray) -> np.ndarray:
    """Return (N, 4, 4) for (N, 3, 4) or (N, 4, 4) poses, of the same dtype."""
    extrinsics = np.asarray(extrinsics)
    out = np.zeros((len(extrinsics), 4, 4), extrinsics.dtype)
    out[:, :3] = extrinsics[:, :3]
    out[:, 3, 3] = 1
    return out


def inverted(extrinsics: np.ndarray) -> np.ndarray:
    """Return the (N, 3, 4) inverses of rigid (N, 3, 4) or (N, 4, 4) poses: [R', -R' t]."""
    rotation = np.asarray(extrinsics)[:, :3, :3].transpose(0, 2, 1)
    return np.concatenate([rotation, -rotation @ np.asarray(extrinsics)[:, :3, 3:]], axis=2)


def rigid(extrinsics: np.ndarray) -> np.ndarray:
    """Return (N, 3, 4) float64 poses with the rotations nearest to those of (N, 3, 4) or (N, 4, 4) ones.

    Those of a network are rotations to the seven digits of float32, which a file that holds quaternions or inverses
    would show as a part of a pixel.
    """
    out = np.array(extrinsics[:, :3], np.float64)
    u, _, v = np.linalg.svd(out[:, :, :3])
    out[:, :, :3] = u @ v
    return out


def centers(extrinsics: np.ndarray) -> np.ndarray:
    """Return the (N, 3) places of cameras in the world."""
    return inverted(extrinsics)[:, :, 3]


def to_camera(points: np.ndarray, extrinsics: np.ndarray) -> np.ndarray:
    """Return (M, 3) float64 points of the world in the axes of one camera. extrinsics: (3, 4)."""
    return np.asarray(points, np.float64) @ extrinsics[:, :3].T + extrinsics[:, 3]


def to_world(points: np.ndarray, extrinsics: np.ndarray) -> np.ndarray:
    """Return (M, 3) float64 points in the axes of one camera as points of the world. extrinsics: (3, 4)."""
    return (np.asarray(points, np.float64) - extrinsics[:, 3]) @ extrinsics[:, :3]


def relative_to_first(extrinsics: np.ndarray) -> np.ndarray:
    """Return (N, 4, 4) poses in the axes of the first camera."""
    whole = square(extrinsics)
    return whole @ square(inverted(whole[:1]))


def normalised(extrinsics: np.ndarray) -> np.ndarray:
    """Return (N, 4, 4) poses as the camera encoder of Depth Anything 3 takes them.

    They are relative to the first view, and translations are divided by the median distance of the cameras from it,
    the first one's 0 included, but by 0.1 at least. The lower of two middle values is the median, as torch has it.
    """
    moved = relative_to_first(extrinsics)
    distances = np.sort(np.linalg.norm(centers(moved), axis=1))
    moved[:, :3, 3] /= max(_NEAREST, distances[(len(distances) - 1) // 2])
    return moved


def rotations_of(quaternions: np.ndarray) -> np.ndarray:
    """Return (N, 3, 3) rotations of (N, 4) quaternions x, y, z, w of any length but 0."""
    x, y, z, w = np.moveaxis(np.asarray(quaternions), -1, 0)
    double = 2 / (x * x + y * y + z * z + w * w)
    rows = (
        (1 - double * (y * y + z * z), double * (x * y - z * w), double * (x * z + y * w)),
        (double * (x * y + z * w), 1 - double * (x * x + z * z), double * (y * z - x * w)),
        (double * (x * z - y * w), double * (y * z + x * w), 1 - double * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternions_of(rotations: np.ndarray) -> np.ndarray:
    """Return the (N, 4) quaternions x, y, z, w with w >= 0, of length 1, of (N, 3, 3) rotations.

    The largest of the four components is taken from the diagonal, so that no small number is divided by.
    """
    r = np.asarray(rotations)
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    # Row k is the quaternion times 4 of its component k.
    table = np.stack(
        [
            np.stack([1 + xx - yy - zz, r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 2, 1] - r[:, 1, 2]], -1),
            np.stack([r[:, 0, 1] + r[:, 1, 0], 1 - xx + yy - zz, r[:, 1, 2] + r[:, 2, 1], r[:, 0, 2] - r[:, 2, 0]], -1),
            np.stack([r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1], 1 - xx - yy + zz, r[:, 1, 0] - r[:, 0, 1]], -1),
            np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1], 1 + xx + yy + zz], -1),
        ],
        axis=1,
    )
    best = table[np.arange(len(r)), np.argmax(np.einsum("nkk->nk", table), axis=1)]
    out = best / np.linalg.norm(best, axis=1, keepdims=True)
    return np.where(out[:, 3:] < 0, -out, out)


def encode_cameras(extrinsics: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the (N, 9) codes of cameras: place, quaternion of camera to world, angles of view down and across.

    size: (width, height) of the pictures. Angles are in radians; principal points are not in the code.
    """
    back = inverted(extrinsics)
    width, height = size
    down = 2 * np.arctan(height / 2 / intrinsics[:, 1, 1])
    across = 2 * np.arctan(width / 2 / intrinsics[:, 0, 0])
    return np.concatenate([back[:, :, 3], quaternions_of(back[:, :, :3]), down[:, None], across[:, None]], axis=1)


def decode_cameras(codes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3, 4) extrinsics and (N, 3, 3) intrinsics of (N, 9) codes, in their dtype.

    The principal point is (width / 2, height / 2): the middle in a grid whose pixel centres lie at half numbers.
    """
    width, height = size
    back = np.concatenate([rotations_of(codes[:, 3:7]), codes[:, :3, None]], axis=2)
    matrix = np.zeros((len(codes), 3, 3), codes.dtype)
    matrix[:, 0, 0] = width / 2 / np.maximum(np.tan(codes[:, 8] / 2), _LEAST_TANGENT)
    matrix[:, 1, 1] = height / 2 / np.maximum(np.tan(codes[:, 7] / 2), _LEAST_TANGENT)
    matrix[:, :2, 2] = width / 2, height / 2
    matrix[:, 2, 2] = 1
    return inverted(back), matrix
