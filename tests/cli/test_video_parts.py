"""`depth video` on parts of a folder of clips: the files of one run, notes of one writer each, and what is missing."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from depthcli.jobs.manifest import read_rows
from depthcli.jobs.shards import name_hash
from tests.conftest import TINY, ended, photo, tree
from tests.io.video.clips import make_clip

QUICK = (*TINY, "--offline")
NAMES = ("a.mp4", "a.mov", "b/c.mp4", "b/d.mp4")
OUT = ("-o", "out/")


@pytest.fixture
def clips(depth):
    """Four clips, of which two differ in suffix alone, a file that is no clip, and the results of one run."""
    for number, name in enumerate(NAMES):
        Path("day", name).parent.mkdir(parents=True, exist_ok=True)
        make_clip(Path("day", name), frames=3 + number)
    Path("day/broken.mp4").write_bytes(b"nothing")
    ran = depth("video", "day", "-o", "whole/", *QUICK)
    assert ran.code == 3 and len(ran.lines) == 4
    return tree("whole")


def rows(pattern: str = "manifest*.jsonl") -> Counter:
    return Counter((row["input"], row["status"]) for path in Path("out").glob(pattern) for row in read_rows(path))


WANTED = {**{(f"day/{name}", "done"): 1 for name in NAMES}, ("day/broken.mp4", "failed"): 1}


def test_shards_make_the_files_of_one_run_and_their_notes_are_merged(clips, depth):
    parts = [{name for name in (*NAMES, "broken.mp4") if name_hash(name) % 3 == number} for number in range(3)]
    for number, part in enumerate(parts, start=1):
        ran = depth("video", "day", *OUT, *QUICK, "--shard", f"{number}/3")
        assert len(ran.lines) == len(part - {"broken.mp4"})
    assert tree("out") == clips and rows() == WANTED
    assert json.loads(Path("out/run.json").read_bytes())["unit"] == "clips"
    assert depth("manifest", "merge", "out").lines == ["5 rows in out/manifest.jsonl"]
    assert rows("manifest.jsonl") == WANTED
    assert depth("manifest", "missing", "out").lines == ["broken.mp4"]
    assert depth("manifest", "verify", "out", "--deep").code == 0
    again = depth("video", "day", *OUT, *QUICK, "--json")
    assert json.loads(again.lines[-1])["summary"]["skipped"] == 4 and tree("out") == clips


def test_damage_of_films_and_frames_is_named(clips, depth):
    depth("video", "day", *OUT, *QUICK, "-f", "mp4,gray")
    assert depth("manifest", "verify", "out").code == 0
    next(Path("out/b/d_depth_png").iterdir()).unlink()
    Path("out/b/c_depth.mp4.json").unlink()
    film = Path("out/a.mov_depth.mp4")
    film.write_bytes(film.read_bytes()[:200])
    ran = depth("manifest", "verify", "out")
    assert ran.code == 3 and len(ran.err.splitlines()) == 3
    assert "out/b/d_depth_png has 5 frames, not 6" in ran.err and "out/b/c_depth.mp4 is not finished" in ran.err
    assert "out/a.mov_depth.mp4 cannot be read: " in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--input-size", "70"), "--input-size"), (("--input-size", "56", "--colormap", "gray"), "--colormap gray")],
)
def test_a_part_with_other_options_is_refused(clips, depth, options, message):
    depth("video", "day", *OUT, *QUICK, "--shard", "1/2")
    more = ("--encoder", "tiny", "--offline", *options)
    ran = depth("video", "day", *OUT, *more, "--shard", "2/2")
    assert ran.code == 2 and "by its run.json" in ran.err and message in ran.err
    assert depth("video", "day", *OUT, *more, "--shard", "2/2", "--mix-models").code in (0, 3)


def test_missing_clips_are_done_from_a_list_with_the_names_that_all_get(clips, depth):
    depth("video", "day", *OUT, *QUICK)
    Path("out/a.mov_depth.mp4").unlink()
    Path("out/b/d_depth.mp4.json").unlink()
    ran = depth("manifest", "missing", "out", "day")
    assert ran.code == 3 and len(ran.lines) == 3 and {"b/d.mp4", "broken.mp4"} < set(ran.lines)
    Path("list.txt").write_text("\n".join([*ran.lines, "gone.mp4"]))
    shutil.rmtree("out")
    ran = depth("video", "day", *OUT, *QUICK, "--files-from", "list.txt")
    assert ran.code == 3 and "gone.mp4" in ran.err and "broken.mp4" in ran.err
    found = tree("out")
    assert len(found) == 4 and found.items() <= clips.items()
    shutil.copy("whole/manifest.jsonl", "rows.jsonl")  # a manifest is a list too
    assert depth("video", "day", *OUT, *QUICK, "--files-from", "rows.jsonl").code == 3
    assert tree("out") == clips


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "2"), ("--devices", "cpu,cpu")])
def test_processes_make_the_files_of_one(clips, depth, monkeypatch, how):
    monkeypatch.setattr("depthcli.host.cores.usable_cores", lambda: 2)
    ran = depth("video", "day", *OUT, *QUICK, *how)
    assert ran.code == 3 and "broken.mp4" in ran.err and len(ran.lines) == 4
    assert tree("out") == clips and rows() == WANTED
    again = depth("video", "day", *OUT, *QUICK, *how, "--json")
    assert json.loads(again.lines[-1])["summary"]["skipped"] == 4


@pytest.mark.slow
def test_processes_that_are_stopped_keep_what_they_made(clips, start):
    for name in ("e.mp4", "f.mp4"):
        make_clip(Path("day", name), frames=60)
    slower = (*QUICK, "--input-size", "280")
    line = ("video", "day", *OUT, *slower, "--devices", "cpu,cpu")
    process = start(*line)
    deadline = time.monotonic() + 100
    while not list(Path("out").glob(".[ef]*spool*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ran = ended(process)
    assert ran.code == 130 and "run the same command again to continue" in ran.err
    assert ended(start(*line)).code == 3
    assert ended(start("video", "day", "-o", "alone/", *slower)).code == 3
    assert tree("out") == tree("alone") and not list(Path("out").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("day/a.mp4", "-o", "out/", "--shard", "1/2"), "takes a part of one folder"),
        (("day", "--shard", "1/2"), "have a folder of their own"),
        (("day", "-o", "out/", "--shard", "3/2"), "is not there"),
        (("day", "-o", "out/", "--shard-count", "3"), "belong to --shard auto"),
        (("day", "-o", "out/", "--devices", "cpu", "--workers", "2"), "leave out --workers and --device"),
        (("day", "-o", "out/", "--workers", "0"), "--workers must be 1 to"),
        (("day", "-o", "out/", "--files-from", "none.txt"), "is not a file"),
        (("day/a.mp4", "-o", "-", "--devices", "cpu,cpu"), "is a stream"),
        (("day", "-o", "out/", "--max-failures", "many"), "--max-failures is 'many'"),
    ],
)
def test_parts_that_are_not_there_are_one_line(depth, arguments, message):
    Path("day").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(Path("day", name), frames=2)
    ran = depth("video", *arguments, *QUICK)
    assert ran.code == 2 and message in ran.error


def test_a_failure_limit_ends_the_run(depth):
    Path("day").mkdir()
    for number in range(4):
        Path(f"day/{number}.mp4").write_bytes(b"nothing")
    ran = depth("video", "day", *OUT, *QUICK, "--max-failures", "1")
    assert ran.code == 1 and "2 clips failed, more than --max-failures allows" in ran.err
    assert "day/2.mp4" not in ran.err


def test_a_folder_of_frames_stays_one_clip_without_notes(depth):
    for number in range(3):
        photo(f"shot/{number}.png")
    assert depth("video", "shot", *OUT, *QUICK).code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["shot_depth.mp4", "shot_depth.mp4.json"]
