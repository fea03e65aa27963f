"""Metres of clips on the command line: what is printed, what `depth info` tells, and the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, photo
from tests.io.video.clips import make_clip

QUICK = (*TINY, "--offline")


def test_the_line_is_printed_once_and_info_repeats_it(depth):
    make_clip(Path("a.mp4"), frames=4)
    ran = depth("video", "a.mp4", "-f", "mp4,npz", "--scale-from", "z:8,8=2@1", *QUICK)
    assert ran.code == 0 and ran.err.count("a.mp4: metres: 1/z = ") == 1
    for path in ("a_depth.mp4", "a_depth_npz/frame_000003.npz"):
        assert "metres: 1/z = " in "".join(depth("info", path).out)
    assert depth("video", "a.mp4", "-f", "mp4,npz", "--scale-from", "z:8,8=2@1", *QUICK).err.count("metres") == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("a.mp4", "--scale-from", "z:8,8=2@9"), "a.mp4: z:8,8=2@9 names a frame that is not there"),
        (("a.mp4", "--scale-from", "z:99,8=2"), "outside of the 64x48 picture"),
        (("a.mp4", "--scale", "2"), "--scale multiplies metres"),
        (("a.mp4", "-o", "-", "--scale-from", "z:8,8=2"), "is a stream"),
        (("a.mp4", "-f", "mm"), "mm holds metres"),
        (("a.mp4", "-f", "ply", "--panorama"), "ply cannot be made of a panorama"),
        (("a.mp4", "--panorama", "--scale-from", "z:8,8=2"), "no optical axis"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(depth, arguments, reason):
    make_clip(Path("a.mp4"), frames=3)
    ran = depth("video", *arguments, *QUICK)
    assert ran.code == 2 and reason in ran.err and "Traceback" not in ran.err
    assert not [path for path in Path().iterdir() if path.name.startswith("a_depth")]


def test_a_frame_of_a_picture_is_refused(depth):
    photo("a.jpg")
    ran = depth("image", "a.jpg", "-f", "npz", "--scale-from", "z:8,8=2@3", *QUICK)
    assert ran.code == 2 and "names a frame, and a picture has none" in ran.err


def test_one_clip_that_is_refused_takes_no_other_with_it(depth):
    Path("in").mkdir()
    make_clip(Path("in/long.mp4"), frames=5)
    make_clip(Path("in/short.mp4"), frames=2)
    ran = depth("video", "in", "-o", "out", "-f", "npz", "--scale-from", "z:8,8=2@4", *QUICK)
    assert ran.code == 3 and "short.mp4: z:8,8=2@4 names a frame that is not there" in ran.err
    assert Path("out/long_depth_npz.json").exists() and not Path("out/short_depth_npz").exists()
