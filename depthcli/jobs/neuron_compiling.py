"""Compiling a model for AWS's chips: three gates around the compiler, and a file that says what is proven of it.

Before: every operator is known to the converter, and the graph answers as the readable network does. After: the graph
holds what was compiled, and no arithmetic is left to the CPU. On a machine with a device the result is run as well;
elsewhere its file says that it has not been.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from depthcli.backends.archive import seal
from depthcli.backends.artifact import open_artifact, read_artifact, sidecar_of
from depthcli.backends.neuron.common import CompilerOptions as CompilerOptions  # for the command line, which knows
from depthcli.backends.neuron.common import (
    cast_arguments,
    check_compiled,
    cpu_operators,
    operator_counts,
)  # no engine
from depthcli.backends.neuron.flavours import FLAVOURS, Flavour
from depthcli.errors import EngineError, OutputError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.jobs.analysis import BOUND, Analysis, analyze
from depthcli.jobs.compiling import CompileJob, check_room, compiler_errors, describe_network, keep_file
from depthcli.zoo.verify import digest

# How far a NeuronCore may be from float32 on the CPU, as the mean over the standard deviation of the answer: it
# multiplies in bfloat16, which costs a few thousandths on other machines; more than this is a wrong answer.
DEVICE_BOUND = 0.05


@dataclass(frozen=True)
class CompiledForNeuron:
    """What was written. analysis: of the graph before it was compiled. device: mean difference of a run on a device
    from float32, over the standard deviation; None where there was no device to run it on.
    """

    paths: tuple[Path, ...]
    analysis: Analysis
    seconds: float
    device: Optional[float]


def is_neuron(target: str) -> bool:
    """Return whether a target of `depth compile` is one of AWS's chips, or what stands in for them."""
    return target in FLAVOURS


def check_options(target: str, options: CompilerOptions) -> None:
    """Raise UsageError for settings that the target's compiler does not have; other targets have no compiler."""
    if target in FLAVOURS:
        cast_arguments(target, FLAVOURS[target].casts, options.cast)
    elif options != CompilerOptions():
        raise UsageError(f"nothing is compiled by another program for {target}", "see the options for AWS Inferentia")
    if options.timeout < 1:
        raise UsageError(f"{options.timeout} seconds are no time", "--timeout is at least 1")


def compile_for_neuron(job: CompileJob, options: CompilerOptions, talk: Callable[[str], None]) -> CompiledForNeuron:
    """Write one compiled network; nothing is written where a gate stays shut.

    talk: takes one line for each step. Raises EngineError that says which gate and why, ModelError for weights that do
    not fit, OutputError where nothing can be written.
    """
    import torch

    from depthcli.graphs.jit import quiet_jit, quiet_trace

    flavour = FLAVOURS[job.target]
    flavour.require(compiler=True)
    check_room(job)
    size = f"{job.height}x{job.width}"
    talk(f"{job.row.name} {size}: checking the graph")
    analysis = analyze(job.target, job.row, job.weights, job.height, job.width, job.batch, job.trust)
    _check(flavour, analysis, options)
    if not flavour.simulated:
        talk(f"{job.row.name} {size}: compiling for {job.target}; this takes minutes")
    started = time.monotonic()
    module, image, wanted = _module(job)
    with quiet_trace():
        compiled = flavour.compile_network(module, image, options)
    operators = operator_counts(compiled)
    if not flavour.simulated:
        check_compiled(operators, options.allow_cpu)
    seconds = round(time.monotonic() - started, 1)
    facts = _facts(job, flavour, options, analysis, operators, seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="depthcli-") as name, compiler_errors(flavour.package), quiet_jit():
            draft = Path(name) / job.output.name
            torch.jit.save(compiled, str(draft))
            facts = seal(draft, facts)
            content = open_artifact(read_artifact(draft))  # what could not be loaded again is not kept
            device = None
            if flavour.devices():
                talk(f"{job.row.name} {size}: running it once")
                device = _difference(torch.jit.load(content), image, wanted)  # type: ignore[no-untyped-call]
            facts["file_sha256"] = digest(draft)
            keep_file(draft, job.output)
    except OSError as error:
        raise OutputError(f"cannot write {job.output}: {error.strerror or error}") from error
    facts["verified_on_device"], facts["check"] = device is not None and not flavour.simulated, device
    sidecar = sidecar_of(job.output)
    with atomic_path(sidecar) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return CompiledForNeuron((job.output, sidecar), analysis, seconds, device)


def _check(flavour: Flavour, analysis: Analysis, options: CompilerOptions) -> None:
    if analysis.unknown and not options.allow_cpu:
        raise EngineError(
            f"{flavour.package} does not know {', '.join(analysis.unknown)}",
            "use --allow-cpu-ops to leave them to the CPU",
        )
    if not analysis.difference <= BOUND:
        raise EngineError(
            f"the graph differs from the network by {analysis.difference:.1e} of the maximum (bound {BOUND:.0e})",
            "please report this, with the version of torch",
        )


def _module(job: CompileJob) -> tuple[Any, Any, Any]:
    """Return the static network, an input, and the answer of the readable network to it."""
    import torch

    from depthcli.graphs.resize_matrices import MatrixResize
    from depthcli.graphs.static import static_network
    from depthcli.nets.build import read_network

    network = read_network(job.row, job.weights, job.trust)
    module = static_network(network, job.batch, job.height, job.width, False, MatrixResize(snap=True)).eval()
    shape = (job.batch, 3, job.height, job.width)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with torch.inference_mode():
        wanted = network(image)
    with torch.no_grad():
        module(image)  # the matrices of its resizes are constants of the trace by then
    return module, image, wanted


def _difference(compiled: Any, image: Any, wanted: Any) -> float:
    import torch

    with torch.no_grad():
        found = compiled(image)
    difference = float((found - wanted).abs().mean() / wanted.std())
    if not difference <= DEVICE_BOUND:
        raise EngineError(
            f"the device differs from the CPU by {100 * difference:.1f} % of the standard deviation in the mean "
            f"(bound {100 * DEVICE_BOUND:.0f} %)",
            "try --fast-math none, and please report this",
        )
    return difference


def _facts(
    job: CompileJob, flavour: Flavour, options: CompilerOptions, analysis: Analysis, operators: Any, seconds: float
) -> dict[str, Any]:
    facts = describe_network(job)
    facts["versions"].update(flavour.versions())
    arguments = cast_arguments(flavour.target, flavour.casts, options.cast)
    return {
        **facts,
        "compiler": {"args": arguments, "seconds": seconds},
        "graph": {"operators": dict(operators), "cpu_operators": list(cpu_operators(operators))},
        "analysis": asdict(analysis),
        "simulated": flavour.simulated,
        "verified_on_device": False,
        "check": None,
    }
