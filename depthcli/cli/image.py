"""`depth image`: pictures, each to its files."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from depthcli.cli.groups import grouped
from depthcli.cli.options import Output, PictureOptions, PictureOutput
from depthcli.cli.running import open_model, run
from depthcli.cli.streams import binary_stdout, is_stdout, read_stdin
from depthcli.errors import OutputError, UsageError

_OVERWRITE = PictureOptions(output=PictureOutput(if_exists="overwrite"))


@grouped()
def image(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Pictures, folders, globs, .txt lists, or - for stdin."),
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
    from depthcli.cli.report import log
    from depthcli.jobs.inputs import LeftOut, check_output, expand, is_device, means_file, plan_tasks

    if output is not None:
        check_output(output)
    if output is not None and (output == "-" or is_stdout(output)):
        _to_stream(options, inputs, binary_stdout(), "stdout")
        return
    if output is not None and is_device(output):
        with open(output, "wb") as stream:
            _to_stream(options, inputs, stream, output)
        return
    file = output if output and means_file(output) else None
    folder = Path(output) if output and file is None else None
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{output} is a file, not a folder", "use another -o")
    spec = options.output.spec(file)
    name = None if file else options.output.result_name(spec.formats)
    left = LeftOut()
    if "-" in inputs:
        if len(inputs) != 1 or output is None:
            raise UsageError("- stands for one picture", "name the result with -o FILE or -o -")
        (task,) = plan_tasks([(Path("stdin"), Path("stdin"))], folder or Path(), name=name)
        tasks = [replace(task, source=read_stdin())]
    else:
        pairs = expand(inputs, left)
        if file and len(pairs) != 1:
            raise UsageError(f"{len(pairs)} pictures do not fit into one file {output}", "give a folder with -o")
        tasks = [replace(task, name=str(task.source)) for task in plan_tasks(pairs, folder, name=name)]
    if file:
        tasks = [replace(tasks[0], stem=Path(file))]
    if str(left) and not options.report.quiet:
        log(str(left))
    run(options, tasks, spec)


def _to_stream(options: PictureOptions, inputs: list[str], stream: BinaryIO, name: str) -> None:
    """Write the result of one picture to stdout, or to a pipe or device, which cannot be replaced by a whole file."""
    from depthcli.cli.report import log
    from depthcli.io.codecs.files import write_still
    from depthcli.io.codecs.formats import STILLS
    from depthcli.io.pictures.images import read_picture
    from depthcli.jobs.inputs import check_no_address

    spec = options.output.spec()
    if len(inputs) != 1:
        raise UsageError(f"{name} cannot hold several pictures", "give a folder with -o")
    if len(spec.formats) > 1:
        raise UsageError(f"{name} cannot hold several formats", "give one --format")
    if options.report.as_json:
        raise UsageError(f"{name} cannot hold a picture and JSON", "leave out --json, or give -o FILE")
    if options.output.template is not None:
        raise UsageError(f"--name does not apply to {name}", "leave out --name, or give a folder with -o")
    if stream.isatty():
        raise UsageError("a picture would fill the terminal with bytes", "redirect stdout, or give -o FILE")
    check_no_address(inputs[0])
    picture = read_picture(read_stdin() if inputs[0] == "-" else inputs[0], keep_alpha=options.output.keep_alpha)
    with open_model(options.model, options.backend, options.network) as estimator:
        depth = estimator.estimate(picture)
    for warning in (*picture.warnings, *spec.warnings(depth)):
        log(f"warning: {warning}")
    whole = io.BytesIO()
    write_still(STILLS[spec.formats[0]], depth, whole, spec.colormap, picture.rgb)
    try:
        stream.write(whole.getvalue())
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror}") from error
