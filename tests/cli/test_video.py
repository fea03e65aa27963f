"""`depth video` from the command line: files, folders and pipes in and out, and nothing lost whatever ends it."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.errors import DiskFullError
from depthcli.io.codecs.files import read_depth
from tests.conftest import TINY, ended, environment, files, photo, tree
from tests.io.video.clips import SIZE, make_clip, scene

OFFLINE = ("--offline",)
QUICK = (*TINY, *OFFLINE)


def frames_of(path: Path | str) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_a_clip_becomes_a_clip_beside_it(depth):
    Path("day").mkdir()
    make_clip(Path("day/a.mp4"), frames=5)
    ran = depth("video", "day/a.mp4", *QUICK)
    assert ran.code == 0 and ran.lines == ["day/a_depth.mp4"]
    assert "about 5 frames; while it is made their depth takes" in ran.err
    assert len(frames_of("day/a_depth.mp4")) == 5
    assert files() == ["day/a.mp4", "day/a_depth.mp4", "day/a_depth.mp4.json"]


def test_formats_names_and_colours_are_as_asked(depth):
    make_clip(Path("a.mp4"), frames=3)
    ran = depth("video", "a.mp4", "-o", "out.v2/", "-f", "side,ffv1", "-f", "png16", "--grayscale", *QUICK)
    assert ran.code == 0
    assert ran.lines == ["out.v2/a_depth_side.mp4", "out.v2/a_depth.mkv", "out.v2/a_depth_png"]
    gray = frames_of("out.v2/a_depth_side.mp4")[0][:, SIZE[0] :].astype(int)
    assert np.median(np.ptp(gray, axis=2)) <= 3 and gray.std() > 1  # but for the colours of the clip beside it
    assert depth("video", "a.mp4", "-o", "named.mp4", *QUICK).lines == ["named.mp4"]


def test_frames_are_called_and_coded_as_pictures_are(depth):
    make_clip(Path("a.mp4"), frames=3)
    assert depth("video", "a.mp4", "-o", "new/", "-f", "gray,color,gray8", *QUICK).lines == [
        *("new/a_depth_png", "new/a_depth_color", "new/a_depth_gray8")
    ]
    assert depth("video", "a.mp4", "-o", "old/", "-f", "png16", *QUICK).code == 0
    assert tree("new/a_depth_png") == tree("old/a_depth_png")
    maps = [read_depth(f"new/a_depth_{name}/frame_000001.png") for name in ("png", "color", "gray8")]
    lo, hi = maps[0].range
    for depth_map in maps[1:]:
        assert np.abs(depth_map.values - maps[0].values).max() <= 3 * (hi - lo) / 255


def test_a_folder_is_a_batch_of_clips_and_one_bad_clip_takes_no_other_with_it(depth):
    Path("in/sub").mkdir(parents=True)
    make_clip(Path("in/a.mp4"), frames=3)
    make_clip(Path("in/a.mkv"), frames=3)
    make_clip(Path("in/sub/b.mp4"), frames=3)
    Path("in/bad.mp4").write_bytes(b"no video")
    ran = depth("video", "in", "-o", "out", "--json", *QUICK)
    assert ran.code == 3
    events = [json.loads(line) for line in ran.lines]
    assert events[-1]["summary"]["done"] == 3 and events[-1]["summary"]["failed"] == 1
    assert {
        Path(path).name for event in events[:-1] for path in event.get("outputs", ()) if event["status"] == "done"
    } == {
        "a.mp4_depth.mp4",
        "a.mkv_depth.mp4",
        "b_depth.mp4",
    }
    rows = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert sorted(row["status"] for row in rows) == ["done", "done", "done", "failed"]
    ran = depth("video", "in", "-o", "out", *QUICK)
    assert ran.code == 3 and "3 skipped, 1 failed" in ran.err
    # In place, the results of the first run are no clips of the second.
    assert depth("video", "in/sub", *QUICK).lines == ["in/sub/b_depth.mp4"]
    assert "1 skipped" in depth("video", "in/sub", *QUICK).err


def test_a_folder_of_frames_is_a_clip(depth):
    for index in range(4):
        photo(f"shot/frame{index}.png")
    ran = depth("video", "shot", "-o", "out/", "--rate", "23.976", *QUICK)
    assert ran.code == 0 and ran.lines == ["out/shot_depth.mp4"]
    with av.open("out/shot_depth.mp4") as video:
        assert str(video.streams.video[0].average_rate) == "24000/1001"


def test_a_new_format_does_not_replace_films_made_with_other_options(depth):
    make_clip(Path("a.mp4"), frames=5)
    assert depth("video", "a.mp4", *QUICK).code == 0
    whole = Path("a_depth.mp4").read_bytes()
    ran = depth("video", "a.mp4", "-f", "mp4,ffv1", "--max-frames", "2", *QUICK)
    assert ran.code == 1 and "a_depth.mp4 was made with other options" in ran.error
    assert Path("a_depth.mp4").read_bytes() == whole and not Path("a_depth.mkv").exists()
    assert depth("video", "a.mp4", "-f", "mp4,ffv1", *QUICK).code == 0
    assert len(frames_of("a_depth.mkv")) == 5


def test_an_animation_has_nothing_to_take_along(depth):
    pictures = [Image.fromarray(scene(index)) for index in range(3)]
    pictures[0].save("a.webp", save_all=True, append_images=pictures[1:], duration=[40, 400, 80])
    ran = depth("video", "a.webp", "--json", *QUICK)
    assert ran.code == 0 and json.loads(ran.lines[-2])["notes"] == []
    with av.open("a_depth.mp4") as video:
        assert video.duration == 520_000  # microseconds


def test_from_a_pipe_into_a_pipe(start, one_thread):
    raw = b"".join(scene(index).tobytes() for index in range(5))
    command = ("video", "-", "--size", f"{SIZE[0]}x{SIZE[1]}", "--rate", "25", "-o", "-", "--pipe", "rgb24", *QUICK)
    process = start(*command, stdin=subprocess.PIPE)
    out, err = process.communicate(raw, timeout=120)
    assert (process.returncode, len(out)) == (0, len(raw)), err
    y4m = start("video", "-", "-o", "-", *QUICK, stdin=subprocess.PIPE)
    header = f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F25:1 Ip A1:1 C444\n".encode()
    frames = b"".join(b"FRAME\n" + np.moveaxis(scene(index), 2, 0).tobytes() for index in range(5))
    out, err = y4m.communicate(header + frames, timeout=120)
    assert y4m.returncode == 0 and out.startswith(b"YUV4MPEG2 W64 H48 F25:1") and out.count(b"FRAME\n") == 5, err


def test_steady_is_a_choice_and_is_noted(depth):
    make_clip(Path("a.mp4"), frames=3)
    for steady in ("on", "off"):
        assert depth("video", "a.mp4", "-o", f"{steady}/", "-f", "npz", "--steady", steady, *QUICK).code == 0
        assert f"steady={steady}" in Path(f"{steady}/a_depth_npz.json").read_text()
    first, second = (Path(f"{steady}/a_depth_npz") for steady in ("on", "off"))
    assert tree(first).keys() == tree(second).keys() and tree(first) != tree(second)


def test_without_a_model_for_video_it_says_so_and_steadies_one_for_pictures(depth, tiny_file):
    make_clip(Path("a.mp4"), frames=2)
    ran = depth("video", "a.mp4", "--input-size", 56, "--offline")
    assert ran.code == 0 and "no weights of vda-vits" in ran.err and "tiny" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-f", "gif"), "no video format is called 'gif'"),
        (("--steady", "maybe"), "unknown --steady 'maybe'"),
        (("--scene", "on"), "unknown --scene 'on' (choose from: auto, off)"),
        (("--range", "5"), "'5' is not a range"),
        (("--range", "5,1"), "--range must be two numbers, the smaller first, got 5 and 1"),
        (("--start", "soon"), "'soon' is not a time"),
        (("--start", "5", "--end", "4"), "no frame lies from 5 until before 4 seconds"),
        (("--fps", "fast"), "'fast' is not a frame rate"),
        (("--stride", "0"), "a stride of 0 makes no sense"),
        (("--input-size", "5"), "5"),
        (("--exact", "--steady", "off"), "--exact needs a video model"),
        (("-o", "x.mp4", "-f", "ffv1"), "ffv1 is written as .mkv, not .mp4"),
        (("-o", "x.webm"), "mp4 is written as .mp4, not .webm"),
        (("-o", "x.gif"), "mp4 is written as .mp4, not .gif"),
        (("-o", "x.exr", "-f", "exr"), "exr is written as a folder, not .exr"),
        (("-o", ""), "-o is empty"),
        (("-o", "-", "-f", "ffv1"), "-f is for files, and -o - is a stream"),
        (("-o", "/dev/null", "-f", "mp4"), "-f is for files"),
        (("-o", "x.mp4", "-f", "ffv1,mp4"), "x.mp4 cannot hold several formats"),
        (("--if-exists", "ask"), "unknown --if-exists 'ask'"),
        (("--colormap", "pink"), "no colour map is called 'pink'"),
        (("-o", "-", "--pipe", "gif"), "unknown --pipe 'gif'"),
        (("--model", "vda-vits", "--steady", "on"), "vda-vits is steady without a filter"),
    ],
)
def test_what_makes_no_sense_is_said_before_the_work(depth, options, message):
    make_clip(Path("a.mp4"), frames=2)
    ran = depth("video", "a.mp4", "--offline", *options)
    assert ran.code in (2, 4) and message in ran.error
    assert files() == ["a.mp4"]


def test_arguments_that_are_no_clip_have_their_words(depth):
    Path("empty").mkdir()
    for argument, message in (
        ("", "an empty argument names no clip"),
        ("empty", "there is no clip in empty"),
        ("*.mov", "no clip matches *.mov"),
        ("https://a.example/b.mp4", "ffmpeg -i 'https://a.example/b.mp4' -f yuv4mpegpipe - | depth video -"),
    ):
        ran = depth("video", argument, *QUICK)
        assert ran.code == 2 and message in ran.error
    ran = depth("video", "gone.mp4", *QUICK)
    assert ran.code == 1 and "gone.mp4 does not exist" in ran.error
    photo("a.jpg")
    assert "depth image takes pictures" in depth("video", "a.jpg", *QUICK).error


def clip_of_noise(path: str, frames: int) -> None:
    """A folder of frames that take the network a while."""
    for index in range(frames):
        Path(path).mkdir(exist_ok=True)
        rgb = np.random.default_rng(index).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(rgb).resize((160, 120)).save(f"{path}/{index:03}.png")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(start, tiny_weights):
    clip_of_noise("shot", 60)
    options = ("-f", "mp4,ffv1,npz", "--steady", "on", "--encoder", "tiny", "--input-size", "112", *OFFLINE)
    assert ended(start("video", "shot", "-o", "whole/", *options)).code == 0
    # A shard for every few frames, so that there is something to go on from.
    often = "import depthcli.jobs.clip_making as m; m._KEEP_SECONDS = 0.05; from depthcli.cli.app import main; main()"
    command = [sys.executable, "-c", often, "video", "shot", "-o", "out/", *options]
    chance = random.Random(0)
    for shards in (1, 3, 6, 9):  # killed when so many are there, and a moment later
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment())
        deadline = time.monotonic() + 60
        while len(list(Path("out").glob(".*/shard_*"))) < shards and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ran = ended(start("video", "shot", "-o", "out/", *options))
    assert ran.code == 0 and "resumed after frame" in ran.err
    assert tree("out") == tree("whole")
    assert not list(Path("out").glob(".*"))


def kill_in_the_work(process: subprocess.Popen[bytes], shards: int) -> None:
    """Kill a command when there are so many shards."""
    deadline = time.monotonic() + 60
    while len(list(Path("out").glob(".*/shard_*"))) < shards and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_touched_moved_and_joined_by_files_it_goes_on_to_the_same_bytes(start, tiny_weights):
    Path("in").mkdir()
    clip_of_noise("in/shot", 60)
    options = ("-f", "mp4,ffv1,npz", "--steady", "on", "--encoder", "tiny", "--input-size", "112", *OFFLINE)
    kept = "import depthcli.io.video.spool as s, depthcli.cli.app as a; s._MOST_BYTES = 200_000; a.run()"

    def begin(source):
        command = [sys.executable, "-c", kept, "video", source, "-o", "out/", *map(str, options)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())

    process = begin("in/shot")
    kill_in_the_work(process, 1)
    for path in Path("in/shot").iterdir():
        path.touch()
    process = begin("in/shot")
    kill_in_the_work(process, 2)
    Path("in").rename("moved")
    process = begin("moved/shot")
    kill_in_the_work(process, 3)
    Path("moved/shot/notes.txt").write_text("of today")
    ran = ended(start("video", "moved/shot", "-o", "out/", *options))
    assert ran.code == 0 and "resumed after frame" in ran.err and "is not used" not in ran.err
    assert ended(start("video", "moved/shot", "-o", "whole/", *options)).code == 0
    assert tree("out") == tree("whole")


def test_a_run_that_is_touched_at_work_ends_as_any_other(start):
    make_clip(Path("a.mp4"), frames=60)
    process = start(
        "video", "a.mp4", "-o", "out/", "--steady", "off", "--encoder", "tiny", "--input-size", "112", *OFFLINE
    )
    deadline = time.monotonic() + 60
    while not list(Path("out").glob(".*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(5):
        Path("a.mp4").touch()
        time.sleep(0.05)
    ran = ended(process)
    assert ran.code == 0 and "warning" not in ran.err and len(frames_of("out/a_depth.mp4")) == 60


def test_what_comes_into_a_folder_with_work_is_no_clip_when_it_is_ours(depth):
    Path("clips").mkdir()
    make_clip(Path("clips/a.mp4"), frames=3)
    assert depth("video", "clips/a.mp4", "-o", "clips/a_d.mp4", *QUICK).lines == ["clips/a_d.mp4"]
    ran = depth("video", "clips", *QUICK)
    assert ran.lines == ["clips/a_depth.mp4"] and "left out: 1 result of depthcli (a_d.mp4)" in ran.err
    ran = depth("video", "clips/a_d.mp4", "-o", "twice/", *QUICK)
    assert ran.lines == ["twice/a_d_depth.mp4"] and "is a result of depthcli" in ran.err


def test_results_in_a_folder_that_moves_are_done_still(depth):
    Path("clips").mkdir()
    make_clip(Path("clips/a.mp4"), frames=3)
    assert depth("video", "clips", "-o", "clips/out", *QUICK).code == 0
    Path("clips").rename("elsewhere")
    ran = depth("video", "elsewhere", "-o", "elsewhere/out", *QUICK)
    assert ran.code == 0 and "1 skipped" in ran.err


def test_one_folder_has_the_results_of_one_model(depth):
    Path("in").mkdir()
    for name in ("a", "b"):
        make_clip(Path(f"in/{name}.mp4"), frames=3)
    assert depth("video", "in/a.mp4", "-o", "out", *QUICK).code == 0
    path = Path("out/a_depth.mp4.json")
    path.write_text(path.read_text().replace('"model": "tiny"', '"model": "vits"'))
    ran = depth("video", "in", "-o", "out", *QUICK)
    assert ran.code == 2 and "out/a_depth.mp4 was made by vits, and this run would take tiny" in ran.err
    assert "--mix-models" in ran.err and not Path("out/b_depth.mp4").exists()
    ran = depth("video", "in", "-o", "out", "--mix-models", *QUICK)
    assert ran.code == 0 and ran.lines == ["out/b_depth.mp4"]
    assert depth("video", "in", "-o", "out", *QUICK).code == 0  # nothing is made, so nothing is mixed
    assert len(depth("video", "in", "-o", "out", "--if-exists", "overwrite", *QUICK).lines) == 2
    assert '"model": "tiny"' in path.read_text()


ODD = [RuntimeError("odd"), ValueError("a\nb"), IndexError(), UnicodeDecodeError("a", b"", 0, 1, "x")]


@pytest.mark.parametrize("error", ODD)
def test_whatever_one_clip_of_a_folder_raises_the_others_are_done(depth, monkeypatch, error):
    from depthcli.jobs import clip as module

    Path("in").mkdir()
    for name in ("a", "b", "c"):
        make_clip(Path(f"in/{name}.mp4"), frames=2)
    opening = module.open_clip

    def open_clip(source, *arguments, **options):
        if Path(source).name == "b.mp4":
            raise error
        return opening(source, *arguments, **options)

    monkeypatch.setattr(module, "open_clip", open_clip)
    ran = depth("video", "in", "-o", "out", "--json", *QUICK)
    assert ran.code == 3
    assert json.loads(ran.lines[-1])["summary"]["failed"] == 1
    rows = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [(row["input"], row["status"]) for row in rows] == [
        ("in/a.mp4", "done"), ("in/b.mp4", "failed"), ("in/c.mp4", "done")
    ]  # fmt: skip
    assert "in/b.mp4" in rows[1]["error"] and type(error).__name__ in rows[1]["error"]
    monkeypatch.undo()


def test_a_full_disk_ends_the_job_with_a_row_for_its_clip(depth, monkeypatch):
    from depthcli.jobs import clip as module

    Path("in").mkdir()
    for name in ("a", "b", "c"):
        make_clip(Path(f"in/{name}.mp4"), frames=2)

    def check_disk(folder, need):
        if "b" in folder.name.split("."):
            raise DiskFullError("making the depth takes about 3 GB", "free some")
        return 1

    monkeypatch.setattr(module, "check_disk", check_disk)
    ran = depth("video", "in", "-o", "out", *QUICK)
    assert ran.code == 3 and "1 done, 1 failed, 1 not reached" in ran.err
    rows = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [(row["input"], row["status"]) for row in rows] == [("in/a.mp4", "done"), ("in/b.mp4", "failed")]


def test_a_manifest_that_cannot_be_written_ends_it_before_the_work(depth):
    Path("in").mkdir()
    Path("out/manifest.jsonl").mkdir(parents=True)
    for name in ("a", "b"):
        make_clip(Path(f"in/{name}.mp4"), frames=2)
    ran = depth("video", "in", "-o", "out", *QUICK)
    assert ran.code == 1 and "manifest.jsonl" in ran.err and not list(Path("out").glob("*.mp4"))


def test_an_output_that_is_a_pipe_or_a_device_gets_the_stream(start):
    make_clip(Path("a.mp4"), frames=3)
    os.mkfifo("pipe")
    process = start("video", "a.mp4", "-o", "pipe", *QUICK)
    with open("pipe", "rb") as pipe:
        content = pipe.read()
    assert ended(process).code == 0 and content.count(b"FRAME\n") == 3
    assert ended(start("video", "a.mp4", "-o", "/dev/stdout", *QUICK)).stdout == content
    assert ended(start("video", "a.mp4", "-o", "/dev/null", *QUICK)).code == 0
    assert files() == ["a.mp4"] and Path("pipe").is_fifo()


def test_a_pipe_that_brings_nothing_can_be_left(start):
    process = start("video", "-", "-o", "out/", "--size", "8x8", "--rate", "25", *QUICK, stdin=subprocess.PIPE)
    process.stdin.write(b"\0" * (8 * 8 * 3))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(Path("out").glob(".*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    assert process.returncode == 130 and files() == []


def test_closed_streams_are_no_crash(tiny_weights):
    clip_of_noise("shot", 2)
    command = [sys.executable, "-m", "depthcli", "video"]
    for close, code in (("2>&-", 0), ("-o - >&-", 2), ("<&-", 1)):
        clip = "-" if "<" in close else "shot"
        line = " ".join([*map(shlex.quote, [*command, clip, *QUICK]), "--if-exists", "overwrite", close])
        ran = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True)
        assert ran.returncode == code and "Traceback" not in ran.stderr, (close, ran.stderr)


@pytest.mark.slow
def test_a_stream_that_is_full_is_named_and_a_full_stderr_ends_no_work(tiny_weights):
    make_clip(Path("a.mp4"), frames=3)
    for command, code, said in (
        ("-o out > /dev/full", 1, "error: cannot write stdout: No space left on device (what is done stays done)"),
        ("-o - > /dev/full", 1, "error: cannot write stdout: No space left on device"),
        ("-o - --pipe gray16le > /dev/full", 1, "error: cannot write stdout: No space left on device"),
        ("-o /dev/full", 1, "error: cannot write /dev/full: No space left on device"),
        ("-o other 2> /dev/full", 0, ""),
    ):
        line = f"{shlex.quote(sys.executable)} -m depthcli video a.mp4 {shlex.join(QUICK)} {command}"
        ran = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True)
        assert ran.returncode == code and said in ran.stderr and "Traceback" not in ran.stderr, command
        assert len([line for line in ran.stderr.splitlines() if "error" in line.lower()]) == (code > 0), command
    assert {"out/a_depth.mp4", "other/a_depth.mp4"} <= set(files())


def test_a_name_that_is_not_text_is_said_once(depth):
    Path(os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    ran = depth("video", os.fsdecode(b"bad\xff.mp4"), *QUICK)
    assert ran.code == 1 and ran.err.count("bad") == 1


@pytest.mark.slow
def test_a_request_to_stop_keeps_the_work(start):
    clip_of_noise("shot", 60)
    options = ("-o", "out/", "--steady", "off", "--encoder", "tiny", "--input-size", "112", *OFFLINE)
    process = start("video", "shot", *options)
    deadline = time.monotonic() + 60
    while not list(Path("out").glob(".*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    ran = ended(process)
    assert ran.code == 130 and "interrupted: run the same command again to continue" in ran.err
    ran = ended(start("video", "shot", *options))
    assert ran.code == 0 and len(frames_of("out/shot_depth.mp4")) == 60


def test_help_says_what_it_takes_and_makes(depth):
    ran = depth("video", "--help")
    assert ran.code == 0
    for word in ("ffv1", "--steady", "--exact", "--range", "stdin", "--fps"):
        assert word in ran.out
