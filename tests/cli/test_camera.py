"""The camera of a picture, from its EXIF or from an option, in every file of every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import read_depth
from tests.conftest import TINY, photo

K = "%YAML:1.0\n---\nimage_width: 160\nimage_height: 120\ncamera_matrix: !!opencv-matrix\n"
K += "   rows: 3\n   cols: 3\n   dt: d\n   data: [ 200., 0., 79., 0., 200., 59., 0., 0., 1. ]\n"


def taken(name: str, size: tuple[int, int] = (80, 60), orientation: int = 1, **sides: int) -> Path:
    """A picture with 50 mm in its EXIF; sides: of the picture as it was taken."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    tags = {"width": 0xA002, "height": 0xA003}
    exif.get_ifd(0x8769).update({0xA405: 50, **{tags[side]: length for side, length in sides.items()}})
    return photo(name, size, exif.tobytes())


def camera(path: str) -> tuple[float, ...]:
    found = read_depth(path).camera
    return (*np.round((*found.focal, *found.center), 2),)


def test_the_camera_of_exif_is_in_every_file_and_turned_with_the_picture(depth):
    taken("a.jpg", orientation=6)
    ran = depth("image", "a.jpg", "-f", "color,gray,gray8,side,npz,exr", *TINY)
    assert ran.code == 0 and ran.err == ""
    for path in ran.lines:
        assert camera(path) == (115.56, 115.56, 29.5, 39.5) and read_depth(path).camera.source == "exif"
    assert np.allclose(np.load("a_depth.npz")["intrinsics"], [[115.5625, 0, 29.5], [0, 115.5625, 39.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ("option", "found"),
    [
        (("--focal", "100"), (100, 100, 39.5, 29.5)),
        (("--fov", "90"), (40, 40, 39.5, 29.5)),
        (("--fov", "v:90"), (30, 30, 39.5, 29.5)),
        (("--fov", "d:90"), (50, 50, 39.5, 29.5)),
        (("--f35", "25"), (57.78, 57.78, 39.5, 29.5)),
        (("--intrinsics", "100,110,40,30"), (100, 110, 40, 30)),
        (("--intrinsics", "K.yaml"), (100, 100, 39.25, 29.25)),
    ],
)
def test_an_option_wins_over_exif(depth, option, found):
    Path("K.yaml").write_text(K)
    taken("in/a.jpg")
    assert depth("image", "in/a.jpg", "-o", "a.npz", *TINY, *option).code == 0
    assert depth("dir", "in", "-o", "out", "-f", "npz", *TINY, *option).code == 0
    for path in ("a.npz", "out/a_depth.npz"):
        assert camera(path) == found and read_depth(path).camera.source == "given"


def test_a_picture_without_a_camera_has_none_and_is_no_reason_for_a_line(depth):
    photo("a.png")
    ran = depth("image", "a.png", "-f", "npz", *TINY)
    assert (ran.code, ran.err) == (0, "")
    assert read_depth("a_depth.npz").camera is None and "camera" not in json.loads(str(np.load("a_depth.npz")["meta"]))


def test_a_cropped_picture_is_warned_of_unless_its_camera_is_given(depth):
    taken("a.jpg", width=160, height=60)
    ran = depth("image", "a.jpg", "-f", "npz", *TINY)
    assert ran.code == 0 and "warning: a.jpg: was cropped after it was taken" in ran.err and "--intrinsics" in ran.err
    assert read_depth("a_depth.npz").camera.source == "exif-cropped"
    assert depth("image", "a.jpg", "-f", "npz", "--focal", "100", *TINY).err == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--focal", "0"), "--focal must be more than 0 pixels, got 0"),
        (("--fov", "0"), "--fov must be more than 0 and less than 180 degrees, got 0"),
        (("--fov", "180"), "--fov must be more than 0 and less than 180 degrees, got 180"),
        (("--f35", "-3"), "--f35 must be more than 0 millimetres, got -3"),
        (("--focal", "500", "--fov", "60"), "--focal and --fov contradict each other"),
        (("--intrinsics", "missing.yaml"), "missing.yaml does not exist"),
        (("--intrinsics", "a.jpg"), "cannot read a camera from a.jpg"),
        (("--intrinsics", "1,2,3"), "'1,2,3' is not a camera"),
        (("--focal", "500", "--panorama"), "a --panorama has no focal length"),
        (("--intrinsics", "square.json"), "square.json is for 50x50 pixels, and a.jpg has 80x60"),
    ],
)
def test_a_camera_that_makes_no_sense_is_a_usage_error_in_one_line(depth, options, reason):
    photo("a.jpg")
    Path("square.json").write_text(json.dumps({"fx": 50, "fy": 50, "cx": 25, "cy": 25, "size": [50, 50]}))
    ran = depth("image", "a.jpg", *TINY, *options)
    assert ran.code == 2 and reason in ran.error and not Path("a_depth.png").exists()


def test_the_other_pictures_of_a_folder_are_done_if_the_camera_does_not_fit_one(depth):
    Path("K.yaml").write_text(K)
    photo("in/a.jpg")
    photo("in/b.jpg", (60, 60))
    ran = depth("dir", "in", "-o", "out", *TINY, "--intrinsics", "K.yaml")
    assert (
        ran.code == 3 and ran.lines == ["out/a_depth.png"] and "K.yaml is for 160x120 pixels, and in/b.jpg" in ran.err
    )


def test_a_folder_does_not_mix_cameras(depth):
    photo("in/a.jpg")
    run = ("dir", "in", "-o", "out", *TINY)
    assert depth(*run, "--focal", "100").code == 0
    assert "1 skipped" in depth(*run, "--focal", "100").err
    photo("in/b.jpg")
    for other in (("--focal", "200"), ("--fov", "60"), ()):
        ran = depth(*run, *other)
        assert ran.code == 2 and "was made with" in ran.error and "--focal" in ran.error
    assert depth(*run, "--focal", "100").lines == ["out/b_depth.png"]
    assert depth(*run, "--focal", "200", "--if-exists", "overwrite").code == 0
    assert camera("out/a_depth.png")[0] == 200


def test_a_changed_calibration_is_another_camera_and_a_moved_one_is_not(depth):
    Path("K.yaml").write_text(K)
    photo("in/a.jpg")
    run = ("dir", "in", "-o", "out", *TINY, "--intrinsics")
    assert depth(*run, "K.yaml").code == 0
    Path("moved").mkdir()
    Path("moved/K.yaml").write_text(K + "\n")
    assert "1 skipped" in depth(*run, "moved/K.yaml").err
    photo("in/b.jpg")
    Path("K.yaml").write_text(K.replace("200.", "210."))
    ran = depth(*run, "K.yaml")
    assert ran.code == 2 and "was made with --intrinsics K.yaml:" in ran.error


def test_workers_take_the_camera_too(depth):
    for name in ("a", "b"):
        photo(f"in/{name}.jpg")
    ran = depth("dir", "in", "-o", "out", "-f", "npz", "--fov", "90", "--workers", "2", *TINY)
    assert ran.code == 0 and {camera(path) for path in ran.lines} == {(40, 40, 39.5, 29.5)}


def test_verbose_says_where_the_camera_comes_from(depth):
    Path("K.yaml").write_text(K)
    photo("a.jpg")
    ran = depth("image", "a.jpg", "-v", *TINY, "--intrinsics", "K.yaml")
    assert "camera from K.yaml, OpenCV, resized from 160x120 pixels" in ran.err
