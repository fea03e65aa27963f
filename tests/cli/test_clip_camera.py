"""The camera of a clip, from its own metadata or from an option, in every frame and beside every film."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import read_depth
from depthcli.camera import DIAGONAL_35
from depthcli.errors import UsageError
from depthcli.io.video.ffmpeg_program import find_program
from depthcli.io.video.ffmpeg_reader import ProgramSource
from depthcli.io.video.reader import open_clip
from tests.conftest import TINY
from tests.io.video.clips import MATRICES, SIZE, make_clip, scene, turn_header

QUICK = (*TINY, "--offline")
KEY = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
F26 = 26 * 80 / DIAGONAL_35  # pixels, of the 64x48 of these clips


def told(name: str, millimetres: str = "26", **how) -> Path:
    """A film whose container tells a focal length, as phones write it."""
    return make_clip(Path(name), frames=2, muxer={"movflags": "use_metadata_tags"}, metadata={KEY: millimetres}, **how)


def camera(path: str) -> tuple[float, ...]:
    found = read_depth(path).camera
    return (*np.round((*found.focal, *found.center), 2),)


def test_the_focal_length_in_a_film_is_in_every_frame_and_beside_the_film(depth):
    told("a.mp4")
    ran = depth("video", "a.mp4", "-f", "npz,exr,gray,color,mp4", *QUICK)
    assert ran.code == 0 and "the focal length is the clip's own" in ran.err
    for ending in ("npz/frame_000001.npz", "exr/frame_000001.exr", "png/frame_000000.png", "color/frame_000000.png"):
        assert camera(f"a_depth_{ending}") == (*np.round((F26, F26), 2), 31.5, 23.5)
    assert read_depth("a_depth_exr/frame_000000.exr").camera.source == "clip"
    assert np.isclose(np.load("a_depth_npz/frame_000000.npz")["intrinsics"][0, 0], F26)
    assert json.loads(Path("a_depth.mp4.json").read_text())["camera"]["source"] == "clip"


@pytest.mark.parametrize("text", ["-13", "0", "nan", "wide", "inf"])
def test_a_focal_length_that_is_none_is_no_camera(text):
    with open_clip(told("a.mp4", text)) as clip:
        assert clip.info.camera is None


def test_both_readers_find_the_same_camera_and_orientation():
    if not find_program():
        pytest.skip("the program ffmpeg is not here")
    for degrees in (90, 180, 270):
        path = turn_header(told("a.mp4"), MATRICES[degrees])
        with open_clip(path) as clip:
            ours = clip.info
        source = ProgramSource(path.open("rb"), "a.mp4", path)
        other = source.info
        source.close()
        assert ours.orientation == other.orientation == {90: 6, 180: 3, 270: 8}[degrees]
        assert np.allclose(ours.camera.intrinsics, other.camera.intrinsics) and ours.size == other.size


@pytest.mark.parametrize(
    ("option", "found"),
    [
        (("--focal", "100"), (100, 100, 31.5, 23.5)),
        (("--fov", "90"), (32, 32, 31.5, 23.5)),
        (("--f35", "26"), (*np.round((F26, F26), 2), 31.5, 23.5)),
        (("--intrinsics", "100,110,40,30"), (100, 110, 40, 30)),
        (("--intrinsics", "K.txt"), (100, 110, 40, 30)),
    ],
)
def test_an_option_wins_over_the_film(depth, option, found):
    Path("K.txt").write_text("100 0 40\n0 110 30\n0 0 1\n")
    told("a.mp4", "50")
    assert depth("video", "a.mp4", "-f", "npz", *QUICK, *option).code == 0
    assert camera("a_depth_npz/frame_000000.npz") == found


def test_a_calibration_of_the_stored_frames_is_turned_with_them(depth):
    turn_header(make_clip(Path("a.mp4"), frames=2), MATRICES[90])
    Path("K.yaml").write_text(
        "image_width: 64\nimage_height: 48\ncamera_matrix:\n  data: [100, 0, 40, 0, 110, 30, 0, 0, 1]\n"
    )
    assert depth("video", "a.mp4", "-f", "npz", "--intrinsics", "K.yaml", *QUICK).code == 0
    found = read_depth("a_depth_npz/frame_000000.npz")
    assert found.size == SIZE[::-1]
    assert camera("a_depth_npz/frame_000000.npz") == (110, 100, 47 - 30, 40)  # clockwise: x' = H - 1 - y, y' = x


def test_a_calibration_of_another_ratio_and_one_without_a_camera_for_the_clip_are_refused(depth):
    make_clip(Path("a.mp4"), frames=2)
    Path("K.yaml").write_text(
        "image_width: 99\nimage_height: 48\ncamera_matrix:\n  data: [100, 0, 40, 0, 110, 30, 0, 0, 1]\n"
    )
    ran = depth("video", "a.mp4", "-f", "npz", "--intrinsics", "K.yaml", *QUICK)
    assert ran.code == 2 and "K.yaml is for 99x48 pixels, and a.mp4 has 64x48" in ran.err
    assert depth("video", "a.mp4", "--focal", "100", "--panorama", *QUICK).code == 2
    assert not Path("a_depth_npz").exists()


def test_another_camera_is_another_option_of_the_results(depth):
    make_clip(Path("a.mp4"), frames=2)
    assert depth("video", "a.mp4", "-f", "npz", "--focal", "100", *QUICK).code == 0
    ran = depth("video", "a.mp4", "-f", "npz", "--focal", "200", *QUICK)
    assert "was made with other options" in ran.err and camera("a_depth_npz/frame_000000.npz")[0] == 100


def test_frames_in_a_folder_have_the_camera_of_their_exif(depth):
    Path("shot").mkdir()
    for index in range(2):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 26
        Image.fromarray(scene(index)).save(f"shot/{index}.jpg", exif=exif)
    assert depth("video", "shot", "-o", "out/", "-f", "npz", *QUICK).code == 0
    found = read_depth("out/shot_depth_npz/frame_000000.npz").camera
    assert found.source == "exif" and np.isclose(found.focal[0], F26)


def test_wide_pixels_shorten_the_focal_length_across(tmp_path):
    from depthcli.choices.camera import CameraChoice
    from depthcli.io.cameras.pictures import GivenCameras

    found, _ = GivenCameras(CameraChoice(fov="90")).camera_of("a.mp4", (720, 576), 1, 16 / 15)
    assert np.allclose(found.focal, (360, 384)) and np.allclose(found.center, (359.5, 287.5))
    with pytest.raises(UsageError, match="outside of the 720x576"):
        GivenCameras(CameraChoice(intrinsics="9,9,900,9")).camera_of("a.mp4", (720, 576))
