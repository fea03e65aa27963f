"""Pixels of one view in another: through the files of a scene as through the scene, in pixels of the pictures."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from depthcli.camera import Camera
from depthcli.choices.scenes import SceneChoice
from depthcli.geometry.poses import to_camera, to_world
from depthcli.geometry.rays import project, rays_at
from depthcli.geometry.scene_points import points_by_view, reproject
from depthcli.io.cameras.files import read_cameras
from depthcli.io.points.files import read_shape
from depthcli.io.scenes.colmap import read_colmap
from depthcli.io.scenes.files import read_scene_shape, write_scene
from depthcli.io.scenes.npz import read_npz
from depthcli.scene import View
from tests.geometry.rooms import PICTURE, room

EXACT = 1e-4  # pixels of the picture, of which four are one of the map
PAIRS = list(permutations(range(3), 2))
WHOLE = SceneChoice(edges=None, confidence=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    formats = ("npz", "mini_npz", "glb", "ply", "colmap", "transforms", "cameras")
    write_scene(room(), folder, formats, WHOLE)
    write_scene(room(), folder / "text", ["colmap-txt"], WHOLE)
    return folder


def pixels_of(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of every 37th pixel of a view that is not sky."""
    return tuple(place[::37] for place in np.nonzero(~view.depth.sky))  # type: ignore[return-value, operator]


def through(pixels: np.ndarray, z: np.ndarray, source: tuple[Camera, np.ndarray], other: tuple[Camera, np.ndarray]):
    """Return (N, 2) pixels (u, v) of one camera as the other sees them. z: (N,) depth. Each: a camera and its pose."""
    (camera, pose), (second, second_pose) = source, other
    local = np.concatenate([rays_at(pixels, camera), np.ones((len(z), 1))], axis=1) * z[:, None]
    return project(to_camera(to_world(local, pose), second_pose), second)


def wanted(first: int, second: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels of the picture of a view, their depth, and where the scene sees them in another's picture."""
    views = room().views
    view, other = views[first], views[second]
    rows, columns = pixels_of(view)
    place = view.to_picture(np.stack([columns, rows], axis=1).astype(float))
    z = view.depth.values[rows, columns].astype(float)
    return place, z, other.to_picture(reproject(view, other, rows, columns))


def test_the_scene_has_something_to_lose() -> None:
    """Half a pixel, a pose the wrong way round, or another axis would be seen."""
    place, z, expected = wanted(0, 1)
    views = room().views
    source, other = ((view.picture_camera, view.extrinsics) for view in views[:2])
    assert np.abs(through(place, z, source, other) - expected).max() < 1e-9
    assert np.abs(through(place + 0.5, z, source, other) - expected).max() > 0.4
    assert np.abs(through(place, z, other, source) - expected).max() > 10
    inside = ((expected > 0) & (expected < PICTURE)).all(axis=1)
    assert inside.mean() > 0.5 and np.abs(expected - place).max() > 20


@pytest.mark.parametrize(
    "name", ["cameras.json", "transforms.json", "sparse/0", "text/sparse/0", "exports/npz/results.npz"]
)
def test_through_the_cameras_of_a_file(written: Path, name: str) -> None:
    stored = read_cameras(written / name).cameras
    cameras = [(one.camera, one.pose) for one in stored]
    for first, second in PAIRS:
        place, z, expected = wanted(first, second)
        found = through(place, z, cameras[first], cameras[second])  # type: ignore[arg-type]
        assert np.abs(found - expected).max() < EXACT


@pytest.mark.parametrize("name", ["npz", "mini_npz"])
def test_through_an_npz_file_with_its_own_depth(written: Path, name: str) -> None:
    views = read_npz(written / "exports" / name / "results.npz").views
    for first, second in PAIRS:
        rows, columns = pixels_of(views[first])
        found = views[second].to_picture(reproject(views[first], views[second], rows, columns))
        assert np.abs(found - wanted(first, second)[2]).max() < EXACT


@pytest.mark.parametrize("name", ["scene.glb", "scene.ply"])
def test_through_points_view_after_view(written: Path, name: str) -> None:
    """Points of a file stand in the order of the views: their pixels are known."""
    scene = room()
    if name == "scene.glb":
        shape = read_scene_shape(written / name)
        points, cameras = shape.points, [(camera, camera.extrinsics) for camera in shape.cameras]
    else:
        points = read_shape(written / name).points.astype(float)  # type: ignore[union-attr]
        cameras = [(one.camera, one.pose) for one in read_cameras(written / "cameras.json").cameras]
    owners = points_by_view(scene, WHOLE)
    starts = np.cumsum([0, *(len(one.points) for one in owners)])
    assert len(points) == starts[-1]
    for first, second in PAIRS:
        mine, view, other = points[starts[first] : starts[first + 1]], scene.views[first], scene.views[second]
        camera, pose = cameras[second]
        expected = other.to_picture(reproject(view, other, owners[first].rows, owners[first].columns))
        assert np.abs(project(to_camera(mine, pose), camera) - expected).max() < EXACT  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sparse/0", "text/sparse/0"])
def test_through_the_tracks_of_a_colmap_model(written: Path, name: str) -> None:
    """A point lies where its views see it, at the picture's own size, half a pixel on from ours."""
    scene, model = room(), read_colmap(written / name)
    point, picture, index = model.tracks.T
    assert np.bincount(point).max() == 3 and len(set(picture)) == 3
    for number, view in enumerate(scene.views):
        mine = picture == number
        seen = project(to_camera(model.points[point[mine]], view.extrinsics), view.picture_camera) + 0.5
        assert np.abs(seen - model.places[number][index[mine]]).max() < EXACT
