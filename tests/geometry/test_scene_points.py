from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.poses import centers
from depthcli.geometry.scene_meshes import scene_meshes
from depthcli.geometry.scene_points import (
    confidence_floor,
    find_tracks,
    frusta,
    points_by_view,
    reproject,
    scene_cloud,
    seen_from,
    show_transform,
    shown,
    without_pictures,
)
from depthcli.scene import Scene, View
from tests.geometry.rooms import BALL_COLOUR, CENTRE, RADIUS, SIZE, room, surface_errors

ALL = SceneChoice(confidence=0, edges=None, points=None, sparse_points=None)


def changed(view: View, **changes: object) -> View:
    return replace(view, depth=replace(view.depth, **changes))


def test_points_of_all_views_lie_on_one_surface() -> None:
    cloud = scene_cloud(room(), ALL)
    assert cloud.colors is not None
    # float32 depth of 5 m has steps of 5e-7.
    assert surface_errors(cloud.points.astype(float), cloud.colors).max() < 2e-6
    assert len(cloud.points) == 3 * (SIZE[1] - 1) * SIZE[0]  # all but the row of sky


def test_the_ball_is_where_it_is_and_as_large_as_it_is() -> None:
    """Its centre and radius by an algebraic fit to the points of its colour."""
    cloud = scene_cloud(room(), ALL)
    ball = cloud.points[(cloud.colors == BALL_COLOUR).all(axis=1)].astype(float)
    fit = np.linalg.lstsq(np.c_[2 * ball, np.ones(len(ball))], (ball**2).sum(axis=1), rcond=None)[0]
    assert np.allclose(fit[:3], CENTRE, atol=1e-6)
    assert np.sqrt(fit[3] + fit[:3] @ fit[:3]) == pytest.approx(RADIUS, abs=1e-6)


def test_unsure_pixels_and_sky_are_left_out() -> None:
    scene = room()
    assert confidence_floor(scene, 40) == 3  # two of three are as sure as can be
    found = points_by_view(scene, SceneChoice(edges=None, points=None))
    assert all(some.columns.min() == 2 and some.rows.min() == 1 for some in found)
    assert confidence_floor(scene, 0) is None
    assert confidence_floor(room(confidence=False), 40) is None


def test_never_more_than_nine_of_ten_pixels_are_left_out() -> None:
    view = room().views[0]
    unsure = changed(view, confidence=np.linspace(1.0, 1.01, view.depth.values.size).reshape(view.depth.values.shape))
    floor = confidence_floor(Scene((unsure,)), 40)
    assert floor == pytest.approx(1.009, abs=1e-5)


def test_so_many_points_at_most() -> None:
    assert 500 < len(scene_cloud(room(), SceneChoice(points=1000)).points) <= 1000
    assert 200 < len(find_tracks(room(), SceneChoice(sparse_points=1000)).points) <= 1000


def test_no_point_left_is_an_error() -> None:
    view = room().views[0]
    with pytest.raises(OutputError, match="no point of the scene is left"):
        scene_cloud(Scene((changed(view, sky=np.ones(view.depth.values.shape, bool)),)))


def test_a_pixel_is_found_in_the_other_view_at_its_depth() -> None:
    """The middle of the ball, seen from the left, lies where the right camera projects it."""
    first, second, _ = room().views
    pixels, depth = seen_from(CENTRE[None], second)
    assert np.allclose(pixels, [second.camera.center], atol=1e-9)  # all cameras look at it
    assert depth[0] == pytest.approx(np.linalg.norm(CENTRE - centers(second.extrinsics[None])[0]))
    behind = centers(second.extrinsics[None]) * 2 - CENTRE
    assert np.isnan(seen_from(behind, second)[0]).all()
    rows, columns = np.array([30]), np.array([41])
    assert np.allclose(reproject(first, first, rows, columns), [[41, 30]], atol=1e-5)


def test_tracks_join_pixels_of_the_same_point() -> None:
    scene = room()
    tracks = find_tracks(scene, ALL)
    assert surface_errors(tracks.points, tracks.colors).max() < 2e-6
    assert (tracks.lengths == 3).mean() > 0.4  # most of the room is seen by all three
    for number, view in enumerate(scene.views):
        mine = tracks.view == number
        pixels, _ = seen_from(tracks.points[tracks.point[mine]], view)
        assert np.abs(pixels - tracks.pixels[mine]).max() < 1e-4
        assert (np.bincount(tracks.point[mine]) <= 1).all()  # no view sees a point twice
    # One sight is not enough for an error; with more it is small, as depth is exact.
    assert (tracks.errors[tracks.lengths == 1] == -1).all()
    several = tracks.errors[tracks.lengths > 1]
    assert several.min() >= 0 and np.median(several) < 1e-4


def test_what_is_hidden_is_no_sight() -> None:
    """A wall point behind the ball of the second view is seen by the first alone, or by those beside the ball."""
    scene = room()
    tracks = find_tracks(scene, ALL)
    colours = {number: view.picture for number, view in enumerate(scene.views)}
    for number in range(3):
        mine = tracks.view == number
        nearest = np.round(tracks.pixels[mine]).astype(int)
        there = colours[number][nearest[:, 1], nearest[:, 0]]  # type: ignore[index]
        same = (there == tracks.colors[tracks.point[mine]]).all(axis=1)
        assert same.mean() > 0.99  # all but those on the edge between two colours


def test_people_see_the_first_view_upright_and_the_scene_around_the_origin() -> None:
    scene = room()
    cloud = scene_cloud(scene)
    transform = show_transform(scene, cloud.points)
    seen = shown(transform, cloud.points)
    assert np.allclose(np.median(seen, axis=0), 0, atol=1e-6)
    assert np.linalg.det(transform[:3, :3]) == pytest.approx(1)
    up = transform[:3, :3] @ scene.views[0].extrinsics[1, :3]  # the first camera's y, down
    assert np.allclose(up, (0, -1, 0))


def test_a_frustum_begins_at_its_camera_and_ends_at_the_corner_pixels() -> None:
    scene = room()
    for view, lines in zip(scene.views, frusta(scene, 0.3)):
        assert np.allclose(lines[:4, 0], centers(view.extrinsics[None]))
        corners, depth = seen_from(lines[:4, 1], view)
        assert np.allclose(corners, [[0, 0], [83, 0], [83, 55], [0, 55]]) and np.allclose(depth, 0.3)
        assert np.allclose(lines[4:, 0], lines[:4, 1])


def test_meshes_lie_on_the_surface_and_face_their_camera() -> None:
    scene = room()
    meshes = scene_meshes(scene, SceneChoice(mesh_size=100))
    assert len(meshes) == 3
    for view, mesh in zip(scene.views, meshes):
        a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(float) for corner in range(3))
        facing = np.einsum("ni,ni->n", np.cross(b - a, c - a), a - centers(view.extrinsics[None])[0])
        assert (facing < 0).all()
        pixels, _ = seen_from(mesh.vertices.astype(float), view)
        assert np.allclose((pixels + 0.5) / SIZE, mesh.uv, atol=1e-5)


def test_meshes_need_pictures() -> None:
    with pytest.raises(OutputError, match="has no picture"):
        scene_meshes(without_pictures(room()))


def test_choices_are_checked() -> None:
    for wrong in (
        {"confidence": 100},
        {"confidence": -1},
        {"edges": 2},
        {"points": 0},
        {"sparse_points": 0},
        {"mesh_size": 1},
    ):
        with pytest.raises(UsageError):
            SceneChoice(**wrong)
