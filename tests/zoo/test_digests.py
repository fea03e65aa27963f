"""Digests are remembered between processes as long as nothing shows that a file changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.host import graph_cache
from depthcli.zoo import digests
from depthcli.zoo.digests import FILE, FOLDER_VARIABLE, sha256_of
from tests.conftest import environment

BIG = bytes(range(256)) * 8192  # 2 MB


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED", 0)  # the test need not wait
    return tmp_path / "cache"


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """The bytes that were hashed, file by file; notes apart."""
    sizes = []
    real = hashlib.sha256

    class Counting:
        def __init__(self, *content: bytes) -> None:
            self._hash = real(*content)

        def update(self, block: bytes) -> None:
            sizes.append(len(block))
            self._hash.update(block)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(digests.hashlib, "sha256", Counting)
    return sizes


def big(name: str = "weights.bin", content: bytes = BIG) -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


def true_digest(path: Path) -> str:
    return hashlib.new("sha256", path.read_bytes()).hexdigest()


def test_a_file_is_read_once_and_each_time_if_that_is_asked(hashed):
    path = big()
    first = sha256_of(path)
    assert first == true_digest(path) and sum(hashed) == len(BIG)
    assert sha256_of(path) == first and sum(hashed) == len(BIG)
    assert sha256_of(path, afresh=True) == first and sum(hashed) == 2 * len(BIG)


def test_another_process_remembers(hashed):
    path = big()
    sha256_of(path)
    code = "import sys; from depthcli.zoo import digests; digests._BLOCK = None; print(digests.sha256_of(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment(), stdout=subprocess.PIPE, check=True, text=True
    )
    assert ran.stdout.strip() == true_digest(path)


@pytest.mark.parametrize("change", ["a byte", "with its old time", "swapped", "cut", "replaced by a copy"])
def test_a_changed_file_is_hashed_again(change):
    path = big()
    sha256_of(path)
    was = path.stat()
    if change == "swapped":
        other = big("other.bin", BIG[::-1])
        os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
        os.replace(other, path)
    elif change == "cut":
        os.truncate(path, len(BIG) - 1)
    elif change == "replaced by a copy":
        shutil.copy2(path, "copy.bin")
        os.replace("copy.bin", path)
    else:
        with open(path, "r+b") as stream:
            stream.write(b"\xff")
    if change != "cut":
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert sha256_of(path) == true_digest(path)


def test_a_file_that_has_just_changed_is_not_noted(monkeypatch, folder, hashed):
    monkeypatch.setattr(digests, "SETTLED", 60)
    path = big()
    os.utime(path, (0, 0))  # its ctime is that of now
    assert sha256_of(path) == sha256_of(path) and sum(hashed) == 2 * len(BIG)
    assert not (folder / FILE).exists()


def test_a_file_that_changes_while_it_is_read_is_not_noted(monkeypatch, folder):
    path = big()
    real = os.fstat

    def fstat(number: int) -> os.stat_result:
        found = real(number)
        with open(path, "ab") as stream:
            stream.write(b"more")
        return found

    monkeypatch.setattr(digests.os, "fstat", fstat)
    sha256_of(path)
    assert not (folder / FILE).exists()


def test_small_files_are_not_noted(folder):
    sha256_of(big(content=b"small"))
    assert not folder.exists()


def test_a_note_ends_after_a_week_and_none_comes_from_the_future(monkeypatch, hashed):
    path = big()
    sha256_of(path)
    now = digests.time.time()
    for moved, sizes in ((digests.MOST_AGE - 60, 1), (digests.MOST_AGE + 60, 2), (-3600, 3)):
        monkeypatch.setattr(digests.time, "time", lambda moved=moved: now + moved)
        sha256_of(path)
        assert sum(hashed) == sizes * len(BIG)
        monkeypatch.setattr(digests.time, "time", lambda: now)


def test_damaged_notes_are_no_notes(folder, hashed):
    path = big()
    right = sha256_of(path)
    whole = (folder / FILE).read_bytes()
    for place in range(0, len(whole) - 1, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (folder / FILE).write_bytes(damaged)
        assert sha256_of(path) == right
    for content in (b"", b"\xff\xfe", b"1 2 3\n", whole[:-30]):
        (folder / FILE).write_bytes(content)
        assert sha256_of(path) == right


def test_notes_that_everybody_may_write_are_not_believed(folder, hashed):
    path = big()
    sha256_of(path)
    (folder / FILE).chmod(0o666)
    sha256_of(path)
    assert sum(hashed) == 2 * len(BIG)
    folder.chmod(0o777)
    (folder / FILE).unlink()
    sha256_of(path)
    assert not (folder / FILE).exists()


def test_without_a_place_for_notes_files_are_hashed(monkeypatch, folder):
    path = big()
    folder.write_bytes(b"a file")
    assert sha256_of(path) == true_digest(path)
    monkeypatch.setattr(digests, "cache_folder", lambda: None)
    assert sha256_of(path) == true_digest(path)


def test_the_number_of_notes_is_bounded_and_clearing_removes_them(monkeypatch, folder):
    monkeypatch.setattr(digests, "LEAST_BYTES", 1)
    for number in range(100):
        sha256_of(big(f"{number}.bin", b"%d" % number))
    assert len((folder / FILE).read_text().splitlines()) == digests._MOST
    assert os.listdir(folder) == [FILE]
    graph_cache.clear()
    assert os.listdir(folder) == []


def test_processes_that_note_at_once_leave_whole_notes(folder):
    code = (
        "import sys; from pathlib import Path; from depthcli.zoo import digests\n"
        "digests.LEAST_BYTES, digests.SETTLED = 1, -9\n"
        "for number in range(40):\n"
        "    path = Path(f'{sys.argv[1]}-{number}'); path.write_text(path.name); digests.sha256_of(path)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name], env=environment()) for name in "abc"]
    assert [each.wait() for each in running] == [0, 0, 0]
    assert os.listdir(folder) == [FILE] and digests._read_notes()


def test_a_damaged_large_network_is_not_found(folder):
    with graph_cache.new_entry("a") as partial:
        (partial / "network.bin").write_bytes(BIG)
    assert graph_cache.find("a") and graph_cache.find("a")
    with open(folder / "a/network.bin", "r+b") as stream:
        stream.seek(12345)
        stream.write(b"?")
    assert graph_cache.find("a") is None
