"""Run a command in a separate process, and measure its time and its peak of memory."""

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

# A process inherits the peak of memory of its parent, so a small one starts the command.
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
    """The end of a process. seconds: its duration; peak: bytes of resident memory, or None."""

    seconds: float
    peak: Optional[int]
    error: str = ""


def run_alone(arguments: Sequence[str]) -> Ended:
    """Run `depth` with these arguments in a separate process, and time it."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-I", "-S", "-c", _RUNNER, sys.executable, "-m", "depthcli", *arguments]
    pipe, env = subprocess.PIPE, {**os.environ, "PYTHONPATH": path}
    runner = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=env)
    try:
        out, err = runner.communicate()
    except BaseException:  # interrupted: the command must end too
        runner.terminate()
        runner.communicate()
        raise
    lines = [line for line in err.splitlines() if line.strip()] or ["it ended without a message"]
    if runner.returncode or not out:
        return Ended(0.0, None, lines[-1])
    code, seconds, peak = json.loads(out)
    return Ended(seconds, peak, re.sub("^error: ", "", lines[-1]) if code else "")
