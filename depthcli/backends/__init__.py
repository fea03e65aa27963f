"""Engines: one file each, numpy in, numpy out. An engine is chosen by name here and imported only when it is opened."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from depthcli.errors import UsageError
from depthcli.preprocess import InputPlan
from depthcli.weights import WeightsFile
from depthcli.zoo import ModelRow

Arrays = dict[str, np.ndarray]

# name -> "module:class"; the first is what `auto` takes
BACKENDS = {"torch": "depthcli.backends.torch_eager:TorchEager"}
PRECISIONS = ("auto", "exact", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class EngineChoice:
    """What a user said about the engine; "auto" means: choose for me.

    backend: auto or a name of BACKENDS. device: auto, cpu, cuda, cuda:N or mps. precision: one of PRECISIONS.
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"


class Backend(Protocol):
    """A network on a device.

    description: engine, version, device and precision, for people and for metadata.
    """

    description: str

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a batch of this size would not fit into the device's memory."""

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}; raises EngineError."""

    def close(self) -> None:
        """Free the device."""


def check_choice(choice: EngineChoice) -> None:
    """Raise UsageError for a backend, device or precision that is none, wherever this runs."""
    backend, device, precision = choice.backend, choice.device, choice.precision
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no backend is called {backend!r}", f"choose from: auto, {', '.join(BACKENDS)}")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"no device is called {device!r}", "choose auto, cpu, cuda, cuda:N or mps")
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is called {precision!r}", f"choose from: {', '.join(PRECISIONS)}")


def open_backend(
    row: ModelRow, weights: WeightsFile, choice: EngineChoice = EngineChoice(), trust: bool = False
) -> Backend:
    """Return the engine that was chosen, with the row's network loaded.

    trust: read a pickle that this torch cannot read safely. Raises UsageError, ModelError or EngineError.
    """
    check_choice(choice)
    name = next(iter(BACKENDS)) if choice.backend == "auto" else choice.backend
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)(row, weights, choice, trust)
    return backend
