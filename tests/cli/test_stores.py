"""`depth dir` with pictures and results in an object store: the files of a run on disk, and nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depthcli.io import remote
from depthcli.jobs import remote_output
from tests.conftest import TINY, photo, tree
from tests.io.flaky_store import FlakyStore

SRC, OUT = "flaky://bucket/in", "flaky://bucket/out"
NAMES = ("a.jpg", "a.png", "b/c.jpg", "b/d.jpg")


def stored(place: str = OUT) -> dict[str, bytes]:
    """Return the results in the store, apart from notes."""
    key = place.removeprefix("flaky:/") + "/"
    found = {name[len(key) :]: FlakyStore.store[name].getvalue() for name in FlakyStore.store if name.startswith(key)}
    return {name: content for name, content in found.items() if not name.endswith((".jsonl", "run.json"))}


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Four pictures and one broken one, in a folder and in the store."""
    FlakyStore.reset()
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    for name in NAMES:
        photo(f"in/{name}")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff")
    store = FlakyStore()
    for name, content in tree("in").items():
        store.pipe_file(f"/bucket/in/{name}", content)
    FlakyStore.calls.clear()


@pytest.fixture
def local(depth):
    """The results of a run on disk."""
    depth("dir", "in", "-o", "local", *TINY)
    return tree("local")


class TestFiles:
    @pytest.mark.parametrize(("source", "output"), [(SRC, OUT), (SRC, "out"), ("in", OUT)])
    def test_they_are_those_of_a_run_on_disk(self, depth, local, source, output):
        ran = depth("dir", source, "-o", output, *TINY)
        assert ran.code == 3 and "broken.jpg" in ran.err
        assert (stored() if output == OUT else tree("out")) == local and len(local) == 4
        assert sorted(ran.lines) == sorted(f"{output}/{name}" for name in local)

    def test_a_second_run_skips_all_by_one_listing(self, depth, local):
        depth("dir", SRC, "-o", OUT, *TINY)
        FlakyStore.calls.clear()
        ran = depth("dir", SRC, "-o", OUT, *TINY)
        assert "4 skipped, 1 failed" in ran.err and stored() == local
        assert {path for call, path in FlakyStore.calls if call == "put"} <= {"/bucket/out/manifest.jsonl"}
        assert sum(call == "get" and path.endswith(("jpg", "png")) for call, path in FlakyStore.calls) == 1

    def test_what_was_lost_is_done_again_and_nothing_else(self, depth, local):
        depth("dir", SRC, "-o", OUT, *TINY)
        FlakyStore().rm_file("/bucket/out/b/d_depth.png")
        ran = depth("dir", SRC, "-o", OUT, *TINY)
        assert ran.lines == [f"{OUT}/b/d_depth.png"] and stored() == local

    def test_results_below_the_pictures_are_not_pictures(self, depth, local):
        inside = f"{SRC}/depth"
        depth("dir", SRC, "-o", inside, *TINY)
        ran = depth("dir", SRC, "-o", inside, *TINY)
        assert "4 skipped, 1 failed" in ran.err and stored(inside) == local

    def test_facts_beside_a_file_come_before_it(self, depth):
        depth("dir", SRC, "-o", OUT, *TINY, "-f", "npy")
        puts = [path for call, path in FlakyStore.calls if call == "put" and "a.jpg" in path]
        assert [path.rpartition(".")[2] for path in puts] == ["json", "npy"]


class TestFaults:
    def test_a_bad_network_costs_time_and_no_picture(self, depth, local):
        FlakyStore.plan[:] = [("500", "429", None, "timeout", "reset")[number % 5] for number in range(60)]
        ran = depth("dir", SRC, "-o", OUT, *TINY)
        assert ran.code == 3 and stored() == local

    def test_a_store_that_takes_nothing_fails_each_picture_by_name(self, depth, monkeypatch):
        put = FlakyStore.pipe_file

        def refuse(self, path, value, *arguments, **settings):
            if path.endswith(".png"):
                raise PermissionError(13, "denied")
            put(self, path, value, *arguments, **settings)

        monkeypatch.setattr(FlakyStore, "pipe_file", refuse)
        ran = depth("dir", SRC, "-o", OUT, *TINY)
        assert ran.code == 1 and stored() == {}
        assert f"cannot write {OUT}/a.png_depth.png: access is denied" in ran.err

    def test_a_manifest_that_cannot_be_put_now_is_put_later(self, depth, monkeypatch):
        monkeypatch.setattr(remote_output, "_SECONDS", 0.0)
        depth("dir", SRC, "-o", OUT, *TINY)
        rows = FlakyStore.store["/bucket/out/manifest.jsonl"].getvalue().decode().splitlines()
        assert sorted(json.loads(row)["input"] for row in rows) == sorted((*NAMES, "broken.jpg"))
        assert sum(path.endswith("manifest.jsonl") for call, path in FlakyStore.calls if call == "put") > 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((SRC,), "there is no place beside flaky://bucket/in"),
            ((SRC, "-o", SRC), "is the folder of the pictures"),
            (("flaky://bucket/none", "-o", "out"), "flaky://bucket/none does not exist, or is empty"),
            ((SRC, "-o", OUT, "-f", "obj"), "obj is several files"),
            ((SRC, "-o", OUT, "--include", "*.gif"), "there is no picture in flaky://bucket/in that matches"),
        ],
    )
    def test_places_that_do_not_fit_are_refused(self, depth, arguments, message):
        ran = depth("dir", *arguments, *TINY)
        assert ran.code == 2 and message in ran.error and not stored()


class TestParts:
    def test_shards_and_lists_make_the_same_files(self, depth, local):
        for number in (1, 2, 3):
            depth("dir", SRC, "-o", OUT, *TINY, "--shard", f"{number}/3")
        assert stored() == local
        FlakyStore().rm("/bucket/out", recursive=True)
        Path("list").write_text(f"{SRC}/a.png\nb/c.jpg\ngone.jpg\n")
        ran = depth("dir", SRC, "-o", OUT, *TINY, "--files-from", "list")
        assert ran.code == 3 and sorted(stored()) == ["a.png_depth.png", "b/c_depth.png"]
        assert f"{SRC}/gone.jpg cannot be read: there is no such bucket or file" in ran.err

    def test_other_options_are_refused_by_run_json(self, depth):
        depth("dir", SRC, "-o", OUT, *TINY)
        ran = depth("dir", SRC, "-o", OUT, *TINY[:2], "--input-size", "70")
        assert ran.code == 2 and f"{OUT} (by its run.json) was made with --input-size 56" in ran.error

    def test_a_dry_run_names_addresses_and_writes_nothing(self, depth):
        ran = depth("dir", SRC, "-o", OUT, *TINY, "-n")
        assert f"write\tb/c.jpg\t{OUT}/b/c_depth.png" in ran.lines and not stored()


def test_retries_are_as_many_as_asked(depth):
    FlakyStore.plan[:] = ["500"] * 3
    assert depth("dir", SRC, "-o", OUT, *TINY, "--retries", "2").code == 2
    FlakyStore.plan[:] = ["500"] * 2
    assert depth("dir", SRC, "-o", OUT, *TINY, "--retries", "2").code == 3
    assert "--retries is -1" in depth("dir", SRC, "-o", OUT, *TINY, "--retries", "-1").error
