"""`depth stereo`: two eyes of pictures, folders and clips from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import DepthKind, DepthMap, StereoChoice, read_depth, stereo, write_depth
from depthcli.choices import LAYOUTS
from depthcli.io.codecs.files import read_facts
from depthcli.views.layouts import LAYOUTS as ROWS
from tests.conftest import TINY, broken, files, photo, tree

SIZE = (80, 60)


def shown(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def ramp(path: Path | str, size: tuple[int, int] = SIZE, **options: object) -> DepthMap:
    """Write a map that is near at the left."""
    values = np.tile(np.linspace(1, 0, size[0], dtype=np.float32), (size[1], 1))
    write_depth(DepthMap(values, DepthKind.RELATIVE_DISPARITY), path, **options)
    return read_depth(path)


class TestPictures:
    def test_a_picture_becomes_two_eyes_beside_it(self, depth):
        photo("in/a.jpg")
        ran = depth("stereo", "in/a.jpg", *TINY)
        assert (ran.code, ran.lines, ran.err) == (0, ["in/a_LRF_Full_SBS.png"], "")
        eyes = shown("in/a_LRF_Full_SBS.png")
        assert eyes.shape == (60, 160, 3) and (eyes[:, :80] != eyes[:, 80:]).any()

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_has_its_files_and_size(self, depth, layout):
        photo("a.jpg")
        ran = depth("stereo", "a.jpg", "-o", "out/", "--layout", layout, *TINY)
        assert ran.code == 0
        assert ran.lines == [f"out/a{ending}.png" for ending in ROWS[layout].endings]
        assert {shown(path).shape[1::-1] for path in ran.lines} == {ROWS[layout].size(SIZE)}
        assert ("60 degrees" in ran.err) == (layout == "vr180")

    def test_a_file_says_what_it_is_and_is_not_taken_for_depth_or_for_a_photo(self, depth):
        photo("a.jpg")
        depth("stereo", "a.jpg", "--strength", "3", *TINY)
        facts = read_facts(Path("a_LRF_Full_SBS.png"))
        assert facts["stereo"] == {"layout": "sbs", "strength": 3.0, "screen": 0.5, "what": "left | right"}
        assert facts["source"] == "a.jpg" and facts["model"] == "tiny"
        ran = depth("image", ".", "-o", "maps", *TINY)
        assert ran.lines == ["maps/a_depth.png"] and "1 result of depthcli" in ran.err
        ran = depth("stereo", "a.jpg", "--depth", "a_LRF_Full_SBS.png", "-o", "x.png")
        assert ran.code == 1 and "is not a depth map" in ran.error

    def test_no_strength_shows_the_picture_twice(self, depth):
        photo("a.png")
        depth("stereo", "a.png", "--strength", "0", *TINY)
        eyes, rgb = shown("a_LRF_Full_SBS.png"), shown("a.png")
        assert (eyes[:, :80] == rgb).all() and (eyes[:, 80:] == rgb).all()

    def test_into_the_very_file_that_is_named(self, depth):
        photo("a.png")
        for name in ("x.png", "x.jpg"):
            assert depth("stereo", "a.png", "-o", name, *TINY).lines == [name]
        assert np.abs(shown("x.png").astype(int) - shown("x.jpg")).mean() < 3
        with Image.open("x.jpg") as jpeg:
            assert json.loads(jpeg.info["comment"])["stereo"]["layout"] == "sbs"

    def test_more_than_is_comfortable_is_warned_of_and_done(self, depth):
        photo("a.jpg")
        ran = depth("stereo", "a.jpg", "--strength", "6", *TINY)
        assert ran.code == 0 and ran.lines and ran.err.startswith("warning: --strength 6 ")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--layout", "3d"), "unknown --layout '3d' (choose from: sbs,"),
            (("--strength", "50"), "--strength must be from 0 to 20 percent, got 50"),
            (("--strength", "-1"), "--strength must be"),
            (("--screen", "2"), "--screen must be"),
            (("--fill", "x"), "unknown --fill"),
            (("--border", "x"), "unknown --border"),
            (("--view", "x"), "unknown --view"),
            (("--if-exists", "x"), "unknown --if-exists"),
            (("--layout", "pair", "-o", "x.png"), "x.png cannot hold --layout pair, which is two files"),
            (("-o", "x.npz"), "written as .png or .jpg, not .npz"),
            (("-o", "-"), "is a stream"),
        ],
    )
    def test_what_makes_no_sense_is_refused_before_any_work(self, depth, options, words):
        photo("a.jpg")
        ran = depth("stereo", "a.jpg", *options, *TINY)
        assert ran.code == 2 and words in ran.error
        assert files() == ["a.jpg"]

    def test_a_broken_picture_is_named_and_leaves_nothing(self, depth):
        broken("a.jpg")
        ran = depth("stereo", "a.jpg", *TINY)
        assert ran.code == 1 and "a.jpg is truncated" in ran.error
        assert files() == ["a.jpg"]

    def test_an_input_that_is_not_there_is_named(self, depth):
        assert depth("stereo", "none.jpg", *TINY).code in (1, 2)

    def test_kinds_are_not_mixed(self, depth):
        photo("a.jpg")
        Path("b.mp4").touch()
        ran = depth("stereo", "a.jpg", "b.mp4", *TINY)
        assert ran.code == 2 and "a command each" in ran.error


class TestGivenDepth:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("a.npz", {}), ("a.exr", {}), ("a.png", {"format": "gray"}), ("b.png", {"format": "color"})],
    )
    def test_a_depth_file_takes_the_place_of_the_model(self, depth, name, options):
        photo("p/a.png")
        found = ramp(name, **options)
        ran = depth("stereo", "p/a.png", "--depth", name, "-o", "x.png", "--strength", "8")
        assert (ran.code, ran.lines, ran.err.count("warning")) == (0, ["x.png"], 1)
        (wanted,) = stereo("p/a.png", found, StereoChoice(strength=8))
        assert (shown("x.png") == wanted).all()

    def test_a_smaller_map_of_the_picture_is_enlarged(self, depth):
        photo("a.png")
        ramp("small.npz", (40, 30))
        assert depth("stereo", "a.png", "--depth", "small.npz").code == 0

    def test_depth_of_another_picture_is_refused(self, depth):
        photo("a.png")
        ramp("other.npz", (60, 60))
        ran = depth("stereo", "a.png", "--depth", "other.npz")
        assert ran.code == 2 and "60x60, and the picture 80x60" in ran.error
        assert files() == ["a.png", "other.npz"]

    def test_a_file_that_is_no_depth_is_named(self, depth):
        photo("a.png")
        Path("x.npz").write_bytes(b"no zip")
        ran = depth("stereo", "a.png", "--depth", "x.npz")
        assert ran.code == 1 and "x.npz" in ran.error
        assert depth("stereo", "a.png", "--depth", "none.npz").error == "error: none.npz does not exist"

    def test_it_is_of_one_picture(self, depth):
        photo("a.png")
        photo("b.png")
        ramp("a.npz")
        ran = depth("stereo", "a.png", "b.png", "--depth", "a.npz")
        assert ran.code == 2 and "--depth is of one picture" in ran.error

    def test_existing_files_are_replaced_skipped_or_refused_as_asked(self, depth):
        photo("a.png")
        ramp("a.npz")
        command = ("stereo", "a.png", "--depth", "a.npz", "-o", "x.png")
        depth(*command)
        before = Path("x.png").read_bytes()
        assert depth(*command, "--strength", "4", "--if-exists", "skip").lines == []
        assert Path("x.png").read_bytes() == before
        assert depth(*command, "--if-exists", "error").code == 1
        assert depth(*command, "--strength", "4").lines == ["x.png"]
        assert Path("x.png").read_bytes() != before

    def test_the_depth_and_the_picture_are_never_replaced(self, depth):
        photo("a.png")
        ramp("d.png")
        for name in ("a.png", "d.png"):
            ran = depth("stereo", "a.png", "--depth", "d.png", "-o", name)
            assert ran.code == 2 and "would replace" in ran.error


class TestFolders:
    def test_a_folder_is_done_beside_it_and_the_same_command_skips_what_is_there(self, depth):
        for name in ("in/a.jpg", "in/sub/b.png"):
            photo(name)
        ran = depth("stereo", "in", *TINY)
        names = ["in_stereo/a_LRF_Full_SBS.png", "in_stereo/sub/b_LRF_Full_SBS.png"]
        assert (ran.code, ran.lines) == (0, names)
        before = tree("in_stereo")
        Path(names[1]).unlink()
        ran = depth("stereo", "in", *TINY)
        assert ran.lines == names[1:] and "1 done, 1 skipped" in ran.err
        assert tree("in_stereo") == before

    def test_results_with_other_options_are_not_mixed_but_other_layouts_lie_beside_them(self, depth):
        photo("in/a.jpg")
        assert depth("stereo", "in", "-o", "out", *TINY).code == 0
        ran = depth("stereo", "in", "-o", "out", "--strength", "3", *TINY)
        assert ran.code == 2 and "was made with --strength 2.0, and this run has --strength 3.0" in ran.error
        assert depth("stereo", "in", "-o", "out", "--layout", "ou", "--strength", "3", *TINY).code == 0
        assert depth("stereo", "in", "-o", "out", "--strength", "3", "--if-exists", "overwrite", *TINY).code == 0
        assert sorted(tree("out")) == ["a_LRF_Full_SBS.png", "a_TBF_fulltb.png"]

    def test_one_bad_picture_takes_no_other_with_it(self, depth):
        photo("in/a.jpg")
        broken("in/b.jpg")
        ran = depth("stereo", "in", "--layout", "pair", *TINY)
        assert ran.code == 3 and ran.lines == ["in_stereo/a_L.png", "in_stereo/a_R.png"]


class TestPython:
    def test_the_layout_may_be_named_alone_and_depth_be_a_map_or_a_file(self):
        photo("a.png")
        found = ramp("a.npz")
        one, other, third = stereo("a.png", found), stereo("a.png", "a.npz", "sbs"), stereo(shown("a.png"), found)
        assert (one[0] == other[0]).all() and (one[0] == third[0]).all() and one[0].shape == (60, 160, 3)
        left, right = stereo("a.png", found, "pair")
        assert (np.hstack([left, right]) == one[0]).all()

    def test_without_depth_it_is_estimated(self, tiny_weights, one_thread):
        photo("a.png")
        (eyes,) = stereo("a.png", model="tiny")
        assert eyes.shape == (60, 160, 3)
