"""Raw Gaussians of Depth Anything 3 to Gaussians in the world.

Conventions are those that the network was trained with: the middle of a picture is (W / 2, H / 2), and a Gaussian's
quaternion has its parts in an order of its own.
"""

from __future__ import annotations

import numpy as np

from depthcli.scene import Gaussians

HARMONICS = 9  # of each colour: degrees 0 to 2
_PARTS = (2, 3, 4, 3 * HARMONICS, 1)  # offset in the picture, scale, quaternion, harmonics, offset in depth
_SMALLEST, _LARGEST = 1e-5, 30.0  # scales, of a tenth of a pixel's width
_PIXEL_SHARE = 0.1
_MOST_SCALED = 3.0
_TINY = 1e-8
_BANDS = np.repeat((1, 0.025, 0.25 * 0.025), (1, 3, 5)).astype(np.float32)  # of the degrees
# The axes of the harmonics: y, -z and x of the world, as in files of Gaussian splats; the polar one is the second.
_AXES = np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], np.float64)


def to_gaussians(
    raw: np.ndarray, depth: np.ndarray, extrinsics: np.ndarray, intrinsics: np.ndarray, scale: float = 1.0
) -> Gaussians:
    """Return the Gaussians of all pixels of V views.

    raw: (V, H, W, 38) as the network gives it. depth: (V, H, W) of the same network, along the optical axis.
    extrinsics: (V, 3 or 4, 4) world to camera. intrinsics: (V, 3, 3) in pixels of the network's input.
    scale: of distances and camera centres, as from the predicted poses to given ones; limited to 1/3 to 3.
    """
    factor = min(max(scale, 1 / _MOST_SCALED), _MOST_SCALED)
    opacity = 1 / (1 + np.exp(-raw[..., 37].astype(np.float64)))
    shift, width_of, quaternion, harmonics, nearer = np.split(
        raw[..., :37].astype(np.float64), np.cumsum(_PARTS)[:-1], -1
    )
    views, height, width = depth.shape
    size = np.array([width, height])
    to_world = extrinsics[:, :3, :3].astype(np.float64).transpose(0, 2, 1)
    centers = -factor * np.einsum("vij,vj->vi", to_world, extrinsics[:, :3, 3].astype(np.float64))
    relative = intrinsics.astype(np.float64) / np.array([width, height, 1])[:, None]
    inverse = np.linalg.inv(relative)
    at = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + 0.5
    rays = np.concatenate([(at + shift) / size, np.ones((views, height, width, 1))], axis=-1)
    rays = np.einsum("vij,vhwj->vhwi", to_world @ inverse, rays)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    distance = factor * (depth + nearer[..., 0])[..., None]
    pixel = _PIXEL_SHARE * (inverse[:, :2, :2] @ (1 / size)).sum(axis=1)
    scales = _SMALLEST + (_LARGEST - _SMALLEST) / (1 + np.exp(-width_of))
    colors = harmonics.reshape(views, height, width, 3, HARMONICS) * _BANDS
    arrays = (
        centers[:, None, None] + rays * distance,
        scales * distance * pixel[:, None, None, None],
        np.stack([_rotated(to_world[view], quaternion[view].reshape(-1, 4)) for view in range(views)]),
        np.stack([colors[view] @ _turn_of_harmonics(to_world[view]).T for view in range(views)]),
        opacity,
    )
    shapes = ((-1, 3), (-1, 3), (-1, 4), (-1, 3, HARMONICS), (-1,))
    return Gaussians(*(array.reshape(shape).astype(np.float32) for array, shape in zip(arrays, shapes)))


def _rotated(to_world: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return the rotations (N, 4) in the world, x y z w, for a view's raw quaternions.

    The raw last part is taken to the front and read as x, with the scalar last; the weights expect it.
    """
    q = quaternion / (np.linalg.norm(quaternion, axis=-1, keepdims=True) + _TINY)
    x, y, z, w = q[:, 3], q[:, 0], q[:, 1], q[:, 2]
    turn = _quaternion_of(to_world)
    a, b, c, d = turn  # the product of both rotations
    product = np.stack(
        [
            d * x + a * w + b * z - c * y,
            d * y - a * z + b * w + c * x,
            d * z + a * y - b * x + c * w,
            d * w - a * x - b * y - c * z,
        ],
        axis=-1,
    )
    product /= np.linalg.norm(product, axis=-1, keepdims=True)
    return np.where(product[:, 3:] < 0, -product, product)


def _quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """Return the unit quaternion x y z w of a rotation matrix: the eigenvector of its symmetric 4x4 form."""
    m = rotation
    form = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    found: np.ndarray = np.linalg.eigh(form)[1][:, -1]
    return found


def _turn_of_harmonics(to_world: np.ndarray) -> np.ndarray:
    """Return the (9, 9) matrix that turns the harmonics of degrees 0 to 2 as the directions are turned."""
    rotation = _AXES @ to_world @ _AXES.T
    turn = np.eye(HARMONICS)
    # A degree's harmonics of turned directions are a matrix times those of the directions: more directions than needed.
    directions = np.random.default_rng(0).standard_normal((20, 3))
    before, after = _harmonics(directions), _harmonics(directions @ rotation.T)
    for degree in (slice(1, 4), slice(4, 9)):
        turn[degree, degree] = np.linalg.lstsq(before[:, degree], after[:, degree], rcond=None)[0].T
    return turn


def _harmonics(directions: np.ndarray) -> np.ndarray:
    """Return real harmonics (N, 9) as homogeneous polynomials, the second axis polar; equal weights in a degree."""
    x, y, z = directions.T
    root = np.sqrt(3)
    return np.stack(
        [
            np.ones_like(x),
            *(x, y, z),
            *(root * x * z, root * x * y, y * y - (x * x + z * z) / 2, root * y * z, root / 2 * (z * z - x * x)),
        ],
        axis=-1,
    )
