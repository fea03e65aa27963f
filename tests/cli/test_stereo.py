"""`depth stereo`: two eyes of pictures, folders and clips from the command line."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli import DepthKind, DepthMap, StereoChoice, read_depth, stereo, write_depth
from depthcli.choices.stereo import LAYOUTS
from depthcli.io.codecs.files import read_facts
from depthcli.views.layouts import LAYOUTS as ROWS
from tests.conftest import TINY, broken, ended, environment, files, photo, tree
from tests.io.video.clips import SIZE as CLIP_SIZE
from tests.io.video.clips import make_clip, number, side_data

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


QUICK = (*TINY, "--offline")


class Film:
    """What is in a film."""

    def __init__(self, path: Path | str) -> None:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.rate, self.size = stream.average_rate, (stream.width, stream.height)
            self.layout = stream.codec_context.pix_fmt
            self.mode = stream.metadata.get("stereo_mode")
            frames = list(container.decode(stream))
        self.times = [float(frame.time) for frame in frames]
        self.frames = [frame.to_ndarray(format="rgb24") for frame in frames]
        self.tags = side_data(frames[0])
        self.sound = [packet for packet in packets(path) if packet[0] == "audio"]


def packets(path: Path | str) -> list[tuple[str, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.stream.type, bytes(packet)) for packet in container.demux() if packet.size]


class TestClips:
    def test_a_clip_keeps_its_frames_its_times_its_rate_and_its_sound(self, depth):
        make_clip(Path("a.mp4"), frames=12, sound="aac")
        ran = depth("stereo", "a.mp4", *QUICK)
        assert ran.code == 0 and ran.lines == ["a_LRF_Full_SBS.mp4"]
        film, source = Film("a_LRF_Full_SBS.mp4"), Film("a.mp4")
        assert film.size == (128, 48) and film.rate == source.rate
        assert film.times == pytest.approx(source.times, abs=1e-4)
        assert film.sound == source.sound != []
        width = CLIP_SIZE[0]
        assert [number(frame[:, 5 : width - 5]) for frame in film.frames] == list(range(12))
        assert [number(frame[:, width + 5 : -5]) for frame in film.frames] == list(range(12))
        assert "STEREO3D" not in film.tags  # players would take it for half
        facts = json.loads(Path("a_LRF_Full_SBS.mp4.json").read_text())
        assert facts["stereo"]["layout"] == "sbs" and facts["video"]["frames"] == 12

    def test_a_rate_that_varies_is_kept(self, depth):
        times = [Fraction(n, 1000) for n in (0, 40, 90, 250, 300)]
        make_clip(Path("a.mp4"), frames=5, times=times, time_base=Fraction(1, 1000))
        depth("stereo", "a.mp4", "-o", "x.mp4", *QUICK)
        assert Film("x.mp4").times == pytest.approx([float(time) for time in times], abs=1e-3)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_has_its_films_size_and_tags(self, depth, layout):
        make_clip(Path("a.mp4"), frames=2)
        ran = depth("stereo", "a.mp4", "-o", "out/", "--layout", layout, *QUICK)
        assert ran.code == 0
        assert ran.lines == [f"out/a{ending}.mp4" for ending in ROWS[layout].endings]
        assert ("60 degrees" in ran.err) == (layout == "vr180")
        kind = {"half-sbs": 1, "vr180": 1, "ou": 2, "half-ou": 2}.get(layout)
        for path in ran.lines:
            film = Film(path)
            assert film.size == ROWS[layout].size(CLIP_SIZE) and len(film.frames) == 2
            assert film.layout == ("yuv444p" if layout.startswith("anaglyph") else "yuv420p")
            assert film.tags.get("STEREO3D", b"")[:4] == (b"" if kind is None else struct.pack("<i", kind))
            assert ("SPHERICAL" in film.tags) == (layout == "vr180")

    def test_the_user_decides_about_tags(self, depth):
        make_clip(Path("a.mp4"), frames=2)
        depth("stereo", "a.mp4", "-o", "x.mp4", "--tags", *QUICK)
        depth("stereo", "a.mp4", "-o", "y.mp4", "--layout", "half-sbs", "--no-tags", *QUICK)
        depth("stereo", "a.mp4", "-o", "z.mkv", "--layout", "half-ou", *QUICK)
        assert "STEREO3D" in Film("x.mp4").tags and "STEREO3D" not in Film("y.mp4").tags
        assert Film("z.mkv").mode == "top_bottom"

    def test_odd_sizes_are_padded_so_that_no_eyes_share_a_sample_of_colour(self, depth):
        make_clip(Path("a.mkv"), frames=2, size=(63, 47), pixel_format="yuv444p", codec="libx264")
        depth("stereo", "a.mkv", "-o", "x.mp4", *QUICK)
        assert Film("x.mp4").size == (128, 48)

    def test_a_pair_is_two_films_that_differ_by_the_parallax_alone(self, depth):
        make_clip(Path("a.mp4"), frames=3)
        depth("stereo", "a.mp4", "--layout", "pair", "--strength", "20", *QUICK)
        left, right = Film("a_L.mp4"), Film("a_R.mp4")
        assert all((one != other).any() for one, other in zip(left.frames, right.frames))
        depth("stereo", "a.mp4", "--layout", "pair", "--strength", "0", "-o", "flat/", *QUICK)
        left, right = Film("flat/a_L.mp4"), Film("flat/a_R.mp4")
        assert all((one == other).all() for one, other in zip(left.frames, right.frames))

    def test_what_is_there_is_skipped_and_other_options_are_said(self, depth):
        make_clip(Path("a.mp4"), frames=2)
        depth("stereo", "a.mp4", *QUICK)
        before = Path("a_LRF_Full_SBS.mp4").read_bytes()
        ran = depth("stereo", "a.mp4", *QUICK)
        assert ran.code == 0 and ran.lines == [] and "1 skipped" in ran.err
        ran = depth("stereo", "a.mp4", "--strength", "3", *QUICK)
        assert "was made with other options" in ran.err and Path("a_LRF_Full_SBS.mp4").read_bytes() == before
        depth("stereo", "a.mp4", "--strength", "3", "--if-exists", "overwrite", *QUICK)
        assert Path("a_LRF_Full_SBS.mp4").read_bytes() != before

    def test_a_folder_of_clips_is_done_and_its_results_are_no_inputs(self, depth):
        Path("in").mkdir()
        for name in ("a", "b"):
            make_clip(Path(f"in/{name}.mp4"), frames=2)
        assert depth("stereo", "in", *QUICK).lines == ["in/a_LRF_Full_SBS.mp4", "in/b_LRF_Full_SBS.mp4"]
        ran = depth("stereo", "in", "--layout", "ou", "-o", "out", *QUICK)
        assert ran.lines == ["out/a_TBF_fulltb.mp4", "out/b_TBF_fulltb.mp4"] and "2 results of depthcli" in ran.err

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--fill", "telea"), "flickers"),
            (("-o", "x.avi"), "written as .mp4, .mov or .mkv, not .avi"),
            (("-o", "x.mp4", "--layout", "pair"), "two films"),
            (("-o", "-"), "is a stream"),
            (("-o", "a.mp4"), "would replace the clip"),
            (("--depth", "a.npz"), "--depth is of one picture"),
        ],
    )
    def test_what_makes_no_sense_is_refused_before_any_work(self, depth, options, words):
        make_clip(Path("a.mp4"), frames=2)
        ran = depth("stereo", "a.mp4", *options, *QUICK)
        assert ran.code == 2 and words in ran.error
        assert files() == ["a.mp4"]

    def test_a_clip_that_cannot_be_read_is_named_and_leaves_nothing(self, depth):
        Path("a.mp4").write_bytes(b"no video")
        ran = depth("stereo", "a.mp4", *QUICK)
        assert ran.code == 1 and "a.mp4" in ran.error and files() == ["a.mp4"]

    def test_killed_in_the_depth_and_in_the_writing_it_goes_on_to_the_same_bytes(self, start, tiny_weights):
        make_clip(Path("a.mp4"), frames=40, size=(160, 120), sound="aac")
        options = ("--layout", "half-sbs", "--steady", "on", "--encoder", "tiny", "--input-size", "112", "--offline")
        assert ended(start("stereo", "a.mp4", "-o", "whole/", *options)).code == 0
        often = (
            "import depthcli.jobs.clip_making as m; m._KEEP_SECONDS = 0.02; from depthcli.cli.app import main; main()"
        )
        command = [sys.executable, "-c", often, "stereo", "a.mp4", "-o", "out/", *options]
        for signs in (".*/shard_*", ".*/writing.json"):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment())
            deadline = time.monotonic() + 60
            while not list(Path("out").glob(signs)) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not list(Path("out").glob("*.mp4"))  # nothing that is not whole
        ran = ended(start("stereo", "a.mp4", "-o", "out/", *options))
        assert ran.code == 0 and "is not used" not in ran.err
        assert tree("out") == tree("whole") and not list(Path("out").glob(".*"))


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
