"""`depth dir`: a folder to a folder; whatever ends a run, the next one goes on from there to the same files."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthcli import read_depth
from depthcli.host import fastest
from depthcli.host.cores import usable_cores
from depthcli.host.fastest import Fastest
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.manifest import Manifest
from tests.conftest import TINY, broken, ended, environment, photo, tree
from tests.faults import failing

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
        assert ran.code == 2 and "name the folder of the results with -o" in ran.error

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
        assert depth(*command, "--exclude", "*.png").code == 0

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
        assert ran.err == "left out: 1 link to a folder walked elsewhere (in/loop)\n"

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
            (
                ("in", "-o", "out.jpg"),
                2,
                "out.jpg is not a folder (depth dir writes a folder; put / at its end",
            ),
            (("in", "-o", ""), 2, "-o is empty"),
            (("in", "--name", "{stems}"), 2, "fields are {stem}, {name}, {parent}, {format}"),
            (("in/a.jpg",), 2, "in/a.jpg is not a folder (for single files use: depth image)"),
            (("empty",), 2, "there is no picture in empty"),
            (("in", "--include", "*.gif"), 2, "there is no picture in in that matches"),
            (("in", "-o", "in/a.jpg"), 2, "in/a.jpg is not a folder"),
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
        Path("checkpoints/tiny.safetensors").unlink()
        Path("checkpoints/tiny.safetensors").write_text("of no use")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.out) == (0, "") and ran.err.startswith("2 skipped in ")

    @pytest.mark.parametrize(
        ("options", "difference"),
        [
            (("--encoder", "vits"), "by tiny, and this run would take vits"),
            (("--metric", "indoor", "--input-size", 56), "by tiny, and this run would take metric-indoor-vits"),
            (("--encoder", "tiny"), "with --input-size 56, and this run has none"),
            (("--encoder", "tiny", "--input-size", 98), "with --input-size 56, and this run has --input-size 98"),
            ((*TINY, "--precision", "fp32"), "with --precision auto, and this run has --precision fp32"),
            ((*TINY, "--colormap", "turbo"), "with --colormap Spectral_r, and this run has --colormap turbo"),
        ],
    )
    def test_results_of_two_models_or_options_in_one_folder_are_an_error(self, depth, options, difference):
        before = tree("out")
        photo("in/c.jpg")
        ran = depth("dir", "in", "-o", "out", *options)
        assert (ran.code, ran.out) == (2, "") and tree("out") == before
        assert ran.error == (
            f"error: out/a_depth.png was made {difference} "
            "(--if-exists overwrite makes all anew, --mix-models lets both stay, or use another -o)"
        )

    def test_a_backend_that_was_measured_as_the_fastest_is_taken_noted_and_not_mixed(
        self, depth, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "own"))
        photo("new/a.jpg")
        item = Fastest("tiny", "fp32", "torch", {"torch": 1.0}, *fastest.here(), "2026-11-29")
        fastest.remember(item)
        command = ("dir", "new", "-o", "fast", *TINY, "--precision", "fp32", "--device", "cpu", "-f", "npz")
        assert depth(*command).code == 0
        row = json.loads(Path("fast/manifest.jsonl").read_text())
        assert row["settings"].endswith(" remembered=torch")
        assert read_depth("fast/a_depth.npz").provenance.backend.startswith("torch ")
        photo("new/b.jpg")
        fastest.forget([item])
        refused = depth(*command)
        assert (
            refused.code == 2
            and "by torch, measured as the fastest, and this run would take its fixed" in refused.error
        )
        fastest.remember(item)
        assert depth(*command).code == 0 and Path("fast/b_depth.npz").is_file()

    @pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
    def test_workers_take_the_backend_that_was_remembered(self, depth, monkeypatch, tmp_path):
        monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "own"))
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # so that workers have fewer threads
        photo("new/a.jpg")
        photo("new/b.jpg")
        fastest.remember(Fastest("tiny", "fp32", "torch", {"torch": 1.0}, *fastest.here(), "2026-11-29"))
        command = ("dir", "new", "-o", "fast", *TINY, "--precision", "fp32", "--device", "cpu", "-f", "npz")
        assert depth(*command, "--workers", 2).code == 0
        rows = [json.loads(line) for line in Path("fast/manifest.jsonl").read_text().splitlines()]
        assert len(rows) == 2 and all(row["settings"].endswith(" remembered=torch") for row in rows)
        for name in ("a", "b"):
            assert read_depth(f"fast/{name}_depth.npz").provenance.backend.startswith("torch ")

    def test_a_format_without_colours_goes_with_any_colour_map(self, depth):
        assert depth("dir", "in", "-o", "out", "-f", "npz", "--colormap", "turbo", *TINY).code == 0
        assert depth("dir", "in", "-o", "out", "-f", "npz,color", *TINY).lines == []
        assert depth("dir", "in", "-o", "out", "-f", "color", "--colormap", "turbo", *TINY).code == 2

    def test_mixing_is_done_on_demand_and_said(self, depth):
        photo("in/c.jpg")
        ran = depth("dir", "in", "-o", "out", "--encoder", "tiny", "--input-size", 98, "--mix-models")
        assert (ran.code, ran.lines) == (0, ["out/c_depth.png"])
        assert "warning: out/a_depth.png was made with --input-size 56, and this run has --input-size 98" in ran.err
        assert read_depth("out/c_depth.png").provenance.input_size == (126, 98)
        assert depth("dir", "in", "-o", "out", *TINY).code == 2
        assert depth("dir", "in", "-o", "out", "--mix-models", *TINY).err.count("warning") == 1

    def test_overwriting_some_is_mixing_too(self, depth):
        options = ("--encoder", "tiny", "--input-size", 98, "--if-exists", "overwrite")
        assert depth("dir", "in", "-o", "out", "--include", "a.jpg", *options).code == 2
        assert depth("dir", "in", "-o", "out", *options).code == 0

    @pytest.mark.parametrize("nothing_is", ["missing", "done"])
    def test_other_weights_are_an_error(self, depth, tiny_weights, nothing_is):
        from safetensors.numpy import load_file, save_file

        weights = {name: value * np.float16(0.9) for name, value in load_file(str(tiny_weights)).items()}
        tiny_weights.unlink()
        save_file(weights, str(tiny_weights))
        if nothing_is == "done":
            photo("in/c.jpg")
        before = tree("out")
        options = ("--checkpoint", tiny_weights) if nothing_is == "missing" else ()
        ran = depth("dir", "in", "-o", "out", *options, *TINY)
        assert ran.code == 2 and "was made with other weights of tiny (sha256 " in ran.error and tree("out") == before

    @pytest.mark.parametrize("manifest_is", ["there", "gone"])
    def test_the_automatic_choice_takes_the_model_of_the_folder_or_none(self, depth, manifest_is):
        """Also from another working folder, and without the hub: half of a folder by another model helps nobody."""
        photo("in/c.jpg")
        path = Path("out/manifest.jsonl")
        if manifest_is == "gone":
            path.unlink()
        ran = depth("dir", "in", "-o", "out", "--input-size", 56, "--offline")
        assert (ran.code, ran.lines) == (0, ["out/c_depth.png"])
        assert "using tiny" not in ran.err  # as the automatic choice says where it looked for vits first
        photo("in/d.jpg")
        for name in "abc":
            facts = read_depth(f"out/{name}_depth.png")
            other = facts.with_provenance(replace(facts.provenance, model="vits", sha256="ab" * 32))
            OutputSpec().write(other, np.empty(0), [Path(f"out/{name}_depth.png")])
        if path.exists():
            path.write_text(path.read_text().replace('"tiny"', '"vits"'))
        before = tree("out")
        ran = depth("dir", "in", "-o", "out", "--input-size", 56, "--offline")
        assert ran.code == 4 and tree("out") == before
        assert "the existing results were made by vits: cannot get depth_anything_v2_vits.pth" in ran.error

    def test_the_weights_of_the_folder_are_wanted_too(self, depth):
        path = Path("out/manifest.jsonl")
        rows = [{**json.loads(line), "weights": "ab" * 32} for line in path.read_text().splitlines()]
        path.write_text("\n".join(map(json.dumps, rows)))
        photo("in/c.jpg")
        ran = depth("dir", "in", "-o", "out", "--input-size", 56)
        assert ran.code == 4 and "was made with other weights of tiny (sha256 abababababab, not " in ran.error

    @pytest.mark.parametrize("damage", ["not UTF-8", "cut"])
    def test_a_manifest_that_is_damaged_is_read_as_far_as_it_goes(self, depth, damage):
        path = Path("out/manifest.jsonl")
        content = path.read_bytes()
        path.write_bytes(b"\xff\xfe\x00{}\n[]\n" + content if damage == "not UTF-8" else content[:-20])
        photo("in/c.jpg")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (0, ["out/c_depth.png"]) and set(manifest()) == {"a.jpg", "b.jpg", "c.jpg"}

    @pytest.mark.parametrize("it_is", ["folder", "pipe", "read only"])
    def test_a_manifest_that_cannot_be_used_is_named_before_the_work(self, depth, as_nobody, it_is):
        path = Path("out/manifest.jsonl")
        photo("in/c.jpg")
        if it_is == "read only":
            path.chmod(0o400)
        else:
            path.unlink()
            path.mkdir() if it_is == "folder" else os.mkfifo(path)
        before = tree("out")
        ran = depth("dir", "in", "-o", "out", *TINY)
        first, *rest = ran.err.splitlines()
        assert first.startswith("error: cannot ") and "out/manifest.jsonl: " in first
        assert ran.out == "" and tree("out") == before and not [line for line in rest if "error" in line]

    def test_overwrite_makes_them_anew(self, depth):
        ran = depth("dir", "in", "-o", "out", "--encoder", "tiny", "--input-size", 98, "--if-exists", "overwrite")
        assert ran.code == 0 and len(ran.lines) == 2
        assert read_depth("out/a_depth.png").provenance.input_size == (126, 98)

    def test_error_names_them_and_keeps_them(self, depth):
        before = tree("out")
        Path("out/b_depth.png").unlink()
        ran = depth("dir", "in", "-o", "out", "--if-exists", "error", *TINY)
        assert (ran.code, ran.lines) == (3, ["out/b_depth.png"])
        assert ran.err.startswith("error: a.jpg: out/a_depth.png is there already")
        assert depth("dir", "in", "-o", "out", "--if-exists", "error", *TINY).code == 1
        assert tree("out") == before


class TestWhatIsThere:
    def test_a_picture_that_was_replaced_is_done_again(self, depth):
        photo("in/a.jpg")
        photo("in/b.jpg")
        depth("dir", "in", "-o", "out", *TINY)
        photo("in/a.jpg", (60, 80))
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (0, ["out/a_depth.png"]) and ran.err.startswith("1 done, 1 skipped in ")
        assert read_depth("out/a_depth.png").size == (60, 80)

    def test_what_somebody_else_put_there_is_named_and_the_rest_goes_on(self, depth):
        photo("in/a.jpg")
        photo("in/b.jpg")
        Path("out").mkdir()
        Path("out/a_depth.png").write_text("mine")
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert (ran.code, ran.lines) == (3, ["out/b_depth.png"])
        assert ran.err.startswith(
            "error: a.jpg: out/a_depth.png is there and is not a depth map of this tool "
            "(--if-exists overwrite replaces it)"
        )
        assert Path("out/a_depth.png").read_text() == "mine"
        assert depth("dir", "in", "-o", "out", "--if-exists", "overwrite", *TINY).code == 0

    def test_depth_image_skips_by_what_the_files_say(self, depth):
        photo("a.jpg")
        photo("b.jpg")
        options = ("-o", "out/", "--if-exists", "skip", *TINY)
        assert len(depth("image", "a.jpg", "b.jpg", *options).lines) == 2
        os.utime("a.jpg")
        photo("b.jpg", (60, 80))
        assert depth("image", "a.jpg", "b.jpg", *options).lines == ["out/b_depth.png"]
        ran = depth("image", "a.jpg", "-o", "out/", "--if-exists", "skip", "--encoder", "vits")
        assert ran.code == 2 and "was made by tiny, and this run would take vits" in ran.error
        assert "--mix-models" not in ran.error


class TestFaults:
    @pytest.mark.parametrize(
        ("call", "code", "exit_code", "files"),
        [
            ("write", errno.ENOSPC, 1, 0),
            ("fsync", errno.EIO, 1, 0),
            ("fsync", errno.EBADF, 0, 2),
            ("replace", errno.EDQUOT, 1, 0),
            ("flock", errno.ENOLCK, 0, 2),
        ],
    )
    def test_exit_codes_and_one_line_for_each(self, depth, call, code, exit_code, files):
        photo("in/a.jpg")
        photo("in/b.jpg")
        with failing(call, code, where="" if call == "flock" else "out/"):  # not the cache of networks
            ran = depth("dir", "in", "-o", "out", *TINY)
        assert ran.code == exit_code and len(tree("out")) == files and "Traceback" not in ran.err
        if exit_code:
            assert f"cannot write out/run.json: {os.strerror(code)}" in ran.err.splitlines()[0]
            assert ".part" not in ran.err


class TestReport:
    def test_the_manifest_says_what_became_of_each(self, depth):
        photo("in/a.jpg")
        broken("in/b.jpg")
        depth("dir", "in", "-o", "out", *TINY)
        done, failed = manifest()["a.jpg"], manifest()["b.jpg"]
        assert (done["status"], done["outputs"], done["model"]) == ("done", ["a_depth.png"], "tiny")
        assert done["ms"] > 0 and "input-size=56" in done["settings"]
        assert (failed["status"], failed["outputs"]) == ("failed", []) and "truncated" in failed["error"]

    @pytest.mark.skipif(os.name == "nt", reason="no such names there")
    @pytest.mark.parametrize("name", ["a\rb.jpg", "a\x1b[31m.jpg", "a\nb.jpg", "a\u202eb.jpg"])
    def test_no_name_can_steer_the_terminal(self, depth, name):
        broken(f"in/{name}")
        ran = depth("dir", "in", "-o", "out", "-v", *TINY)
        assert ran.code == 1 and all(char.isprintable() for char in ran.err.rstrip("\n"))
        assert ran.err.count(ascii(name)[1:-1]) == 1

    def test_a_dry_run_says_what_would_be_written_and_writes_nothing(self, depth):
        photo("in/a.jpg")
        photo("in/b/c.jpg")
        depth("image", "in/a.jpg", "-o", "out/", *TINY)
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
        assert said[0].startswith("stopping after the current file")
        assert "not reached" in said[1] and said[2] == "interrupted: run the same command again to continue"
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

    @pytest.mark.parametrize("seed", range(3))
    def test_runs_that_are_killed_at_any_moment_end_with_the_same_files(self, start, depth, seed):
        moments = random.Random(seed)
        for _ in range(3):
            process = start("dir", "in", "-o", "out", *OPTIONS)
            wanted, delay = len(list(Path("out").glob("*"))) + moments.randint(1, 6), moments.uniform(0, 0.02)
            deadline = time.monotonic() + 60
            while len(list(Path("out").glob("*"))) < wanted and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.0005)
            time.sleep(delay)
            process.kill()
            ended(process)
            for name, content in tree("out").items():
                assert name.startswith(".") or content == tree("whole")[name]
        assert len(tree("out")) < 30
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
