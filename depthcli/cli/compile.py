"""`depth compile`: a model as a file that other programs run."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.errors import UsageError


def compile_command(
    target: Annotated[str, typer.Option(help="What to write: onnx or openvino.", rich_help_panel=opt.OUTPUT_PANEL)],
    size: Annotated[
        Optional[str],
        typer.Option(
            metavar="HxW",
            help="Height and width of the network's input, multiples of 14. Default: the model's own size, square.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", help="Pictures at once.", rich_help_panel=opt.OUTPUT_PANEL)
    ] = 1,
    output: Annotated[
        Optional[Path],
        typer.Option(
            "--output",
            "-o",
            help="The file, or a folder for it. Default: MODEL_HxW with the target's suffix, here.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    encoder: opt.Encoder = "auto",
    metric: opt.Metric = None,
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    max_depth: opt.MaxDepth = None,
    offline: opt.Offline = False,
    trust_checkpoint: opt.TrustCheckpoint = False,
) -> None:
    """Write a model as a file that needs none of this program to run.

    The file is run once and compared with torch before it gets its name. What goes in and what comes out is described
    in its metadata and in a .json beside it. For depthcli's own engines nothing needs to be compiled beforehand.

    Examples: depth compile --target onnx --encoder vits --size 518x686 · depth compile --target openvino -o nets/
    """
    from depthcli.cli.report import say
    from depthcli.estimator import ModelChoice, resolve_model
    from depthcli.jobs.compiling import TARGETS, CompileJob, check_target, compile_model
    from depthcli.zoo import PATCH

    parsed = None if size is None else _parse_size(size)
    check_target(target, *(parsed or (PATCH, PATCH)), batch)  # before anything is downloaded
    choice = ModelChoice(model, encoder, metric, checkpoint, max_depth, offline, trust_checkpoint)
    row, weights = resolve_model(choice, say)
    height, width = parsed or (row.input_size, row.input_size)
    name = f"{row.name}_{height}x{width}" + (f"_b{batch}" if batch > 1 else "")
    if output is None or output.is_dir() or not output.suffix:
        output = (output or Path()) / (name + TARGETS[target].suffixes[0])
    compiled = compile_model(CompileJob(target, row, weights, height, width, batch, output, trust_checkpoint))
    for path in compiled.paths:
        print(path)
    say(f"differs from torch by {compiled.difference:.1e} of the maximum")


def _parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise UsageError(f"{size!r} is no size of an input", "give --size as 518x686: height x width")
    return int(match[1]), int(match[2])
