"""Option groups: a command's signature is composed of them, and its texts become values."""

# No `from __future__ import annotations` here: a command's annotations are read when it is composed.

import inspect
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated

import pytest

from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.cli.groups import ADVANCED, completer, flag, grouped, option
from depthcli.cli.options import BackendOptions, ModelOptions
from depthcli.cli.wording import worded
from depthcli.errors import UsageError
from depthcli.jobs.parsing import parse_list, parse_range, parse_rate, parse_seconds, parse_size
from tests.conftest import environment


@dataclass(frozen=True)
class Inner:
    rare: Annotated[bool, flag("Rare.", "--rare", panel=ADVANCED)] = False
    size: Annotated[int, option("Size.")] = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    word: Annotated[str, option("Word.")] = "a"


def test_a_command_gets_its_groups_as_values():
    made = []

    @grouped(without=("word",))
    def command(name: Annotated[str, option("Name.")] = "x", *, group: Outer = Outer(Inner(size=5), "b")) -> None:
        made.append((name, group))

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["name", "size", "rare"]  # those of the panel Advanced last
    assert parameters["size"].default == 5
    command(name="y", size=7, rare=True)
    assert made == [("y", Outer(Inner(True, 7), "b"))]


def test_a_group_makes_its_choice():
    assert ModelOptions().choice() == ModelChoice() and BackendOptions().choice() == BackendChoice()
    assert ModelOptions(trust=True, max_depth=3.0).choice() == ModelChoice(trust=True, max_depth=3.0)
    with pytest.raises(UsageError, match="`backend`"):
        BackendOptions(backend="tpu").choice()


def test_lists_with_commas_complete_at_their_last_name():
    complete = completer(("color", "gray", "gray8"))
    assert complete("") == ["color", "gray", "gray8"] and complete("gray,g") == ["gray,gray8"]


def test_a_setting_is_worded_as_its_flag():
    text = '`input_size` `formats` `output` `trust` `value_range` `scenes` `template` `backends` `unknown` "`a b`"'
    flags = '--input-size --format -o --trust-checkpoint --range --scene --name --backend `unknown` "`a b`"'
    assert worded(text) == flags


def test_texts_become_values():
    assert parse_seconds("1:02:03.5") == Fraction(7447, 2) and parse_seconds("90") == 90 and parse_seconds(None) is None
    assert parse_rate("24000/1001") == Fraction(24000, 1001) and parse_range("0,80") == (0.0, 80.0)
    assert parse_size("640x480", "picture", "640x480") == (640, 480)
    assert parse_list(["a, b", "c,"]) == ("a", "b", "c") and parse_list(None) == ()
    for parse, text in ((parse_seconds, "soon"), (parse_rate, "0"), (parse_range, "5"), (parse_range, "a,b")):
        with pytest.raises(UsageError, match=text):
            parse(text)
    for text in ("0x5", "640", "640x", "123456x1"):
        with pytest.raises(UsageError, match="give `size` as 1x1"):
            parse_size(text, "size", "1x1")


CODE = """
import sys
from depthcli.cli.app import app
from depthcli.cli import image
image.run = lambda options, tasks, outputs, early: print(repr((options, len(tasks))))
open("a.jpg", "wb").close()
app(["image", "a.jpg", "-o", "out", "-f", "gray,npz", "--checkpoint", "c.pth", "--batch", "12", *sys.argv[1:]],
    standalone_mode=False)
print("pydantic" in sys.modules)
"""


def test_plain_values_are_read_without_pydantic():
    def run(*more: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", CODE, *more], env=environment(), stdout=subprocess.PIPE, check=True, text=True
        ).stdout.splitlines()

    read, loaded = run()
    assert "formats=['gray,npz']" in read and "batch=12" in read and "Path('c.pth')" in read.replace("Posix", "")
    assert loaded == "False"
    assert "max_depth=2.5" in run("--max-depth", "2.5")[0]  # Typer reads what is no plain value
