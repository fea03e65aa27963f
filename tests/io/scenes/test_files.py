"""A traced scene through every file and back. tests/geometry/rooms.py knows what must come out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.camera import Camera
from depthcli.choices.scenes import SceneChoice
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.poses import to_camera
from depthcli.geometry.rays import project
from depthcli.geometry.scene_points import frusta, frustum_size, reproject, scene_cloud, show_transform, shown
from depthcli.io.cameras.files import read_cameras
from depthcli.io.points.files import read_shape
from depthcli.io.scenes.colmap import ColmapModel, colmap_model, read_colmap, write_colmap
from depthcli.io.scenes.files import EXPORTS, read_scene_shape, write_scene
from depthcli.io.scenes.npz import read_npz
from depthcli.io.scenes.vis import depth_colors
from depthcli.scene import Area, Scene, View
from tests.geometry.rooms import (
    BALL_COLOUR,
    FLOOR_COLOUR,
    PICTURE,
    SIZE,
    WALL_COLOUR,
    room,
    surface_errors,
)

GOLDEN = np.load(Path(__file__).parents[2] / "data/da3_scene.npz")
PIXELS = np.array([12, 30, 45]), np.array([20, 41, 70])  # rows, columns
EXACT = 1e-4  # pixels of the map


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(
        room(), folder, [name for name in EXPORTS if name not in ("glb-mesh", "colmap-txt", "gs_ply", "feat_vis")]
    )
    return folder


def seen(points: np.ndarray, camera: Camera, pose: np.ndarray) -> np.ndarray:
    return project(to_camera(points, pose), camera)


def expected() -> np.ndarray:
    """Return where pixels of the first view are in the picture of the second."""
    first, second, _ = room().views
    return second.to_picture(reproject(first, second, *PIXELS))


@pytest.mark.parametrize("name", ["cameras.json", "transforms.json", "sparse/0", "exports/npz/results.npz"])
def test_cameras_of_files_see_what_those_of_the_scene_see(written: Path, name: str) -> None:
    scene = room()
    stored = read_cameras(written / name).cameras
    assert [one.name.rsplit("images/")[-1] for one in stored] == [view.name for view in scene.views]
    assert all(one.size == PICTURE for one in stored)
    cloud = scene_cloud(scene)
    for one, view in zip(stored, scene.views):
        assert one.camera is not None and one.pose is not None
        ours = seen(cloud.points, view.picture_camera, view.extrinsics)
        assert np.abs(seen(cloud.points, one.camera, one.pose) - ours).max() < EXACT


@pytest.mark.parametrize("name", ["npz", "mini_npz"])
def test_an_npz_file_gives_the_scene_back(written: Path, name: str) -> None:
    scene, back = room(), read_npz(written / "exports" / name / "results.npz")
    assert dict(back.facts) == dict(scene.facts) and back.kind is scene.kind
    for one, other in zip(scene.views, back.views):
        assert (one.name, one.picture_size, one.area) == (other.name, other.picture_size, other.area)
        assert (one.depth.values == other.depth.values).all()
        assert one.depth.sky is not None and (one.depth.sky == other.depth.sky).all()
        assert one.depth.confidence is not None and (one.depth.confidence == other.depth.confidence).all()
        assert (one.extrinsics == other.extrinsics).all()
        assert (one.picture == other.picture).all() if name == "npz" else other.picture is None
    first, second, _ = back.views
    assert np.abs(second.to_picture(reproject(first, second, *PIXELS)) - expected()).max() < EXACT


def test_scripts_for_da3_find_their_arrays(written: Path) -> None:
    with np.load(written / "exports/npz/results.npz") as file:
        shapes = {name: (file[name].shape, file[name].dtype.name) for name in file.files}
    assert {name: shapes[name] for name in ("image", "depth", "conf", "extrinsics", "intrinsics")} == {
        "image": ((3, 56, 84, 3), "uint8"),
        "depth": ((3, 56, 84), "float32"),
        "conf": ((3, 56, 84), "float32"),
        "extrinsics": ((3, 3, 4), "float32"),
        "intrinsics": ((3, 3, 3), "float32"),
    }


def test_an_npz_file_of_da3_is_read(tmp_path: Path) -> None:
    """It has no names, no `meta`, and principal points at exactly half of the sides."""
    matrix = np.array([[70, 0, 42], [0, 70, 28], [0, 0, 1]], np.float32)
    arrays = {"depth": np.ones((1, 56, 84), np.float32), "extrinsics": np.eye(4, dtype=np.float32)[None, :3]}
    np.savez(tmp_path / "results.npz", **arrays, intrinsics=matrix[None])
    (view,) = read_npz(tmp_path / "results.npz").views
    assert view.name == "0000.png" and view.camera.center == (41.5, 27.5)
    assert read_cameras(tmp_path / "results.npz").cameras[0].pose is not None


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut short", b"no zip at all"])
def test_broken_npz_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    for path, reason in ((tmp_path / "a.npz", "cannot read"), (tmp_path / "b.npz", "does not exist")):
        with pytest.raises(OutputError, match=reason):
            read_npz(path)
    np.savez(tmp_path / "c.npz", other=np.ones(3))
    with pytest.raises(OutputError, match="no file of a scene: it lacks"):
        read_npz(tmp_path / "c.npz")


def test_points_in_ply_lie_in_the_world_of_the_cameras(written: Path) -> None:
    cloud = read_shape(written / "scene.ply")
    assert (cloud.axes, cloud.unit) == ("opencv", "m")
    assert surface_errors(cloud.points.astype(float), cloud.colors).max() < 2e-6  # type: ignore[union-attr]
    assert json.loads((written / "transforms.json").read_text())["ply_file_path"] == "scene.ply"


def test_points_in_glb_lead_back_to_the_world(written: Path) -> None:
    shape = read_scene_shape(written / "scene.glb")
    assert surface_errors(shape.points, shape.colors).max() < 2e-6
    scene = room()
    cloud = scene_cloud(scene)
    assert len(shape.points) == len(cloud.points) and (shape.colors == cloud.colors).all()
    for number, view in enumerate(scene.views):
        moved = seen(shape.points, shape.cameras[number], shape.cameras[number].extrinsics)  # type: ignore[arg-type]
        direct = seen(cloud.points, view.picture_camera, view.extrinsics)
        assert np.abs(moved - direct).max() < 4 * EXACT  # 4 pixels of the picture are one of the map
    assert shape.sizes == (PICTURE,) * 3 and shape.lines.shape == (3, 16, 3)


def test_strangers_read_the_glb(written: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene, loaded = room(), trimesh.load(written / "scene.glb")
    points = scene_cloud(scene)
    ours = shown(show_transform(scene, points.points), points.points)
    assert np.allclose(loaded.geometry["points"].vertices, ours, atol=1e-6)
    # A glTF camera looks along -z: its node takes the origin to the camera, and (0, 0, -1) to what is before it.
    node = loaded.graph.get(scene.views[1].name)[0]
    centre = -scene.views[1].extrinsics[:, :3].T @ scene.views[1].extrinsics[:, 3]
    assert np.allclose(node[:3, 3], shown(show_transform(scene, points.points), centre[None])[0])
    before = shown(show_transform(scene, points.points), (centre + scene.views[1].extrinsics[2, :3])[None])[0]
    assert np.allclose(node @ [0, 0, -1, 1], [*before, 1])


def test_meshes_in_glb_are_one_per_view(tmp_path: Path) -> None:
    write_scene(room(), tmp_path, ["glb-mesh"])
    shape = read_scene_shape(tmp_path / "scene.glb")
    assert not len(shape.colors) and len(shape.points) > 5000
    trimesh = pytest.importorskip("trimesh")
    kinds = [type(part).__name__ for part in trimesh.load(tmp_path / "scene.glb").geometry.values()]
    assert kinds.count("Trimesh") == 3


def test_strangers_find_each_surface_in_its_colour_on_the_meshes(tmp_path: Path) -> None:
    """As another program reads them: a vertex lies on the surface whose colour its texture has there."""
    trimesh = pytest.importorskip("trimesh")
    write_scene(room(), tmp_path, ["glb-mesh"], SceneChoice(edges=None))
    back = np.linalg.inv(read_scene_shape(tmp_path / "scene.glb").transform)
    loaded = trimesh.load(tmp_path / "scene.glb")
    meshes = [part for part in loaded.geometry.values() if isinstance(part, trimesh.Trimesh)]
    colours = np.array([BALL_COLOUR, FLOOR_COLOUR, WALL_COLOUR])
    for mesh, view in zip(meshes, room().views):
        world = shown(back, mesh.vertices)
        texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).astype(int)
        height, width = texture.shape[:2]
        # trimesh counts v from below.
        u, v = mesh.visual.uv[:, 0] * width - 0.5, (1 - mesh.visual.uv[:, 1]) * height - 0.5
        near = np.abs(texture[np.round(v).astype(int), np.round(u).astype(int)][:, None] - colours).sum(axis=2)
        clear = near.min(axis=1) < 40  # JPEG mixes colours at edges
        errors = surface_errors(world, colours[near.argmin(axis=1)].astype(np.uint8))
        assert clear.mean() > 0.8 and errors[clear].max() < 1e-5
        # Faces turn their front to their camera.
        corners = world[mesh.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        centre = -view.extrinsics[:, :3].T @ view.extrinsics[:, 3]
        assert ((normals * (centre - corners.mean(axis=1))).sum(axis=1) > 0).all()


def same(one: ColmapModel, other: ColmapModel) -> None:
    assert one.names == other.names
    for name in ("sizes", "pinholes", "points", "colors", "errors", "tracks"):
        assert (getattr(one, name) == getattr(other, name)).all(), name
    assert np.allclose(one.extrinsics, other.extrinsics, rtol=0, atol=1e-14)
    for name in ("places", "seen"):
        for mine, theirs in zip(getattr(one, name), getattr(other, name)):
            assert (mine == theirs).all()


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_a_colmap_model_comes_back(tmp_path: Path, suffix: str) -> None:
    model = colmap_model(room())
    assert [path.name for path in write_colmap(model, tmp_path, suffix)] == [
        f"{name}{suffix}" for name in ("cameras", "images", "points3D")
    ]
    same(read_colmap(tmp_path), model)


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_colmap_reads_the_model(tmp_path: Path, suffix: str) -> None:
    """Its own projection of every point of every track is where the model says, at the picture's own size."""
    pycolmap = pytest.importorskip("pycolmap")
    scene = room()
    write_colmap(colmap_model(scene), tmp_path, suffix)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert model.num_reg_images() == 3 and model.num_points3D() > 1000
    worst, longest = 0.0, 0
    for number, view in enumerate(scene.views, 1):
        image = model.image(number)
        assert image.name == view.name and (image.camera.width, image.camera.height) == PICTURE
        for place in image.points2D:
            solid = model.point3D(place.point3D_id)
            longest = max(longest, solid.track.length())
            local = image.cam_from_world() * solid.xyz
            worst = max(worst, float(np.abs(image.camera.img_from_cam(local) - place.xy).max()))
    assert worst < 4 * EXACT and longest == 3


def test_colmap_points_reproject_as_the_scene(written: Path) -> None:
    """Half a pixel, and the size of the picture: first sights of points lie on the pixel centres of the map."""
    model = read_colmap(written / "sparse/0")
    assert surface_errors(model.points, model.colors).max() < 2e-6
    starts = np.flatnonzero(np.diff(model.tracks[:, 0], prepend=-1))
    first = model.tracks[starts]
    mine = first[first[:, 1] == 0]
    places = model.places[0][mine[:, 2]]
    # A pixel of the map is four of the picture wide: the middle of the first is 2 from the edge, in COLMAP's count.
    assert np.allclose((places - 2) % 4, 0)


def test_a_part_of_a_picture_is_found_in_the_whole(tmp_path: Path) -> None:
    whole = room().views[0]
    part = View(whole.depth, "a.png", whole.picture, (400, 300), Area(40, 30, 168, 112))
    model = colmap_model(Scene((part,)), SceneChoice(confidence=0, edges=None))
    assert model.sizes.tolist() == [[400, 300]]
    first = model.places[0][0]  # the pixel (0, 1): the row of sky has none
    assert first.tolist() == [41, 33]


def test_another_model_in_the_folder_is_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "rigs.bin").write_bytes(b"of another model")
    with pytest.raises(OutputError, match=r"another COLMAP model, with rigs\.bin"):
        write_colmap(colmap_model(room()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rigs.bin"]


def test_no_file_of_a_model_appears_if_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: ColmapModel, target: object) -> None:
        raise OSError("no space")

    import depthcli.io.scenes.colmap as module

    monkeypatch.setitem(module._WRITERS, ".bin", (*module._WRITERS[".bin"][:2], fail))
    with pytest.raises(OutputError, match="no space"):
        write_colmap(colmap_model(room()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_broken_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no COLMAP model"):
        read_colmap(tmp_path)
    write_colmap(colmap_model(room()), tmp_path)
    images = tmp_path / "images.bin"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(OutputError, match="cannot read the COLMAP model"):
        read_colmap(tmp_path)
    whole = (tmp_path / "points3D.bin").read_bytes()
    (tmp_path / "points3D.bin").write_bytes(whole[:51] + b"\xff" * 8 + whole[59:])  # the length of a track
    with pytest.raises(OutputError, match="cannot read the COLMAP model"):
        read_colmap(tmp_path)
    images.unlink()
    with pytest.raises(OutputError, match=r"lacks images\.bin"):
        read_colmap(tmp_path)


def test_a_lens_in_a_model_is_refused(tmp_path: Path) -> None:
    write_colmap(colmap_model(room()), tmp_path, ".txt")
    (tmp_path / "cameras.txt").write_text("1 SIMPLE_RADIAL 336 224 300 168 112 0.1\n")
    with pytest.raises(OutputError, match="has a lens: undistort"):
        read_colmap(tmp_path)


def test_depth_stands_beside_its_picture(written: Path) -> None:
    files = sorted(path.name for path in (written / "depth_vis").iterdir())
    assert files == ["0000.jpg", "0001.jpg", "0002.jpg"]
    pixels = np.asarray(Image.open(written / "depth_vis/0000.jpg"))
    assert pixels.shape == (SIZE[1], 2 * SIZE[0], 3)
    ball, wall = pixels[28, SIZE[0] + 40], pixels[3, SIZE[0] + 5]
    assert ball[0] > ball[2] and wall[2] > wall[0]  # near is red, far is blue


def test_depth_has_the_colours_of_the_official_code() -> None:
    for depth, colours in zip(GOLDEN["export_in_depth"], GOLDEN["export_depth_colours"]):
        assert (depth_colors(depth) == colours).all()


def test_clouds_and_frusta_are_those_of_the_official_code() -> None:
    views = [
        View(
            DepthMap(
                np.where(np.isfinite(depth), depth, 0),
                DepthKind.RELATIVE_DEPTH,
                confidence=GOLDEN["export_in_conf"][number],
                camera=Camera(
                    GOLDEN["export_in_intrinsics"][number], "predicted", GOLDEN["export_in_extrinsics"][number]
                ),  # type: ignore[arg-type]
            ),
            f"{number}.png",
            GOLDEN["export_in_images"][number],
        )
        for number, depth in enumerate(GOLDEN["export_in_depth"])
    ]
    scene = Scene(tuple(views))
    cloud = scene_cloud(scene, SceneChoice(edges=None, points=None))
    transform = show_transform(scene, cloud.points)
    seen_points = shown(transform, cloud.points)
    assert len(cloud.points) == GOLDEN["export_count"]
    assert cloud.colors is not None and (cloud.colors[::40] == GOLDEN["export_colours"]).all()
    assert np.abs(seen_points[::40] - GOLDEN["export_points"]).max() < 1e-6
    assert np.abs(transform - GOLDEN["export_transform"]).max() < 1e-6
    ours = shown(transform, next(frusta(scene, frustum_size(seen_points))).reshape(-1, 3))
    assert _segments(ours) == _segments(GOLDEN["export_camera0"])


def _segments(ends: np.ndarray) -> set[tuple[tuple[float, ...], ...]]:
    """Return lines without direction or order; places to four digits, as float32 has seven."""
    rows = np.round(ends.astype(float), 4) + 0.0
    return {tuple(sorted((tuple(a), tuple(b)))) for a, b in rows.reshape(-1, 2, 3)}


def test_files_that_are_there_stay_and_only_ours_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        write_scene(room(), tmp_path, ["npz", "glb", "cameras"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [path for path in tmp_path.rglob("*.part")]


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_scene(room(), tmp_path / folder, ["glb", "ply", "colmap", "transforms", "cameras"])
    for path in sorted((tmp_path / "a").rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_every_format_writes_the_files_that_its_row_names(tmp_path: Path) -> None:
    for name, row in EXPORTS.items():
        if name not in ("gs_ply", "feat_vis"):
            written = write_scene(room(), tmp_path / name, [name])
            assert sorted(written) == sorted(tmp_path / name / path for path in row.files(3)), name


def test_a_scene_without_gaussians_has_no_splats(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the scene has no Gaussians"):
        write_scene(room(), tmp_path, ["gs_ply"])


def test_formats_are_checked(tmp_path: Path) -> None:
    for formats, reason in ((["usd"], "not written as usd"), (["glb", "glb-mesh"], "to the same place")):
        with pytest.raises(UsageError, match=reason):
            write_scene(room(), tmp_path, formats)


def test_maps_of_several_sizes_do_not_fit_into_one_npz(tmp_path: Path) -> None:
    first, second, third = room().views
    depth = second.depth
    smaller = DepthMap(depth.values[:50], depth.kind, camera=depth.camera)
    scene = Scene((first, View(smaller, "b.png"), third))
    with pytest.raises(OutputError, match="maps of one size"):
        write_scene(scene, tmp_path, ["npz"])
    assert not list(tmp_path.rglob("*.npz"))
    write_scene(scene, tmp_path, ["ply", "colmap", "cameras"])  # these can


def test_broken_glb_files_are_refused(tmp_path: Path, written: Path) -> None:
    whole = (written / "scene.glb").read_bytes()
    (tmp_path / "cut.glb").write_bytes(whole[:-10])
    (tmp_path / "other.glb").write_bytes(b"glTF")
    for name, reason in (("cut.glb", "as a scene"), ("other.glb", "as a scene"), ("none.glb", "does not exist")):
        with pytest.raises(OutputError, match=reason):
            read_scene_shape(tmp_path / name)


def test_a_camera_for_a_single_picture_has_no_pose(written: Path) -> None:
    """Files of cameras serve pictures of no scene too: their pose stands beside the camera."""
    for stored in read_cameras(written / "sparse/0").cameras:
        assert stored.camera is not None and stored.camera.extrinsics is None and stored.pose is not None
