"""The reference engine: eager PyTorch on CPU, CUDA or Apple's MPS; all others are held to its float32 answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from depthcli.backends import Arrays
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log, first_line
from depthcli.host.memory import check_memory, free_memory
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import channels_last, load_network
from depthcli.nets.checkpoint import read_state
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchDevice:
    """Where eager torch computes and how exactly; fp16 and bf16 run under autocast, the weights stay float32.

    Raises EngineError for a device that is not there or a precision that it does not have.
    """

    def __init__(self, choice: BackendChoice) -> None:
        self.device = pick_device(choice.device)
        self.precision = "fp32" if choice.precision in ("auto", "exact") else choice.precision
        if self.precision == "int8":
            raise EngineError("torch does not compute in int8 here", "use --backend openvino, on a CPU")
        if self.device.type == "cpu" and self.precision == "fp16":
            raise EngineError("half precision does not run on the CPU", "use --precision fp32 or bf16")
        if self.device.type == "cpu" and self.precision == "bf16" and not HAS_FUSED:
            # autocast of 1.13 on the CPU leaves layer norms with two types
            raise EngineError(f"bf16 on the CPU needs torch 2.0, this is {torch.__version__}", "use --precision fp32")
        self.description = f"torch {torch.__version__} {self.device} {self.precision}"

    def load(self, row: ModelRow, weights: WeightsFile, trust: bool) -> nn.Module:
        """Return the row's network with its weights on the device."""
        state = read_state(weights.path, weights.sha256, trust=trust)
        network = channels_last(load_network(row, state, weights.path.name))
        with engine_errors():
            return network.to(self.device)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Within this context a network computes in the precision that was asked for, and keeps nothing to train by."""
        with torch.inference_mode(), engine_errors(), self._precision():
            yield

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self.precision != "fp32":
            with torch.autocast(self.device.type, _TORCH_DTYPES[self.precision]):
                yield
        elif self.device.type == "cuda":
            # TF32 is on by default in cuDNN and costs three digits; fp32 means fp32 here.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        else:
            yield

    def free_memory(self) -> int | None:
        """Return the bytes that a network may still take there, None where that is not known."""
        if self.device.type == "cuda":
            # What torch has taken from the device and does not use now is free for the next picture.
            cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0]) + cached
        return free_memory()


class TorchEager:
    """One network in eager mode."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        self._row = row
        self._on = TorchDevice(choice)
        self._network: nn.Module | None = self._on.load(row, weights, trust)
        self.description = self._on.description

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan itself: any size will do."""
        return plan

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a batch of this size would not fit into the device's memory."""
        check_memory(self._row.network, plan, batch, self._on.free_memory(), plain_attention=not HAS_FUSED)

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}."""
        if self._network is None:
            raise EngineError("this estimator is closed", "open another one")
        with self._on.computing():
            image = torch.from_numpy(np.ascontiguousarray(inputs["image"])).to(self._on.device)
            depth = self._network(image)
            return {"depth": depth.float().cpu().numpy()}

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._network = None


def pick_device(name: str) -> torch.device:
    """Return the device of `--device`: auto takes CUDA, else MPS, else the CPU.

    Raises EngineError for a device that is not there.
    """
    has_mps = bool(getattr(torch.backends, "mps", None)) and torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineError("this torch finds no CUDA device", "use --device cpu, or install torch for CUDA")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise EngineError(f"there is no {name}: {torch.cuda.device_count()} CUDA devices were found")
    if kind == "mps" and not has_mps:
        raise EngineError("this machine has no MPS device", "use --device cpu")
    return torch.device(name)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Within this context what torch raises becomes an EngineError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch before 2.0 has no class of its own for this
        text = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            raise EngineError("the device ran out of memory", "use a smaller --input-size or --batch") from error
        raise EngineError(f"torch failed: {first_line(error)}", "try --device cpu") from error
