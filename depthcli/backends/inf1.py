"""AWS Inferentia (Inf1) through torch-neuron 1.13.1: all that is particular to it, and to compiling for it.

Written from AWS's documents and proven against a stand-in of its package: no device was at hand. A compiled network is
a TorchScript file whose work is done by operators of the form neuron::..., which exist only where torch_neuron does.
"""

from __future__ import annotations

import glob
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import EngineError, first_line

INDEX = "https://pip.repos.neuron.amazonaws.com"
_RUN = 'pip install "torch-neuron==1.13.1.2.11.13.0" "protobuf<3.20" "numpy==1.22.2"'
INSTALL = f"{_RUN} --extra-index-url {INDEX}"
INSTALL_COMPILER = f'{INSTALL} "neuron-cc[tensorflow]==1.24.0.0"'

# How neuron-cc 1.24 may round float32 (its --fast-math), the fastest first; all of them multiply in 16 bits.
CASTS = {
    "all": ("all",),
    "fp32-cast-matmult": ("fp32-cast-matmult",),
    "fp32-cast-matmult-no-fast-relayout": ("fp32-cast-matmult", "no-fast-relayout"),
    "none": ("none",),
}
# Layer norms and softmax stay in float32, which a network that measures something wants.
CAST = "fp32-cast-matmult"
PREFIX = "neuron::"
# What may be left around the compiled part: it moves numbers and computes none.
_HARMLESS = ("aten::reshape", "aten::permute", "aten::to", "aten::contiguous", "aten::view", "aten::squeeze")


@dataclass(frozen=True)
class CompilerOptions:
    """How neuron-cc is called.

    cast: one of CASTS. workdir: a folder for what it writes, or None. timeout: seconds. allow_cpu: leave operators that
    it cannot compile to the CPU, which is slow and otherwise refused.
    """

    cast: str = CAST
    workdir: Optional[Path] = None
    timeout: int = 4 * 3600
    allow_cpu: bool = False


def require(compiler: bool) -> Any:
    """Return the module torch_neuron. compiler: neuron-cc is wanted too, which machines that only run lack.

    Raises EngineError, with what to install, where one of them is missing.
    """
    install = INSTALL_COMPILER if compiler else INSTALL
    installed = installed_version("torch-neuron")
    if installed is not None and installed.startswith("1.0"):
        raise EngineError(
            f"found the empty torch-neuron {installed} placeholder from PyPI",
            f"uninstall it and use the AWS index: {install}",
        )
    try:
        import torch_neuron
    except ImportError as error:
        raise EngineError(f"torch-neuron is not installed ({error})", install) from error
    if compiler and installed_version("neuron-cc") is None and shutil.which("neuron-cc") is None:
        raise EngineError("neuron-cc, the compiler, is not installed", install)
    return torch_neuron


def versions() -> dict[str, Optional[str]]:
    """Return the versions of torch-neuron and neuron-cc, None for what is not installed."""
    return {"torch_neuron": installed_version("torch-neuron"), "neuron_cc": installed_version("neuron-cc")}


def devices() -> list[str]:
    """Return the device files of Inferentia chips on this machine; each chip of Inf1 has four cores."""
    return sorted(glob.glob("/dev/neuron[0-9]*"))


def compile_network(module: Any, example: Any, options: CompilerOptions) -> Any:
    """Return a static network compiled by neuron-cc, as a TorchScript module.

    module: takes `example`, a float32 tensor on the CPU. Raises EngineError for each way in which that fails.
    """
    torch_neuron = require(compiler=True)
    arguments: dict[str, Any] = {
        "compiler_args": ["--fast-math", *CASTS[options.cast]],
        "compiler_timeout": options.timeout,
        # Never a silent partition: an operator that neuron-cc does not know is an error.
        "fallback": options.allow_cpu,
        "dynamic_batch_size": False,
    }
    if options.workdir is not None:
        arguments["compiler_workdir"] = str(options.workdir)
    logs = f"see the logs in {options.workdir}" if options.workdir else "--workdir FOLDER keeps its logs"
    try:
        compiled = torch_neuron.trace(module, example, **arguments)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"neuron-cc did not end within {options.timeout} s", "give it more with --timeout") from error
    except subprocess.SubprocessError as error:
        raise EngineError(
            f"neuron-cc failed: {first_line(error)}", f"{logs}; a smaller --size, or --encoder vits, may compile"
        ) from error
    except AttributeError as error:
        raise EngineError(
            f"torch-neuron cannot convert an operator: {first_line(error)}", "please report this"
        ) from error
    except MemoryError as error:
        raise EngineError("compiling needs more memory than there is", "use a machine with 32 GB or more") from error
    except RuntimeError as error:
        raise EngineError(f"torch-neuron failed: {first_line(error)}", logs) from error
    check_compiled(operator_counts(compiled), options.allow_cpu)
    return compiled


def operator_counts(compiled: Any) -> Mapping[str, int]:
    """Return how often each operator occurs in a compiled module."""
    from depthcli.nets.operators import operators_of

    return operators_of(compiled)


def check_compiled(operators: Mapping[str, int], allow_cpu: bool) -> None:
    """Raise EngineError where a module was not compiled, or parts of it were left to the CPU.

    Neither logs nor return values of torch-neuron say so reliably: a failed part runs on the CPU and nothing is raised.
    """
    if not any(name.startswith(PREFIX) for name in operators):
        raise EngineError("nothing of the network was compiled for Inferentia", "see the output of neuron-cc above")
    left = cpu_operators(operators)
    if left and not allow_cpu:
        count = sum(operators[name] for name in left)
        raise EngineError(
            f"{count} operators would run on CPU: {', '.join(left)}, refusing", "use --allow-cpu-ops to accept that"
        )


def cpu_operators(operators: Mapping[str, int]) -> Sequence[str]:
    """Return the operators of a compiled module that compute on the CPU."""
    return sorted(name for name in operators if name.startswith("aten::") and name not in _HARMLESS)


def installed_version(package: str) -> Optional[str]:
    """Return the version of an installed package, None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
