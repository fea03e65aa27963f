"""`depth compile`: a model as a file for other programs, or for the backends that run compiled networks."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.cli.groups import NEURON, flag, grouped, option
from depthcli.cli.neuron import print_findings
from depthcli.cli.options import ModelOptions
from depthcli.cli.parsing import parse_list, parse_size
from depthcli.cli.report import log
from depthcli.errors import SOME_FAILED, DepthError, DiskFullError, EngineError, UsageError

if TYPE_CHECKING:
    from depthcli.jobs.analysis import Analysis
    from depthcli.jobs.compiling import CompileJob
    from depthcli.jobs.neuron_compiling import CompiledForNeuron

TARGETS = ("torchscript", "onnx", "openvino", "inf1", "inf2", "trn1", "cpu-standin")


@grouped()
def compile_command(
    target: Annotated[
        str,
        option("torchscript, onnx, openvino, or for AWS's chips inf1, inf2, trn1.", metavar="TARGET", values=TARGETS),
    ],
    size: Annotated[
        Optional[list[str]],
        option(
            "Height and width of the input in pixels, multiples of 14. A file for each; repeat it or separate with "
            "commas. Default: the model's own size, square.",
            metavar="HxW",
        ),
    ] = None,
    preset: Annotated[
        Optional[str],
        option(
            "common: the sizes of square, 4:3, 3:2 and 16:9 pictures, landscape and portrait.",
            metavar="NAME",
            values=("common",),
        ),
    ] = None,
    from_dir: Annotated[
        Optional[Path], option("The sizes that the pictures in this folder need.", metavar="FOLDER")
    ] = None,
    batch: Annotated[int, option("Pictures per run. Default: 1.", "--batch", "-b", metavar="N")] = 1,
    output: Annotated[
        Optional[str],
        option(
            "File, or folder for MODEL_HxW files. Default: this folder; for torchscript checkpoints/compiled, where "
            "`depth image` finds them.",
            "-o",
            "--output",
            "--out",
            metavar="PATH",
        ),
    ] = None,
    analyze_only: Annotated[
        bool,
        flag(
            "Write nothing; report whether the network can be compiled. Exit code 5 if not.",
            "--analyze-only",
            panel=NEURON,
        ),
    ] = False,
    self_test: Annotated[
        bool,
        flag("Write nothing; compile and run a small random network, and report.", "--self-test", panel=NEURON),
    ] = False,
    fast_math: Annotated[
        Optional[str],
        option(
            "Rounding. inf1: fp32-cast-matmult (default), fp32-cast-matmult-no-fast-relayout, all, none; inf2 and "
            "trn1: matmult (default), all, none.",
            panel=NEURON,
            metavar="NAME",
            values=("fp32-cast-matmult", "fp32-cast-matmult-no-fast-relayout", "matmult", "all", "none"),
        ),
    ] = None,
    workdir: Annotated[
        Optional[Path], option("Keep the compiler's own files here.", panel=NEURON, metavar="FOLDER")
    ] = None,
    timeout: Annotated[int, option("Limit for neuron-cc (inf1). Default: 14400.", panel=NEURON, metavar="SECONDS")] = 4
    * 3600,
    allow_cpu_ops: Annotated[
        bool, flag("Run operators that do not compile on the CPU, slowly.", "--allow-cpu-ops", panel=NEURON)
    ] = False,
    *,
    model: ModelOptions,
) -> None:
    """Compile a model to a file that runs without this program.

    depth compile --target onnx --size 518x686             one ONNX file
    depth compile --target torchscript --preset common     eight sizes, for --backend torchscript
    depth compile --target inf1 --from-dir photos          for AWS Inferentia, the sizes of these pictures

    The file is run once and compared with torch before it gets its name.
    Its metadata and a .json beside it describe input and output.
    Only torchscript and neuron need compiled files; the other backends need nothing beforehand.
    """
    from depthcli.jobs.analysis import analyze, check_analysis
    from depthcli.jobs.compiling import CompileJob, check_target, compile_model, output_path, preset_sizes, sizes_of
    from depthcli.jobs.neuron_compiling import CompilerOptions, check_options, compile_for_neuron, is_neuron
    from depthcli.predict.picture import resolve_model
    from depthcli.zoo.rows import PATCH

    options = CompilerOptions(fast_math, workdir, timeout, allow_cpu_ops)
    check_options(target, options)
    if self_test:
        raise typer.Exit(print_findings(target))
    if sum(given is not None for given in (size, preset, from_dir)) > 1:
        raise UsageError("--size, --preset and --from-dir exclude each other", "give one of them")
    sizes = [parse_size(text, "size", "518x686: height x width") for text in parse_list(size)]
    for height, width in sizes or [(PATCH, PATCH)]:
        (check_analysis if analyze_only else check_target)(target, height, width, batch)  # before a download
    row, weights = resolve_model(model.choice(), log)
    if preset is not None:
        sizes = preset_sizes(preset, row.input_size)
    elif from_dir is not None:
        counted = sizes_of(from_dir, row.input_size)
        for (height, width), count in counted:
            log(f"{height}x{width}: {count} picture{'s' if count > 1 else ''}")
        sizes = [pair for pair, _ in counted]
    sizes = list(dict.fromkeys(sizes or [(row.input_size, row.input_size)]))
    if analyze_only:
        results = [analyze(target, row, weights, height, width, batch, model.trust) for height, width in sizes]
        for pair, result in zip(sizes, results):
            _print_analysis(row.name, target, pair, result)
        raise typer.Exit(0 if all(result.passed for result in results) else EngineError.exit_code)
    jobs = []
    for height, width in sizes:
        path = output_path(output, target, row, height, width, batch)
        jobs.append(CompileJob(target, row, weights, height, width, batch, path, model.trust))
    if len({job.output for job in jobs}) < len(jobs):
        raise UsageError(f"{len(jobs)} networks do not fit into one file {output}", "give a folder with -o")
    errors: list[DepthError] = []
    for job in jobs:
        try:
            if is_neuron(target):
                _print_compiled(job, compile_for_neuron(job, options, log))
                continue
            compiled = compile_model(job)
        except DepthError as error:
            if len(jobs) == 1 or isinstance(error, DiskFullError):
                raise
            log(f"error: {job.height}x{job.width}: {error}")  # the other sizes may work
            errors.append(error)
            continue
        for path in compiled.paths:
            print(path)
        log(f"{job.height}x{job.width} differs from torch by {compiled.difference:.1e} of the maximum")
    if errors:
        raise typer.Exit(SOME_FAILED if len(errors) < len(jobs) else errors[0].exit_code)


def _print_compiled(job: "CompileJob", compiled: "CompiledForNeuron") -> None:
    """Print the files for one of AWS's chips, and how well they were tested."""
    for path in compiled.paths:
        print(path)
    tested = (
        "not run: there is no Neuron device here"
        if compiled.device is None
        else f"differs from the CPU by {100 * compiled.device:.2f} % of the standard deviation in the mean"
    )
    log(f"{job.height}x{job.width} compiled in {compiled.seconds:.0f} s; {tested}")


def _print_analysis(name: str, target: str, size: tuple[int, int], found: "Analysis") -> None:
    """Print the findings for one input size."""
    from depthcli.jobs.analysis import BOUND

    verdict = "no obstacle found" if found.passed else f"cannot be compiled for {target}"
    print(f"{name} {size[0]}x{size[1]}: {verdict}")
    print("  operators: " + ", ".join(f"{operator} {count}" for operator, count in found.operators.items()))
    print(f"  unknown to the converter: {', '.join(found.unknown) or 'none'}")
    print(f"  differs from the network by {found.difference:.1e} of the maximum (bound {BOUND:.0e})")
    if "aten::upsample_bilinear2d" in found.operators:
        print("  its bilinear resizes have aligned corners, not yet tested on these chips")
        return
    mean = f"{100 * found.snapped_mean:.2f} % of the standard deviation in the mean"
    print(f"  with resizes exact in bfloat16: {found.snapped:.1e} of the maximum, {mean}")
