"""A stand-in for AWS's chips: the same graph, traced for the CPU, to test everything around a compiled network.

Its depth is right to the rounding of its resizes; its speed is not that of a chip. It runs only on request, and its
results name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from depthcli.backends.artifact import STANDIN
from depthcli.backends.neuron import common
from depthcli.choices.compiler import CompilerChoice

NOTICE = "CPU stand-in, not Neuron"

_CASTS: dict[str, tuple[str, ...]] = {}


class StandIn:
    """The CPU as a chip of two cores."""

    target = STANDIN
    package = "torch"
    cores_per_device = 2
    casts: Mapping[str, Sequence[str]] = _CASTS
    listed = True
    simulated = True

    def require(self, compiler: bool) -> Any:
        """See Flavour."""
        import torch

        return torch

    def versions(self) -> dict[str, Optional[str]]:
        """See Flavour."""
        return {self.package: common.installed_version(self.package)}

    def devices(self) -> list[str]:
        """See Flavour."""
        return ["cpu"]

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """See Flavour."""
        import torch

        with torch.no_grad():
            return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
