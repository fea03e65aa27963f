"""Engines: one file each, numpy in, numpy out. An engine is chosen by name here and imported only when it is opened."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log, UsageError, last_line
from depthcli.host.memory import check_room
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

Arrays = dict[str, np.ndarray]

# name -> "module:class"
BACKENDS = {
    "torch": "depthcli.backends.torch_eager:TorchEager",
    "openvino": "depthcli.backends.openvino:OpenVino",
    "onnx": "depthcli.backends.onnx:OnnxRuntime",
    "torchscript": "depthcli.backends.torchscript:TorchScript",
    "neuron": "depthcli.backends.neuron.engine:Neuron",
}
# The same for models for clips; these give `encode` and `decode` instead of `run`.
VIDEO_BACKENDS = {
    "torch": "depthcli.backends.video_torch:VideoTorch",
    "openvino": "depthcli.backends.video_openvino:VideoOpenVino",
}
# What `auto` takes on a CPU, the first that is installed, for these precisions; torch where there is none.
_CPU_ENGINES = (("openvino", "openvino", ("auto", "fp32", "bf16", "int8")), ("onnx", "onnxruntime", ("auto", "fp32")))
# Any of these is there where a driver for NVIDIA's or AMD's devices is.
_GPU_TRACES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# How the loader of shared libraries and the makers of threads say that there is no room for them.
_NO_ROOM = re.compile(
    r"failed to map segment|[Cc]annot allocate memory|bad_alloc|start new thread|[Rr]esource temporarily"
)


class Backend(Protocol):
    """A network on a device.

    description: engine, version, device and precision, for people and for metadata.
    """

    description: str

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with an input size that the engine takes; raises EngineError where it has none for it."""

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a batch of this size would not fit into the device's memory."""

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}; raises EngineError."""

    def close(self) -> None:
        """Free the device."""


class VideoNetwork(Protocol):
    """A network for windows of frames. best_batch: how many frames it wants to encode at once."""

    best_batch: int

    def encode(self, images: np.ndarray) -> Sequence[Any]:
        """Return for each of the images (n, 3, H, W) float32 what `decode` wants to have of it."""

    def decode(self, frames: Sequence[Any]) -> np.ndarray:
        """Return the maps (32, H, W) float32 of a window's frames, in order."""


class VideoBackend(VideoNetwork, Protocol):
    """A network for windows of frames on a device. description: engine, version, device and precision."""

    description: str

    def check(self, plan: InputPlan) -> None:
        """Raise PictureError where a window of this size would not fit into the device's memory."""

    def close(self) -> None:
        """Free the device."""


def targets_of(choice: BackendChoice) -> tuple[str, ...]:
    """Return the targets of `depth compile` whose files an engine of COMPILED_BACKENDS runs, the likeliest first."""
    if choice.backend == "torchscript":
        return ("torchscript",)
    from depthcli.backends.neuron.flavours import targets_here

    return targets_here(choice.allow_standin)


def open_backend(
    row: ModelRow,
    weights: WeightsFile,
    choice: BackendChoice = BackendChoice(),
    trust: bool = False,
    talk: Log = lambda line: None,
) -> Backend:
    """Return the engine that was chosen, with the row's network loaded.

    trust: read a pickle that this torch cannot read safely. talk: takes a line at a time about what does not go as it
    should. Raises UsageError, ModelError or EngineError.
    """
    name = pick_backend(choice) if choice.backend == "auto" else choice.backend
    with _loading(name):
        backend: Backend = _class_at(BACKENDS[name])(row, weights, choice, trust, talk)
    return backend


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Within this context an engine that cannot be loaded is an EngineError."""
    if name not in sys.modules:
        check_room(name)
    try:
        yield
    except (ImportError, MemoryError, RuntimeError) as error:
        line = last_line(error)
        if isinstance(error, MemoryError) or _NO_ROOM.search(line):
            raise EngineError(
                f"{name} cannot be loaded: not enough memory or threads", "raise the limits (ulimit -a)"
            ) from error
        raise EngineError(f"{name} cannot be loaded: {line}", "install it again, or use another --backend") from error


def _class_at(place: str) -> Any:
    """Return the class at "module:class", imported only now."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def open_video_backend(
    row: ModelRow,
    weights: WeightsFile,
    choice: BackendChoice = BackendChoice(),
    trust: bool = False,
    talk: Log = lambda line: None,
) -> VideoBackend:
    """Return the engine for a model for clips, with the row's network loaded; otherwise as `open_backend`."""
    name = choice.backend
    if name == "auto":
        picked = pick_backend(choice)
        name = picked if picked in VIDEO_BACKENDS else "torch"
    if name not in VIDEO_BACKENDS:
        raise UsageError(
            f"{name} does not run models for video", f"choose from: {', '.join(('auto', *VIDEO_BACKENDS))}"
        )
    with _loading(name):
        backend: VideoBackend = _class_at(VIDEO_BACKENDS[name])(row, weights, choice, trust, talk)
    return backend


def pick_backend(choice: BackendChoice) -> str:
    """Return what `auto` stands for: torch for a GPU or where its arithmetic is asked for, else the CPU's best."""
    if choice.device not in ("auto", "cpu") or (choice.device == "auto" and _has_gpu()):
        return "torch"
    for name, package, precisions in _CPU_ENGINES:
        if choice.precision in precisions and importlib.util.find_spec(package):
            return name
    return "torch"


def _has_gpu() -> bool:
    """Return whether torch has a device other than the CPU; torch is asked only where the system shows signs of one."""
    if sys.platform.startswith("linux") and not any(os.path.exists(path) for path in _GPU_TRACES):
        return False
    from depthcli.backends.torch_eager import pick_device

    return pick_device("auto").type != "cpu"
