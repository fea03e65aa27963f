"""Eager PyTorch on the CPU, CUDA or Apple's MPS: the reference that all other backends are compared with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import numpy as np
import torch
from torch import nn

from depthcli.backends import CLIP_GRAPHS, PICTURE_GRAPHS, SCENE_GRAPHS, Arrays, Traits
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, Log, StoppedError, first_line
from depthcli.host.memory import check_clip_memory, check_memory, check_scene_memory, free_memory
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import channels_last, read_network
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Frames of a clip that are encoded at once. Divisors of 10, 22 and 32, the frames that a window begins and goes on
# with: every call then has the same size, and a frame that is encoded again after an interruption gets the same bits.
_FRAMES = {"cpu": 1}
_FRAMES_ON_DEVICES = 2
_GRAPHS = {ModelTask.PICTURE: PICTURE_GRAPHS, ModelTask.CLIP: CLIP_GRAPHS, ModelTask.SCENE: SCENE_GRAPHS}


class TorchEager:
    """One network in eager mode. fp16 and bf16 run under autocast; the weights stay float32.

    Raises EngineError for a missing device or an unsupported precision.
    """

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, log: Log) -> None:
        self._row = row
        self._device = pick_device(choice.device)
        self._precision = _pick_precision(choice.precision, self._device)
        network = channels_last(read_network(row, weights, trust))
        with torch_errors():
            self._network: Optional[nn.Module] = network.to(self._device)
        frames = _FRAMES.get(self._device.type, _FRAMES_ON_DEVICES)
        self.traits = Traits(
            name="torch",
            version=torch.__version__,
            device=str(self._device),
            precision=self._precision,
            graphs=_GRAPHS[row.task],
            best_batch=frames if row.task is ModelTask.CLIP else 1,
        )

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan unchanged: every size runs."""
        return plan

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """See Backend."""
        facts = self._row.network, plan, batch, self._free_memory(), not HAS_FUSED
        if self._row.task is ModelTask.SCENE:
            check_scene_memory(*facts, further)
        else:
            check = check_clip_memory if self._row.task is ModelTask.CLIP else check_memory
            check(*facts)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """See Backend. Features stay on the device."""
        if self._network is None:
            raise EngineError("this backend is closed", "open another one")
        network: Any = self._network
        with torch.inference_mode(), torch_errors(), self._autocast():
            if graph == "decode":
                return {"depth": network.decode(inputs["features"]).float().cpu().numpy()}
            if graph == "views":
                return self._run_views(network, inputs)
            image = torch.from_numpy(np.ascontiguousarray(inputs["image"])).to(self._device)
            if graph == "encode":
                return {"features": network.encode(image)}
            answers = network(image)
            named = zip(self._row.outputs, answers if isinstance(answers, tuple) else (answers,))
            return {name: answer.float().cpu().numpy() for name, answer in named}

    def _run_views(self, network: Any, inputs: Arrays) -> Arrays:
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(value, np.float32)).to(self._device)
            for name, value in inputs.items()
            if isinstance(value, np.ndarray)
        }
        settings = {name: value for name, value in inputs.items() if name not in tensors}
        with _stopped_by(settings.pop("stop", None), network):
            answers = network(tensors.pop("image"), **tensors, **settings)
        return {
            name: value.float().cpu().numpy() if isinstance(value, torch.Tensor) else np.array(value)
            for name, value in answers.items()
        }

    def close(self) -> None:
        """Free the network; closing twice is allowed."""
        self._network = None

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        if self._precision != "fp32":
            with torch.autocast(self._device.type, _TORCH_DTYPES[self._precision]):
                yield
        elif self._device.type == "cuda":
            # TF32 is on by default in cuDNN and costs three digits; fp32 means fp32 here.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        else:
            yield

    def _free_memory(self) -> int | None:
        """Return the bytes that a network may still take on the device, or None if unknown."""
        if self._device.type == "cuda":
            # What torch holds of the device without using it is free for the next picture.
            cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            return int(torch.cuda.mem_get_info(self._device)[0]) + cached
        return free_memory()


@contextlib.contextmanager
def _stopped_by(stop: Optional[Callable[[], bool]], network: nn.Module) -> Iterator[None]:
    """Ask `stop` before each layer of several parts that the block runs; once it returns True, StoppedError is raised.

    By hooks, so that the forward passes say nothing of it. Another thread may run the network meanwhile.
    """
    if stop is None:
        yield
        return
    thread = threading.get_ident()

    def ask(*_: Any) -> None:
        if threading.get_ident() == thread and stop():
            raise StoppedError

    layers = [layer for layer in network.modules() if any(True for _ in layer.children())]
    hooks = [layer.register_forward_pre_hook(ask) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pick_device(name: str) -> torch.device:
    """Return the device of a `device` setting: auto is CUDA, else MPS, else the CPU. EngineError if it is missing."""
    has_mps = bool(getattr(torch.backends, "mps", None)) and torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineError("this torch finds no CUDA device", "use `device` cpu, or install torch for CUDA")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise EngineError(f"there is no {name}: {torch.cuda.device_count()} CUDA devices were found")
    if kind == "mps" and not has_mps:
        raise EngineError("this machine has no MPS device", "use `device` cpu")
    return torch.device(name)


@contextlib.contextmanager
def torch_errors() -> Iterator[None]:
    """Turn what torch raises into an EngineError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch before 2.0 has no own class for a lack of memory
        text = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            raise EngineError("the device ran out of memory", "use a smaller `input_size` or `batch`") from error
        raise EngineError(f"torch failed: {first_line(error)}", "try `device` cpu") from error


def _pick_precision(wanted: str, device: torch.device) -> str:
    precision = "fp32" if wanted in ("auto", "exact") else wanted
    if precision == "int8":
        raise EngineError("torch does not compute in int8 here", "use `backend` openvino, on a CPU")
    if device.type == "cpu" and precision == "fp16":
        raise EngineError("half precision does not run on the CPU", "use `precision` fp32 or bf16")
    if device.type == "cpu" and precision == "bf16" and not HAS_FUSED:
        # autocast of 1.13 on the CPU leaves layer norms with two types
        raise EngineError(f"bf16 on the CPU needs torch 2.0, this is {torch.__version__}", "use `precision` fp32")
    return precision
