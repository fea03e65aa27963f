"""`depth compile`: a model as a file for other programs, or for the backends that run compiled networks."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import NEURON, flag, grouped, option
from depthcli.cli.neuron import print_findings
from depthcli.cli.options import ModelOptions
from depthcli.cli.report import log
from depthcli.errors import SOME_FAILED, EngineError, UsageError
from depthcli.jobs.parsing import parse_list, parse_size

DETECTORS = ("seg-nano", "seg-small", "seg-medium", "seg-large")
TARGETS = ("torchscript", "onnx", "openvino", "inf1", "inf2", "trn1", "cpu-standin")


@grouped()
def compile_command(
    target: Annotated[
        str,
        option("torchscript, onnx, openvino, or for AWS's chips inf1, inf2, trn1.", metavar="TARGET", values=TARGETS),
    ],
    detector: Annotated[
        Optional[str],
        option(
            f"For depth objects, instead of a model: {', '.join(DETECTORS)}, a folder or a .pth. "
            "With onnx and openvino.",
            metavar="NAME",
            values=DETECTORS,
        ),
    ] = None,
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
            "`depth image` finds them; so too a detector, for `depth objects`.",
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
        bool, flag("Write nothing; compile and run a small random network, and report.", "--self-test", panel=NEURON)
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
    """Compile a model to a file for other programs, or for --backend torchscript and neuron.

    depth compile --target onnx --size 518x686             one ONNX file
    depth compile --target torchscript --preset common     seven sizes, for --backend torchscript
    depth compile --target inf1 --from-dir photos          sizes of these pictures, for AWS Inferentia
    depth compile --target openvino --detector seg-small   what finds objects, without torch

    The file is run once and compared with torch before it gets its name.
    Its metadata and a .json beside it describe input and output.
    Only torchscript and neuron need compiled files; the other backends need nothing beforehand.
    """
    from depthcli.choices.compiler import CompilerChoice
    from depthcli.jobs.compile import CompileJob, DetectorJob, analyze_model, compile_detector, compile_model

    if detector is not None:
        if size or preset or from_dir or batch != 1 or analyze_only or self_test:
            raise UsageError("`detector` has one input size and one picture per run", "leave out the other options")
        given = replace(model, offline=False, trust=False)
        if given != ModelOptions():
            raise UsageError("`detector` is compiled instead of a model", "leave out the options of the model")
        compiled = compile_detector(DetectorJob(target, detector, output, model.offline, model.trust), log)
        print(*compiled.paths, sep="\n")
        log(compiled.summary)
        return
    sizes = tuple(parse_size(text, "size", "518x686: height x width") for text in parse_list(size))
    compiler = CompilerChoice(fast_math, workdir, timeout, allow_cpu_ops)
    job = CompileJob(target, model.choice(), sizes, preset, from_dir, batch, output, compiler)
    if self_test:
        raise typer.Exit(print_findings(target))
    if analyze_only:
        passed = True
        for found in analyze_model(job, log):
            print(*found.lines, sep="\n")
            passed &= found.analysis.passed
        raise typer.Exit(0 if passed else EngineError.exit_code)
    failed, done = [], 0
    for compiled in compile_model(job, log):
        for path in compiled.paths:
            print(path)
        log(compiled.summary)
        done += compiled.error is None
        failed += [compiled.error] if compiled.error else []
    if failed:
        raise typer.Exit(SOME_FAILED if done else failed[0].exit_code)
