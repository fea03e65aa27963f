from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthcli.camera import Distortion, LensModel
from depthcli.errors import UsageError
from depthcli.io.cameras.posed import posed_camera
from depthcli.io.cameras.stored import StoredCamera, camera_from
from depthcli.io.scenes.files import write_scene
from depthcli.jobs.scene_inputs import SceneSource, natural, recognise
from tests.geometry.rooms import PICTURE, room


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_one_file_is_a_picture_or_a_clip(tmp_path: Path) -> None:
    put(tmp_path / "a.JPG", tmp_path / "b.mp4", tmp_path / "c.txt")
    assert recognise([str(tmp_path / "a.JPG")]).source is SceneSource.PICTURE
    assert recognise([str(tmp_path / "b.mp4")]).source is SceneSource.CLIP
    with pytest.raises(UsageError, match="neither a picture nor a clip"):
        recognise([str(tmp_path / "c.txt")])


def test_several_files_are_the_views_of_one_scene(tmp_path: Path) -> None:
    put(tmp_path / "b/1.png", tmp_path / "a/1.png", tmp_path / "clip.mp4")
    found = recognise([str(tmp_path / "b/1.png"), str(tmp_path / "a/1.png")])
    assert found.source is SceneSource.PICTURES and len(set(found.names)) == 2
    assert [path.parent.name for path in found.paths] == ["b", "a"]
    for wrong in ("clip.mp4", "a"):
        with pytest.raises(UsageError, match="no picture, and several inputs"):
            recognise([str(tmp_path / "a/1.png"), str(tmp_path / wrong)])
    with pytest.raises(UsageError, match="named twice"):
        recognise([str(tmp_path / "a/1.png")] * 2)


def test_a_folder_has_its_own_pictures_in_order_of_number(tmp_path: Path) -> None:
    put(*(tmp_path / name for name in ("10.jpg", "2.Jpg", "1.webp", "notes.txt", ".hidden.jpg", "below/0.jpg")))
    found = recognise([str(tmp_path)])
    assert found.source is SceneSource.FOLDER and found.names == ("1.webp", "2.Jpg", "10.jpg")
    assert found.rule.endswith("has 3 pictures: views of one scene, sorted by name")
    assert found.cameras is None
    with pytest.raises(UsageError, match="no picture directly in it; pictures in folders below are other scenes"):
        (tmp_path / "deep").mkdir()
        put(tmp_path / "deep/er/1.png")
        recognise([str(tmp_path / "deep")])


def test_a_colmap_folder_has_the_views_of_its_model(tmp_path: Path) -> None:
    write_scene(room(), tmp_path, ["colmap"])
    put(
        tmp_path / "images/left/2.png", tmp_path / "images/left/0.png", tmp_path / "images/more.png", tmp_path / "x.png"
    )
    found = recognise([str(tmp_path)])
    assert found.source is SceneSource.COLMAP
    assert found.names == ("left/0.png", "left/2.png") and found.missing == ("left/1.png",)
    assert found.rule.endswith("with the cameras of sparse/0/cameras.bin; 2 of 3 pictures are there")
    assert found.cameras is not None
    for stored, view in zip(found.cameras, (room().views[0], room().views[2])):
        camera = posed_camera(stored, PICTURE)
        assert np.allclose(camera.extrinsics, view.extrinsics)
        assert np.allclose(camera.intrinsics, view.picture_camera.intrinsics)
    with pytest.raises(UsageError, match=r"holds no cameras\.bin"):
        recognise([str(tmp_path)], model_folder="7")


@pytest.mark.parametrize(("name", "source"), [("transforms", SceneSource.NERFSTUDIO), ("cameras", SceneSource.CAMERAS)])
def test_a_folder_with_a_file_of_cameras(tmp_path: Path, name: str, source: SceneSource) -> None:
    write_scene(room(), tmp_path, [name])
    with pytest.raises(UsageError, match="none of the 3 pictures"):
        recognise([str(tmp_path)])
    put(*(tmp_path / f"images/left/{number}.png" for number in range(3)))
    found = recognise([str(tmp_path)])
    assert found.source is source and len(found.paths) == 3 and not found.missing
    assert found.cameras is not None and all(camera.pose is not None for camera in found.cameras)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for arguments, reason in (
        ([], "was named"),
        (["https://a.b/c.jpg"], "is an address"),
        ([str(tmp_path / "no")], "exist"),
    ):
        with pytest.raises(UsageError, match=reason):
            recognise(arguments)


def test_numbers_in_names_count_as_numbers() -> None:
    assert sorted(["b10", "b9", "a", "B1", "10", "9"], key=natural) == ["9", "10", "a", "B1", "b9", "b10"]


def stored(**changes: object) -> StoredCamera:
    camera = camera_from((300, 310), (168, 112), half=True)
    return replace(StoredCamera(camera, (336, 224), "a.png", pose=np.eye(4)[:3]), **changes)  # type: ignore[arg-type]


def test_cameras_for_another_size_are_scaled() -> None:
    camera = posed_camera(stored(), (672, 448))
    assert camera.focal == (600, 620) and camera.center == ((672 - 1) / 2, (448 - 1) / 2)


@pytest.mark.parametrize(
    ("changes", "size", "reason"),
    [
        ({"pose": None}, (336, 224), "has no pose"),
        ({"pose": 2 * np.eye(4)[:3]}, (336, 224), "no rotation"),
        ({"pose": np.diag([1.0, 1, -1, 1])[:3]}, (336, 224), "mirrored"),
        ({}, (300, 300), "no resize of it"),
        (
            {"camera": camera_from((300, 310), (168, 112), Distortion(LensModel.RADIAL, (0.1, 0, 0, 0, 0)))},
            (336, 224),
            "has a lens",
        ),
    ],
)
def test_cameras_that_no_view_can_have_are_refused(changes: dict, size: tuple[int, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        posed_camera(stored(**changes), size)
