"""`depth image`: some pictures, each to its files."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
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
    from depthcli.jobs.inputs import expand, plan_tasks

    if "-" in inputs or output == "-":
        _through_pipes(options, inputs, output)
        return
    pairs = expand(inputs)
    if output and _file_suffix(output):
        if len(pairs) != 1:
            raise UsageError(f"{len(pairs)} pictures do not fit into one file {output}", "give a folder with -o")
        _to_one_file(options, pairs[0][0], Path(output))
    if output and Path(output).is_file():
        raise UsageError(f"{output} is a file, not a folder", "use another -o")
    run(options, plan_tasks(pairs, Path(output) if output else None), options.output_spec())


def _file_suffix(output: str) -> str:
    """Return the suffix of -o where it means a file; empty for a folder, which is there or ends with /, and for -."""
    return "" if output.endswith(("/", os.sep)) or Path(output).is_dir() else Path(output).suffix.lower()


def _to_one_file(options: RunOptions, source: Path, target: Path) -> None:
    """Run one picture into the very file that was named, and leave."""
    from depthcli.io.writers import OneFile
    from depthcli.jobs.inputs import Task

    spec = options.output_spec(target.suffix.lower())
    run(options, [Task(source, str(source), target)], OneFile(spec.formats, spec.colormap))


def _through_pipes(options: RunOptions, inputs: list[str], output: Optional[str]) -> None:
    """Read the picture from stdin, or write the result to stdout, or both."""
    import io
    import sys

    from depthcli.cli.report import say
    from depthcli.estimator import open_picture
    from depthcli.io.writers import FORMATS, OneFile

    if len(inputs) != 1 or output is None:
        raise UsageError("- stands for one picture", "say where it goes with -o FILE or -o -")
    suffix = _file_suffix(output)
    spec = options.output_spec(suffix)
    if output == "-" and len(spec.formats) > 1:
        raise UsageError("stdout cannot hold several formats", "give one --format")
    if output == "-" and sys.stdout.isatty():
        raise UsageError("a picture would fill the terminal with bytes", "redirect stdout, or give -o FILE")
    picture = open_picture(sys.stdin.buffer.read() if inputs[0] == "-" else inputs[0])
    talk = (lambda line: None) if options.quiet else say
    with options.load(talk) as estimator:
        depth = estimator.estimate(picture)
    if output == "-":
        buffer = io.BytesIO()
        FORMATS[spec.formats[0]].write(depth, picture.rgb, buffer, spec.colormap)
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
        return
    target = Path(output) if suffix else Path(output) / "stdin"
    spec = OneFile(spec.formats, spec.colormap) if suffix else spec
    paths = spec.paths(target)
    spec.write(depth, picture.rgb, paths)
    if not options.quiet:
        for path in paths:
            print(path)
