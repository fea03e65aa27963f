"""`depth image`: pictures, each to its files."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.cli.groups import grouped
from depthcli.cli.options import Output, PictureOptions, PictureOutput
from depthcli.cli.running import open_early, run
from depthcli.cli.streams import open_stream, read_stdin
from depthcli.errors import UsageError

if TYPE_CHECKING:
    from depthcli.predict.early import EarlyBackend

_OVERWRITE = PictureOptions(output=PictureOutput(if_exists="overwrite"))


@grouped()
def image(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Pictures, folders, globs, .txt lists, or - for stdin.")
    ],
    output: Output = None,
    *,
    options: PictureOptions = _OVERWRITE,
) -> None:
    """Estimate the depth of pictures.

    depth image photo.jpg                      writes photo_depth.png: red is near
    depth image *.jpg -o out -f gray,npz       a 16-bit PNG and float32 numbers for each, in out/
    depth image - -o - < in.jpg > depth.png    from stdin to stdout

    Values are relative: larger is nearer, without a unit. With --metric they are metres.
    """
    with open_early(options, inputs) as early:  # before the imports below, which take as long
        estimate(inputs, output, options, early)


def estimate(
    inputs: list[str], output: Optional[str], options: PictureOptions, early: "Optional[EarlyBackend]"
) -> None:
    """Do the pictures, report them, and leave with the exit code. early: see `open_early`."""
    from depthcli.cli.report import log
    from depthcli.io.codecs.outputs import OneStream
    from depthcli.io.names import STDIN
    from depthcli.jobs.find import Input, LeftOut, find_inputs
    from depthcli.jobs.targets import FILE, Target, plan_pictures

    target = Target.of(output)
    if STDIN in inputs and (len(inputs) != 1 or output is None):
        raise UsageError("- stands for one picture", "name the result with -o FILE or -o -")
    left = LeftOut()
    pictures = [Input(Path("stdin"), Path("stdin"))] if STDIN in inputs else find_inputs(inputs, left=left)
    outputs = options.output_spec(target, len(pictures))
    folder = Path() if STDIN in inputs and target.folder is None else target.folder
    tasks = plan_pictures(pictures, folder, template=options.output.name_template(outputs.formats))
    if STDIN in inputs:
        tasks = [replace(tasks[0], source=read_stdin())]
    if target.place == FILE:
        tasks = [replace(tasks[0], stem=target.path)]
    for line in [] if options.report.quiet else left.lines():
        log(line)
    with ExitStack() as stack:
        if isinstance(outputs, OneStream):
            stream = stack.enter_context(open_stream(str(output)))
            if stream.isatty():
                raise UsageError("a picture would fill the terminal with bytes", "redirect stdout, or give -o FILE")
            outputs = replace(outputs, stream=stream)
            if STDIN in inputs:
                tasks = [replace(tasks[0], name="the picture")]
        run(options, tasks, outputs, early=early)
