"""`depth dir` with tars: the same keys out, a tar whole or not at all, and every failure by name."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from depthcli.io import remote
from tests.conftest import ROOT, TINY, photo, tree
from tests.io.flaky_store import FlakyStore
from tests.io.test_tars import make_tar

PACK = ("--pack", "tar", *TINY, "-f", "color,npz")
COUNT = 3


@pytest.fixture(autouse=True)
def tars() -> dict[str, list[str]]:
    """Two tars of three pictures with captions, the second with a broken one; their keys."""
    keys = {}
    for number in range(2):
        members = {}
        for each in range(COUNT):
            members[f"v1.0/{number}{each}.jpg"] = photo("p.jpg", (80 + 10 * number + each, 60)).read_bytes()
            members[f"v1.0/{number}{each}.txt"] = b"a caption"
        if number:
            members["broken.jpg"] = b"\xff\xd8\xff"
        make_tar(Path(f"in-{number:03d}.tar"), members)
        keys[f"in-{number:03d}.tar"] = list(dict.fromkeys(name.rpartition(".")[0] for name in members))
    os.remove("p.jpg")
    return keys


def contents(path: Path | str) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def rows_of(path: str) -> list[dict]:
    return [json.loads(content) for name, content in contents(path).items() if name.endswith(".json")]


def test_each_tar_gives_a_tar_with_the_same_keys(depth, tars):
    ran = depth("dir", "in-{000..001}.tar", "-o", "out", *PACK)
    assert ran.code == 3 and ran.lines == ["out/in-000.tar", "out/in-001.tar"]
    assert "in-001.tar/broken.jpg" in ran.err and "6 done, 1 failed" in ran.err
    for name, keys in tars.items():
        found = contents(f"out/{name}")
        wanted = [
            f"{key}{end}"
            for key in keys
            for end in ([".json"] if key == "broken" else [".depth.png", ".depth.npz", ".json"])
        ]
        assert list(found) == wanted
        with tarfile.open(f"out/{name}") as tar:
            assert {(info.mtime, info.uid, info.uname) for info in tar} == {(0, 0, "")}
    assert {row["input"]: row["status"] for row in rows_of("out/in-001.tar")} == {
        **{f"in-001.tar/v1.0/1{each}.jpg": "done" for each in range(COUNT)},
        "in-001.tar/broken.jpg": "failed",
    }


def test_the_files_in_them_are_those_of_the_unpacked_pictures(depth):
    depth("dir", "in-*.tar", "-o", "out", *PACK)
    for name, content in contents("in-000.tar").items():
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(content)
    depth("dir", "in", "-o", "plain", *TINY, "-f", "color,npz")
    packed = {name: content for name, content in contents("out/in-000.tar").items() if not name.endswith(".json")}
    assert packed == {name.replace("_depth", ".depth"): content for name, content in tree("plain").items()}


def test_without_pack_each_tar_is_a_folder_of_results(depth):
    assert depth("dir", "in-{000..001}.tar", "-o", "out", *TINY).code == 3
    wanted = {f"in-00{number}/v1.0/{number}{each}_depth.png" for number in range(2) for each in range(COUNT)}
    assert set(tree("out")) == wanted
    ran = depth("dir", "in-{000..001}.tar", "-o", "out", *TINY)
    assert "6 skipped, 1 failed" in ran.err
    Path("out/in-000/v1.0/01_depth.png").unlink()
    assert depth("manifest", "missing", "out").lines == ["in-000.tar", "in-001.tar"]


def test_a_tar_that_is_there_is_done(depth):
    depth("dir", "in-{000..001}.tar", "-o", "out", *PACK)
    Path("out/in-000.tar").unlink()
    missing = depth("manifest", "missing", "out")
    assert (missing.code, missing.lines) == (3, ["in-000.tar"])
    ran = depth("dir", "in-{000..001}.tar", "-o", "out", *PACK, "--json")
    summary = json.loads(ran.lines[-1])["summary"]
    assert (ran.code, summary["done"], summary["skipped"], summary["total"]) == (0, 3, 1, 4)
    assert depth("manifest", "verify", "out", "--deep").code == 0
    content = Path("out/in-000.tar").read_bytes()
    Path("out/in-000.tar").write_bytes(content[:2000])
    assert "in-000.tar has 2000 bytes" in depth("manifest", "verify", "out").err
    assert "cut short" in depth("dir", "in-000.tar", "-o", "out", *PACK).err
    depth("dir", "in-000.tar", "-o", "out", *PACK, "--if-exists", "overwrite")
    assert Path("out/in-000.tar").read_bytes() == content


def test_a_folder_of_tars_keeps_its_tree_and_shards_are_of_tars(depth):
    for name in ("a/in-000.tar", "b/in-001.tar"):
        Path("tars", name).parent.mkdir(parents=True)
        os.replace(Path(name).name, f"tars/{name}")
    depth("dir", "tars", *PACK)
    whole = tree("tars_depth")
    assert set(whole) == {"a/in-000.tar", "b/in-001.tar"}
    for shard in range(1, 4):
        depth("dir", "tars", "-o", "shards", *PACK, "--shard", f"{shard}/3")
    assert tree("shards") == whole


@pytest.mark.slow
def test_workers_make_the_same_tars(depth):
    depth("dir", "in-*.tar", "-o", "out", *PACK)
    depth("dir", "in-*.tar", "-o", "two", *PACK, "--workers", "2")
    assert tree("two") == tree("out")


@pytest.mark.parametrize("cut", [600, 3000])
def test_a_truncated_and_a_missing_tar_are_named_and_leave_nothing(depth, cut):
    content = Path("in-001.tar").read_bytes()
    Path("in-001.tar").write_bytes(content[:cut])
    ran = depth("dir", "in-{000..002}.tar", "-o", "out", *PACK)
    assert ran.code == 3 and "in-001.tar is cut short" in ran.err and "in-002.tar does not exist" in ran.err
    assert set(tree("out")) == {"in-000.tar"}
    plain = depth("dir", "in-{000..002}.tar", "-o", "plain", *TINY)
    assert plain.code == 3 and "in-001.tar is cut short" in plain.err and len(tree("plain")) == COUNT


def test_a_member_cannot_leave_the_folder(depth):
    make_tar(Path("evil.tar"), {"../../x.jpg": photo("p.jpg").read_bytes(), "/abs/y.jpg": photo("p.jpg").read_bytes()})
    assert depth("dir", "evil.tar", "-o", "deep/out", *TINY).code == 0
    assert set(tree("deep/out")) == {"evil/x_depth.png", "evil/abs/y_depth.png"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("in-000.tar", "-o", ".", *PACK), "is the folder of the tars"),
        (("in-000.tar", *PACK), "there is no place beside"),
        (("x-*.tar", "-o", "out", *PACK), r"there is no tar in x-*.tar"),
        (("in-000.tar", "-o", "out", "--pack", "zip"), "--pack is 'zip'"),
        (("in-000.tar", "-o", "out", "--pack", "tar", "-f", "obj"), "several files"),
        (("in-000.tar", "-o", "out", "--pack", "tar", "--name", "{stem}"), "keys in the tars"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(depth, arguments, reason):
    ran = depth("dir", *arguments)
    assert ran.code == 2 and reason in ran.error


def test_a_foreign_tar_is_not_taken_for_results(depth):
    Path("out").mkdir()
    make_tar(Path("out/in-000.tar"), {"x.bin": b"mine"})
    ran = depth("dir", "in-000.tar", "-o", "out", *PACK)
    assert ran.code == 1 and "is not a tar of results" in ran.err


def test_other_options_are_refused(depth):
    depth("dir", "in-000.tar", "-o", "out", *PACK)
    ran = depth("dir", "in-001.tar", "-o", "out", "--pack", "tar", "--encoder", "tiny", "--input-size", "70")
    assert ran.code == 2 and "--input-size" in ran.error


class TestStore:
    @pytest.fixture(autouse=True)
    def store(self, monkeypatch, tars):
        FlakyStore.reset()
        monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
        for name in tars:
            FlakyStore().pipe_file(f"/bucket/in/{name}", Path(name).read_bytes())

    def test_tars_in_a_store_give_the_same_tars(self, depth):
        depth("dir", "in-*.tar", "-o", "out", *PACK)
        FlakyStore.plan[:] = [("500", "429", None)[number % 3] for number in range(12)]
        ran = depth("dir", "flaky://bucket/in/in-{000..001}.tar", "-o", "flaky://bucket/out", *PACK)
        assert ran.code == 3 and ran.lines == [f"flaky://bucket/out/in-00{number}.tar" for number in range(2)]
        for name, content in tree("out").items():
            assert FlakyStore.store[f"/bucket/out/{name}"].getvalue() == content
        FlakyStore.calls.clear()
        again = depth("dir", "flaky://bucket/in", "-o", "flaky://bucket/out", *PACK)
        assert again.code == 0 and "2 skipped" in again.err
        assert not [path for call, path in FlakyStore.calls if call == "get" and path.endswith(".tar")]

    def test_a_store_that_refuses_a_tar_names_it(self, depth, monkeypatch):
        put = FlakyStore.pipe_file

        def refuse(self, path, value, *arguments, **settings):
            if path.endswith("in-000.tar"):
                raise PermissionError
            put(self, path, value, *arguments, **settings)

        monkeypatch.setattr(FlakyStore, "pipe_file", refuse)
        ran = depth("dir", "in-{000..001}.tar", "-o", "flaky://bucket/out", *PACK)
        assert ran.code == 3 and "in-000.tar: access is denied" in ran.err
        assert "/bucket/out/in-001.tar" in FlakyStore.store and "/bucket/out/in-000.tar" not in FlakyStore.store


@pytest.mark.slow
def test_killed_ten_times_the_bytes_are_the_same(depth):
    pictures = {f"{n}.jpg": photo("p.jpg", (80 + n, 60)).read_bytes() for n in range(8)}
    for number in range(2, 6):
        make_tar(Path(f"in-{number:03d}.tar"), pictures)
    depth("dir", "in-{000..005}.tar", "-o", "whole", *PACK)
    command = [sys.executable, "-m", "depthcli", "dir", "in-{000..005}.tar", "-o", "out", *PACK]
    chance, killed = random.Random(0), 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 20
        while process.poll() is None and not list(Path().glob("out/.depthcli-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for path in Path("out").glob("*.tar"):
            assert path.read_bytes() == Path("whole", path.name).read_bytes()
    assert killed
    depth("dir", "in-{000..005}.tar", "-o", "out", *PACK)
    assert tree("out") == tree("whole") and not list(Path("out").glob(".depthcli-*"))


@pytest.mark.skipif(sys.version_info < (3, 10), reason="webdataset is for Python 3.10 and later")
def test_webdataset_reads_every_key(depth, tars):
    pytest.importorskip("webdataset", reason="only a stranger of the test group reads our tars")
    from PIL import Image
    from webdataset.tariterators import group_by_keys, tar_file_expander

    depth("dir", "in-{000..001}.tar", "-o", "out", *PACK)
    found = {}
    for name in tars:
        with open(f"out/{name}", "rb") as stream:  # which it would leave open itself
            for sample in group_by_keys(tar_file_expander([{"url": name, "stream": stream}])):
                found[sample["__key__"]] = sample
    assert list(found) == [key for keys in tars.values() for key in keys]
    assert (
        Image.open(BytesIO(found["v1.0/00"]["depth.png"])).size
        == Image.open(BytesIO(contents("in-000.tar")["v1.0/00.jpg"])).size
    )
    assert json.loads(found["v1.0/00"]["json"])["status"] == "done"
