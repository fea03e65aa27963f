from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.errors import DiskFullError, OutputError
from depthcli.io.atomic import atomic_path, remove_partials


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "a.png"
    with atomic_path(target) as partial:
        partial.write_bytes(b"half")
        assert not target.exists()
        assert partial.parent == target.parent
    assert target.read_bytes() == b"half"
    assert os.listdir(target.parent) == ["a.png"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as partial:
        partial.write_bytes(b"new")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"cannot write .*a\.png: No space left on device"):
        with atomic_path(tmp_path / "a.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match="cannot write") as error:
        with atomic_path(tmp_path / "a.png"):
            raise OSError(errno.EACCES, "Permission denied")
    assert not isinstance(error.value, DiskFullError)


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"), atomic_path(tmp_path / "file" / "a.png"):
        pass


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from depthcli.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'a.png') as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    (tmp_path / ".hidden.part").write_bytes(b"not ours")
    (tmp_path / ".b.png.otherhost-1.part").write_bytes(b"of a machine that we cannot ask")
    assert len(os.listdir(tmp_path)) == 3
    assert remove_partials(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".b.png.otherhost-1.part", ".hidden.part"]
