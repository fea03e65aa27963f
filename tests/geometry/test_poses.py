from __future__ import annotations

import numpy as np
import pytest

from depthcli.geometry.given_poses import settle_given_poses
from depthcli.geometry.poses import (
    centers,
    decode_cameras,
    encode_cameras,
    inverted,
    normalised,
    quaternions_of,
    relative_to_first,
    rotations_of,
    square,
    to_camera,
    to_world,
)
from depthcli.geometry.sim3 import IDENTITY, Sim3, align_cameras, umeyama


def poses(count: int, seed: int = 0) -> np.ndarray:
    """Return (N, 3, 4) poses, world to camera."""
    generator = np.random.default_rng(seed)
    return np.concatenate([rotations_of(generator.normal(size=(count, 4))), generator.normal(size=(count, 3, 1))], 2)


def a_sim3(scale: float = 2.5) -> Sim3:
    return Sim3(scale, rotations_of(np.array([[0.2, -0.5, 0.3, 0.9]]))[0], np.array([1.0, -2.0, 0.5]))


def test_inverse_and_centres() -> None:
    some = poses(5)
    assert np.allclose(square(some) @ square(inverted(some)), np.eye(4))
    for pose, place in zip(some, centers(some)):
        assert np.allclose(to_camera(place[None], pose), 0)
    points = np.random.default_rng(1).normal(size=(7, 3))
    assert np.allclose(to_world(to_camera(points, some[0]), some[0]), points)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    half = np.sqrt(0.5)
    assert np.allclose(rotations_of(np.array([[0, 0, half, half]]))[0] @ [1, 0, 0], [0, 1, 0])


def test_quaternions_and_rotations_are_each_others_inverse() -> None:
    some = np.concatenate([np.random.default_rng(2).normal(size=(50, 4)), np.eye(4), -np.eye(4)])
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    back = quaternions_of(rotations_of(some))
    assert np.allclose(np.abs((back * some).sum(axis=1)), 1)
    assert (back[:, 3] >= 0).all()
    assert np.allclose(rotations_of(3 * some), rotations_of(some))


def test_camera_codes_come_back() -> None:
    some, matrix = poses(4), np.array([[500.0, 0, 320], [0, 480, 240], [0, 0, 1]])
    codes = encode_cameras(some, np.repeat(matrix[None], 4, axis=0), (640, 480))
    assert np.allclose(codes[:, 7], 2 * np.arctan(240 / 480))  # down
    extrinsics, intrinsics = decode_cameras(codes, (640, 480))
    assert np.allclose(extrinsics, some)
    assert np.allclose(intrinsics, matrix)


def test_normalised_poses_are_relative_and_of_one_size() -> None:
    some = poses(5)
    small, large = normalised(some), normalised(a_sim3(7.0).extrinsics(some))
    assert np.allclose(small[0], np.eye(4))
    assert np.allclose(small, large)  # neither the world nor its scale is left
    distances = np.sort(np.linalg.norm(centers(small), axis=1))
    assert distances[0] == pytest.approx(0, abs=1e-12) and distances[2] == pytest.approx(1)
    # Two cameras: the lower of both distances is 0, and 0.1 is divided by.
    assert np.allclose(normalised(some[:2])[1, :3, 3], relative_to_first(some[:2])[1, :3, 3] * 10)


def test_a_similarity_keeps_what_cameras_see() -> None:
    move, points, some = a_sim3(), np.random.default_rng(3).normal(size=(9, 3)), poses(3)
    moved = move.extrinsics(some)
    for before, after in zip(some, moved):
        assert np.allclose(move.scale * to_camera(points, before), to_camera(move.points(points), after))
        assert np.allclose(after[:, :3] @ after[:, :3].T, np.eye(3))
    both = move @ move.inverse()
    assert both.scale == pytest.approx(1) and np.allclose(both.points(points), points)
    assert np.allclose((move @ move).points(points), move.points(move.points(points)))
    assert np.allclose(IDENTITY.points(points), points)


def test_umeyama_finds_the_similarity() -> None:
    points = np.random.default_rng(4).normal(size=(20, 3))
    found = umeyama(points, a_sim3().points(points))
    assert found.scale == pytest.approx(2.5) and np.allclose(found.rotation, a_sim3().rotation)
    mirrored = umeyama(points, points * [1, 1, -1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1)  # never a mirror
    assert umeyama(points, a_sim3().points(points), with_scale=False).scale == 1


@pytest.mark.parametrize("points", [np.ones((4, 3)), np.arange(12.0).reshape(4, 3), np.zeros((1, 3))])
def test_umeyama_refuses_points_on_a_line(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="on one line"):
        umeyama(points, points)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_cameras_are_aligned_however_few(count: int) -> None:
    some, move = poses(count), a_sim3()
    if count == 1:
        move = a_sim3(1.0)  # one camera has no scale
    found = align_cameras(some, move.extrinsics(some))
    assert found.scale == pytest.approx(move.scale)
    assert np.allclose(found.extrinsics(some), move.extrinsics(some))


def test_a_straight_track_is_aligned_by_its_turns() -> None:
    some = poses(6)
    places = np.outer(np.arange(6.0), [1, 0.5, 0.2]) + np.random.default_rng(5).normal(scale=1e-4, size=(6, 3))
    some[:, :, 3] = -np.einsum("nij,nj->ni", some[:, :, :3], places)
    found = align_cameras(some, a_sim3().extrinsics(some))
    assert found.scale == pytest.approx(2.5, rel=1e-6)
    assert np.allclose(found.rotation, a_sim3().rotation)


def test_cameras_in_one_place_have_no_scale() -> None:
    some = poses(4)
    some[:, :, 3] = 0
    assert align_cameras(some, a_sim3(1.0).extrinsics(some)).scale == 1


def test_wrong_poses_among_many_are_left_out() -> None:
    some = poses(12)
    predicted = a_sim3().extrinsics(some)
    predicted[[2, 7], :, 3] += 20
    assert align_cameras(some, predicted).scale == pytest.approx(2.5)
    fewer = align_cameras(some[:8], predicted[:8])  # below ten views every pose counts
    assert fewer.scale != pytest.approx(2.5, rel=1e-2)


def test_given_poses_and_depth_fit_each_other_at_either_scale() -> None:
    given, move = poses(4), a_sim3()
    depth = np.full((4, 2, 3), 5.0, np.float32)
    kept = settle_given_poses(depth, move.extrinsics(given), given)
    assert np.allclose(kept.extrinsics, given) and np.allclose(kept.depth, 2)
    moved = settle_given_poses(depth, move.extrinsics(given), given, keep_given_scale=False)
    assert np.allclose(moved.extrinsics, move.extrinsics(given)) and np.allclose(moved.depth, 5)
    with pytest.raises(ValueError, match="3 predicted"):
        settle_given_poses(depth, given[:3], given)
