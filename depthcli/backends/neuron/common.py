"""What compiling for every AWS chip has in common: arguments, the machine, and checks of the result."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Optional

from depthcli.choices.compiler import CompilerChoice
from depthcli.errors import EngineError, UsageError

INDEX = "https://pip.repos.neuron.amazonaws.com"
PREFIX = "neuron::"
# Operators that may stay around the compiled part: they move numbers and compute none.
_HARMLESS = ("aten::reshape", "aten::permute", "aten::to", "aten::contiguous", "aten::view", "aten::squeeze")


def logs(options: CompilerChoice) -> str:
    """Return where to read more than an error's first line."""
    return f"see the logs in {options.workdir}" if options.workdir else "`workdir` keeps its logs"


def cast_arguments(target: str, casts: Mapping[str, Sequence[str]], cast: Optional[str]) -> list[str]:
    """Return the compiler's arguments for a `fast_math`, by default the first. Raises UsageError for an unknown one."""
    if cast is None:
        return list(next(iter(casts.values()), ()))
    if cast not in casts:
        raise UsageError(f"unknown `fast_math` {cast!r} for {target}", f"choose from: {', '.join(casts) or 'nothing'}")
    return list(casts[cast])


def device_files() -> list[str]:
    """Return the device files of Inferentia and Trainium chips on this machine."""
    return sorted(glob.glob("/dev/neuron[0-9]*"))


def instance_type() -> Optional[str]:
    """Return the machine's type by its firmware, such as inf1.xlarge on EC2, or None if unknown."""
    try:
        return Path("/sys/class/dmi/id/product_name").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def installed_version(package: str) -> Optional[str]:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_compiled(operators: Mapping[str, int], allow_cpu: bool) -> None:
    """Raise EngineError for parts left to the CPU, which torch-neuron does not report reliably."""
    if not any(name.startswith(PREFIX) for name in operators):
        raise EngineError("nothing of the network was compiled for Inferentia", "see the compiler's output above")
    left = cpu_operators(operators)
    if left and not allow_cpu:
        count = sum(operators[name] for name in left)
        raise EngineError(
            f"{count} operators would run on CPU: {', '.join(left)}, refusing", "set `allow_cpu_ops` to accept that"
        )


def cpu_operators(operators: Mapping[str, int]) -> Sequence[str]:
    """Return the operators of a compiled module that compute on the CPU."""
    return sorted(name for name in operators if name.startswith("aten::") and name not in _HARMLESS)
