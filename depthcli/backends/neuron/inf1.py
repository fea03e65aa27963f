"""AWS Inferentia (Inf1) through torch-neuron 1.13.1.

A compiled network is a TorchScript file of operators named neuron::..., which only torch_neuron provides.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from depthcli.backends.neuron import common
from depthcli.backends.neuron.common import INDEX
from depthcli.choices.compiler import CompilerChoice
from depthcli.errors import EngineError, first_line

_RUN = 'pip install "torch-neuron==1.13.1.2.11.13.0" "protobuf<3.20" "numpy==1.22.2"'
INSTALL = f"{_RUN} --extra-index-url {INDEX}"
INSTALL_COMPILER = f'{INSTALL} "neuron-cc[tensorflow]==1.24.0.0"'

# The default keeps layer norms and softmax in float32.
_CASTS = {
    "fp32-cast-matmult": ("--fast-math", "fp32-cast-matmult"),
    "fp32-cast-matmult-no-fast-relayout": ("--fast-math", "fp32-cast-matmult", "no-fast-relayout"),
    "all": ("--fast-math", "all"),
    "none": ("--fast-math", "none"),
}


class Inf1:
    """Inferentia's first chip. neuron-cc's --fast-math says how to round float32; all ways multiply in 16 bits."""

    target = "inf1"
    package = "torch-neuron"
    cores_per_device = 4
    casts: Mapping[str, Sequence[str]] = _CASTS
    listed = True
    simulated = False

    def require(self, compiler: bool) -> Any:
        """See Flavour. Machines that only run networks lack neuron-cc."""
        install = INSTALL_COMPILER if compiler else INSTALL
        installed = common.installed_version(self.package)
        if installed is not None and installed.startswith("1.0"):
            raise EngineError(
                f"found the empty torch-neuron {installed} placeholder from PyPI",
                f"uninstall it and use the AWS index: {install}",
            )
        try:
            import torch_neuron
        except ImportError as error:
            raise EngineError(f"torch-neuron is not installed ({error})", install) from error
        if compiler and common.installed_version("neuron-cc") is None and shutil.which("neuron-cc") is None:
            raise EngineError("neuron-cc, the compiler, is not installed", install)
        return torch_neuron

    def versions(self) -> dict[str, Optional[str]]:
        """See Flavour."""
        return {name: common.installed_version(name) for name in (self.package, "neuron-cc")}

    def devices(self) -> list[str]:
        """See Flavour."""
        return common.device_files()

    def compile_network(self, module: Any, example: Any, options: CompilerChoice) -> Any:
        """See Flavour."""
        torch_neuron = self.require(compiler=True)
        arguments: dict[str, Any] = {
            "compiler_args": common.cast_arguments(self.target, self.casts, options.fast_math),
            "compiler_timeout": options.timeout,
            # An operator that neuron-cc does not know is an error, and never a silent partition.
            "fallback": options.allow_cpu_ops,
            "dynamic_batch_size": False,
        }
        if options.workdir is not None:
            arguments["compiler_workdir"] = str(options.workdir)
        try:
            return torch_neuron.trace(module, example, **arguments)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"neuron-cc did not end within {options.timeout} s", "give a longer `timeout`") from error
        except subprocess.SubprocessError as error:
            raise EngineError(
                f"neuron-cc failed: {first_line(error)}",
                f"{common.logs(options)}; a smaller `size`, or `encoder` vits, may compile",
            ) from error
        except AttributeError as error:
            raise EngineError(f"torch-neuron lacks an operator: {first_line(error)}", "please report this") from error
        except MemoryError as error:
            raise EngineError("compiling needs more memory than is free", "use a machine with 32 GB or more") from error
        except RuntimeError as error:
            raise EngineError(f"torch-neuron failed: {first_line(error)}", common.logs(options)) from error
