"""What `depth manifest` says: one row for each picture, and which results are missing or damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from depthcli.errors import OutputError, UsageError
from depthcli.io import remote
from depthcli.jobs import manifests
from depthcli.jobs.manifest import Manifest, Result, read_rows
from depthcli.jobs.manifests import merge_manifests
from depthcli.jobs.run_file import RunFile, read_run, write_run
from tests.conftest import TINY, photo, tree
from tests.io.flaky_store import FlakyStore

OUT = Path("out")
DONE = Result("b.jpg", ("out/b_depth.png",), "done", model="tiny")


@pytest.mark.parametrize("piece", [2, 10_000])
def test_merged_rows_are_the_best_of_each_picture_sorted(monkeypatch, piece):
    monkeypatch.setattr(manifests, "_PIECE", piece)
    first, second = (Manifest(OUT / f"manifest-0000{number}-of-00002.jsonl") for number in (1, 2))
    first.add(DONE)
    first.add(Result("c.jpg", (), "failed", error="torn"))
    first.add(Result("ä.jpg", (), "failed", error="first"))
    second.add(replace(DONE, status="skipped"))
    second.add(replace(DONE, input="c.jpg", status="skipped"))
    second.add(replace(DONE, input="a.jpg"))
    second.add(Result("ä.jpg", (), "failed", error="last"))
    assert merge_manifests(OUT) == 4
    rows = list(read_rows(OUT / "manifest.jsonl"))
    assert [(row["input"], row["status"]) for row in rows] == [
        ("a.jpg", "done"),
        ("b.jpg", "done"),
        ("c.jpg", "skipped"),
        ("ä.jpg", "failed"),
    ]
    assert rows[3]["error"] == "last"
    assert merge_manifests(OUT) == 4 and list(read_rows(OUT / "manifest.jsonl")) == rows


def test_a_folder_without_a_manifest_has_nothing_to_merge():
    OUT.mkdir()
    with pytest.raises(UsageError, match="out has no manifest"):
        merge_manifests(OUT)


def test_the_first_shard_writes_run_json_and_others_keep_it():
    write_run(OUT, RunFile("in", ("color",), settings="x=1"))
    write_run(OUT, RunFile("in", ("color",), settings="x=2"))
    assert read_run(OUT) == RunFile("in", ("color",), settings="x=1")
    write_run(OUT, RunFile("in", ("color",), settings="x=2"), replaces=True)
    assert read_run(OUT).settings == "x=2" and sorted(path.name for path in OUT.iterdir()) == ["run.json"]
    (OUT / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        read_run(OUT)


@pytest.fixture
def done(depth):
    """A folder of four pictures, done in two shards, of which one picture is broken."""
    for name in ("a.jpg", "a.png", "b/c.jpg"):
        photo(f"in/{name}")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff")
    codes = [depth("dir", "in", "-o", "out", *TINY, "--shard", f"{number}/2").code for number in (1, 2)]
    assert sorted(codes) in ([0, 3], [0, 1])
    return tree("out")


class TestShards:
    def test_their_files_are_those_of_one_run(self, done, depth):
        depth("dir", "in", "-o", "whole", *TINY)
        assert done == tree("whole") and len(done) == 3

    def test_a_part_with_other_options_is_refused(self, done, depth):
        ran = depth("dir", "in", "-o", "out", *TINY[:2], "--input-size", "70", "--shard", "1/2")
        assert ran.code == 2 and ran.error.startswith("error: out (by its run.json) was made with --input-size 56")

    def test_another_number_of_parts_and_one_run_find_all_done(self, done, depth):
        for shard in ([], ["--shard", "1/1"], ["--shard", "2/5"]):
            ran = depth("dir", "in", "-o", "out", *TINY, *shard, "--json")
            assert all(json.loads(line).get("status") in ("skipped", "failed", None) for line in ran.lines)
        assert tree("out") == done

    @pytest.mark.slow
    def test_processes_on_devices_make_the_same_files(self, done, depth):
        ran = depth("dir", "in", "-o", "both", *TINY, "--devices", "cpu,cpu")
        assert ran.code == 3 and tree("both") == done

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--devices", "cpu", "--workers", "2"), "leave out --workers and --device"),
            (("--devices", "gpu"), "unknown --device 'gpu'"),
            (("--devices", "auto"), "names the devices themselves"),
            (("--shard-count", "4"), "belong to --shard auto"),
            (("--shard", "4/3"), "is part 4 of 3, which is not there"),
        ],
    )
    def test_parts_that_are_not_there_are_refused(self, depth, options, message):
        photo("in/a.jpg")
        ran = depth("dir", "in", *options)
        assert ran.code == 2 and message in ran.error


class TestMissing:
    def test_only_what_has_no_result_is_named_and_can_be_done_from_the_list(self, done, depth):
        assert depth("manifest", "missing", "out").lines == ["broken.jpg"]
        Path("out/b/c_depth.png").unlink()
        Path("out/a.jpg_depth.png").write_bytes(b"")
        ran = depth("manifest", "missing", "out", "in")
        assert ran.code == 3 and ran.lines == ["a.jpg", "broken.jpg", "b/c.jpg"]
        Path("list").write_text("\n".join(ran.lines))
        assert depth("dir", "in", "-o", "out", *TINY, "--files-from", "list").code == 3
        assert tree("out") == done
        photo("in/broken.jpg")
        assert depth("dir", "in", "-o", "out", *TINY).code == 0
        ran = depth("manifest", "missing", "out")
        assert ran.code == 0 and not ran.out

    def test_a_folder_without_run_json_is_refused(self, depth):
        OUT.mkdir()
        assert "out has no run.json" in depth("manifest", "missing", "out").error


class TestVerify:
    def test_damage_is_named(self, done, depth):
        assert depth("manifest", "verify", "out", "--deep").code == 0
        png = Path("out/a.png_depth.png")
        whole = png.read_bytes()
        png.write_bytes(whole[:-20])
        ran = depth("manifest", "verify", "out")
        assert ran.code == 3 and f"{png} has {len(whole) - 20} bytes, not {len(whole)}" in ran.error
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        png.write_bytes(changed)
        assert depth("manifest", "verify", "out").code == 0
        ran = depth("manifest", "verify", "out", "--deep")
        assert ran.code == 3 and "has other content than was written" in ran.error
        png.unlink()
        assert "is missing" in depth("manifest", "verify", "out").error

    def test_a_failure_limit_ends_the_run(self, depth):
        for number in range(6):
            Path("in").mkdir(exist_ok=True)
            Path(f"in/{number}.jpg").write_bytes(b"\xff\xd8\xff")
        ran = depth("dir", "in", "-o", "out", *TINY, "--max-failures", "2")
        assert ran.code == 1 and "3 pictures failed, more than --max-failures allows" in ran.err
        assert "--max-failures is 'x'" in depth("dir", "in", "-o", "out", *TINY, "--max-failures", "x").error


class TestStores:
    """The same in an object store, one in memory."""

    SRC, OUT = "flaky://bucket/in", "flaky://bucket/out"

    @pytest.fixture
    def stored(self, monkeypatch, depth):
        """Four pictures and a broken one in a store, done in two shards."""
        FlakyStore.reset()
        monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
        store = FlakyStore()
        for name in ("a.jpg", "a.png", "b/c.jpg"):
            store.pipe_file(f"/bucket/in/{name}", photo(f"in/{name}").read_bytes())
        store.pipe_file("/bucket/in/broken.jpg", b"\xff\xd8\xff")
        for number in (1, 2):
            depth("dir", self.SRC, "-o", self.OUT, *TINY, "--shard", f"{number}/2")
        return store

    def test_missing_names_what_no_object_is_there_for(self, stored, depth):
        assert depth("manifest", "missing", self.OUT).lines == ["broken.jpg"]
        stored.rm_file("/bucket/out/b/c_depth.png")
        stored.rm_file("/bucket/out/a.jpg_depth.png")
        Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff")
        for pictures in ([], [self.SRC], ["in"]):
            ran = depth("manifest", "missing", self.OUT, *pictures)
            assert ran.code == 3 and ran.lines == ["a.jpg", "broken.jpg", "b/c.jpg"]
        Path("list").write_text("\n".join(ran.lines))
        assert depth("dir", self.SRC, "-o", self.OUT, *TINY, "--files-from", "list").code == 3
        assert depth("manifest", "missing", self.OUT, self.SRC).lines == ["broken.jpg"]

    def test_merged_rows_are_put_and_read_by_the_next_run(self, stored, depth):
        ran = depth("manifest", "merge", self.OUT)
        assert ran.lines == [f"4 rows in {self.OUT}/manifest.jsonl"]
        rows = [json.loads(line) for line in stored.cat_file("/bucket/out/manifest.jsonl").splitlines()]
        assert [(row["input"], row["status"]) for row in rows] == [
            ("a.jpg", "done"),
            ("a.png", "done"),
            ("b/c.jpg", "done"),
            ("broken.jpg", "failed"),
        ]
        assert "3 skipped, 1 failed" in depth("dir", self.SRC, "-o", self.OUT, *TINY).err

    def test_verify_names_what_is_gone_cut_short_or_changed(self, stored, depth):
        FlakyStore.calls.clear()
        assert depth("manifest", "verify", self.OUT).code == 0
        assert not [path for call, path in FlakyStore.calls if call == "get" and path.endswith(".png")]
        assert depth("manifest", "verify", self.OUT, "--deep").code == 0
        key = "/bucket/out/b/c_depth.png"
        whole = stored.cat_file(key)
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        stored.pipe_file(key, bytes(changed))
        assert depth("manifest", "verify", self.OUT).code == 0
        assert "has other content than was written" in depth("manifest", "verify", self.OUT, "--deep").error
        stored.pipe_file(key, whole[:-9])
        ran = depth("manifest", "verify", self.OUT)
        assert ran.code == 3 and f"{self.OUT}/b/c_depth.png has {len(whole) - 9} bytes, not {len(whole)}" in ran.error
        stored.rm_file(key)
        assert "b/c_depth.png is missing" in depth("manifest", "verify", self.OUT).error

    @pytest.mark.parametrize("command", ["merge", "missing", "verify"])
    def test_a_place_without_results_is_one_line(self, stored, depth, command):
        ran = depth("manifest", command, "flaky://bucket/none")
        assert ran.code == 2 and "flaky://bucket/none does not exist, or is empty" in ran.error
        stored.pipe_file("/bucket/other/x.txt", b"x")
        ran = depth("manifest", command, "flaky://bucket/other")
        assert ran.code == 2 and "flaky://bucket/other has no" in ran.error
