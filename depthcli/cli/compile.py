"""`depth compile`: a model as a file that other programs run, or the engines for compiled networks."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Callable, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.neuron import report
from depthcli.errors import SOME_FAILED, DepthError, DiskFullError, EngineError, UsageError

if TYPE_CHECKING:
    from depthcli.jobs.analysis import Analysis
    from depthcli.jobs.compiling import CompileJob
    from depthcli.jobs.neuron_compiling import CompiledForNeuron

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
    from depthcli.choices import ModelChoice
    from depthcli.cli.report import say
    from depthcli.jobs.analysis import analyze, check_analysis
    from depthcli.jobs.compiling import CompileJob, check_target, compile_model, output_path, preset_sizes, sizes_of
    from depthcli.jobs.neuron_compiling import CompilerOptions, check_options, compile_for_neuron, is_neuron
    from depthcli.predict.picture import resolve_model
    from depthcli.zoo.rows import PATCH

    options = CompilerOptions(fast_math, workdir, timeout, allow_cpu_ops)
    check_options(target, options)
    if self_test:
        raise typer.Exit(report(target))
    if sum(given is not None for given in (size, preset, from_dir)) > 1:
        raise UsageError("--size, --preset and --from-dir are three ways to say one thing", "leave two out")
    sizes = [_parse_size(text) for item in size or () for text in item.split(",")]
    for height, width in sizes or [(PATCH, PATCH)]:
        (check_analysis if analyze_only else check_target)(target, height, width, batch)  # before a download
    choice = ModelChoice(model, encoder, metric, checkpoint, max_depth, offline, trust_checkpoint)
    row, weights = resolve_model(choice, say)
    if preset is not None:
        sizes = preset_sizes(preset, row.input)
    elif from_dir is not None:
        counted = sizes_of(from_dir, row.input)
        for (height, width), count in counted:
            say(f"{height}x{width}: {count} picture{'s' if count > 1 else ''}")
        sizes = [pair for pair, _ in counted]
    sizes = list(dict.fromkeys(sizes or [(row.input_size, row.input_size)]))
    if analyze_only:
        results = [analyze(target, row, weights, height, width, batch, trust_checkpoint) for height, width in sizes]
        for pair, result in zip(sizes, results):
            _show(row.name, target, pair, result)
        raise typer.Exit(0 if all(result.passed for result in results) else EngineError.exit_code)
    jobs = []
    for height, width in sizes:
        path = output_path(output, target, row, height, width, batch)
        jobs.append(CompileJob(target, row, weights, height, width, batch, path, trust_checkpoint))
    if len({job.output for job in jobs}) < len(jobs):
        raise UsageError(f"{len(jobs)} networks do not go into the one file {output}", "name a folder with --output")
    errors: list[DepthError] = []
    for job in jobs:
        try:
            if is_neuron(target):
                _tell(job, compile_for_neuron(job, options, say), say)
                continue
            compiled = compile_model(job)
        except DepthError as error:
            if len(jobs) == 1 or isinstance(error, DiskFullError):
                raise
            say(f"error: {job.height}x{job.width}: {error}")  # the other sizes may do
            errors.append(error)
            continue
        for path in compiled.paths:
            print(path)
        say(f"{job.height}x{job.width} differs from torch by {compiled.difference:.1e} of the maximum")
    if errors:
        raise typer.Exit(SOME_FAILED if len(errors) < len(jobs) else errors[0].exit_code)


def _tell(job: "CompileJob", compiled: "CompiledForNeuron", say: Callable[[str], None]) -> None:
    """Print what was written for one of AWS's chips, and what is known of it."""
    for path in compiled.paths:
        print(path)
    proven = (
        "not run: there is no Neuron device here"
        if compiled.device is None
        else f"differs from the CPU by {100 * compiled.device:.2f} % of the standard deviation in the mean"
    )
    say(f"{job.height}x{job.width} compiled in {compiled.seconds:.0f} s; {proven}")


def _show(name: str, target: str, size: tuple[int, int], found: "Analysis") -> None:
    """Print what was found out about one size of input."""
    from depthcli.jobs.analysis import BOUND

    verdict = "nothing speaks against it" if found.passed else f"cannot be compiled for {target}"
    print(f"{name} {size[0]}x{size[1]}: {verdict}")
    print("  operators: " + ", ".join(f"{operator} {count}" for operator, count in found.operators.items()))
    print(f"  unknown to the converter: {', '.join(found.unknown) or 'none'}")
    print(f"  differs from the network by {found.difference:.1e} of the maximum (bound {BOUND:.0e})")
    if "aten::upsample_bilinear2d" in found.operators:
        print("  its bilinear resizes have aligned corners, which nobody has seen compiled for these chips")
        return
    mean = f"{100 * found.snapped_mean:.2f} % of the standard deviation in the mean"
    print(f"  with resizes exact in bfloat16: {found.snapped:.1e} of the maximum, {mean}")


def _parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise UsageError(f"{size!r} is no size of an input", "give --size as 518x686: height x width")
    return int(match[1]), int(match[2])
