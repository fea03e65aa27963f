"""`--preset` of `depth image` and `depth dir`: the files that a program wants, from photos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.presets import PRESETS

TINY = ("--encoder", "tiny", "--input-size", "28", "--backend", "torch", "-q")


def photo(path: str) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(place), np.random.default_rng(0).integers(0, 255, (42, 56, 3), np.uint8))
    return place


OF_ANY_DEPTH = {
    "nuke": {"a.exr"},
    "nuke-far0": {"a.exr"},
    "blender": {"a.exr", "a.glb"},
    "controlnet": {"a.png"},
    "vr": {"a_LRF_Full_SBS.png"},
    "facebook": {"a.jpg", "a_depth.png"},
    "lookingglass": {"a.png", "a_qs8x6a1.33.png"},
    "aftereffects": {"a.png"},
    "resolve": {"a.png"},
}


@pytest.mark.parametrize("name", OF_ANY_DEPTH)
def test_a_folder_becomes_what_the_program_wants(depth, name):
    photo("in/a.jpg")
    ran = depth("dir", "in", "--preset", name, "-o", "out", *TINY)
    assert ran.code == 0, ran.err
    assert {path.name for path in Path("out").iterdir()} - {"manifest.jsonl", "run.json"} == OF_ANY_DEPTH[name]
    again = depth("dir", "in", "--preset", name, "-o", "out", *TINY[:-1])
    assert again.code == 0 and "1 skipped" in again.err


def test_every_preset_is_tried_here_or_needs_metres():
    of_metres = {"ros", "kitti", "tum", "scannet"}
    of_scenes = {"3dgs", "nerfstudio", "ngp"}
    assert set(OF_ANY_DEPTH) | of_metres | of_scenes == set(PRESETS)


@pytest.mark.parametrize(("name", "beside"), [("ros", "a_camera_info.yaml"), ("kitti", "a_calib.txt")])
def test_metres_have_their_camera_beside_them(depth, name, beside):
    photo("in/a.jpg")
    metres = ("--scale-from", "z:20,20=2", "--focal", "50")
    ran = depth("dir", "in", "--preset", name, "-o", "out", *metres, *TINY)
    assert ran.code == 0, ran.err
    assert read_cameras(Path("out") / beside).cameras[0].camera.focal == (50, 50)
    assert read_depth(Path("out/a.png")).kind.is_metric
    ran = depth("dir", "in", "--preset", name, "-o", "none", *TINY)
    assert ran.code == 2 and "holds metres" in ran.err


def test_image_writes_into_the_file_that_is_named(depth):
    photo("a.jpg")
    assert depth("image", "a.jpg", "--preset", "nuke", "-o", "b.exr", *TINY).code == 0
    assert read_depth(Path("b.exr")).size == (56, 42)


def test_a_photo_that_stands_where_its_copy_belongs_is_kept(depth):
    data = photo("a.jpg").read_bytes()
    assert depth("image", "a.jpg", "--preset", "facebook", "-o", "./", *TINY).code == 0
    assert Path("a.jpg").read_bytes() == data and Path("a_depth.png").exists()
    photo("b.png")
    Path("b.jpg").write_bytes(b"mine")
    ran = depth("image", "b.png", "--preset", "facebook", "-o", "./", *TINY)
    assert ran.code == 1 and "b.jpg is there and is another file" in ran.err
    assert Path("b.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "word"], "no preset is called 'word'"),
        (["--preset", "3dgs"], "3dgs wants one file about all maps, which comes after them"),
        (["--preset", "nuke", "--grayscale"], "--preset has names and formats of its own"),
        (["--preset", "blender", "-o", "a.exr"], "a.exr cannot hold the files of blender"),
        (["--preset", "nuke", "-o", "-"], "cannot hold the files of nuke"),
    ],
)
def test_what_makes_no_sense_is_refused(depth, arguments, says):
    photo("a.jpg")
    ran = depth("image", "a.jpg", *arguments, *TINY)
    assert ran.code == 2 and says in ran.err and len(ran.err.splitlines()) == 1
    assert {path.name for path in Path().iterdir()} - {"checkpoints"} == {"a.jpg"}
