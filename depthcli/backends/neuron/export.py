"""Compile a network for an AWS chip, with checks before and after the compiler.

Before: the converter supports every operator, and the graph computes what the network computes. After: the graph holds
compiled code, and no arithmetic is left to the CPU. With a device the result is also run; otherwise its file states
that it was not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

import torch

from depthcli.backends.archive import seal
from depthcli.backends.artifact import open_artifact, read_artifact
from depthcli.backends.export import Export, Shape, example
from depthcli.backends.neuron.analysis import Analysis, analyze
from depthcli.backends.neuron.common import cast_arguments, check_compiled, cpu_operators
from depthcli.backends.neuron.flavours import FLAVOURS, Flavour
from depthcli.choices.compiler import CompilerChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.jit import quiet_jit, quiet_trace
from depthcli.graphs.operators import operators_of
from depthcli.graphs.resize_matrices import MatrixResize
from depthcli.graphs.static import joined, static_network

# Bound of a NeuronCore's mean difference from float32, over the standard deviation; bfloat16 costs a few thousandths.
DEVICE_BOUND = 0.05


def export(
    network: torch.nn.Module, shape: Shape, path: Path, facts: Mapping[str, Any], options: CompilerChoice, log: Log
) -> Export:
    """Write one compiled network, for the chip in facts["target"]. Raises EngineError for the check that failed."""
    flavour = FLAVOURS[facts["target"]]
    name = f"{facts['model']} {shape[1]}x{shape[2]}"
    log(f"{name}: checking the graph")
    analysis = analyze(flavour, network, shape)
    _check(flavour, analysis, options)
    if not flavour.simulated:
        log(f"{name}: compiling for {flavour.target}; this takes minutes")
    started = time.monotonic()
    module = static_network(network, *shape, False, MatrixResize(snap=True)).eval()
    image = torch.from_numpy(example(shape))
    with torch.no_grad():
        module(image)  # makes the matrices of its resizes, which are constants of the trace
    with quiet_trace():
        compiled = flavour.compile_network(module, image, options)
    operators = operators_of(compiled)
    if not flavour.simulated:
        check_compiled(operators, options.allow_cpu_ops)
    seconds = round(time.monotonic() - started, 1)
    with quiet_jit():
        torch.jit.save(compiled, str(path))
    sealed = seal(
        path,
        {
            **facts,
            "versions": {**facts["versions"], **flavour.versions()},
            "compiler": {"args": cast_arguments(flavour.target, flavour.casts, options.fast_math), "seconds": seconds},
            "graph": {"operators": dict(operators), "cpu_operators": list(cpu_operators(operators))},
            "analysis": asdict(analysis),
            "simulated": flavour.simulated,
            "verified_on_device": False,
            "check": None,
        },
    )
    content = open_artifact(read_artifact(path))  # raises if it could not be loaded again
    device = None
    if flavour.devices():
        log(f"{name}: running it once")
        with torch.inference_mode():
            wanted = joined(network(image))
        with quiet_jit():
            device = _difference(torch.jit.load(content), image, wanted)  # type: ignore[no-untyped-call]
    proof = {"verified_on_device": device is not None and not flavour.simulated, "check": device}
    return Export(sealed, seconds=seconds, device=device, proof=proof)


def _check(flavour: Flavour, analysis: Analysis, options: CompilerChoice) -> None:
    if analysis.unknown and not options.allow_cpu_ops:
        raise EngineError(
            f"{flavour.package} does not know {', '.join(analysis.unknown)}",
            "set `allow_cpu_ops` to leave them to the CPU",
        )
    if not analysis.difference <= analysis.bound:
        raise EngineError(
            f"graph and network differ by {analysis.difference:.1e} of the maximum (bound {analysis.bound:.0e})",
            "please report this, with the version of torch",
        )


def _difference(compiled: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, wanted: torch.Tensor) -> float:
    with torch.no_grad():
        found = compiled(image)
    if wanted.dim() == 4:  # depth is the first of several outputs
        found, wanted = found[:, 0], wanted[:, 0]
    difference = float((found - wanted).abs().mean() / wanted.std())
    if not difference <= DEVICE_BOUND:
        raise EngineError(
            f"the device differs from the CPU by {100 * difference:.1f} % of the standard deviation in the mean "
            f"(bound {100 * DEVICE_BOUND:.0f} %)",
            "try `fast_math` none, and please report this",
        )
    return difference
