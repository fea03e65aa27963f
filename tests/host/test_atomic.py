from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from depthcli.errors import DiskFullError, OutputError
from depthcli.host import atomic
from depthcli.host.atomic import atomic_path, remove_partials, temporary_folder, temporary_path, try_lock
from tests.faults import failing

OTHER = "0" * 24  # the mark of a process on another machine
KILLED = (
    "import os, sys; from pathlib import Path; from depthcli.host.atomic import atomic_path, temporary_folder\n"
    "with atomic_path(Path(sys.argv[1]) / 'a.png') as partial, temporary_folder(Path(sys.argv[1])):\n"
    "    partial.write_bytes(b'half')\n"
    "    os.kill(os.getpid(), 9)\n"
)
WORKING = KILLED.replace("os.kill(os.getpid(), 9)", "print(flush=True); sys.stdin.read()")


@pytest.fixture(autouse=True)
def own_locks(monkeypatch, tmp_path_factory) -> None:
    """Locks of this test and of the processes it starts lie in a folder for it alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(atomic, "_LIFE", atomic._Life())


def write(path: Path, content: bytes = b"new") -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        stream.write(content)


def killed(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)


class TestWriting:
    def test_a_file_appears_when_it_is_whole(self, tmp_path):
        target = tmp_path / "deep" / "er" / "a.png"
        with atomic_path(target) as partial:
            partial.write_bytes(b"half")
            assert not target.exists()
            assert partial.parent == target.parent
        assert target.read_bytes() == b"half"
        assert os.listdir(target.parent) == ["a.png"]

    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path):
        target = tmp_path / "a.png"
        target.write_bytes(b"old")
        with pytest.raises(ZeroDivisionError), atomic_path(target) as partial:
            partial.write_bytes(b"new")
            raise ZeroDivisionError
        assert target.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.png"]

    def test_a_file_in_the_way_of_a_folder_is_an_error(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        for path in ("file/a.png", "file/deep/a.png"):
            with pytest.raises(OutputError, match="cannot write"):
                write(tmp_path / path)

    def test_a_name_as_long_as_a_name_can_be(self, tmp_path):
        write(tmp_path / ("n" * 255))
        with pytest.raises(OutputError, match="File name too long") as raised:
            write(tmp_path / ("n" * 256))
        assert ".part" not in str(raised.value)
        assert len(os.listdir(tmp_path)) == 1

    def test_one_file_written_by_many_threads_at_once_is_whole(self, tmp_path):
        contents = [bytes([number]) * 100_000 for number in range(8)]
        threads = [threading.Thread(target=write, args=(tmp_path / "a", content)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "a").read_bytes() in contents and os.listdir(tmp_path) == ["a"]

    def test_the_permissions_are_those_of_any_new_file(self, tmp_path):
        (tmp_path / "plain").touch()
        write(tmp_path / "a")
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


class TestWhatIsNoFile:
    """Never turned into another kind of thing by the rename."""

    def test_a_link_stays_and_the_file_it_leads_to_is_replaced(self, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/real").write_bytes(b"old")
        (tmp_path / "between").symlink_to("deep/real")
        (tmp_path / "link").symlink_to("between")
        write(tmp_path / "link")
        assert (tmp_path / "deep/real").read_bytes() == b"new" and os.listdir(tmp_path / "deep") == ["real"]
        assert (tmp_path / "link").is_symlink() and (tmp_path / "between").is_symlink()

    def test_a_dangling_link_is_filled_if_its_folder_is_there(self, tmp_path):
        (tmp_path / "link").symlink_to("later")
        write(tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "later").read_bytes() == b"new"

    def test_a_dangling_link_to_a_folder_that_is_gone_is_an_error(self, tmp_path):
        (tmp_path / "link").symlink_to("gone/a.png")
        with pytest.raises(OutputError, match=r"it is a link to .*gone/a\.png, and there is no such folder"):
            write(tmp_path / "link")
        assert os.listdir(tmp_path) == ["link"]

    def test_links_in_a_circle_are_an_error(self, tmp_path):
        (tmp_path / "link").symlink_to("link")
        with pytest.raises(OutputError, match="Too many levels of symbolic links"):
            write(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()

    def test_a_folder_is_an_error_before_the_work(self, tmp_path):
        (tmp_path / "a.png").mkdir()
        with pytest.raises(OutputError, match=r"a\.png: Is a directory"), atomic_path(tmp_path / "a.png"):
            raise AssertionError("the block was entered")
        assert (tmp_path / "a.png").is_dir()

    def test_a_pipe_is_written_to(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
        write(tmp_path / "pipe")
        assert reader.communicate(timeout=20)[0] == b"new"
        assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]

    def test_a_device_is_written_to(self, tmp_path):
        write(Path(os.devnull))
        (tmp_path / "link").symlink_to(os.devnull)
        write(tmp_path / "link")
        assert Path(os.devnull).is_char_device() and (tmp_path / "link").is_symlink()

    @pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
    @pytest.mark.parametrize("to_file", [True, False])
    def test_an_open_file_is_written_to_by_its_number(self, tmp_path, name, to_file):
        (tmp_path / "link").symlink_to("/dev/stdout")
        script = (
            "import sys; from pathlib import Path; from depthcli.host.atomic import atomic_path\n"
            "with atomic_path(Path(sys.argv[1])) as path, path.open('wb') as stream: stream.write(b'new')\n"
        )
        target = tmp_path / "written"
        with target.open("wb") as stream:
            number = target.stat().st_ino
            out = stream if to_file else subprocess.PIPE
            ran = subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True, stdout=out)
        assert (target.read_bytes() if to_file else ran.stdout) == b"new"
        assert target.stat().st_ino == number
        assert sorted(os.listdir(tmp_path)) == ["link", "written"]


class TestFaults:
    @pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS])
    def test_a_disk_that_does_not_offer_fsync_is_written_to(self, tmp_path, code):
        with failing("fsync", code) as fault:
            write(tmp_path / "a.png")
        assert fault.count and (tmp_path / "a.png").read_bytes() == b"new"

    @pytest.mark.parametrize("call", ["write", "fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EXDEV])
    def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, call, code):
        write(tmp_path / "a.png", b"old")
        with failing(call, code), pytest.raises(OutputError) as raised:
            write(tmp_path / "a.png")
        assert str(raised.value) == f"cannot write {tmp_path / 'a.png'}: {os.strerror(code)}"
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        assert isinstance(raised.value, DiskFullError) == full
        assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"

    def test_what_was_written_is_synced_before_it_gets_its_name_and_its_folder_after(self, tmp_path):
        with failing("fsync", errno.EIO, where=".part") as fault, pytest.raises(OutputError):
            write(tmp_path / "a.png")
        assert fault.count == 1 and os.listdir(tmp_path) == []
        with failing("fsync", errno.EIO, after=1) as fault, pytest.raises(OutputError, match="Input/output error"):
            write(tmp_path / "a.png")
        assert fault.count == 1 and os.listdir(tmp_path) == ["a.png"]

    def test_a_folder_that_may_be_written_to_and_not_read(self, as_nobody):
        Path("out").mkdir(mode=0o300)
        write(Path("out/a.png"))
        assert Path("out/a.png").read_bytes() == b"new"

    def test_a_message_never_names_the_temporary_file(self, tmp_path):
        with pytest.raises(OutputError) as raised, atomic_path(tmp_path / "a.png") as partial:
            raise OSError(f"the encoder cannot open {partial}")
        assert str(raised.value).endswith(f"the encoder cannot open {tmp_path / 'a.png'}")

    @pytest.mark.parametrize(("code", "answer"), [(errno.EAGAIN, False), (errno.ENOLCK, None), (errno.EINVAL, None)])
    def test_only_a_lock_that_is_held_means_another_process(self, tmp_path, code, answer):
        with (tmp_path / "lock").open("wb") as stream, failing("flock", code):
            assert try_lock(stream) is answer

    def test_a_lock_that_another_holds(self, tmp_path):
        with (tmp_path / "lock").open("wb") as first, (tmp_path / "lock").open("wb") as second:
            assert (try_lock(first), try_lock(second)) == (True, False)
            first.close()
            assert try_lock(second) is True


class TestWhatKilledProcessesLeft:
    def test_is_removed_and_nothing_else(self, tmp_path):
        killed(tmp_path)
        (tmp_path / ".hidden.part").write_bytes(b"not ours")
        (tmp_path / f".depthcli-{OTHER}-12345678.part").write_bytes(b"of a machine that we cannot ask")
        assert len(os.listdir(tmp_path)) == 4
        assert remove_partials(tmp_path) == 2
        assert sorted(os.listdir(tmp_path)) == [f".depthcli-{OTHER}-12345678.part", ".hidden.part"]

    def test_what_is_being_written_stays(self, tmp_path):
        command = [sys.executable, "-c", WORKING, str(tmp_path)]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout.readline()
        with atomic_path(tmp_path / "mine.png") as partial:
            partial.write_bytes(b"half")
            assert remove_partials(tmp_path) == 0 and len(os.listdir(tmp_path)) == 3
        other.communicate(timeout=20)
        assert sorted(os.listdir(tmp_path)) == ["a.png", "mine.png"]

    def test_process_numbers_and_host_names_mean_nothing(self, tmp_path, monkeypatch):
        """Two containers of one name, in each of which the work is process 1."""
        monkeypatch.setattr(os, "getpid", lambda: 1)
        monkeypatch.setattr("socket.gethostname", lambda: "localhost")
        with atomic_path(tmp_path / "a.png") as partial:
            partial.write_bytes(b"half")
            monkeypatch.setattr(atomic, "_LIFE", atomic._Life())  # the other one
            with atomic_path(tmp_path / "a.png") as other:
                assert other != partial
                assert remove_partials(tmp_path) == 0
                other.write_bytes(b"whole")
        assert (tmp_path / "a.png").read_bytes() == b"half" and os.listdir(tmp_path) == ["a.png"]

    @pytest.mark.parametrize("how", ["another machine", "no locks", "another temporary folder"])
    def test_what_cannot_be_told_stays_for_a_day(self, tmp_path, tmp_path_factory, monkeypatch, how):
        killed(tmp_path)
        if how == "another machine":
            monkeypatch.setattr(atomic, "_machine", lambda: "f" * 12)
        elif how == "another temporary folder":
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("other")))
        fails = errno.ENOLCK if how == "no locks" else errno.EINTR
        with failing("flock", fails, times=float("inf") if how == "no locks" else 0):
            assert remove_partials(tmp_path) == 0 and len(os.listdir(tmp_path)) == 2
            for path in tmp_path.iterdir():
                os.utime(path, (0, 0))
            assert remove_partials(tmp_path) == 2 and os.listdir(tmp_path) == []

    def test_what_earlier_versions_left_goes_after_a_day(self, tmp_path):
        path = tmp_path / ".depthcli-host-123-0a1b2c3d.part"
        path.touch()
        assert remove_partials(tmp_path) == 0
        os.utime(path, (0, 0))
        assert remove_partials(tmp_path) == 1

    def test_a_process_that_cannot_lock_is_not_taken_for_dead(self, tmp_path, monkeypatch):
        with failing("flock", errno.ENOLCK):
            theirs = temporary_path(tmp_path)
        theirs.touch()
        monkeypatch.setattr(atomic, "_LIFE", atomic._Life())
        assert remove_partials(tmp_path) == 0 and theirs.exists()

    def test_a_folder_that_is_not_there_or_may_not_be_read_holds_nothing(self, as_nobody):
        Path("closed").mkdir(mode=0)
        assert [remove_partials(Path(name)) for name in ("nowhere", "closed")] == [0, 0]

    def test_locks_of_processes_that_ended_leave_nothing(self, tmp_path):
        script = "import sys; from pathlib import Path; from depthcli.host.atomic import temporary_path as t; t(Path())"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert os.listdir(tempfile.gettempdir()) == []
        killed(tmp_path)
        (lock,) = Path(tempfile.gettempdir()).glob("*/*")
        temporary_path(tmp_path)
        assert lock.exists()  # it may still be asked for
        os.utime(lock, (0, 0))
        assert atomic._Life().mark() and not lock.exists()

    def test_a_folder_for_locks_that_is_another_users_is_not_used(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        folder = Path(tempfile.gettempdir()) / "depthcli-12345"
        folder.mkdir()
        write(tmp_path / "a.png")
        assert os.listdir(folder) == [] and os.listdir(tmp_path) == ["a.png"]


def test_a_temporary_folder_goes_with_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep/file").touch()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
