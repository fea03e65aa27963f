"""AWS Inferentia 2 and Trainium through torch-neuronx: one converter (XLA) and one compiler for two targets.

AWS maintains this way of compiling and develops another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from depthcli.backends.neuron import common
from depthcli.backends.neuron.common import INDEX
from depthcli.choices.compiler import CompilerChoice
from depthcli.errors import EngineError, first_line

INSTALL = f'pip install "torch-neuronx==2.9.*" "neuronx-cc==2.*" --extra-index-url {INDEX}'

_CASTS = {
    "matmult": ("--auto-cast", "matmult", "--auto-cast-type", "bf16"),
    "all": ("--auto-cast", "all", "--auto-cast-type", "bf16"),
    "none": ("--auto-cast", "none"),
}


class NeuronX:
    """A chip with second-generation NeuronCores. Rounding is always stated, as the compiler's default has changed."""

    package = "torch-neuronx"
    cores_per_device = 2
    casts: Mapping[str, Sequence[str]] = _CASTS
    listed = False  # everything is lowered through XLA as one graph, or fails
    simulated = False

    def __init__(self, target: str) -> None:
        self.target = target

    def require(self, compiler: bool) -> Any:
        """See Flavour."""
        try:
            import torch_neuronx
        except ImportError as error:
            raise EngineError(f"torch-neuronx is not installed ({error})", INSTALL) from error
        if compiler and common.installed_version("neuronx-cc") is None:
            raise EngineError("neuronx-cc, the compiler, is not installed", INSTALL)
        return torch_neuronx

    def versions(self) -> dict[str, Optional[str]]:
        """See Flavour."""
        return {name: common.installed_version(name) for name in (self.package, "neuronx-cc")}

    def devices(self) -> list[str]:
        """See Flavour."""
        return common.device_files()

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """See Flavour. This converter has no time limit and leaves no part to the CPU."""
        torch_neuronx = self.require(compiler=True)
        arguments: dict[str, Any] = {"compiler_args": common.cast_arguments(self.target, self.casts, options.fast_math)}
        if not self.devices():
            arguments["cpu_backend"] = True
            arguments["compiler_args"] += ["--target", self.target]
        if options.workdir is not None:
            arguments["compiler_workdir"] = str(options.workdir)
        try:
            return torch_neuronx.trace(module, example, **arguments)
        except MemoryError as error:
            raise EngineError("compiling needs more memory than is free", "use a machine with 32 GB or more") from error
        except Exception as error:  # XLA's and the compiler's errors have no base in common
            raise EngineError(f"torch-neuronx failed: {first_line(error)}", common.logs(options)) from error
