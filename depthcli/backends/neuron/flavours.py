"""AWS's chips, and what stands in for them on a CPU: all that differs between them, one small file each.

Everything else, the graph, the gates around the compiler, the files, the replicas and their threads, is the same code
for all of them. Written from AWS's documents: no device was at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Protocol

from depthcli.backends.artifact import STANDIN
from depthcli.backends.neuron import common
from depthcli.backends.neuron.inf1 import Inf1
from depthcli.backends.neuron.neuronx import NeuronX
from depthcli.backends.neuron.standin import StandIn
from depthcli.choices import CompilerChoice


class Flavour(Protocol):
    """One kind of chip.

    target: its name, and that of instances with it. package: the distribution that runs and compiles networks for it.
    cores_per_device: NeuronCores of one chip. casts: how its compiler may be told to round, and the arguments for it,
    the default first. listed: AWS publishes which operators the converter knows. simulated: there is no such chip.
    """

    target: str
    package: str
    cores_per_device: int
    casts: Mapping[str, Sequence[str]]
    listed: bool
    simulated: bool

    def require(self, compiler: bool) -> Any:
        """Import the package. compiler: to compile, too. Raises EngineError with what to install."""

    def versions(self) -> dict[str, Optional[str]]:
        """Return the versions of the package and its compiler, None for what is not installed."""

    def devices(self) -> list[str]:
        """Return the names of the chips of this machine."""

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """Return a static network compiled, as a TorchScript module. Raises EngineError for each way to fail."""


_ALL: tuple[Flavour, ...] = (Inf1(), NeuronX("inf2"), NeuronX("trn1"), StandIn())
FLAVOURS = {flavour.target: flavour for flavour in _ALL}
# Those that are real.
CHIPS = tuple(target for target in FLAVOURS if target != STANDIN)


def targets_here(standin: bool) -> tuple[str, ...]:
    """Return the targets whose networks this machine may run, the likeliest first.

    A machine that says which kind it is runs that one; else those whose package is installed, and where none is, any:
    opening one says then what is missing. standin: the stand-in may be run, where there is nothing else.
    """
    family = (common.instance_type() or "").partition(".")[0]
    installed = tuple(target for target in CHIPS if common.installed_version(FLAVOURS[target].package))
    chips = (family,) if family in CHIPS else installed or CHIPS
    return (*chips, STANDIN) if standin else chips
