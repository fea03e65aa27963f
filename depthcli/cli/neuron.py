"""`depth neuron`: what this machine has for AWS Inferentia."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from typing import Optional

import typer

from depthcli.cli.groups import PlainCommand, PlainGroup
from depthcli.cli.report import log
from depthcli.cli.wording import worded
from depthcli.errors import EngineError

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """Check this machine for AWS Inferentia."""


@app.command("doctor", cls=PlainCommand)
def doctor() -> None:
    """Report versions, devices and cores, then compile and run a small network.

    Compiling takes minutes. Exit code 0 if all of it works, 5 if something is missing; the report says what.
    The neuron backend is not yet tested on hardware: please send the report of such a machine.
    """
    raise typer.Exit(print_findings())


def print_findings(target: Optional[str] = None) -> int:
    """Print what is found for a target, by default that of this machine, and return the exit code."""
    from depthcli.jobs.neuron_doctor import examine

    bad = 0
    for finding in examine(log, target):
        mark = {True: "ok", False: "NO", None: "  "}[finding.good]
        print(f"{mark}  {finding.name}: {worded(finding.value)}", flush=True)
        bad += finding.good is False
    return EngineError.exit_code if bad else 0
