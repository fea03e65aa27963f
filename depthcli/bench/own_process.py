"""A command as a process of its own, timed from its start to its end, with its peak of memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

# A process passes its own peak of memory on to those it starts, so a small one stands between us and the command.
_RUNNER = """\
import json, os, signal, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: process.terminate())
peak = None
if hasattr(os, "wait4"):
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
else:
    process.wait()
print(json.dumps([process.returncode, time.perf_counter() - started, peak]))
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended. seconds: from its start to its end; peak: bytes of resident memory, or None."""

    seconds: float
    peak: Optional[int]
    error: str = ""


def run_alone(arguments: Sequence[str]) -> Ended:
    """Run `depth` with these arguments as a process of its own, and time it."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-I", "-S", "-c", _RUNNER, sys.executable, "-m", "depthcli", *arguments]
    runner = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        out, err = runner.communicate()
    except BaseException:  # we are interrupted: the command is not to go on without us
        runner.terminate()
        runner.communicate()
        raise
    says = [line for line in err.splitlines() if line.strip()] or ["it ended without a word"]
    if runner.returncode or not out:
        return Ended(0.0, None, says[-1])
    code, seconds, peak = json.loads(out)
    return Ended(seconds, peak, re.sub("^error: ", "", says[-1]) if code else "")
