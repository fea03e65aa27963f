"""Engines: one file each, numpy in, numpy out. An engine is chosen by name here and imported only when it is opened."""

from __future__ import annotations

import importlib
import re
from typing import Protocol

import numpy as np

from depthcli.errors import UsageError
from depthcli.preprocess import InputPlan
from depthcli.weights import WeightsFile
from depthcli.zoo import ModelRow

Arrays = dict[str, np.ndarray]

# name -> "module:class"; the first is what `auto` takes
BACKENDS = {"torch": "depthcli.backends.torch_eager:TorchEager"}
DTYPES = ("auto", "fp32", "bf16", "fp16")


class Backend(Protocol):
    """A network on a device.

    description: engine, version, device and dtype, for people and for metadata.
    """

    description: str

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a batch of this size would not fit into the device's memory."""

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}; raises EngineError."""

    def close(self) -> None:
        """Free the device."""


def check_names(backend: str, device: str, dtype: str) -> None:
    """Raise UsageError for a backend, device or dtype that is none, wherever this runs."""
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no backend is called {backend!r}", f"choose from: auto, {', '.join(BACKENDS)}")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"no device is called {device!r}", "choose auto, cpu, cuda, cuda:N or mps")
    if dtype not in DTYPES:
        raise UsageError(f"no dtype is called {dtype!r}", f"choose from: {', '.join(DTYPES)}")


def open_backend(
    name: str, row: ModelRow, weights: WeightsFile, device: str = "auto", dtype: str = "auto", trust: bool = False
) -> Backend:
    """Return the engine of that name with the row's network loaded.

    trust: read a pickle that this torch cannot read safely. Raises UsageError, ModelError or EngineError.
    """
    check_names(name, device, dtype)
    if name == "auto":
        name = next(iter(BACKENDS))
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)(row, weights, device, dtype, trust)
    return backend
