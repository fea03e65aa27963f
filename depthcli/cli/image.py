"""`depth image`: some pictures, each to its files."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.running import RunOptions, run, with_run_options
from depthcli.errors import UsageError


@with_run_options(if_exists="overwrite")
def image(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Pictures, folders, globs, .txt lists of paths, or - for a picture on stdin."
        ),
    ],
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            help="A file (for one picture), a folder that is made, or - for stdout. Default: beside each picture.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Estimate the depth of pictures.

    Without a metric model the numbers are disparity: larger is nearer, without a unit, comparable inside one picture.
    The paths of the files written go to stdout.

    Examples: depth image photo.jpg · depth image *.jpg -o out -f gray,npz · depth image - -o - < a.jpg > b.png
    """
    from depthcli.io.writers import OneFile
    from depthcli.jobs.inputs import Task, expand, plan_tasks

    if output == "":
        raise UsageError("-o is empty", "is a variable of your script unset?")
    if output == "-":
        _to_stdout(options, inputs)
        return
    suffix = _file_suffix(output) if output else ""
    if "-" in inputs:
        if len(inputs) != 1 or output is None:
            raise UsageError("- stands for one picture", "say where it goes with -o FILE or -o -")
        tasks = [Task(sys.stdin.buffer.read(), "stdin", Path(output) if suffix else Path(output) / "stdin")]
    else:
        pairs = expand(inputs)
        if suffix and len(pairs) != 1:
            raise UsageError(f"{len(pairs)} pictures do not fit into one file {output}", "give a folder with -o")
        planned = plan_tasks(pairs, Path(output) if output and not suffix else None)
        tasks = [replace(task, name=str(task.source)) for task in planned]
        if output and suffix:
            tasks = [replace(tasks[0], stem=Path(output))]
    if output and not suffix and Path(output).is_file():
        raise UsageError(f"{output} is a file, not a folder", "use another -o")
    spec = options.output_spec(suffix)
    run(options, tasks, OneFile(spec.formats, spec.colormap) if suffix else spec)


def _file_suffix(output: str) -> str:
    """Return the suffix of -o where it means a file; empty for a folder, which is there or ends with /, and for -."""
    return "" if output.endswith(("/", os.sep)) or Path(output).is_dir() else Path(output).suffix.lower()


def _to_stdout(options: RunOptions, inputs: list[str]) -> None:
    """Write the result of one picture to stdout."""
    from depthcli.cli.report import say
    from depthcli.estimator import open_picture
    from depthcli.io.writers import FORMATS

    spec = options.output_spec()
    if len(inputs) != 1:
        raise UsageError("stdout cannot hold several pictures", "give a folder with -o")
    if len(spec.formats) > 1:
        raise UsageError("stdout cannot hold several formats", "give one --format")
    if options.as_json:
        raise UsageError("stdout cannot hold a picture and JSON", "leave out --json, or give -o FILE")
    if sys.stdout.isatty():
        raise UsageError("a picture would fill the terminal with bytes", "redirect stdout, or give -o FILE")
    picture = open_picture(sys.stdin.buffer.read() if inputs[0] == "-" else inputs[0])
    with options.load() as estimator:
        depth = estimator.estimate(picture)
    for warning in spec.warnings(depth):
        say(f"warning: {warning}")
    whole = io.BytesIO()
    FORMATS[spec.formats[0]].write(depth, picture.rgb, whole, spec.colormap)
    sys.stdout.buffer.write(whole.getvalue())
    sys.stdout.buffer.flush()
