"""`depth` itself: help for every command, the version, and one way to end for each kind of error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli import errors
from depthcli.cli import app
from depthcli.host import graph_cache
from depthcli.version import __version__
from tests.conftest import TINY, environment, files, photo
from tests.io.video.clips import make_clip


def test_help_needs_no_torch_and_the_modules_of_no_command():
    code = "import sys; from depthcli.cli.app import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, check=True).stdout
    assert not {b"torch", b"numpy", b"cv2", b"PIL"} & set(out.splitlines()[-1].split())


def test_no_command_at_all_shows_the_help(depth):
    ran = depth()
    assert ran.code in (0, 2) and "Usage: " in ran.out + ran.err


def test_version(depth):
    assert depth("--version").lines == [f"depthcli {__version__}"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("imag", "a.jpg"),
        ("image",),
        ("dir",),
        ("image", "a.jpg", "--nonsense"),
        ("image", "a.jpg", "--batch", "two"),
        ("image", "a.jpg", "--max-depth", "far"),
        ("dir", "a", "b"),
        ("bench", "a"),
        ("models", "pull"),
    ],
    ids=" ".join,
)
def test_what_was_typed_wrong_is_code_2(depth, arguments):
    ran = depth(*arguments)
    assert (ran.code, ran.out) == (2, "") and "Error" in ran.err


def test_each_kind_of_error_has_its_exit_code():
    codes = {
        errors.UsageError: 2,
        errors.PictureError: 1,
        errors.OutputError: 1,
        errors.DiskFullError: 1,
        errors.ModelError: 4,
        errors.CheckpointError: 4,
        errors.DownloadError: 4,
        errors.EngineError: 5,
    }
    assert {kind: kind("message").exit_code for kind in codes} == codes
    assert (errors.SOME_FAILED, errors.INTERRUPTED) == (3, 130)


def test_a_file_without_a_command_is_done_by_the_command_that_takes_it(depth):
    photo("my photo.jpg")
    photo("photos/a.jpg")
    make_clip(Path("clip.mp4"), frames=2)
    assert depth("my photo.jpg", *TINY).lines == ["my photo_depth.png"]
    assert depth("my photo.jpg", "photos/a.jpg", "-o", "out", "-f", "npz", *TINY).lines == [
        "out/my photo_depth.npz",
        "out/a_depth.npz",
    ]
    assert depth("photos", *TINY).lines == ["photos_depth/a_depth.png"]
    assert depth("clip.mp4", "-f", "npz", "--offline", *TINY).lines == ["clip_depth_npz"]
    ran = depth("gone.jpg")
    assert ran.code == 1 and ran.error == "error: gone.jpg does not exist (check the path)"


def test_an_address_in_place_of_a_command_has_to_be_downloaded_first(depth):
    ran = depth("https://example.org/a.jpg")
    hint = "download it first: curl -fLo a.jpg https://example.org/a.jpg"
    assert ran.code == 2 and ran.error.endswith(f"({hint})")


def test_a_misspelt_command_names_the_near_one(depth):
    ran = depth("imag", "a.jpg")
    assert ran.code == 2 and "No such command 'imag'" in ran.err and "image" in ran.err.partition("imag'")[2]


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OddError("first\nsecond"),
            "error: unexpected OddError: first (set DEPTHCLI_DEBUG=1 for the traceback, and please report it)",
        ),
        (RecursionError("too deep"), "error: unexpected RecursionError: too deep (set DEPTHCLI_DEBUG=1"),
        (KeyError("x"), "error: unexpected KeyError: 'x' (set DEPTHCLI_DEBUG=1"),
        (AssertionError(), "error: unexpected AssertionError: AssertionError (set DEPTHCLI_DEBUG=1"),
        (MemoryError(), "error: not enough memory ("),
        (PermissionError(13, "Permission denied", "/a/b"), "error: /a/b: Permission denied"),
        (OSError("odd"), "error: odd"),
    ],
    ids=repr,
)
def test_an_error_that_nobody_foresaw_is_one_line(depth, monkeypatch, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr("depthcli.zoo.locate.inventory", fail)
    ran = depth("models", "list")
    assert (ran.code, ran.out) == (5 if isinstance(error, MemoryError) else 1, "") and ran.error.startswith(line)


def test_a_size_that_does_not_compile_leaves_the_others(depth, monkeypatch):
    from depthcli.backends import torchscript

    real = torchscript.export

    def export(network, shape, *rest):
        if shape[1] == 28:
            raise errors.EngineError("the engine failed")
        return real(network, shape, *rest)

    monkeypatch.setattr(torchscript, "export", export)
    command = ("compile", "--target", "torchscript", "--encoder", "tiny", "-o", "nets/", "--size")
    ran = depth(*command, "28x28,42x42")
    assert ran.code == 3 and ran.err.startswith("error: 28x28: the engine failed") and len(ran.lines) == 2
    assert depth(*command, "28x28").code == 5 and depth(*command, "28x28,28x42").code == 5


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), ImportError("x")], ids=repr)
def test_the_traceback_of_such_an_error_can_be_had(depth, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("depthcli.zoo.locate.inventory", fail)
    monkeypatch.setenv("DEPTHCLI_DEBUG", "1")
    with pytest.raises(type(error)):
        depth("models", "list")


@pytest.mark.parametrize("home", [None, "", "not/absolute"])
def test_without_a_home_there_is_no_cache_and_one_line_says_so(depth, monkeypatch, home):
    from huggingface_hub import constants

    def nobody(number):
        raise KeyError(number)

    for name in ("HOME", "DEPTHCLI_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if home is None:
        monkeypatch.setattr("pwd.getpwuid", nobody)
    else:
        monkeypatch.setenv("HOME", home)
    if home == "not/absolute":  # which the cache of the networks does not follow, and must not fill here
        monkeypatch.setattr("depthcli.host.graph_cache.cache_folder", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    photo("a.png")
    ran = depth("image", "a.png", "--backend", "auto", *TINY)
    assert (ran.code, ran.lines) == (0, ["a_depth.png"])
    assert ran.err in ("", f"the network was not kept and will be converted again: {graph_cache.NO_FOLDER}\n")
    ran = depth("models", "cache")
    assert (ran.code, ran.out, ran.err) == (0, "", f"{graph_cache.NO_FOLDER}\n")
    assert depth("models", "cache", "--clear").code == depth("models", "list").code == 0
    ran = depth("models", "pull", "vits")
    assert ran.code == 4 and "there is no home directory to keep it in (set HOME or HF_HOME)" in ran.error
    assert files() == ["a.png", "a_depth.png"]


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "cp1252", "latin-1", "utf-8", "utf-16"])
def test_every_character_can_be_printed_whatever_the_encoding(tiny_weights, one_thread, monkeypatch, encoding):
    names = ["日本 é·°.png", "plain.png", "😀.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        photo(f"in/{name}")

    def run(*arguments):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "argv", ["depth", *arguments])
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            app.run()
        out, err = (stream.buffer.getvalue() for stream in streams if not stream.flush())
        assert b"unexpected" not in err
        return ended.value.code or 0, out

    code, out = run("dir", "in", "-o", "out", "--json", *TINY)
    rows = [json.loads(line) for line in out.decode(encoding).splitlines()]
    assert code == 0 and {row["input"] for row in rows[:-1]} == set(names)
    code, out = run("image", *(f"in/{name}" for name in names), "-o", "new", *TINY)
    assert code == 0 and len(out.decode(encoding, "replace").splitlines()) == 4
    assert run("image", "missing 日本.png", *TINY)[0] == 1
    for command in ((), ("image",), ("dir",), ("video",)):
        assert run(*command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("image - -o - <&-", "there is no stdin: the process was started with it closed"),
        ("image a.png -o - >&-", "there is no stdout: the process was started with it closed"),
    ],
)
def test_a_picture_for_a_closed_stream_is_one_line(tiny_weights, command, line):
    photo("a.png")
    command = f"{sys.executable} -m depthcli {command} --encoder tiny"
    ran = subprocess.run(["sh", "-c", command], env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert ran.returncode == 1 and ran.stderr.decode().startswith(f"error: {line}")
    assert len(ran.stderr.splitlines()) == 1


def test_a_working_folder_that_is_gone_is_one_line(depth):
    photo("a.png")
    picture = Path("a.png").resolve()
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    ran = depth("dir", ".")
    assert ran.code == 1 and ran.error == "error: the working folder has been removed (change to another one)"
    assert depth("models", "list").code == 0
    assert depth("image", picture, "-o", picture.parent / "out", "--checkpoint", picture, *TINY).code == 4


def test_signals_that_are_ignored_stay_ignored(tiny_weights):
    """As after nohup, or in the background of a script."""
    photo("a.png")
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from depthcli.cli.report import stop_signals\n"
        "with stop_signals(quiet=False) as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert not stop.asked\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert stop.asked\n"
        "assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN\n"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True).returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_whose_streams_are_closed_ends_well(closed, tiny_weights):
    photo("a.png")
    command = f"{sys.executable} -m depthcli image a.png --encoder tiny --input-size 56 {closed}"
    assert subprocess.run(["sh", "-c", command], env=environment(), stdout=subprocess.DEVNULL).returncode == 0
    assert Path("a_depth.png").exists()
