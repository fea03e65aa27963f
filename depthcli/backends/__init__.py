"""Backends: what runs a network, named arrays in and named arrays out. A backend is imported only when it is opened."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

from depthcli.backends.artifact import Artifact
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, Log, UsageError, last_line
from depthcli.host.memory import check_room
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask, ViewsConfig

Arrays = Mapping[str, Any]

# name -> "module:class"
BACKENDS = {
    "torch": "depthcli.backends.torch_eager:TorchEager",
    "openvino": "depthcli.backends.openvino:OpenVino",
    "onnx": "depthcli.backends.onnx:OnnxRuntime",
    "torchscript": "depthcli.backends.torchscript:TorchScript",
    "neuron": "depthcli.backends.neuron.backend:Neuron",
}
CLIP_BACKENDS = ("torch", "openvino")  # those that run video models too
SCENE_BACKENDS = ("torch", "openvino")  # those that run networks for the views of a scene
_CONVERTS_SCENES = 2026  # first major version of OpenVINO; tried: 2025.4 and 2026.4
# The graphs of a network for pictures, those of one for clips, and those of one for scenes.
PICTURE_GRAPHS = ("depth",)
CLIP_GRAPHS = ("encode", "decode")
SCENE_GRAPHS = ("views",)
CPU_BACKENDS = ("openvino", "onnx", "torch")  # those that run checkpoints on a CPU
# What `auto` takes on a CPU, if no other was measured as the fastest: the first that is installed and computes in the
# precision, else torch.
_CPU_ORDER = (("openvino", "openvino", ("auto", "fp32", "bf16", "int8")), ("onnx", "onnxruntime", ("auto", "fp32")))
# At least one of these exists on Linux with a driver for NVIDIA or AMD devices.
_GPU_TRACES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# How loaders of shared libraries and makers of threads report a lack of memory.
_NO_ROOM = re.compile(
    r"failed to map segment|[Cc]annot allocate memory|bad_alloc|start new thread|[Rr]esource temporarily"
)


@dataclass(frozen=True)
class Traits:
    """The properties of a backend.

    name, version: of the package that computes. device: cpu, cuda:0, inf1:4 and the like. precision: fp32, bf16, fp16,
    int8 or mixed. note: a warning to print behind the name. graphs: that `run` takes, PICTURE_GRAPHS, CLIP_GRAPHS or
    SCENE_GRAPHS.
    best_batch: images per run that keep the device busy. mixes_sizes: a run may hold images of different sizes.
    replicas: copies of the network on the device. workers: threads that keep one copy busy.
    compiled: the compiled network for each input size (width, height); empty if the backend takes any size.
    """

    name: str
    version: str
    device: str
    precision: str
    note: str = ""
    graphs: tuple[str, ...] = PICTURE_GRAPHS
    best_batch: int = 1
    mixes_sizes: bool = False
    replicas: int = 1
    workers: int = 1
    compiled: Mapping[tuple[int, int], Artifact] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Name, version, device and precision, for people and for metadata."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}{note} {self.version} {self.device} {self.precision}"


class Backend(Protocol):
    """A network on a device."""

    @property
    def traits(self) -> Traits:
        """What the backend is, and how to feed it."""

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with an input size that the backend takes; raises EngineError if there is none."""

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """Raise PictureError if a run exceeds the memory.

        batch: images, or views of a scene; or frames of a window that are encoded at once. further: answers of a scene
        that will be asked for, of rays and gaussians.
        """

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """Return the outputs of one of the network's graphs by name; raises EngineError.

        depth: {"image": (B, 3, H, W) float32} -> {"depth": (B, H, W) float32}, or the names in the row's `outputs`. A
        backend that mixes sizes also takes, and returns, a list of single images.
        encode: {"image": (B, 3, H, W) float32} -> {"features": one opaque value per image, possibly on the device}.
        decode: {"features": those of a window's 32 frames, in order} -> {"depth": (32, H, W) float32}.
        views: {"image": (V, 3, H, W) float32, all views of one scene} -> the outputs that
        nets.depth_anything_3.DepthAnything3Views.forward names, as arrays. Further inputs, all optional: "extrinsics"
        (V, 3 or 4, 4), world to camera, relative to the first view and of normal scale, with "intrinsics" (V, 3, 3) in
        pixels of the image; "reference", a name of geometry.reference_views.REFERENCES; "rays" and "gaussians", True
        to have these; "features", a tuple of blocks of the encoder to have what they give; "stop", a function that is
        asked again and again during the run, which ends with StoppedError once it returns True.
        replica: run on this copy of the network, in the calling thread. None spreads the images over all copies.
        """

    def close(self) -> None:
        """Free the device; closing twice is allowed."""


def open_backend(
    row: ModelRow,
    weights: WeightsFile,
    choice: BackendChoice = BackendChoice(),
    trust: bool = False,
    log: Log = lambda line: None,
) -> Backend:
    """Return the chosen backend with the row's network loaded. Raises UsageError, ModelError or EngineError.

    trust: read a pickle that this torch cannot read safely. log: receives warnings, a line each.
    """
    name = pick_backend(choice) if choice.backend == "auto" else choice.backend
    if row.task is ModelTask.CLIP and name not in CLIP_BACKENDS:
        if choice.backend != "auto":
            raise UsageError(f"{name} does not run video models", f"choose from: {', '.join(('auto', *CLIP_BACKENDS))}")
        name = "torch"
    if row.task is ModelTask.SCENE and (
        name not in SCENE_BACKENDS or (name == "openvino" and not converts_scenes(row))
    ):
        if choice.backend != "auto":
            raise UsageError(f"{name} does not run {row.name}", "use `backend` auto or torch")
        name = "torch"
    module, _, attribute = BACKENDS[name].partition(":")
    with _loading(name):
        backend: Backend = getattr(importlib.import_module(module), attribute)(row, weights, choice, trust, log)
    return backend


def pick_backend(choice: BackendChoice) -> str:
    """Return the backend that `auto` stands for without a measurement: torch on a GPU, else by a fixed order."""
    if choice.device not in ("auto", "cpu") or (choice.device == "auto" and _has_gpu()):
        return "torch"
    for name, package, precisions in _CPU_ORDER:
        if choice.precision in precisions and importlib.util.find_spec(package):
            return name
    return "torch"


def remembered_backend(choice: BackendChoice, row: ModelRow) -> Optional[str]:
    """Return the backend that `auto` takes for a network because it was measured as the fastest here.

    Empty if nothing was measured and the order of `pick_backend` holds, None if the choice names a backend.
    """
    if choice.backend != "auto":
        return None
    if choice.device not in ("auto", "cpu") or row.task is ModelTask.CLIP:
        return ""
    from depthcli.host import fastest

    found = fastest.find(row.encoder, choice.precision)
    usable = found and found.backend in CPU_BACKENDS and not (choice.device == "auto" and _has_gpu())
    return found.backend if found and usable else ""


def targets_of(choice: BackendChoice) -> tuple[str, ...]:
    """Return the targets of `depth compile` that one of COMPILED_BACKENDS runs, the likeliest first."""
    if choice.backend == "torchscript":
        return ("torchscript",)
    from depthcli.backends.neuron.flavours import targets_here

    return targets_here(choice.allow_standin)


def converts_scenes(row: Optional[ModelRow] = None) -> bool:
    """Return whether the OpenVINO that is installed runs networks for scenes, or that of a row.

    Gaussians, and a second network, are not converted. OpenVINO 2025.4 cannot tell the shapes of the graph.
    """
    from importlib.metadata import version  # which pictures do not need

    major = version("openvino").partition(".")[0]
    network = row.network if row else None
    has_more = row is not None and (not isinstance(network, ViewsConfig) or network.gaussians)
    return not has_more and int(major) >= _CONVERTS_SCENES


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn errors of loading a backend into EngineErrors."""
    if name not in sys.modules:
        check_room(name)
    try:
        yield
    except (ImportError, MemoryError, RuntimeError) as error:
        line = last_line(error)
        if isinstance(error, MemoryError) or _NO_ROOM.search(line):
            raise EngineError(f"{name} lacks memory or threads to load", "raise the limits (ulimit -a)") from error
        raise EngineError(f"{name} cannot be loaded: {line}", "install it again, or use another `backend`") from error


def _has_gpu() -> bool:
    """Return whether torch has a GPU; torch is imported only if the system shows signs of one."""
    if sys.platform.startswith("linux") and not any(os.path.exists(path) for path in _GPU_TRACES):
        return False
    from depthcli.backends.torch_eager import pick_device

    return pick_device("auto").type != "cpu"
