"""What a service may be told, before it is one."""

from __future__ import annotations

import math
import sys

import pytest

from depthcli.errors import UsageError
from depthcli.jobs.parsing import parse_bytes, parse_duration
from depthcli.serve import settings as module
from depthcli.serve.settings import ServiceSettings, check_installed, is_loopback, read_token


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("1.5k", 1536), ("20GiB", 20 << 30), ("7", 7), ("1tb", 1 << 40)]
)
def test_sizes(text, size):
    assert parse_bytes(text, "disk") == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("24h", 86400), ("0", 0), ("-1", math.inf), ("2d", 172800)]
)
def test_times(text, seconds):
    assert parse_duration(text, "keep") == seconds


@pytest.mark.parametrize("text", ["", "M", "-5M", "1x", "nan", "1 0"])
def test_what_is_neither(text):
    with pytest.raises(UsageError, match="`disk`"):
        parse_bytes(text, "disk")
    with pytest.raises(UsageError, match="`keep`"):
        parse_duration(text or "x", "keep")


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("LOCALHOST", True), ("0.0.0.0", False), ("::", False), ("a.b", False)],
)
def test_which_addresses_only_this_machine_reaches(host, alone):
    assert is_loopback(host) is alone
    if not alone:
        with pytest.raises(UsageError, match="token"):
            ServiceSettings(host=host)
    ServiceSettings(host=host, token="x" * 8)
    ServiceSettings(host=host, no_token=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": 0},
        {"port": 70000},
        {"max_bytes": 0},
        {"keep": math.inf},
        {"input_size": 5},
        {"root_path": "depth"},
        {"galleries": ("nowhere",)},
        {"models": ("tiny", "vits"), "choice": module.ModelChoice(checkpoint="x.pth")},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        ServiceSettings(**wrong)


def test_a_token_is_not_shown():
    assert "secret-token" not in repr(ServiceSettings(token="secret-token"))


def test_the_token_of_the_environment(monkeypatch):
    monkeypatch.setenv("DEPTH_TOKEN", " abcdefgh\n")
    assert read_token(None) == "abcdefgh"


def test_a_missing_extra_is_one_line(depth, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr(module, "OLDEST_PYTHON", (3, 9))
    ran = depth("serve")
    assert ran.code == 2 and 'pip install "depthcli[serve]"' in ran.error


def test_an_old_python_is_one_line(depth, monkeypatch):
    monkeypatch.setattr(module, "OLDEST_PYTHON", (9, 0))
    with pytest.raises(UsageError, match=r"needs Python 9\.0 or newer"):
        check_installed()
    assert depth("serve").code == 2
