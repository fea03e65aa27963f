"""Scenes through the public path: the rules on what a network answers, and the networks of Depth Anything 3 themselves.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold whole runs of da3-small to those of the official code.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthcli import Scene, SceneEstimator, ViewsChoice, estimate_scene, read_scene, write_scene
from depthcli.camera import Camera, CameraSource, Distortion
from depthcli.choices.model import ModelChoice
from depthcli.depthmap import DepthKind
from depthcli.errors import EngineError, PictureError, StoppedError, UsageError
from depthcli.geometry.scene_points import scene_cloud
from depthcli.predict.model import Model, resolve_model
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelTask, find_row
from depthcli.zoo.verify import digest
from tests.conftest import broken, photo
from tests.geometry.rooms import PICTURE, SIZE, room, surface_errors
from tests.predict import rooms
from tests.reference import filled_weights, reference_image

MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
OFFICIAL = sorted(MORE.glob("da3_pipeline_small_*.npz")) if MORE else []


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return rooms.use_room(monkeypatch)


def made(cameras: object = None, count: int = 3, **views: object) -> Scene:
    choice = ViewsChoice(input_size=rooms.INPUT, **views)  # type: ignore[arg-type]
    return estimate_scene(rooms.pictures(Path("room"), count), cameras, views=choice)  # type: ignore[arg-type]


def truth() -> list[Camera]:
    return [replace(view.picture_camera, source=CameraSource.GIVEN) for view in room().views]


def errors(scene: Scene) -> np.ndarray:
    """Return how far points are from the surfaces of the room, for a scene in its world."""
    bare = Scene(tuple(replace(view, depth=view.depth) for view in scene.views))
    cloud = scene_cloud(bare)
    colours = np.concatenate([view.picture.reshape(-1, 3) for view in room().views])  # type: ignore[union-attr]
    known = {tuple(colour) for colour in np.unique(colours, axis=0)}
    assert cloud.colors is not None
    pure = np.array([tuple(colour) in known for colour in cloud.colors])  # not between two surfaces
    assert pure.mean() > 0.8
    return surface_errors(cloud.points[pure].astype(float), cloud.colors[pure])


# --- What the answers of a network become -----------------------------------------------------------------------------


def test_answers_become_views_with_their_cameras(opened: list[str]) -> None:
    scene = made()
    assert opened == ["da3-base"] and scene.unit == "arbitrary" and scene.size == SIZE
    for view, real in zip(scene.views, room().views):
        assert np.allclose(view.depth.values, real.depth.values * rooms.NETWORK.scale)
        assert np.allclose(view.camera.intrinsics, real.camera.intrinsics, atol=1e-5)
        assert view.picture_size == PICTURE and view.camera.source is CameraSource.PREDICTED
    assert [view.name for view in scene.views] == ["0.png", "1.png", "2.png"]
    facts = dict(scene.facts)
    assert (facts["model"], facts["cameras"], facts["reference"]) == ("da3-base", "predicted", "0.png")
    moved = rooms.NETWORK.inverse().extrinsics(scene.extrinsics)
    assert np.allclose(moved, room().extrinsics, atol=1e-5)
    turns = scene.extrinsics[:, :, :3]  # those of the network are rotations to float32 only
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), rtol=0, atol=1e-14)


def test_given_cameras_keep_their_world_and_depth_fits_it(opened: list[str]) -> None:
    scene = made(truth())
    assert np.array_equal(scene.extrinsics, room().extrinsics)
    assert np.allclose(scene.intrinsics, room().intrinsics, atol=1e-4)
    assert errors(scene).max() < 1e-3
    assert scene.facts["scale_of_given"] == pytest.approx(rooms.NETWORK.scale, rel=1e-4)
    assert {view.camera.source for view in scene.views} == {CameraSource.GIVEN}


def test_given_cameras_can_be_moved_to_the_world_of_the_network(opened: list[str]) -> None:
    scene = made(truth(), align_to_input_scale=False)
    assert np.allclose(scene.extrinsics, rooms.NETWORK.extrinsics(room().extrinsics), atol=1e-4)
    assert scene.facts["world"] == "network"


def test_metres_scale_depth_places_and_cameras(opened: list[str]) -> None:
    scene = made(metres=True)
    assert opened == ["da3-base", "da3-metric"] and scene.unit == "m" and scene.kind is DepthKind.METRIC_DEPTH
    for view, real in zip(scene.views, room().views):
        assert np.allclose(view.depth.values[1:], real.depth.values[1:], rtol=1e-4)
        assert view.depth.sky is not None and view.depth.sky[0].all() and not view.depth.sky[1:].any()
    apart = np.linalg.norm(np.diff([-e[:, :3].T @ e[:, 3] for e in scene.extrinsics], axis=0), axis=1)
    real = np.linalg.norm(np.diff([-e[:, :3].T @ e[:, 3] for e in room().extrinsics], axis=0), axis=1)
    assert np.allclose(apart, real, rtol=1e-4)
    assert scene.facts["metres"]["scale"] == pytest.approx(1 / rooms.NETWORK.scale, rel=1e-4)


def test_metres_win_over_the_unit_of_given_cameras(opened: list[str]) -> None:
    given = [replace(one, extrinsics=one.extrinsics * [1, 1, 1, 10]) for one in truth()]  # type: ignore[operator]
    scene = made(given, metres=True)
    assert scene.unit == "m" and scene.facts["world"] == "network"
    assert np.allclose(scene.views[0].depth.values[1:], room().views[0].depth.values[1:], rtol=1e-3)


def test_cameras_from_rays_have_the_poses_of_the_rays(opened: list[str]) -> None:
    scene = made(ray_pose=True)
    moved = rooms.NETWORK.inverse().extrinsics(scene.extrinsics)
    assert np.allclose(moved, room().extrinsics, atol=1e-3)
    assert scene.facts["cameras"] == "rays"
    assert np.array_equal(scene.extrinsics, made(ray_pose=True).extrinsics)  # the same seed, the same bits


def test_gaussians_lie_in_the_world_of_the_scene(opened: list[str], tmp_path: Path) -> None:
    """Raw zeros are Gaussians at the depth of their pixel, along a ray of length one."""
    choice = ViewsChoice(input_size=rooms.INPUT)
    with SceneEstimator("da3-giant", views=choice, gaussians=True) as estimator:
        scene = estimator.estimate(rooms.pictures(Path("room")), truth())
    assert scene.gaussians is not None and scene.gaussians.means.shape == (3 * SIZE[0] * SIZE[1], 3)
    view = scene.views[0]
    centre = -view.extrinsics[:, :3].T @ view.extrinsics[:, 3]
    reach = np.linalg.norm(scene.gaussians.means[: SIZE[0] * SIZE[1]] - centre, axis=1).reshape(SIZE[::-1])
    assert np.allclose(reach[1:], view.depth.values[1:], rtol=1e-3)
    (path,) = write_scene(scene, tmp_path, ["gs_ply"])
    assert path.read_bytes().startswith(b"ply\n")


def test_names_tell_equal_files_of_two_folders_apart(opened: list[str]) -> None:
    first, second = rooms.pictures(Path("a"), 1) + rooms.pictures(Path("b"), 1)
    with SceneEstimator(views=ViewsChoice(input_size=rooms.INPUT)) as estimator:
        scene = estimator.estimate([first, second])
        assert [view.name for view in scene.views] == ["a/0.png", "b/0.png"]
        with pytest.raises(UsageError, match="named twice"):
            estimator.estimate([first, first])


def test_the_npz_file_gives_the_scene_back(opened: list[str], tmp_path: Path) -> None:
    scene = made(truth())
    write_scene(scene, tmp_path, ["npz"])
    back = read_scene(tmp_path / "exports/npz/results.npz")
    assert dict(back.facts) == dict(scene.facts)
    for one, other in zip(scene.views, back.views):
        assert one.depth.provenance == other.depth.provenance
        assert np.array_equal(one.depth.values, other.depth.values)
        assert np.array_equal(one.extrinsics, other.extrinsics)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_one_view_has_no_pose(opened: list[str]) -> None:
    for count in (0, 1):
        with pytest.raises(UsageError, match="at least 2 views"):
            estimate_scene([reference_image(56, 84)] * count)
    assert opened == []


@pytest.mark.parametrize("name", ["da3-mono", "vits", "vda-vits"])
def test_models_of_pictures_and_clips_make_no_scene(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} is no model for the views of a scene \(choose from: da3-small"):
        resolve_model(ModelChoice(model=name), tasks=(ModelTask.SCENE,))


def test_cameras_that_do_not_fit_are_refused(opened: list[str]) -> None:
    good = truth()
    first = good[0]
    assert first.extrinsics is not None
    lens = Distortion("radial", (0.1, 0, 0, 0, 0))  # type: ignore[arg-type]
    for change, reason in (
        ({"extrinsics": None}, r"0\.png has no pose"),
        ({"extrinsics": first.extrinsics * 1.1}, "no rotation"),
        ({"extrinsics": first.extrinsics * [[1], [1], [-1]]}, "mirrored"),
        ({"distortion": lens}, "has a lens"),
    ):
        with pytest.raises(UsageError, match=reason):
            made([replace(first, **change), *good[1:]])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 cameras were given for 3 pictures"):
        made(good[:2])


def test_cameras_of_a_file_belong_to_the_pictures(opened: list[str], tmp_path: Path) -> None:
    write_scene(made(truth()), tmp_path, ["cameras", "colmap"])
    for path in (tmp_path / "cameras.json", tmp_path / "sparse/0"):
        assert np.allclose(made(path).extrinsics, room().extrinsics)
    other = photo("other.png", PICTURE)
    with pytest.raises(UsageError, match=r"has no camera of other\.png"):
        estimate_scene([other, Path("room/0.png")], tmp_path / "cameras.json", views=ViewsChoice(rooms.INPUT))
    photo("room/0.png", (224, 336))
    with pytest.raises(UsageError, match="is no resize of it"), SceneEstimator() as estimator:
        estimator.estimate(["room/0.png", "room/1.png"], tmp_path / "cameras.json")


def test_nothing_but_sky_has_no_metres(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sky = {"depth": np.ones((1, *SIZE[::-1])), "sky": np.ones((1, *SIZE[::-1]), np.float32)}
    monkeypatch.setattr("tests.predict.rooms.metres", lambda inputs: sky)
    with pytest.raises(PictureError, match="no scale in metres: there is nothing but sky"):
        made(metres=True)


def test_answers_without_numbers_are_refused(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_answers(self: object, inputs: dict[str, np.ndarray], graph: str, replica: object = None) -> object:
        return {**rooms.answers(inputs), "depth": np.full((3, *SIZE[::-1]), np.nan, np.float32)}

    monkeypatch.setattr("tests.fake_backend.FakeBackend.run", broken_answers)
    with pytest.raises(EngineError, match="answered no numbers"):
        made()


def test_a_broken_picture_is_named(opened: list[str]) -> None:
    with pytest.raises(PictureError, match=r"b\.jpg is truncated"):
        estimate_scene([photo("a.jpg"), broken("b.jpg")])


def test_settings_are_checked() -> None:
    for values, reason in (
        ({"reference": "best"}, "unknown `reference`"),
        ({"resize": "crop"}, "unknown `resize`"),
        ({"mixed": "crop"}, "unknown `mixed`"),
        ({"seed": -1}, "`seed`"),
        ({"input_size": 3}, "`input_size`"),
        ({"metres": True, "align_to_input_scale": True}, "both give the scale"),
    ):
        with pytest.raises(UsageError, match=reason):
            ViewsChoice(**values)  # type: ignore[arg-type]


def test_gaussians_need_a_model_that_has_them(opened: list[str]) -> None:
    with pytest.raises(UsageError, match="da3-small gives no Gaussians"):
        SceneEstimator("da3-small", gaussians=True)
    with pytest.raises(UsageError, match="da3-nested gives the scale, in metres"):
        SceneEstimator("da3-nested", views=ViewsChoice(align_to_input_scale=True))


# --- The networks -----------------------------------------------------------------------------------------------------


def small(kind: str, name: str) -> Model:
    """A small network in the place of a row's own, in a file like the official ones."""
    from safetensors.torch import save_file

    from tests.nets import da3

    path = Path(f"{name}/model.safetensors")
    path.parent.mkdir(exist_ok=True)
    save_file({f"model.{key}": value for key, value in da3.network(kind).state_dict().items()}, str(path))
    return Model(replace(find_row(name), network=da3.NETWORKS[kind]), WeightsFile(path, digest(path), "test"))


@pytest.mark.usefixtures("one_thread")
def test_pictures_go_through_the_network_as_they_are() -> None:
    """Pictures of the size of the input: what the network gives for them, unchanged."""
    import torch

    from tests.nets import da3

    height, width = da3.SIZE
    with SceneEstimator(small("views", "da3-small"), "torch", views=ViewsChoice(width)) as estimator:
        scene = estimator.estimate([reference_image(height, width, i) for i in range(3)])
    with torch.inference_mode():
        wanted = da3.network("views")(da3.views(3))
    assert scene.facts["reference"] == f"{wanted['reference']:04d}.png"
    for name, found in (
        ("depth", [view.depth.values for view in scene.views]),
        ("confidence", [view.depth.confidence for view in scene.views]),
        ("extrinsics", scene.extrinsics),
        ("intrinsics", [view.camera.cropped(-0.5, -0.5).intrinsics for view in scene.views]),
    ):
        assert np.allclose(np.stack(found), wanted[name].numpy(), rtol=1e-4, atol=1e-4), name


@pytest.mark.usefixtures("one_thread")
def test_the_nested_network_is_in_metres() -> None:
    with SceneEstimator(small("nested", "da3-nested"), "torch", views=ViewsChoice(56), gaussians=True) as estimator:
        scene = estimator.estimate([reference_image(42, 56, i) for i in range(2)])
    assert scene.unit == "m" and scene.views[0].depth.sky is not None and scene.gaussians is not None


@pytest.mark.usefixtures("one_thread")
def test_a_scene_stops_when_it_is_told_and_the_estimator_makes_the_next_one() -> None:
    pictures = [reference_image(42, 56, i) for i in range(4)]
    with SceneEstimator(small("views", "da3-small"), "torch", views=ViewsChoice(56)) as estimator:
        wanted = estimator.estimate(pictures)
        stopping = estimator.stopped_by(lambda: True)
        for make in (
            lambda: stopping.estimate(pictures),
            lambda: stopping.run_described([stopping.read(picture, f"{i}.png") for i, picture in enumerate(pictures)]),
            lambda: stopping.run_again(wanted.views),
        ):
            with pytest.raises(StoppedError):
                make()
        again = estimator.estimate(pictures)
    assert np.array_equal(again.views[3].depth.values, wanted.views[3].depth.values)


def test_metres_stop_between_two_views(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    answer = rooms.metres
    monkeypatch.setattr(rooms, "metres", answered := lambda inputs: done.append(1) or answer(inputs))
    answered.calls = 0  # type: ignore[attr-defined]
    choice = ViewsChoice(input_size=rooms.INPUT, metres=True)
    with SceneEstimator(views=choice) as estimator, pytest.raises(StoppedError):
        estimator.stopped_by(lambda: len(done) == 2).estimate(rooms.pictures(Path("room")))
    assert len(done) == 2


@pytest.mark.usefixtures("one_thread")
def test_memory_for_gaussians_and_rays_is_asked_for_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [reference_image(42, 56, i) for i in range(2)]

    def run(**asked: bool) -> int:
        views = ViewsChoice(56, ray_pose=asked.get("ray_pose", False))
        gaussians = asked.get("gaussians", False)
        with SceneEstimator(small("nested", "da3-nested"), "torch", views=views, gaussians=gaussians) as estimator:
            estimator.estimate(pictures)
            return estimator.memory(estimator.plan([(56, 42)] * 2))

    enough = run()
    monkeypatch.setattr("depthcli.backends.torch_eager.free_memory", lambda: enough)
    assert run() == enough
    for more in ("ray_pose", "gaussians"):
        with pytest.raises(PictureError, match="views of 56x42 as network input need"):
            run(**{more: True})


@pytest.mark.usefixtures("one_thread")
def test_pictures_of_several_sizes_are_padded_and_the_line_says_so() -> None:
    lines: list[str] = []
    pictures = [reference_image(42, 56, 0), reference_image(56, 42, 1)]
    with SceneEstimator(small("views", "da3-small"), "torch", views=ViewsChoice(56), log=lines.append) as estimator:
        scene = estimator.estimate(pictures)
    assert lines == ["pictures of several sizes: 2 of 2 views are padded to 56x56, up to 25 % of their input"]
    first, second = scene.views
    assert scene.size == (56, 56) and first.depth.valid is not None and second.depth.valid is not None
    assert first.inside == (slice(7, 49), slice(0, 56)) and second.inside == (slice(0, 56), slice(7, 49))
    for view, picture in zip(scene.views, pictures):
        assert np.array_equal(view.picture[view.inside], picture)  # type: ignore[index]
        assert view.depth.valid[view.inside].all() and view.depth.valid.sum() == 42 * 56  # type: ignore[index]
        # The middle of the picture is that of the padded input, and of the picture's own camera.
        assert np.allclose(view.picture_camera.center, (np.array(view.picture_size) - 1) / 2)


@pytest.mark.skipif(not OFFICIAL, reason="set DEPTHCLI_PARITY to a folder of reference outputs")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("path", OFFICIAL, ids=[path.stem[13:] for path in OFFICIAL])
def test_official_runs_are_reproduced(path: Path, full_weights: Path) -> None:
    data = np.load(path)
    sizes = [(int(height), int(width)) for height, width in data["input_shapes"]]
    pictures = [reference_image(*size, number) for number, size in enumerate(sizes)]
    cameras = None
    if "input_extrinsics" in data.files:
        cameras = [
            Camera(matrix, CameraSource.GIVEN, pose[:3]).cropped(0.5, 0.5)
            for matrix, pose in zip(data["input_intrinsics"], data["input_extrinsics"])
        ]
    views = ViewsChoice(
        int(data["process_res"]),
        resize=data["method"].item(),
        mixed="cut",
        align_to_input_scale=None if cameras is None else "keepscale" not in path.stem,
    )
    with SceneEstimator(ModelChoice(model="da3-small", checkpoint=full_weights), "torch", views=views) as estimator:
        scene = estimator.estimate(pictures, cameras)
    kept = data["depth_views"] if "depth_views" in data.files else range(len(sizes))
    ours = {
        "depth": np.stack([scene.views[number].depth.values for number in kept]),
        "conf": np.stack([scene.views[number].depth.confidence for number in kept]),
        "extrinsics": scene.extrinsics,
        "intrinsics": np.stack([view.camera.cropped(-0.5, -0.5).intrinsics for view in scene.views]),
    }
    data = dict(data)
    data["extrinsics"] = data["extrinsics"][:, :3]
    for name, found in ours.items():
        tolerance = 1e-5 if name == "extrinsics" else 3e-6
        assert np.abs(found - data[name]).max() <= tolerance * np.abs(data[name]).max(), name
    pixels = np.stack([view.picture for view in scene.views])[:, ::4, ::4].astype(int)  # type: ignore[arg-type]
    assert np.abs(pixels - data["processed"]).max() <= 1  # theirs are truncated after a round trip through floats


@pytest.fixture(scope="module")
def full_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_weights(tmp_path_factory.mktemp("weights"), "da3-small")
