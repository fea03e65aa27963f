"""Depth maps as one surface: planes, balls and rooms that are known by formulas."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.geometry.tsdf import Volume, sample_triangles
from tests.geometry.rooms import CENTRE, FLOOR, RADIUS, WALL, room


def fused(voxel: float, truncation: float, wrong: float = 0.0) -> np.ndarray:
    volume = Volume(voxel, truncation, farthest=9)
    generator = np.random.default_rng(0)
    for view in room(places=tuple((0.1 * n - 0.4, 0.05 * n - 0.2, 0.0) for n in range(9))).views:
        camera = view.depth.camera
        z = view.depth.values + wrong * generator.normal(size=view.depth.values.shape)
        volume.add(z.astype(np.float32), camera.intrinsics, camera.extrinsics)
    return volume.triangles()


def errors(points: np.ndarray) -> np.ndarray:
    floor, wall = (np.abs(points @ normal - distance) for normal, distance in (FLOOR, WALL))
    return np.min([np.abs(np.linalg.norm(points - CENTRE, axis=1) - RADIUS), floor, wall], axis=0)


def test_the_surface_of_a_room_is_found() -> None:
    points = sample_triangles(fused(0.05, 0.2), 20_000)
    off = errors(points)
    assert np.median(off) < 0.01 and np.percentile(off, 90) < 0.05  # a voxel; the rest spans the ball and its shadow
    ball = points[np.linalg.norm(points - CENTRE, axis=1) < RADIUS + 0.05]
    assert len(ball) > 300 and ball[:, 2].min() < CENTRE[2] - 0.9 * RADIUS


def test_views_average_their_noise() -> None:
    assert np.median(errors(sample_triangles(fused(0.05, 0.2, wrong=0.05), 20_000))) < 0.02


def test_a_plane_is_exact_and_closed() -> None:
    volume = Volume(0.1, 0.4)
    volume.add(np.full((60, 80), 2.03, np.float32), np.array([[40.0, 0, 39.5], [0, 40, 29.5], [0, 0, 1]]), np.eye(3, 4))
    triangles = volume.triangles()
    area = np.linalg.norm(np.cross(*(triangles[:, n] - triangles[:, 0] for n in (1, 2))), axis=1).sum() / 2
    # What a ray's length bends by pixels is below a tenth of a voxel; the border of a cell is lost on each side.
    assert np.abs(triangles[..., 2] - 2.03).max() < 0.01 and area == pytest.approx(4.0 * 3.0, rel=0.12)
    points = sample_triangles(triangles, 5000)
    assert np.allclose(points[:, :2].mean(axis=0), 0, atol=0.08) and (points == sample_triangles(triangles, 5000)).all()


def test_what_was_not_seen_has_no_surface() -> None:
    volume = Volume(0.1, 0.4, farthest=5)
    depth = np.full((40, 40), np.nan, np.float32)
    depth[:20] = 9
    volume.add(depth, np.diag([20.0, 20, 1]), np.eye(3, 4))
    assert volume.triangles().shape == (0, 3, 3) and len(sample_triangles(volume.triangles(), 10)) == 0
    with pytest.raises(ValueError, match="too small for a scene"):
        Volume(1e-7, 1e-6).add(np.ones((8, 8), np.float32), np.eye(3), np.eye(3, 4))
    with pytest.raises(ValueError, match="make no surface"):
        Volume(0, 1)


def test_samples_follow_the_area() -> None:
    small, large = np.eye(3)[None], 3 * np.eye(3)[None] + 10
    points = sample_triangles(np.concatenate([small, large]), 20_000)
    assert (points.min(axis=1) > 5).mean() == pytest.approx(0.9, abs=0.01)
    assert np.allclose(points[points.min(axis=1) < 5].mean(axis=0), 1 / 3, atol=0.02)
