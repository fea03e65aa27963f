"""`depth compile`: a model as a file that other programs run, or the engines for compiled networks."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.neuron import report
from depthcli.errors import SOME_FAILED, EngineError, UsageError

NEURON_PANEL = "AWS Inferentia"


def compile_command(
    target: Annotated[
        str,
        typer.Option(
            help="What to write: torchscript, onnx, openvino, or for AWS's chips inf1, inf2 or trn1.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ],
    size: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="HxW",
            help="Height and width of the network's input, multiples of 14; a file for each. Repeat it or separate "
            "with commas. Default: the model's own size, square.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    preset: Annotated[
        Optional[str],
        typer.Option(
            help="common: the sizes of square, 4:3, 3:2 and 16:9 pictures, landscape and portrait.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    from_dir: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="The sizes that the pictures in this folder ask for.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", help="Pictures at once.", rich_help_panel=opt.OUTPUT_PANEL)
    ] = 1,
    analyze_only: Annotated[
        bool,
        typer.Option(
            "--analyze-only",
            help="Write nothing; say whether the network would compile for one of AWS's chips. Exit code 5 if not.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = False,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "--out",
            "-o",
            help="The file, or a folder for MODEL_HxW with the target's suffix. Default: this folder; "
            "checkpoints/compiled for torchscript, where depth looks for it.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Compile and run a small network of random weights for the target, write nothing, and report.",
            rich_help_panel=NEURON_PANEL,
        ),
    ] = False,
    fast_math: Annotated[
        Optional[str],
        typer.Option(
            help="How the compiler rounds. inf1: fp32-cast-matmult (default), fp32-cast-matmult-no-fast-relayout, all, "
            "none; inf2 and trn1: matmult (default), all, none.",
            rich_help_panel=NEURON_PANEL,
        ),
    ] = None,
    workdir: Annotated[
        Optional[Path],
        typer.Option(metavar="FOLDER", help="Keep what the compiler writes here.", rich_help_panel=NEURON_PANEL),
    ] = None,
    timeout: Annotated[
        int, typer.Option(help="Seconds that neuron-cc may take, for inf1.", rich_help_panel=NEURON_PANEL)
    ] = 4 * 3600,
    allow_cpu_ops: Annotated[
        bool,
        typer.Option(
            "--allow-cpu-ops",
            help="Leave operators that do not compile to the CPU, which is slow.",
            rich_help_panel=NEURON_PANEL,
        ),
    ] = False,
    encoder: opt.Encoder = "auto",
    metric: opt.Metric = None,
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    max_depth: opt.MaxDepth = None,
    offline: opt.Offline = False,
    trust_checkpoint: opt.TrustCheckpoint = False,
) -> None:
    """Write a model as a file that needs none of this program to run.

    The file is run once and compared with torch before it gets its name.
    What goes in and what comes out is described in its metadata and in a .json beside it.
    `depth dir --backend torchscript` runs such files; for the other engines nothing needs to be compiled beforehand.

    Examples: depth compile --target onnx --size 518x686 · depth compile --target torchscript --preset common
    """
    from depthcli.choices import CompilerChoice, ModelChoice
    from depthcli.cli.report import say
    from depthcli.jobs.compile import CompileJob, analyze_model, compile_model

    choice = ModelChoice(model, encoder, metric, checkpoint, max_depth, offline, trust_checkpoint)
    sizes = tuple(_parse_size(text) for item in size or () for text in item.split(","))
    options = CompilerChoice(fast_math, workdir, timeout, allow_cpu_ops)
    job = CompileJob(target, choice, sizes, preset, from_dir, batch, output, options)
    if self_test:
        raise typer.Exit(report(target))
    if analyze_only:
        passed = True
        for found in analyze_model(job, say):
            print(*found.lines, sep="\n")
            passed &= found.analysis.passed
        raise typer.Exit(0 if passed else EngineError.exit_code)
    failed, done = [], 0
    for compiled in compile_model(job, say):
        for path in compiled.paths:
            print(path)
        say(compiled.summary)
        done += compiled.error is None
        failed += [compiled.error] if compiled.error else []
    if failed:
        raise typer.Exit(SOME_FAILED if done else failed[0].exit_code)


def _parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise UsageError(f"{size!r} is no size of an input", "give --size as 518x686: height x width")
    return int(match[1]), int(match[2])
