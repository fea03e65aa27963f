"""`depth image`: some pictures, each to its files."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.running import RunOptions, run, with_run_options
from depthcli.cli.streams import open_stream, read_stdin
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
    from depthcli.cli.report import say
    from depthcli.io.codecs.outputs import OneStream
    from depthcli.jobs.find import STDIN, Input, LeftOut, find_inputs
    from depthcli.jobs.targets import FILE, Target, plan_pictures

    target = Target.of(output)
    if STDIN in inputs and (len(inputs) != 1 or output is None):
        raise UsageError("- stands for one picture", "say where it goes with -o FILE or -o -")
    left = LeftOut()
    pictures = [Input(Path("stdin"), Path("stdin"))] if STDIN in inputs else find_inputs(inputs, left=left)
    outputs = options.output_spec(target, len(pictures))
    folder = Path() if STDIN in inputs and target.folder is None else target.folder
    tasks = plan_pictures(pictures, folder, template=options.name_template(outputs.formats))
    if STDIN in inputs:
        tasks = [replace(tasks[0], source=read_stdin())]
    else:
        tasks = [replace(task, name=str(task.source)) for task in tasks]
    if target.place == FILE:
        tasks = [replace(tasks[0], stem=target.path)]
    for line in [] if options.quiet else left.lines():
        say(line)
    with ExitStack() as stack:
        if isinstance(outputs, OneStream):
            stream = stack.enter_context(open_stream(str(output)))
            if stream.isatty():
                raise UsageError("a picture would fill the terminal with bytes", "redirect stdout, or give -o FILE")
            outputs = replace(outputs, stream=stream)
            if STDIN in inputs:
                tasks = [replace(tasks[0], name="the picture")]
        run(options, tasks, outputs)
