"""`depth scene` and `depth auto`: what they print, where files go, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from depthcli import read_scene
from depthcli.choices.scenes import REFERENCES, RESIZES
from depthcli.cli.scene import FORMATS
from depthcli.io.scenes.files import EXPORTS
from depthcli.io.scenes.transforms import write_transforms
from tests.conftest import files, photo, tree
from tests.geometry.rooms import PICTURE, room
from tests.io.video.clips import make_clip
from tests.predict import rooms

SIZED = ("--input-size", str(rooms.INPUT), "--confidence", "0")


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return rooms.use_room(monkeypatch)


def test_names_of_choices_are_those_of_the_tables() -> None:
    from depthcli.nets.views import REFERENCES as OF_NETWORKS
    from depthcli.pixels.scene_input import Method

    assert tuple(EXPORTS) == FORMATS
    assert tuple(OF_NETWORKS) == REFERENCES and tuple(method.value for method in Method) == RESIZES


def test_a_folder_becomes_a_scene_beside_it(depth, opened) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))
    ran = depth("scene", "room", *SIZED)
    assert ran.code == 0
    assert ran.lines == [
        "room_scene/exports/npz/results.npz",
        "room_scene/scene.glb",
        "room_scene/scene.jpg",
        *(f"room_scene/depth_vis/000{number}.jpg" for number in range(3)),
    ]
    rule, views, summary, counts = ran.err.splitlines()
    assert rule == "room has 3 pictures: views of one scene, sorted by name"
    assert views.startswith("3 views of 84x56 at once, about 0.0 GB of memory; Depth Anything 3 Base, Apache-2.0; ")
    assert summary.startswith("scene of 3 views of 84x56: depth ") and summary.endswith(" s, in room_scene")
    assert "in an arbitrary unit, predicted cameras, model da3-base" in summary
    assert counts.startswith("3 done in ")
    opened.clear()
    again = depth("scene", "room", *SIZED)
    assert (again.code, again.out, opened) == (0, "", []) and "3 skipped in" in again.err


def test_quiet_and_json_print_for_programs(depth) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))
    assert depth("scene", "room", *SIZED, "-q", "-o", "a").err == ""
    lines = [json.loads(line) for line in depth("scene", "room", *SIZED, "--json", "-o", "b").lines]
    assert [line.get("input") for line in lines] == ["npz", "glb", "depth_vis", None]
    assert lines[-1]["summary"]["done"] == 3


def test_several_pictures_need_a_folder_for_the_results(depth) -> None:  # type: ignore[no-untyped-def]
    names = rooms.pictures(Path("room"))
    ran = depth("scene", *names, *SIZED)
    assert ran.code == 2 and "no place in common" in ran.error
    assert depth("scene", *names, *SIZED, "-o", "scene.glb").code == 2
    assert depth("scene", *names, *SIZED, "-o", "out", "-f", "glb,ply", "-f", "cameras").code == 0
    assert set(tree("out")) == {"scene.glb", "scene.jpg", "scene.ply", "cameras.json"}


def test_given_cameras_are_used_and_told(depth) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("garden/images/left"))
    with open("garden/transforms.json", "wb") as stream:
        write_transforms(room(), stream)
    ran = depth("scene", "garden", *SIZED, "-f", "npz")
    assert ran.code == 0 and "in the unit of the given cameras, given cameras" in ran.err
    scene = read_scene("garden_scene/exports/npz/results.npz")
    assert np.allclose(scene.extrinsics, room().extrinsics, atol=1e-12)


def test_metres_are_told(depth) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))
    ran = depth("scene", "room", *SIZED, "-f", "depth-mm", "--metres")
    assert ran.code == 0 and " m, predicted cameras" in ran.err
    ran = depth("scene", "room", *SIZED, "-f", "depth-mm", "-o", "other")
    assert ran.code == 2 and "--metres makes metres" in ran.err


def test_a_broken_picture_is_named_and_the_code_says_some_failed(depth) -> None:  # type: ignore[no-untyped-def]
    paths = rooms.pictures(Path("room"))
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    ran = depth("scene", "room", *SIZED, "-f", "npz")
    assert ran.code == 3 and "2.png" in ran.err and "the scene is made without it" in ran.err
    assert "1 done, 1 failed in" in ran.err
    assert depth("scene", "room", *SIZED, "-f", "npz").code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("room/0.png",), "one picture has no pose: a scene takes at least 2 views (use: depth image)"),
        (("room", "-f", "exr"), "exr is a format of single maps (depth-exr gives one for each view)"),
        (("room", "--fps", "2"), "--fps chooses frames of a clip"),
        (("room", "--max-views", "1"), "--max-views must be at least 2, got 1"),
        (("room", "--confidence", "100"), "--confidence must be 0 to 99 percent"),
        (("room", "--points", "few"), "--points is 'few' (give a number or all)"),
        (("room", "--reference", "best"), "unknown --reference 'best'"),
        (("room", "--metres", "--align-to-input-scale"), "--metres and --align-to-input-scale both give the scale"),
        (("nowhere",), "nowhere does not exist"),
        (("https://a.b/c.zip",), "is an address"),
    ],
)
def test_mistakes_are_one_line(depth, arguments, message) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))
    ran = depth("scene", *arguments)
    assert ran.code == 2 and message in ran.error
    assert not Path("room_scene").exists()


def test_files_of_a_scene_tell_what_they_are(depth) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))
    depth("scene", "room", *SIZED, "-f", "npz,glb,ply,cameras", "-o", "out")
    for name, words in (
        ("exports/npz/results.npz", ("scene of 3 views by depthcli, NPZ", "predicted cameras", "da3-base")),
        ("cameras.json", ("scene of 3 views by depthcli, JSON", "reference 0.png")),
        ("scene.glb", ("scene of 3 views by depthcli, GLB", "3 cameras")),
        ("scene.ply", ("points of a scene of 3 views by depthcli, PLY", "axes opencv")),
    ):
        ran = depth("info", f"out/{name}")
        assert ran.code == 0 and all(word in ran.out for word in words), ran.out


def test_an_interrupt_leaves_whole_files_only(depth, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rooms.pictures(Path("room"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("depthcli.io.scenes.files.write_scene_glb", interrupt)
    ran = depth("scene", "room", *SIZED)
    assert ran.code == 130 and ran.err.splitlines()[-1] == "interrupted"
    assert set(tree("room_scene")) == {"exports/npz/results.npz"}


class TestAuto:
    def test_one_picture_is_a_depth_picture(self, depth) -> None:  # type: ignore[no-untyped-def]
        photo("a.jpg")
        ran = depth("auto", "a.jpg", "-m", "tiny")
        assert (ran.code, ran.lines) == (0, ["a_depth.png"])
        assert ran.err.splitlines()[0] == "a.jpg is a picture, by its suffix: depth image"

    def test_pictures_and_folders_are_scenes(self, depth) -> None:  # type: ignore[no-untyped-def]
        names = [photo(f"room/{number}.png", PICTURE) for number in range(3)]
        for arguments, rule in (
            (["room"], "room has 3 pictures: views of one scene, sorted by name"),
            (names, "3 pictures were named: views of one scene, in this order"),
        ):
            ran = depth("auto", *arguments, "-o", "out")
            assert ran.code == 5, ran.err  # the room answers for views of 84x56 alone
            assert ran.err.splitlines()[0].startswith("depth scene") and rule in ran.err

    def test_a_clip_is_frames_and_the_rule_says_which(self, depth) -> None:  # type: ignore[no-untyped-def]
        make_clip(Path("walk.mp4"), frames=30, size=PICTURE)
        ran = depth("auto", "walk.mp4", "--frames", "1")
        assert ran.code == 2 and "1 of its frames, evenly gives 1 view of walk.mp4" in ran.err
        first, rule = ran.err.splitlines()[:2]
        assert first == "depth scene (a film of depth: depth video)"
        assert rule == "walk.mp4 is a clip, by its suffix: 1 of its frames, evenly"

    def test_what_is_nothing_known_is_refused(self, depth) -> None:  # type: ignore[no-untyped-def]
        Path("notes.txt").write_text("x")
        Path("empty").mkdir()
        for name, reason in (("notes.txt", "neither a picture nor a clip"), ("empty", "has no picture")):
            ran = depth("auto", name)
            assert ran.code == 2 and reason in ran.error
        assert files() == ["notes.txt"]
