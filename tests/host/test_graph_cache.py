"""Entries of the cache are whole or not there, the oldest go first, and all can be cleared."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.host import graph_cache


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "graphs"))
    return tmp_path / "graphs"


def store(name: str, content: bytes = b"graph", used: float = 0) -> None:
    with graph_cache.new_entry(name) as partial:
        (partial / "network.bin").write_bytes(content)
    if used:
        os.utime(graph_cache.cache_folder() / name / "contents.json", (used, used))


def test_what_was_stored_is_found_again_and_nothing_else(folder: Path) -> None:
    assert graph_cache.find("a") is None and graph_cache.entries() == []
    store("a")
    found = graph_cache.find("a")
    assert found == folder / "a" and (found / "network.bin").read_bytes() == b"graph"
    assert graph_cache.find("b") is None


@pytest.mark.parametrize("damage", ["cut", "garbled", "gone", "no list", "broken list", "empty list"])
def test_a_damaged_entry_is_not_found_and_can_be_replaced(folder: Path, damage: str) -> None:
    store("a")
    if damage == "cut":
        (folder / "a/network.bin").write_bytes(b"gra")
    elif damage == "gone":
        (folder / "a/network.bin").unlink()
    elif damage == "garbled":
        (folder / "a/network.bin").write_bytes(b"grapf")
    elif damage == "no list":
        (folder / "a/contents.json").unlink()
    else:
        (folder / "a/contents.json").write_text("[]" if damage == "broken list" else "{}")
    assert graph_cache.find("a") is None
    store("a", b"new")
    found = graph_cache.find("a")
    assert found and (found / "network.bin").read_bytes() == b"new"
    assert os.listdir(folder) == ["a"]


def test_a_flipped_bit_anywhere_is_found(folder: Path) -> None:
    store("a", bytes(range(256)))
    seeded = random.Random(0)
    for path in (folder / "a/network.bin", folder / "a/contents.json"):
        whole = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[seeded.randrange(len(whole))] ^= 1 << seeded.randrange(8)
            path.write_bytes(damaged)
            assert graph_cache.find("a") is None
        path.write_bytes(whole)
        assert graph_cache.find("a") is not None


def test_an_entry_under_another_name_is_not_found(folder: Path) -> None:
    store("vits-1")
    shutil.copytree(folder / "vits-1", folder / "vits-2")
    assert graph_cache.find("vits-1") is not None and graph_cache.find("vits-2") is None


@pytest.mark.parametrize(
    "contents",
    [
        {"files": {"network.bin": "5 0"}},
        {"name": "a", "files": {"../network.bin": "5 0"}},
        {"name": "a", "files": {"/etc/hostname": "5 0"}},
        {"name": "a", "files": {"network.bin": "5 f0e2e4b1"}},
        {"name": "a", "files": {"network.bin": None}},
        {"name": "a", "files": ["network.bin"]},
        {"name": "a", "files": 5},
        {"name": ["a"], "files": {}},
        [[[]]],
    ],
)
def test_a_list_that_was_edited_is_no_entry(folder: Path, contents: object) -> None:
    store("a")
    (folder / "a/contents.json").write_text(json.dumps(contents))
    assert graph_cache.find("a") is None
    (folder / "a/contents.json").write_text("[" * 100_000)
    assert graph_cache.find("a") is None


@pytest.mark.parametrize("place", ["", "a", "a/network.bin"])
def test_what_everybody_may_write_to_is_not_used(folder: Path, place: str) -> None:
    store("a")
    mode = (folder / place).stat().st_mode
    (folder / place).chmod(mode | 0o002)
    assert graph_cache.find("a") is None
    (folder / place).chmod(mode | 0o020)  # a group is somebody's choice
    assert graph_cache.find("a") is not None


def test_nothing_is_kept_where_everybody_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="everybody may write to it"), graph_cache.new_entry("a"):
        raise AssertionError("it was begun")
    assert os.listdir(folder) == []


def test_the_files_of_another_user_are_not_used(folder: Path, monkeypatch) -> None:
    store("a")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert (graph_cache.find("a") is None) == (folder.stat().st_uid != 0)  # the system's are
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert graph_cache.find("a") is not None


def test_an_entry_that_fails_half_way_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ValueError), graph_cache.new_entry("a") as partial:
        (partial / "network.bin").write_bytes(b"half")
        raise ValueError
    assert os.listdir(folder) == []


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path) -> None:
    code = (
        "import os; from depthcli.host import graph_cache\n"
        "with graph_cache.new_entry('a') as partial: (partial / 'x').write_bytes(b'half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert len(os.listdir(folder)) == 1 and graph_cache.find("a") is None and graph_cache.entries() == []
    store("b")
    assert os.listdir(folder) == ["b"]


def test_what_another_machine_has_begun_in_a_shared_folder_stays(folder: Path) -> None:
    store("a")
    theirs = [folder / f".depthcli-{'0' * 24}-12345678.part", folder / ".part-another1234-999999-abc"]
    for path in theirs:
        path.mkdir()
    store("b")
    graph_cache.clear()
    assert sorted(os.listdir(folder)) == [path.name for path in theirs]
    for path in theirs:
        os.utime(path, (0, 0))
    store("b")
    assert os.listdir(folder) == ["b"]


def test_processes_that_make_one_entry_at_once_all_succeed(folder: Path) -> None:
    code = (
        "from depthcli.host import graph_cache\n"
        "for _ in range(40):\n"
        "    with graph_cache.new_entry('a') as partial: (partial / 'x').write_bytes(b'graph')\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert graph_cache.find("a") and os.listdir(folder) == ["a"]


def test_the_least_recently_used_go_when_there_is_too_much(monkeypatch) -> None:
    monkeypatch.setattr(graph_cache, "LIMIT_BYTES", 2500)
    store("old", bytes(1000), used=100)
    store("older, but used since", bytes(1000), used=50)
    assert graph_cache.find("older, but used since")
    store("new", bytes(1000))
    assert {entry.name for entry in graph_cache.entries()} == {"older, but used since", "new"}


def test_an_entry_larger_than_the_limit_stays_until_the_next_comes(monkeypatch) -> None:
    monkeypatch.setattr(graph_cache, "LIMIT_BYTES", 10)
    store("giant", bytes(1000), used=100)
    assert graph_cache.find("giant")
    store("next", bytes(5))
    assert [entry.name for entry in graph_cache.entries()] == ["next"]


def test_clearing_removes_and_tells_all(folder: Path) -> None:
    (folder / "without a list").mkdir(parents=True)
    store("a", bytes(10))
    store("b", bytes(20))
    removed = graph_cache.clear()
    assert {entry.name for entry in removed} == {"a", "b", "without a list"}
    assert sum(entry.bytes for entry in removed) >= 30 and os.listdir(folder) == []
    assert graph_cache.entries() == [] and graph_cache.clear() == []
