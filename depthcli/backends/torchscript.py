"""TorchScript files that `depth compile` wrote, one for each size of input, on a CPU, CUDA or MPS."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from depthcli.backends import Arrays
from depthcli.backends.artifact import Artifact, CompiledNetworks
from depthcli.backends.torch_eager import engine_errors, pick_device
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.jit import quiet_jit
from depthcli.host.memory import check_memory, free_memory
from depthcli.nets.attention import HAS_FUSED
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow


class TorchScript:
    """The compiled networks of one model; the one that a picture's size asks for is loaded when it first comes by."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        if choice.precision not in ("auto", "fp32"):
            raise EngineError(f"torchscript computes in fp32, not {choice.precision}", "use --backend torch")
        self._row = row
        self._device = pick_device(choice.device)
        self._networks = CompiledNetworks(choice.artifacts, ("torchscript",), choice.shape_policy, row, weights)
        for artifact in self._networks.artifacts:
            _check_version(artifact)
        self._closed = False
        self.description = f"torchscript {torch.__version__} {self._device} fp32"

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a size that was compiled. Raises EngineError where there is none for the picture."""
        return self._networks.fit(plan)

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a batch of this size would not fit into the memory."""
        check_memory(self._row.network, plan, self._networks.of(plan.input_size).batch, free_memory(), not HAS_FUSED)

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}.

        In as many runs as the compiled batch needs; the last is filled up with zeros.
        """
        if self._closed:
            raise EngineError("this estimator is closed", "open another one")
        images = np.ascontiguousarray(inputs["image"])
        artifact = self._networks.of((images.shape[3], images.shape[2]))
        network, depth = self._networks.loaded(artifact, self._load), []
        with torch.inference_mode(), engine_errors():
            for start in range(0, len(images), artifact.batch):
                batch = torch.zeros((artifact.batch, *images.shape[1:]))
                taken = images[start : start + artifact.batch]
                batch[: len(taken)] = torch.from_numpy(taken)
                depth.append(network(batch.to(self._device))[: len(taken)].float().cpu().numpy())
        return {"depth": np.concatenate(depth)}

    def artifact(self, size: tuple[int, int]) -> Artifact:
        """Return the network for an input of (width, height). Raises EngineError where there is none."""
        return self._networks.of(size)

    def close(self) -> None:
        """Free the networks; closing twice is no error."""
        self._networks.close()
        self._closed = True

    def _load(self, artifact: Artifact, content: io.BytesIO) -> Any:
        with engine_errors(), quiet_jit():
            return torch.jit.load(content, map_location=self._device).eval()  # type: ignore[no-untyped-call]


def _check_version(artifact: Artifact) -> None:
    """Raise EngineError where a file was written by a torch later than this one, which need not read it."""
    theirs, ours = (tuple(map(int, text.split("+")[0].split(".")[:2])) for text in (artifact.torch, torch.__version__))
    if theirs > ours:
        raise EngineError(
            f"{artifact.path} was compiled with torch {artifact.torch}, this is {torch.__version__}",
            "compile it with this version, or update torch",
        )
