"""Where the results of clips go: what an output means, and that names of results stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from depthcli.errors import UsageError
from depthcli.io.codecs.formats import CLIPS
from depthcli.jobs.find import CLIP, find_inputs
from depthcli.jobs.targets import Target, is_stream, plan_clips
from tests.conftest import photo
from tests.io.video.clips import make_clip
from tests.jobs.films import clip, film


def names(clips: list[str], output: str | None = "out", format: str = "mp4") -> list[str]:
    """Return the names of the results of clips, the ending apart."""
    planned = plan_clips(find_inputs(clips, CLIP), [format], Target.of(output))
    return [str(path)[: -len(CLIPS[format].clip)] for ((_, path),) in planned]


@pytest.mark.parametrize(
    ("output", "formats", "message"),
    [
        ("out.webm", "mp4", "mp4 is written as .mp4, not .webm"),
        ("x.gif", "mp4", "not .gif"),
        ("depth.exr", "mp4", "not .exr"),
        ("depth.exr", "exr", "exr is written as a folder, not .exr"),
        ("a.PNG", "png16", "png16 is written as a folder, not .png"),
        ("a.json", "mp4", "not .json"),
        ("out.mkv", "mp4", "`formats` ffv1 gives .mkv"),
        ("out.MOV", "ffv1", "`formats` prores gives .mov"),
        ("", "mp4", "`output` is empty"),
        ("plain", "mp4", "plain is a file, not a folder"),
        ("plain/", "mp4", "plain/ is a file, not a folder"),
        ("plain.v2", "mp4", "plain.v2 is a file, not a folder"),
        ("n" * 249 + ".mp4", "mp4", "too long by 3 bytes, with its sidecar"),
    ],
)
def test_an_output_that_means_a_file_is_never_a_folder(tmp_path, output, formats, message):
    clip("a.mp4")
    Path("plain").write_bytes(b"")
    Path("plain.v2").write_bytes(b"")
    with pytest.raises(UsageError, match=message):
        plan_clips(find_inputs(["a.mp4"], CLIP), [formats], Target.of(output))
    assert not Path(output or "none").is_dir()


def test_an_output_means_what_it_says(tmp_path):
    clips = find_inputs([str(clip("a.mp4"))], CLIP)
    Path("there.webm").mkdir()
    for output, formats, path in (
        ("out.MP4", "mp4", "out.MP4"),
        ("x.mov", "prores", "x.mov"),
        ("v2.0", "mp4", "v2.0/a_depth.mp4"),
        ("out.webm/", "mp4", "out.webm/a_depth.mp4"),
        ("there.webm", "mp4", "there.webm/a_depth.mp4"),
        ("n" * 246 + ".mp4", "mp4", "n" * 246 + ".mp4"),
    ):
        assert plan_clips(clips, [formats], Target.of(output)) == [[(formats, Path(path))]]


def test_pipes_and_devices_are_written_to_as_they_are(tmp_path):
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("file").write_bytes(b"")
    Path("folder").mkdir()
    assert all(map(is_stream, ("-", "pipe", "link", "/dev/null", "/dev/stdout", "/dev/fd/3", "/proc/self/fd/1")))
    assert not any(map(is_stream, ("file", "folder", "new.mp4", "/dev/shm/a.mp4", "/development/a.mp4")))


def test_a_result_never_replaces_a_clip_of_the_same_run(tmp_path):
    clip("a.mp4")
    clip("a_depth.mp4")  # of somebody else
    for output in (None, "."):
        with pytest.raises(UsageError, match=r"the result of a\.mp4 would replace the clip a_depth\.mp4"):
            plan_clips(find_inputs(["a.mp4", "a_depth.mp4"], CLIP), ["mp4"], Target.of(output))


def test_clips_of_one_name_are_told_apart_by_suffix_and_folder(tmp_path):
    for name in ("x/a.mp4", "x/a.mkv", "x/b.mp4", "y/b.mp4"):
        clip(name)
    assert names(["x"]) == ["out/a.mkv", "out/a.mp4", "out/b"]
    assert names(["x/b.mp4", "y/b.mp4"]) == ["out/x/b", "out/y/b"]
    assert names(["x/b.mp4", "y/b.mp4"], None) == ["x/b", "y/b"]
    for folder in ("s10/v1", "s20/v1", "t/s10/v1"):
        photo(f"{folder}/0.png")
    assert names(["s10/v1", "s20/v1"]) == ["out/s10/v1", "out/s20/v1"]
    assert names(["s10/v1", "s20/v1", "t/s10/v1"]) == ["out/s10/v1", "out/s20/v1", "out/t/s10/v1"]
    assert names(["s10/v1"]) == ["out/v1"]
    assert names(["s10/v1/?.png"]) == ["out/v1"] and names(["s10/v1/%d.png"], None) == ["s10/v1/v1"]


def test_a_result_keeps_its_name_when_other_clips_come_and_go(tmp_path):
    first = clip("in/a.mp4")
    film("out/a_depth.mp4", made_of=first)
    make_clip(Path("in/a.mov"), frames=3)
    assert names(["in"]) == ["out/a.mov", "out/a"]
    film("out/a.mov_depth.mp4", made_of=Path("in/a.mov"))
    make_clip(Path("in/a.mkv"), frames=4)
    assert names(["in"]) == ["out/a.mkv", "out/a.mov", "out/a"]
    first.unlink()
    Path("in/a.mkv").unlink()
    assert names(["in"]) == ["out/a.mov"]  # alone, and still of the name it has
    os.utime("in/a.mov", ns=(1, 1))
    assert names(["in"], format="ffv1") == ["out/a.mov"]  # another format goes beside it


def test_two_folders_of_one_name_keep_theirs(tmp_path):
    for folder in ("s10/v1", "s20/v1"):
        photo(f"{folder}/0.png", size=(80 if "1" in folder[:2] else 60, 60))
    film("out/v1_depth.mp4", made_of=Path("s10/v1"))
    assert names(["s20/v1", "s10/v1"]) == ["out/s20/v1", "out/v1"]


@pytest.mark.parametrize("letters", ["日" * 82, "n" * 250, "ü" * 123, "a" + "日" * 80])
@pytest.mark.parametrize("format", ["mp4", "side", "hevc10", "png16"])
def test_a_name_that_is_too_long_is_cut_and_told_from_others(tmp_path, letters, format):
    make_clip(Path("c.mp4"), frames=1)
    Path("c.mp4").rename(f"{letters}.mp4")
    (((_, path),),) = plan_clips(find_inputs([f"{letters}.mp4"], CLIP), [format], Target.of("out"))
    assert len(os.fsencode(f"{path.name}.json")) <= 255
    assert path.name.endswith(CLIPS[format].clip) and path.name.startswith(letters[:40])
    path.name.encode()  # whole letters


def test_long_names_that_differ_in_their_end_stay_apart(tmp_path):
    for last in "xy":
        make_clip(Path("c.mp4"), frames=1)
        Path("c.mp4").rename("日" * 81 + f"{last}.mp4")
    planned = plan_clips(find_inputs(["."], CLIP), ["mp4"], Target.of("out"))
    assert len({path for ((_, path),) in planned}) == 2
