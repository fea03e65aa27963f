"""Which clips are meant: by content and not by name, and everything that is left out is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.errors import UsageError
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.codecs.png import write_png
from depthcli.io.codecs.quick_facts import SCHEMA, TEXT_KEY
from depthcli.io.video.ffmpeg_program import find_program
from depthcli.io.video.reader import frames_of_folder
from depthcli.jobs.clip_results import CHANGED, GONE, ClipFiles
from depthcli.jobs.find import CLIP, LeftOut, find_inputs
from tests.conftest import photo
from tests.jobs.films import FACTS, clip, film

FILMS = ("mp4", "side", "ffv1", "hevc10", "prores")


def our_map(path: Path | str) -> None:
    with Path(path).open("wb") as stream:
        write_png(np.zeros((8, 8), np.uint8), stream, {TEXT_KEY: json.dumps(FACTS)})


def found(*arguments: str) -> tuple[list[str], list[str]]:
    """Return the clips that are meant, and what is told."""
    left = LeftOut(CLIP)
    return [str(source) for source, _ in find_inputs(arguments, CLIP, left)], left.lines()


# --- Our own results --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FILMS)
def test_a_film_of_ours_is_known_by_its_comment_whatever_its_name(tmp_path, format):
    suffix = Path(CLIPS[format].clip).suffix
    made = film(f"holiday{suffix}", format)
    assert CLIP.is_result(made)
    Path(f"holiday{suffix}.json").unlink()
    made.rename(f"other{suffix.upper()}")
    assert CLIP.is_result(Path(f"other{suffix.upper()}"))


@pytest.mark.skipif(find_program() is None, reason="no imageio-ffmpeg here")
def test_it_is_known_without_pyav_too(tmp_path, monkeypatch):
    monkeypatch.setattr("depthcli.io.video.film_comment.has_av", lambda: False)
    film("a.mp4")
    Path("a.mp4.json").unlink()
    assert CLIP.is_result(Path("a.mp4"))
    assert not CLIP.is_result(clip("b.mp4"))


def test_a_film_of_ours_that_is_cut_or_re_encoded_by_others_is_one_still(tmp_path):
    film("a.mp4")
    Path("a.mp4.json").unlink()
    with av.open("a.mp4") as source, av.open("b.mkv", "w") as target:  # as a program that copies streams does
        target.metadata.update(source.metadata)
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    assert CLIP.is_result(Path("b.mkv"))


@pytest.mark.parametrize("comment", ["", "my holiday", "{}", '{"schema": "other/1"}', "[1]", "{", "depthcli"])
def test_a_comment_of_anybody_else_makes_no_clip_ours(tmp_path, comment):
    clip("plain.mp4")
    with av.open("plain.mp4") as source, av.open("a.mp4", "w") as target:
        target.metadata["comment"] = comment
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    assert not CLIP.is_result(Path("a.mp4"))
    Path("a.mp4.json").write_text(json.dumps({"schema": SCHEMA}))  # as beside a picture
    assert not CLIP.is_result(Path("a.mp4"))


def test_in_a_folder_they_are_left_out_and_told_and_by_name_they_are_taken(tmp_path):
    clip("clips/a.mp4")
    film("clips/a_d.mp4")
    film("clips/b_depth.mp4")
    Path("clips/b_depth.mp4.json").unlink()
    film("clips/seq", "png16")
    assert found("clips") == (["clips/a.mp4"], ["left out: 4 results of depthcli (a_d.mp4, b_depth.mp4, "
                                                "frame_000000.png, frame_000001.png)"])  # fmt: skip
    assert found("clips/*.mp4")[0] == ["clips/a.mp4"] and "2 results of depthcli" in found("clips/*.mp4")[1][0]
    sources, lines = found("clips/a_d.mp4")
    assert sources == ["clips/a_d.mp4"] and "clips/a_d.mp4 is a result of depthcli" in lines[0]


def test_a_shell_that_names_them_with_the_clips_does_not_mean_them(tmp_path):
    clip("a.mp4")
    film("a_depth.mp4")
    film("b_depth.mp4")
    assert found("a.mp4", "./a_depth.mp4", "b_depth.mp4") == (
        ["a.mp4"],
        ["left out: 2 results of depthcli (a_depth.mp4, b_depth.mp4)"],
    )
    with pytest.raises(UsageError, match=r"no clip among these files .left out: 2 results of depthcli"):
        find_inputs(["a_depth.mp4", "b_depth.mp4"], CLIP)


def test_maps_among_frames_are_no_frames(tmp_path):
    for index in range(3):
        photo(f"shot/{index}.png")
        our_map(f"shot/{index}_depth.png")
    film("shot/shot_depth.mp4")
    assert [path.name for path in frames_of_folder(Path("shot"))] == ["0.png", "1.png", "2.png"]
    sources, lines = found("shot")
    assert sources == ["shot"] and "left out: 4 results of depthcli" in lines[0]
    before = ClipFiles.of(Path("shot")).identity
    our_map("shot/3_depth.png")
    Path("shot/notes.txt").write_text("x")
    assert ClipFiles.of(Path("shot")).identity == before
    photo("shot/3.png")
    assert ClipFiles.of(Path("shot")).identity != before


@pytest.mark.parametrize("suffix", [".ppm", ".bmp", ".tif", ".png"])
def test_a_frame_in_which_a_pixel_has_changed_is_another(tmp_path, suffix):
    Path("shot").mkdir()
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (700, 900, 3), np.uint8)
    Image.fromarray(rgb).save(f"shot/0{suffix}")
    before = ClipFiles.of(Path("shot"))
    content = before.identity["content"]
    for row, column in ((0, 0), (333, 444), (699, 899)):
        changed = rgb.copy()
        changed[row, column] ^= 1
        Image.fromarray(changed).save(f"shot/0{suffix}")
        os.utime(f"shot/0{suffix}", ns=(row + 1, row + 1))
        assert ClipFiles.of(Path("shot")).identity["content"] != content and before.compare() == CHANGED


def test_a_folder_with_nothing_but_results_says_so(tmp_path):
    Path("seq").mkdir()
    our_map("seq/frame_000000.png")
    film("seq/a.mp4")
    with pytest.raises(UsageError, match=r"there is no clip in seq \(left out: 2 results of depthcli"):
        find_inputs(["seq"], CLIP)


@pytest.mark.parametrize(
    ("pattern", "name", "count"),
    [
        ("shot/f%04d.png", "f", 3),
        ("shot/f####.png", "f", 3),
        ("shot/f*.png", "f", 3),
        ("shot/%d.jpg", "shot", 2),
        ("shot/v2.####.tif", "v2", 1),
    ],
)
def test_frames_may_be_named_by_a_pattern(tmp_path, pattern, name, count):
    for frame in ("f0001.png", "f0002.png", "f0003.png", "1.jpg", "2.jpg", "v2.1001.tif"):
        photo(f"shot/{frame}")
    our_map("shot/f0001_depth.png")
    our_map("shot/f0004.png")
    assert found(pattern) == ([pattern], [])
    assert find_inputs([pattern], CLIP) == [(Path(pattern), Path(name))]
    files = ClipFiles.of(Path(pattern))
    assert len(files.paths) == count and files.identity["kind"] == "frames"
    Path("shot").rename("moved")
    assert ClipFiles.of(Path(pattern.replace("shot", "moved"))).identity == files.identity
    assert files.compare() == GONE


def test_a_pattern_of_no_file_is_no_clip(tmp_path):
    assert found("shot/f%04d.png")[0] == ["shot/f%04d.png"]  # which then does not exist
    with pytest.raises(UsageError, match=r"no clip matches shot/f\*\.png"):
        find_inputs(["shot/f*.png"], CLIP)


# --- What is left out -------------------------------------------------------------------------------------------------


def test_what_is_left_out_of_a_folder_is_told_in_one_line(tmp_path):
    clip("day/a.mp4")
    for index in range(5):
        photo(f"day/frames/{index}.png")
    for name in ("b.dv2", "c.txt", "d.txt", ".hidden"):
        Path("day", name).write_bytes(b"x")
    sources, (line,) = found("day")
    assert sources == ["day/a.mp4"]
    assert line.startswith("left out: 8 files that are not clips (.png, .txt, .dv2; name a file or a folder of frames")


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    clip("day/a.mp4")
    os.mkfifo("day/b.mp4")
    os.mkfifo("day/c.png")
    Path("day/d.mov").symlink_to("gone.mov")
    assert found("day") == (["day/a.mp4", "day/b.mp4", "day/d.mov"], [
        "left out: 1 file that is not a clip (.png; name a file or a folder of frames to take it)"
    ])  # fmt: skip


def test_a_folder_with_frames_and_one_video_says_what_is_taken(tmp_path):
    clip("shot/making-of.mp4")
    photo("shot/0.png")
    assert found("shot") == (
        ["shot/making-of.mp4"],
        ["left out: 1 file that is not a clip (.png; name a file or a folder of frames to take it)"],
    )


def test_folders_of_frames_below_are_named(tmp_path):
    for shot in ("s1", "s2"):
        photo(f"shots/{shot}/0.png")
    with pytest.raises(UsageError, match=r"pictures in shots/s1, shots/s2: name each folder"):
        find_inputs(["shots"], CLIP)
    assert found("shots/*")[0] == ["shots/s1", "shots/s2"]


def test_links_to_folders_are_followed_each_once_and_none_in_circles(tmp_path):
    clip("data/scene1/a.mp4")
    clip("data/scene2/b.mp4")
    Path("in").mkdir()
    clip("in/own/c.mp4")
    for name, target in (("own2", "own"), ("scene1", "../data/scene1"), ("up", ".."), ("self", "."), ("gone", "no")):
        Path("in", name).symlink_to(target)
    Path("data/scene1/back").symlink_to("../../in")
    Path("data/scene1/round").symlink_to("..")
    left = LeftOut(CLIP)
    assert [str(item.source) for item in find_inputs(["in"], CLIP, left)] == ["in/own/c.mp4", "in/scene1/a.mp4"]
    assert left.links == ["in/own2", "in/self", "in/up", "in/scene1/back", "in/scene1/round"]
    assert "5 links to folders walked elsewhere (in/own2, in/self, " in str(left)


@pytest.mark.usefixtures("as_nobody")
def test_folders_that_may_not_be_read_fail_by_name(tmp_path):
    clip("in/a.mp4")
    Path("in/closed").mkdir(mode=0)
    assert found("in")[0] == ["in/a.mp4", "in/closed"]
    with pytest.raises(UsageError, match="cannot read the folder in/closed: permission denied"):
        find_inputs(["in/closed"], CLIP)
    Path("in/closed").chmod(0o700)


@pytest.mark.parametrize("argument", ["https://a.example/b.mp4?x=1", "rtsp://cam/1", "s3://bucket/a.mov"])
def test_an_address_gets_the_command_that_works(tmp_path, argument):
    with pytest.raises(UsageError) as raised:
        find_inputs([argument], CLIP)
    assert f"ffmpeg -i '{argument}' -f yuv4mpegpipe - | depth video -" in str(raised.value)


def test_a_clip_that_is_named_twice_is_done_once(tmp_path):
    clip("in/a.mp4")
    assert found("in", "in/a.mp4", "./in/a.mp4", "-", "-")[0] == ["in/a.mp4", "-"]


def test_a_name_longer_than_the_system_allows_is_no_crash(tmp_path):
    assert found("x" * 300 + ".mp4")[0] == ["x" * 300 + ".mp4"]  # which then does not exist


def test_a_list_names_one_clip_on_each_line(tmp_path):
    clip("in/a.mp4")
    photo("shot/0.png")
    Path("list.txt").write_text("in/a.mp4\nshot\n")
    assert found("list.txt") == (["in/a.mp4", "shot"], [])
