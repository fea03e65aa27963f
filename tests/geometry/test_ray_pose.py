from __future__ import annotations

import numpy as np
import pytest

from depthcli.geometry.poses import centers, rotations_of
from depthcli.geometry.ray_pose import cameras_of_rays

SIZE, CELLS = (56, 42), (32, 24)


def ray_maps(center: tuple[float, float], noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (3, h, w, 6) rays, and the extrinsics and intrinsics that they come from."""
    generator = np.random.default_rng(0)
    rotation = rotations_of(np.concatenate([0.2 * generator.normal(size=(3, 3)), np.ones((3, 1))], axis=1))
    extrinsics = np.concatenate([rotation, generator.normal(size=(3, 3, 1))], axis=2)
    matrix = np.array([[47.6, 0, center[0]], [0, 44.8, center[1]], [0, 0, 1]])
    u, v = ((np.arange(cells) + 0.5) / cells * side for cells, side in zip(CELLS, SIZE))
    pixels = np.stack([*np.meshgrid(u, v), np.ones(CELLS[::-1])], axis=-1)
    directions = np.einsum("nji,hwj->nhwi", rotation, pixels @ np.linalg.inv(matrix).T)
    origins = np.broadcast_to(centers(extrinsics)[:, None, None], directions.shape)
    rays = np.concatenate([directions, origins], axis=-1)
    rays = rays + noise * generator.normal(size=rays.shape)
    rays[:, ::7, ::5, :2] += 3 * (noise > 0)  # a few rays are wrong altogether
    return rays.astype(np.float32), extrinsics, np.repeat(matrix[None], 3, axis=0)


def test_clean_rays_give_their_camera() -> None:
    rays, extrinsics, intrinsics = ray_maps((28, 21))
    found = cameras_of_rays(rays, np.ones(rays.shape[:3]), SIZE)
    assert np.abs(found.extrinsics - extrinsics).max() < 1e-5
    assert np.abs(found.intrinsics - intrinsics).max() < 1e-4


def test_another_principal_point_is_found_if_asked_for() -> None:
    rays, extrinsics, intrinsics = ray_maps((29.3, 20.3))
    found = cameras_of_rays(rays, np.ones(rays.shape[:3]), SIZE, centred=False)
    assert np.abs(found.extrinsics - extrinsics).max() < 1e-5
    assert np.abs(found.intrinsics - intrinsics).max() < 1e-4
    assert np.abs(cameras_of_rays(rays, np.ones(rays.shape[:3]), SIZE).extrinsics - extrinsics).max() > 1e-2


def test_noisy_rays_give_nearly_their_camera_and_the_same_one_again() -> None:
    rays, extrinsics, intrinsics = ray_maps((28, 21), 0.01)
    sure = np.ones(rays.shape[:3])
    found, again = (cameras_of_rays(rays, sure, SIZE, seed=4) for _ in range(2))
    assert np.abs(found.extrinsics - extrinsics).max() < 2e-2
    assert np.abs(found.intrinsics - intrinsics).max() < 0.2
    assert (found.extrinsics == again.extrinsics).all()


def test_rays_beside_the_camera_are_refused() -> None:
    rays, *_ = ray_maps((28, 21))
    rays[..., 2] = 0
    with pytest.raises(ValueError, match="not enough for a camera"):
        cameras_of_rays(rays, np.ones(rays.shape[:3]), SIZE)
