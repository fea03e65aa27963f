"""A stand-in of the package torch_neuron, for tests alone: its documented functions, and the ways in which they fail.

What it "compiles" runs on the CPU behind one operator neuron::forward_v2, as a graph from the real one looks.
"""

from __future__ import annotations

import subprocess
import types
import warnings
from typing import Any

import torch

_library = torch.library.Library("neuron", "DEF")
_library.define("forward_v2(Tensor[] weights, int key, Tensor x) -> Tensor")
_compiled: list[Any] = []


def _forward(weights: list[torch.Tensor], key: int, x: torch.Tensor) -> torch.Tensor:
    return _compiled[key](x)


for _key in ("CPU", "CompositeExplicitAutograd"):
    try:
        _library.impl("forward_v2", _forward, _key)
    except RuntimeError:
        continue
    break


class _Whole(torch.nn.Module):
    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.neuron.forward_v2([x], self.key, x)


class _Partial(_Whole):
    """What a failed part leaves: some of it computed on the CPU, and not a word about it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.neuron.forward_v2([x], self.key, x).softmax(dim=1).mul(0.5)


def make(failure: str = "") -> types.ModuleType:
    """Return the module. failure: "", or how `trace` fails."""
    module = types.ModuleType("torch_neuron")
    calls: list[dict[str, Any]] = []

    def trace(
        network: torch.nn.Module,
        example_inputs: Any,
        *,
        compiler_args: list[str] | None = None,
        compiler_timeout: int | None = None,
        compiler_workdir: str | None = None,
        fallback: bool = True,
        dynamic_batch_size: bool = False,
    ) -> torch.jit.ScriptModule:
        assert compiler_args is None or all(isinstance(argument, str) for argument in compiler_args)
        assert compiler_workdir is None or isinstance(compiler_workdir, str)
        assert isinstance(example_inputs, torch.Tensor) and example_inputs.dtype == torch.float32
        calls.append({"args": compiler_args, "timeout": compiler_timeout, "fallback": fallback})
        if failure == "timeout":
            raise subprocess.TimeoutExpired("neuron-cc", compiler_timeout or 0)
        if failure == "compiler":
            raise subprocess.SubprocessError("neuron-cc failed with the following command line call")
        if failure == "operator":
            raise AttributeError("module has no attribute 'aten_upsample_bicubic2d'")
        if failure == "nothing":
            raise RuntimeError("No operations were successfully partitioned and compiled to neuron for this model")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = torch.jit.trace(network, example_inputs, check_trace=False)
            if failure == "all on the CPU":
                return plain
            _compiled.append(plain)
            kind = _Partial if failure == "partial" else _Whole
            return torch.jit.trace(kind(len(_compiled) - 1), example_inputs, check_trace=False)

    module.trace = trace  # type: ignore[attr-defined]
    module.calls = calls  # type: ignore[attr-defined]
    return module


def make_x() -> types.ModuleType:
    """Return a stand-in of torch_neuronx, whose `trace` takes other arguments and knows no parts on the CPU."""
    module = types.ModuleType("torch_neuronx")
    calls: list[dict[str, Any]] = []

    def trace(
        network: torch.nn.Module,
        example_inputs: Any,
        *_: Any,
        compiler_workdir: str | None = None,
        compiler_args: list[str] | None = None,
        cpu_backend: bool = False,
    ) -> torch.jit.ScriptModule:
        assert not _ and compiler_args is not None and all(isinstance(argument, str) for argument in compiler_args)
        calls.append({"args": compiler_args, "cpu_backend": cpu_backend})
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _compiled.append(torch.jit.trace(network, example_inputs, check_trace=False))
            return torch.jit.trace(_Whole(len(_compiled) - 1), example_inputs, check_trace=False)

    module.trace = trace  # type: ignore[attr-defined]
    module.calls = calls  # type: ignore[attr-defined]
    return module
