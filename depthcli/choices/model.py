"""Which model, and what runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.choices.settings import require
from depthcli.errors import UsageError

BACKENDS = ("torch", "openvino", "onnx", "torchscript", "neuron")
# These run networks that were compiled before, instead of checkpoints.
COMPILED_BACKENDS = ("torchscript", "neuron")
PRECISIONS = ("auto", "exact", "fp32", "bf16", "fp16", "int8")
SHAPE_POLICIES = ("strict", "stretch")
DETAILS = ("off", "edges", "tiles", "nearest")


@dataclass(frozen=True)
class ModelChoice:
    """Which model.

    model: name of a zoo row or path of a checkpoint. encoder: vits, vitb, vitl, vitg, tiny or auto.
    metric: indoor or outdoor. checkpoint: file to load instead of looking for one. max_depth: largest depth of a metric
    model, metres. offline: never download. trust: read a pickle that this torch cannot read safely.
    accept_licence: of a model that may be used for some purposes only; it is remembered.
    """

    model: Optional[str] = None
    encoder: str = "auto"
    metric: Optional[str] = None
    checkpoint: Optional[Path] = None
    max_depth: Optional[float] = None
    offline: bool = False
    trust: bool = False
    accept_licence: bool = False

    @classmethod
    def of(cls, model: Union[str, ModelChoice]) -> ModelChoice:
        """Return the choice that a name, a path or "auto" stands for; a choice stands for itself."""
        if isinstance(model, ModelChoice):
            return model
        return cls() if model == "auto" else cls(model=model)

    @property
    def is_automatic(self) -> bool:
        """Whether no model was chosen."""
        return self.encoder == "auto" and not (self.model or self.metric or self.checkpoint)


@dataclass(frozen=True)
class BackendChoice:
    """What runs the network.

    backend: auto or one of BACKENDS. device: auto, cpu, cuda, cuda:N or mps.
    precision: one of PRECISIONS. auto is the fastest whose answers stay within a few thousandths of the map's range:
    bf16 on a CPU that computes it, else fp32; exact is float32 in torch, as the reference computes it.
    calibration: folder of pictures to choose the steps of int8 by; None takes those chosen before.
    artifacts: compiled network, or a folder of them; None takes those beside the checkpoints.
    shape_policy: one of SHAPE_POLICIES, for a picture whose size was not compiled.
    allow_standin: run networks that only simulate one of AWS's chips.
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    calibration: Optional[Path] = None
    artifacts: Optional[Path] = None
    shape_policy: str = "strict"
    allow_standin: bool = False

    def __post_init__(self) -> None:
        require("backend", self.backend, ("auto", *BACKENDS))
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise UsageError(f"unknown `device` {self.device!r}", "choose from: auto, cpu, cuda, cuda:N, mps")
        require("precision", self.precision, PRECISIONS)
        if self.calibration is not None and self.precision != "int8":
            raise UsageError("`calibration` needs `precision` int8", "leave it out, or set `precision` to int8")
        require("shape_policy", self.shape_policy, SHAPE_POLICIES)
        if not self.runs_compiled and (self.artifacts is not None or self.shape_policy != "strict"):
            name = "artifacts" if self.artifacts else "shape_policy"
            backends = " or ".join(COMPILED_BACKENDS)
            raise UsageError(f"`{name}` needs a compiled network", f"leave it out, or set `backend` to {backends}")
        if self.allow_standin and self.backend != "neuron":
            raise UsageError("`allow_standin` needs `backend` neuron", "leave it out")

    @property
    def runs_compiled(self) -> bool:
        """Whether the backend runs compiled networks instead of checkpoints."""
        return self.backend in COMPILED_BACKENDS


def shaping_settings(
    model: ModelChoice, backend: BackendChoice, input_size: Optional[int], panorama: bool, detail: str = "off"
) -> dict[str, Any]:
    """Return the choices that shape depth maps, by the names that results note; None for those left open."""
    return {
        "encoder": model.encoder,
        "metric": model.metric,
        "model": model.model,
        "checkpoint": model.checkpoint and model.checkpoint.name,
        "max-depth": model.max_depth,
        "input-size": input_size,
        "panorama": panorama or None,
        "detail": None if detail == "off" else detail,
        "backend": backend.backend,
        "precision": backend.precision,
        "shape-policy": backend.shape_policy if backend.shape_policy != "strict" else None,
    }
