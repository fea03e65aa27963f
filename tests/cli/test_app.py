"""`depth` itself: help for every command, the version, and one way to end for each kind of error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from depthcli import errors
from depthcli.version import __version__
from tests.conftest import environment, photo

SCREENS = ("list", "pull", "verify", "path", "cache")
ALONE = ("image", "dir", "eval", "bench", "compile", "models", "neuron")
COMMANDS = [(), *((name,) for name in ALONE), *(("models", name) for name in SCREENS), ("neuron", "doctor")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(depth, command, flag):
    ran = depth(*command, flag)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: " in ran.out and "--help" in ran.out


@pytest.mark.parametrize("command", ["image", "dir"])
def test_every_option_has_its_sentence(depth, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    options = (
        "--encoder --metric --model --checkpoint --max-depth --offline --input-size --device --backend --precision"
        " --batch --output --format --colormap --grayscale --pred-only --if-exists --json --quiet --verbose"
    ).split() + (["--include", "--exclude", "--dry-run"] if command == "dir" else [])
    lines = depth(command, "--help").lines
    for option in options:
        (line,) = (line for line in lines if option in line.split()[:3])
        assert "." in line


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


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_whose_streams_are_closed_ends_well(closed, tiny_weights):
    photo("a.png")
    command = f"{sys.executable} -m depthcli image a.png --encoder tiny --input-size 56 {closed}"
    assert subprocess.run(["sh", "-c", command], env=environment(), stdout=subprocess.DEVNULL).returncode == 0
    assert Path("a_depth.png").exists()
