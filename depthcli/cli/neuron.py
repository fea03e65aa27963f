"""`depth neuron`: what a machine has for AWS Inferentia."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from typing import Optional

import typer

from depthcli.cli.report import say
from depthcli.errors import EngineError

app = typer.Typer(help="look at what this machine has for AWS Inferentia.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Look at what this machine has for AWS Inferentia."""


@app.command("doctor")
def doctor() -> None:
    """Report versions, devices and cores, and compile and run a small network where that can be.

    Leaves with 0 where all of it works, and with 5 where something is missing; the report says what.
    Compiling takes minutes. Paste the report into an issue: nobody has run this on a device so far.
    """
    raise typer.Exit(report())


def report(target: Optional[str] = None) -> int:
    """Print what is found for a target, by default that of this machine, and return the exit code."""
    from depthcli.jobs.neuron_doctor import examine

    bad = 0
    for finding in examine(say, target):
        mark = {True: "ok", False: "NO", None: "  "}[finding.good]
        print(f"{mark}  {finding.name}: {finding.value}", flush=True)
        bad += finding.good is False
    return EngineError.exit_code if bad else 0
