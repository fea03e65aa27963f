"""AWS's chips, and their stand-in on a CPU: one small file for the differences of each.

Graph, checks, files, replicas and threads are common. Written from AWS's documents; not yet tested on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Protocol

from depthcli.backends.artifact import STANDIN
from depthcli.backends.neuron import common
from depthcli.backends.neuron.inf1 import Inf1
from depthcli.backends.neuron.neuronx import NeuronX
from depthcli.backends.neuron.standin import StandIn
from depthcli.choices.compiler import CompilerChoice


class Flavour(Protocol):
    """One kind of chip.

    target: its name, also of instances with it. package: the distribution that compiles and runs networks for it.
    cores_per_device: NeuronCores of one chip. casts: the compiler's ways to round and their arguments, the default
    first. listed: AWS publishes the converter's operators. simulated: a stand-in.
    """

    target: str
    package: str
    cores_per_device: int
    casts: Mapping[str, Sequence[str]]
    listed: bool
    simulated: bool

    def require(self, compiler: bool) -> Any:
        """Return the imported package. compiler: require the compiler too. Raises EngineError."""

    def versions(self) -> dict[str, Optional[str]]:
        """Return the versions of the package and its compiler, None for one that is not installed."""

    def devices(self) -> list[str]:
        """Return the names of the chips of this machine."""

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """Return a static network compiled, as a TorchScript module. Raises EngineError.

        module: takes `example`, a float32 tensor on the CPU.
        """


_ALL: tuple[Flavour, ...] = (Inf1(), NeuronX("inf2"), NeuronX("trn1"), StandIn())
FLAVOURS = {flavour.target: flavour for flavour in _ALL}
CHIPS = tuple(target for target in FLAVOURS if target != STANDIN)  # those that exist


def targets_here(standin: bool) -> tuple[str, ...]:
    """Return the targets that this machine may run, the likeliest first.

    That of its instance type; else those whose package is installed; else all, and opening one reports what is missing.
    standin: allow the stand-in, after all others.
    """
    family = (common.instance_type() or "").partition(".")[0]
    installed = tuple(target for target in CHIPS if common.installed_version(FLAVOURS[target].package))
    chips = (family,) if family in CHIPS else installed or CHIPS
    return (*chips, STANDIN) if standin else chips
