"""A stand-in for AWS's chips: the very graph, traced for the CPU, to try all that surrounds a compiled network.

What it answers is right to the rounding of its resizes; how fast it is says nothing about a chip. It is refused unless
asked for, and everything made with it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from depthcli.backends.artifact import STANDIN
from depthcli.backends.neuron import common
from depthcli.choices import CompilerChoice

NOTICE = "CPU stand-in, not Neuron"


_CASTS: dict[str, tuple[str, ...]] = {}


class StandIn:
    """The CPU, as if it were a chip of two cores."""

    target = STANDIN
    package = "torch"
    cores_per_device = 2
    casts: Mapping[str, Sequence[str]] = _CASTS
    listed = True
    simulated = True

    def require(self, compiler: bool) -> Any:
        """Return torch, which is all it needs."""
        import torch

        return torch

    def versions(self) -> dict[str, Optional[str]]:
        """Return the version of torch."""
        return {self.package: common.installed_version(self.package)}

    def devices(self) -> list[str]:
        """Return the one chip there is."""
        return ["cpu"]

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """Return the network traced."""
        import torch

        with torch.no_grad():
            return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
