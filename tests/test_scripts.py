"""The example for an Inf1 machine does with each exit code what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "inf1-folder.sh"


@pytest.mark.parametrize(
    ("codes", "ends", "calls"),
    [("0", 0, 1), ("3", 3, 1), ("4", 4, 1), ("130", 130, 1), ("5 0", 0, 2), ("5 5 3", 3, 3), ("5 5 5 0", 5, 3)],
)
def test_it_goes_on_where_that_makes_sense(codes: str, ends: int, calls: int) -> None:
    fake = Path("depth")
    fake.write_text(
        '#!/bin/sh\necho "$@" >> calls\nset -- $(cat codes)\ncode=$1\nshift\necho "$@" > codes\nexit $code\n'
    )
    fake.chmod(0o755)
    Path("codes").write_text(codes)
    environment = {"PATH": "/usr/bin:/bin", "DEPTH": "./depth", "PAUSE": "0"}
    command = ["sh", str(SCRIPT), "in put", "maps", "--encoder", "vits"]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == ends
    lines = Path("calls").read_text().splitlines()
    assert len(lines) == calls and "dir in put -o maps --backend neuron" in lines[0] and lines[0].endswith("vits")
