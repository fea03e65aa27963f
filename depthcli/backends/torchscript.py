"""TorchScript files of `depth compile`, one per input size, on the CPU, CUDA or MPS."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch

from depthcli.backends import Arrays, Traits
from depthcli.backends.archive import seal
from depthcli.backends.artifact import Artifact, CompiledNetworks, named_outputs, open_artifact, read_artifact
from depthcli.backends.export import Export, Shape, compare
from depthcli.backends.torch_eager import pick_device, torch_errors
from depthcli.choices.compiler import CompilerChoice
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.jit import quiet_jit
from depthcli.graphs.static import guarded, trace
from depthcli.host.memory import check_memory, free_memory
from depthcli.nets.attention import HAS_FUSED
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow


class TorchScript:
    """The compiled networks of one model; each is loaded when a picture first needs its input size."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, log: Log) -> None:
        if choice.precision not in ("auto", "fp32"):
            raise EngineError(f"torchscript computes in fp32, not {choice.precision}", "use `backend` torch")
        self._row = row
        self._device = pick_device(choice.device)
        self._networks = CompiledNetworks(choice.artifacts, ("torchscript",), choice.shape_policy, row, weights)
        for artifact in self._networks.artifacts:
            _check_version(artifact)
        self._closed = False
        compiled = self._networks.by_size
        self.traits = Traits("torchscript", torch.__version__, str(self._device), "fp32", compiled=compiled)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a compiled input size. Raises EngineError if none fits the picture."""
        return self._networks.fit(plan)

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """See Backend. A run is as large as the compiled batch."""
        check_memory(self._row.network, plan, self._networks.of(plan.input_size).batch, free_memory(), not HAS_FUSED)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """See Backend. Runs as often as the compiled batch needs; the last run is filled up with zeros."""
        if self._closed:
            raise EngineError("this backend is closed", "open another one")
        images = np.ascontiguousarray(inputs["image"])
        artifact = self._networks.of((images.shape[3], images.shape[2]))
        network, depth = self._networks.loaded(artifact, self._load), []
        with torch.inference_mode(), torch_errors():
            for start in range(0, len(images), artifact.batch):
                batch = torch.zeros((artifact.batch, *images.shape[1:]))
                taken = images[start : start + artifact.batch]
                batch[: len(taken)] = torch.from_numpy(taken)
                depth.append(network(batch.to(self._device))[: len(taken)].float().cpu().numpy())
        return named_outputs(self._row, np.concatenate(depth))

    def close(self) -> None:
        """Free the networks; closing twice is allowed."""
        self._networks.close()
        self._closed = True

    def _load(self, artifact: Artifact, content: io.BytesIO) -> Any:
        with torch_errors(), quiet_jit():
            return torch.jit.load(content, map_location=self._device).eval()  # type: ignore[no-untyped-call]


def export(
    network: torch.nn.Module, shape: Shape, path: Path, facts: Mapping[str, Any], options: CompilerChoice, log: Log
) -> Export:
    """Write a network as a TorchScript archive, with the facts as its description, and run it once."""
    graph = guarded(trace(network, *shape), *shape)
    with quiet_jit():
        torch.jit.save(graph, str(path))
    return Export(seal(path, dict(facts)), compare(network, shape, run_file(path), "torch"))


def run_file(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that runs a compiled file: (B, 3, H, W) -> (B, H, W). Raises CheckpointError."""
    with quiet_jit():
        network = torch.jit.load(open_artifact(read_artifact(path)))  # type: ignore[no-untyped-call]

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(image)))

    return run


def _check_version(artifact: Artifact) -> None:
    """Raise EngineError for a file of a later torch, which this one may not read."""
    theirs, ours = (tuple(map(int, text.split("+")[0].split(".")[:2])) for text in (artifact.torch, torch.__version__))
    if theirs > ours:
        raise EngineError(
            f"{artifact.path} was compiled with torch {artifact.torch}, this is {torch.__version__}",
            "compile it with this version, or update torch",
        )
