"""What compiling for any of AWS's chips has in common: its settings, and the look at what came out."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import EngineError, UsageError

INDEX = "https://pip.repos.neuron.amazonaws.com"
PREFIX = "neuron::"
# What may be left around the compiled part: it moves numbers and computes none.
_HARMLESS = ("aten::reshape", "aten::permute", "aten::to", "aten::contiguous", "aten::view", "aten::squeeze")


@dataclass(frozen=True)
class CompilerOptions:
    """How a compiler is called.

    cast: how it may round, one of the flavour's casts, or None for its default. workdir: a folder for what it writes,
    or None. timeout: seconds. allow_cpu: leave operators that it cannot compile to the CPU, which is slow and otherwise
    refused.
    """

    cast: Optional[str] = None
    workdir: Optional[Path] = None
    timeout: int = 4 * 3600
    allow_cpu: bool = False

    @property
    def logs(self) -> str:
        """Where a user finds more than the first line of an error."""
        return f"see the logs in {self.workdir}" if self.workdir else "--workdir FOLDER keeps its logs"


def cast_arguments(target: str, casts: Mapping[str, Sequence[str]], cast: Optional[str]) -> list[str]:
    """Return the compiler's arguments for a way to round, the first where None. Raises UsageError for none of them."""
    if cast is None:
        return list(next(iter(casts.values()), ()))
    if cast not in casts:
        raise UsageError(
            f"there is no --fast-math {cast} for {target}", f"choose from: {', '.join(casts) or 'nothing'}"
        )
    return list(casts[cast])


def device_files() -> list[str]:
    """Return the device files of Inferentia and Trainium chips on this machine."""
    return sorted(glob.glob("/dev/neuron[0-9]*"))


def instance_type() -> Optional[str]:
    """Return the kind of machine as its firmware names it, such as inf1.xlarge on EC2; None where it does not."""
    try:
        return Path("/sys/class/dmi/id/product_name").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def installed_version(package: str) -> Optional[str]:
    """Return the version of an installed package, None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def operator_counts(compiled: Any) -> Mapping[str, int]:
    """Return how often each operator occurs in a compiled module."""
    from depthcli.graphs.operators import operators_of

    return operators_of(compiled)


def check_compiled(operators: Mapping[str, int], allow_cpu: bool) -> None:
    """Raise EngineError where a module was not compiled, or parts of it were left to the CPU.

    Neither logs nor return values of torch-neuron say so reliably: a failed part runs on the CPU and nothing is raised.
    """
    if not any(name.startswith(PREFIX) for name in operators):
        raise EngineError("nothing of the network was compiled for Inferentia", "see the compiler's output above")
    left = cpu_operators(operators)
    if left and not allow_cpu:
        count = sum(operators[name] for name in left)
        raise EngineError(
            f"{count} operators would run on CPU: {', '.join(left)}, refusing", "use --allow-cpu-ops to accept that"
        )


def cpu_operators(operators: Mapping[str, int]) -> Sequence[str]:
    """Return the operators of a compiled module that compute on the CPU."""
    return sorted(name for name in operators if name.startswith("aten::") and name not in _HARMLESS)
