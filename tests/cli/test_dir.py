"""`depth dir`: a folder to a folder; whatever ends a run, the next one goes on from there to the same files."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from depthcli import read_depth
from depthcli.jobs.manifest import Manifest
from tests.conftest import TINY, broken, ended, environment, photo, tree

OPTIONS = (*TINY, "--format", "color,npz")


def manifest(folder: str = "out") -> dict[str, dict]:
    return Manifest(Path(folder) / "manifest.jsonl").rows


class TestFiles:
    def test_the_tree_is_mirrored_in_order_and_the_paths_go_to_stdout(self, depth):
        for name in ("b/2.png", "a.jpg", "b/10.jpg", "ünï cödé/日本 1.webp"):
            photo(f"my photos/{name}")
        ran = depth("dir", "my photos", "-o", "out", *TINY)
        assert ran.code == 0
        assert ran.lines == [f"out/{n}_depth.png" for n in ("a", "b/10", "b/2", "ünï cödé/日本 1")]
        assert sorted(tree("out")) == [f"{n}_depth.png" for n in ("a", "b/10", "b/2", "ünï cödé/日本 1")]
        assert len(ran.err.splitlines()) == 1 and ran.err.startswith("4 done in ")

    @pytest.mark.parametrize("folder", ["in", "in/", ".", "..", "../in"])
    def test_without_o_the_results_lie_beside_the_folder(self, depth, monkeypatch, folder):
        photo("in/a.jpg")
        photo("in/b/a.jpg")
        if folder.startswith("."):
            monkeypatch.chdir("in/b" if folder == ".." else "in")
        ran = depth("dir", folder, "--dry-run")
        written = {os.path.realpath(line.split("\t")[2]) for line in ran.lines}
        root = os.path.realpath(Path(os.path.realpath(folder)).parent)
        assert written == {f"{root}/in_depth/a_depth.png", f"{root}/in_depth/b/a_depth.png"}

    def test_the_root_of_the_disk_has_no_place_beside_it(self, depth):
        ran = depth("dir", "/", "--dry-run")
        assert ran.code == 2 and "say with -o where the results go" in ran.error

    def test_pictures_that_differ_in_their_suffix_do_not_collide(self, depth):
        for name in ("a.jpg", "a.png", "a.jpg.bmp"):
            photo(f"in/{name}")
        assert depth("dir", "in", "-o", "out", *TINY).code == 0
        assert sorted(tree("out")) == ["a.jpg.bmp_depth.png", "a.jpg_depth.png", "a.png_depth.png"]

    def test_a_picture_that_comes_later_changes_no_name(self, depth):
        photo("in/a.jpg")
        photo("in/b.jpg")
        depth("dir", "in", "-o", "out", *TINY)
        before = tree("out")
        photo("in/a.png")
        assert depth("dir", "in", "-o", "out", *TINY).lines == ["out/a.png_depth.png"]
        Path("out/manifest.jsonl").unlink()  # as with a run that was killed: the files tell
        photo("in/b.bmp")
        assert depth("dir", "in", "-o", "out", *TINY).lines == ["out/b.bmp_depth.png"]
        assert before.items() <= tree("out").items()
        Path("in/a.jpg").unlink()
        assert depth("dir", "in", "-o", "out", *TINY).lines == []

    def test_a_template_names_the_results_and_a_second_run_finds_them(self, depth):
        photo("images/IMG_1.JPG")
        photo("images/day/IMG_2.png")
        command = ("dir", "images", "-o", "depths", "-f", "gray", "--name", "{stem}", *TINY)
        assert depth(*command).lines == ["depths/IMG_1.png", "depths/day/IMG_2.png"]
        ran = depth(*command)
        assert (ran.code, ran.lines) == (0, []) and ran.err.startswith("2 skipped in ")
        photo("images/IMG_1.png")
        ran = depth(*command)
        assert ran.code == 2 and "would both be written to depths/IMG_1.png (use {name} in --name)" in ran.error

    def test_a_template_never_replaces_the_pictures(self, depth):
        photo("in/a.png")
        before = tree("in")
        ran = depth("dir", "in", "-o", "in", "--name", "{stem}", *TINY)
        assert ran.code == 2 and "would replace the picture in/a.png" in ran.error and tree("in") == before

    def test_linked_folders_are_entered(self, depth):
        photo("data/scene1/a.jpg")
        Path("in").mkdir()
        Path("in/scene1").symlink_to("../data/scene1")
        Path("in/loop").symlink_to(".")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (0, ["out/scene1/a_depth.png"])
        assert ran.err == "left out: 1 link to a folder that is entered anyway\n"

    def test_only_pictures_are_taken_up(self, depth):
        photo("in/a.jpg")
        for name in ("notes.txt", "clip.mp4", "._a.jpg", "a.npz"):
            Path("in", name).write_text("x")
        assert depth("dir", "in", "-o", "out", *TINY).lines == ["out/a_depth.png"]

    def test_every_format_for_every_picture(self, depth):
        photo("in/a.jpg")
        depth("dir", "in", "-o", "out", "-f", "gray,npz", "-f", "side", *TINY)
        assert sorted(tree("out")) == ["a_depth.npz", "a_depth_gray.png", "a_depth_side.png"]

    def test_the_results_may_lie_inside_the_folder_or_beside_the_pictures(self, depth):
        photo("in/a.png")
        assert depth("image", "in/a.png", *TINY).lines == ["in/a_depth.png"]
        for output in ("in/out", "in/out2", "in"):
            first, second = (depth("dir", "in", "-o", output, *TINY) for _ in range(2))
            assert first.code == second.code == 0 and second.lines == []
        assert sorted(tree("in")) == ["a.png", "a_depth.png", "out/a_depth.png", "out2/a_depth.png"]

    def test_batches_give_the_files_of_one_by_one(self, depth):
        for number in range(3):
            photo(f"in/{number}.jpg", (80 + number, 60))
        photo("in/tall.jpg", (60, 80))
        depth("dir", "in", "-o", "one", "-f", "npz", *TINY)
        depth("dir", "in", "-o", "four", "-f", "npz", "--batch", 4, *TINY)
        for name in tree("one"):
            one, four = (read_depth(Path(folder, name)).values for folder in ("one", "four"))
            assert abs(one - four).max() <= 1e-5 * one.max()

    def test_include_and_exclude_choose_and_change_no_name(self, depth):
        for name in ("a.jpg", "a.png", "raw/b.jpg", "raw/c.png"):
            photo(f"in/{name}")
        assert depth("dir", "in", "-o", "out", "--include", "*.jpg", *TINY).lines == [
            "out/a.jpg_depth.png",
            "out/raw/b_depth.png",
        ]
        assert depth("dir", "in", "-o", "out", "--exclude", "raw/*", *TINY).lines == ["out/a.png_depth.png"]


class TestFailures:
    def test_a_bad_picture_is_named_and_the_rest_goes_on(self, depth):
        photo("in/a.jpg")
        broken("in/b.jpg")
        Path("in/c.jpg").write_text("<html>")
        photo("in/d.jpg")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (3, ["out/a_depth.png", "out/d_depth.png"])
        first, second, last = ran.err.splitlines()
        assert first.startswith("error: in/b.jpg is truncated") and second.startswith(
            "error: in/c.jpg is not a picture"
        )
        assert last.startswith("2 done, 2 failed in ")

    def test_if_nothing_could_be_done_the_code_is_1(self, depth):
        broken("in/b.jpg")
        assert depth("dir", "in", "-o", "out", *TINY).code == 1
        assert tree("out") == {}

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("nowhere",), 2, "nowhere does not exist (check the path)"),
            (("https://example.org/in",), 2, "is an address, not a file"),
            (("in", "-o", "out.jpg"), 2, "out.jpg looks like a file"),
            (("in", "-o", ""), 2, "-o is empty"),
            (("in", "--name", "{stems}"), 2, "fields are {stem}, {name}, {parent}, {format}"),
            (("in/a.jpg",), 2, "in/a.jpg is not a folder (for single files use: depth image)"),
            (("empty",), 2, "there is no picture in empty"),
            (("in", "--include", "*.gif"), 2, "there is no picture in in that matches"),
            (("in", "-o", "in/a.jpg"), 2, "in/a.jpg is a file, not a folder"),
            (("in", "--if-exists", "ask"), 2, "choose from: skip, overwrite, error"),
            (("in", "--if-exists", "ask", "--dry-run"), 2, "choose from: skip, overwrite, error"),
            (("in", "--encoder", "vits"), 4, "cannot get depth_anything_v2_vits.pth"),
            (("in", "--encoder", "tiny", "--device", "cuda:99"), 5, "CUDA"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_leaves_nothing(self, depth, arguments, code, message):
        photo("in/a.jpg")
        Path("empty").mkdir()
        ran = depth("dir", *arguments)
        assert (ran.code, ran.out) == (code, "") and message in ran.error
        assert sorted(tree(".")) == ["checkpoints/tiny.safetensors", "in/a.jpg"]


class TestRepetition:
    @pytest.fixture(autouse=True)
    def first_run(self, depth):
        photo("in/a.jpg")
        photo("in/b.jpg")
        depth("dir", "in", "-o", "out", *TINY)

    def test_what_is_there_is_skipped(self, depth):
        before = tree("out")
        Path("out/b_depth.png").unlink()
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (0, ["out/b_depth.png"])
        assert ran.err.startswith("1 done, 1 skipped in ")
        assert tree("out") == before

    def test_nothing_to_do_needs_no_model(self, depth):
        ran = depth("dir", "in", "-o", "out", "--encoder", "vits")
        assert (ran.code, ran.out) == (0, "") and ran.err.startswith("2 skipped in ")

    def test_files_made_with_other_options_are_kept_and_it_is_said(self, depth):
        before = tree("out")
        ran = depth("dir", "in", "-o", "out", "--encoder", "tiny", "--input-size", 98)
        assert tree("out") == before
        assert (
            "2 skipped pictures were made with other options or weights; --if-exists overwrite makes them anew"
            in ran.err
        )

    def test_files_made_with_other_weights_are_kept_and_it_is_said(self, depth, tiny_weights):
        from safetensors.numpy import load_file, save_file

        weights = {name: value * np.float16(0.9) for name, value in load_file(str(tiny_weights)).items()}
        tiny_weights.unlink()
        save_file(weights, str(tiny_weights))
        photo("in/c.jpg")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert ran.lines == ["out/c_depth.png"]
        assert "warning: 2 skipped pictures were made with other options or weights" in ran.err

    def test_overwrite_makes_them_anew(self, depth):
        ran = depth("dir", "in", "-o", "out", "--encoder", "tiny", "--input-size", 98, "--if-exists", "overwrite")
        assert ran.code == 0 and len(ran.lines) == 2
        assert read_depth("out/a_depth.png").origin.input_size == (126, 98)

    def test_error_names_them_and_keeps_them(self, depth):
        before = tree("out")
        Path("out/b_depth.png").unlink()
        ran = depth("dir", "in", "-o", "out", "--if-exists", "error", *TINY)
        assert (ran.code, ran.lines) == (3, ["out/b_depth.png"])
        assert ran.err.startswith("error: a.jpg: out/a_depth.png is there already")
        assert depth("dir", "in", "-o", "out", "--if-exists", "error", *TINY).code == 1
        assert tree("out") == before


class TestReport:
    def test_the_manifest_says_what_became_of_each(self, depth):
        photo("in/a.jpg")
        broken("in/b.jpg")
        depth("dir", "in", "-o", "out", *TINY)
        done, failed = manifest()["a.jpg"], manifest()["b.jpg"]
        assert (done["status"], done["outputs"], done["model"]) == ("done", ["a_depth.png"], "tiny")
        assert done["ms"] > 0 and "input-size=56" in done["settings"]
        assert (failed["status"], failed["outputs"]) == ("failed", []) and "truncated" in failed["error"]

    def test_a_dry_run_says_what_would_be_written_and_writes_nothing(self, depth):
        photo("in/a.jpg")
        photo("in/b/c.jpg")
        photo("out/a_depth.png")
        before = tree(".")
        ran = depth("dir", "in", "-o", "out", "--dry-run")
        assert (ran.code, ran.err) == (0, "")
        assert ran.lines == ["skip\ta.jpg\tout/a_depth.png", "write\tb/c.jpg\tout/b/c_depth.png"]
        (first, _) = depth("dir", "in", "-o", "out", "--dry-run", "--json", "--if-exists", "overwrite").lines
        assert json.loads(first) == {"input": "a.jpg", "outputs": ["out/a_depth.png"], "action": "overwrite"}
        assert tree(".") == before and not Path("out/manifest.jsonl").exists()

    def test_json_is_one_object_for_each_picture_and_one_that_sums_up(self, depth):
        photo("in/a.jpg")
        broken("in/b.jpg")
        *rows, last = (json.loads(line) for line in depth("dir", "in", "-o", "out", "--json", *TINY).lines)
        assert [(row["input"], row["status"], row["outputs"]) for row in rows] == [
            ("a.jpg", "done", ["out/a_depth.png"]),
            ("b.jpg", "failed", []),
        ]
        assert (last["summary"]["done"], last["summary"]["failed"], last["summary"]["total"]) == (1, 1, 2)

    def test_quiet_and_verbose(self, depth):
        photo("in/a.jpg")
        photo("in/b.jpg")
        ran = depth("dir", "in", "-o", "x", "-q", *TINY)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        ran = depth("dir", "in", "-o", "y", "-v", *TINY)
        assert ran.lines == ["y/a_depth.png", "y/b_depth.png"]
        assert "model depthcli tiny" in ran.err and "b.jpg: done, " in ran.err

    def test_without_a_terminal_a_plain_line_tells_now_and_then_how_long_it_takes(self, depth, monkeypatch):
        from depthcli.cli import report

        for name in "abc":
            photo(f"in/{name}.jpg")
        monkeypatch.setattr(report, "_PLAIN_SECONDS", 0)
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert [line.partition(", about ")[0] for line in ran.err.splitlines()[:2]] == [
            "1/3 pictures, 0 failed",
            "2/3 pictures, 0 failed",
        ]
        assert "left" in ran.err and "pictures" not in ran.out

    def test_on_a_terminal_a_bar_shows_what_is_left_and_stdout_stays_clean(self, start):
        for name in "abc":
            photo(f"in/{name}.jpg")
        ours, theirs = pty.openpty()
        process = start("dir", "in", "-o", "out", *TINY, stderr=theirs)
        os.close(theirs)
        shown = _read_terminal(ours)
        assert ended(process).lines == ["out/a_depth.png", "out/b_depth.png", "out/c_depth.png"]
        assert "3/3" in shown and "0:00:0" in shown and "3 done in" in shown


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_file):
    """The files of a run that nothing disturbed, in whole/, beside the pictures, in in/."""
    folder = tmp_path_factory.mktemp("whole")
    for number in range(15):
        photo(folder / f"in/{number:02d}.jpg", (320, 240 + number))
    command = [sys.executable, "-m", "depthcli", "dir", "in", "-o", "whole", *OPTIONS, "--checkpoint", tiny_file]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


class TestEnding:
    """Each of these ends a run in the middle, starts it again, and compares with one that was left alone."""

    @pytest.fixture(autouse=True)
    def pictures(self, alone, whole):
        Path("in").symlink_to(whole / "in")
        Path("whole").symlink_to(whole / "whole")

    def started(self, start, until, *options):
        process = start("dir", "in", "-o", "out", *OPTIONS, *options)
        deadline = time.monotonic() + 60
        while not until():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.0005)
        return process

    def goes_on(self, depth):
        there = tree("out")
        ran = depth("dir", "in", "-o", "out", *OPTIONS)
        assert ran.code == 0 and ran.lines
        assert not [line for line in ran.lines if {f"{line[4:6]}_depth.png", f"{line[4:6]}_depth.npz"} <= set(there)]
        assert tree("out") == tree("whole")
        assert {row["status"] for row in manifest().values()} <= {"done", "skipped"} and len(manifest()) == 15

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_finishes_the_picture_at_hand(self, start, depth, number):
        process = self.started(start, Path("out/02_depth.npz").exists)
        process.send_signal(number)
        ran = ended(process)
        assert ran.code == 130
        found, whole = tree("out"), tree("whole")
        assert 6 <= len(found) < 30 and len(found) % 2 == 0
        assert {name: whole[name] for name in found} == found
        assert ran.lines == [f"out/{i // 2:02d}_depth.{('png', 'npz')[i % 2]}" for i in range(len(found))]
        said = ran.err.splitlines()
        assert said[0].startswith("stopping after the file at hand")
        assert "not reached" in said[1] and said[2] == "interrupted: the same command goes on from here"
        self.goes_on(depth)

    def test_a_second_signal_stops_at_once_and_leaves_no_partial_file(self, start):
        process = self.started(start, Path("out/00_depth.npz").exists, "--input-size", 518)
        process.send_signal(signal.SIGTERM)
        assert select.select([process.stderr], [], [], 60)[0]
        process.send_signal(signal.SIGTERM)
        assert ended(process).code == 130
        found = sorted(tree("out"))
        assert found[:2] == ["00_depth.npz", "00_depth.png"] and len(found) < 30  # a writer may have been at the next
        assert not list(Path("out").glob(".*"))

    @pytest.mark.parametrize("moment", ["out/.*.part", "out/01_depth.png"])
    def test_a_run_that_is_killed_and_started_again_ends_with_the_same_files(self, start, depth, moment):
        process = self.started(start, lambda: any(Path().glob(moment)))
        process.kill()
        assert ended(process).code == -signal.SIGKILL
        found = {name: content for name, content in tree("out").items() if not name.startswith(".")}
        assert found.items() <= tree("whole").items() and len(found) < 30
        self.goes_on(depth)

    def test_a_reader_that_leaves_ends_the_run_quietly(self, start, depth):
        process = self.started(start, Path("in").exists)
        first = process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        ran = ended(process)
        assert first == b"out/00_depth.png\n" and ran.err == ""
        assert not list(Path("out").glob(".*"))
        self.goes_on(depth)


def _read_terminal(terminal: int) -> str:
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so where the other side was closed
            piece = b""
        if not piece:
            os.close(terminal)
            return shown.decode()
        shown += piece
