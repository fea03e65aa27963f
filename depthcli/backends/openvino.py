"""OpenVINO, the engine for CPUs: a network is compiled once for every size of picture, kept in the cache, and mapped.

Transformers run in bf16 where the CPU computes it, which halves the time of float32 and moves the answer by a few
thousandths of its range; all else in float32. What of OpenVINO talks to a network, its telemetry, stays unused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.backends import Arrays
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.converted import EngineGraph, Write, graph_name, runtime_errors
from depthcli.host.cores import compute_threads
from depthcli.host.memory import check_memory, free_memory
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import LiteConfig, ModelRow

if TYPE_CHECKING:
    from depthcli.backends.quantize import Calibration
    from depthcli.graphs.any_size import AnySizeGraph

_FILE = "compiled.blob"
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
# How OpenVINO names what a CPU computes natively.
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


class OpenVino:
    """One network on the CPU, compiled for every size at once."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        core, capabilities, cpu = open_cpu(choice.device)
        precision = pick_precision(choice.precision, capabilities, row)
        calibration = None
        if precision == "int8":
            from depthcli.backends.quantize import Calibration

            calibration = Calibration(row, choice.calibration, talk)
        # Between its int8 layers a network computes in the best that the CPU has.
        settings = cpu_settings(pick_precision("auto", capabilities, row) if calibration else precision)
        kind = precision if calibration is None else f"int8-{row.input_size}"  # calibrated at that size
        # What is compiled for one CPU need not run on another that shares the cache.
        name = f"{graph_name('openvino', row, weights)}-{kind}-{cpu}"
        self._row = row
        self._graph = EngineGraph(_GraphEngine(core, settings, calibration), name, row, weights, trust, talk)
        with runtime_errors("openvino"):
            self._request: Any = self._graph.network.compiled.create_infer_request()
        self.description = describe(precision)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan itself: any size will do."""
        return plan

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a picture of this size would not fit into the memory; a batch runs one by one."""
        check_memory(self._row.network, plan, 1, free_memory())

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}.

        One by one, as on a CPU a larger batch only takes more memory.
        """
        if self._request is None:
            raise EngineError("this estimator is closed", "open another one")
        depth = []
        with runtime_errors("openvino"):
            for image in np.ascontiguousarray(inputs["image"])[:, None]:
                results = self._request.infer(self._graph.inputs.of(image), share_inputs=True)
                depth.append(results[0].copy())  # the next picture is written to the same memory
        self._graph.computed()
        return {"depth": np.concatenate(depth)}

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._request = None
        self._graph.close()


@dataclass(frozen=True)
class _Network:
    """What OpenVINO compiled, and the mapped file that it reads its weights from and does not keep alive itself."""

    compiled: Any
    blob: Optional[np.ndarray] = None


@dataclass(frozen=True)
class _GraphEngine:
    core: Any
    settings: dict[str, Any]
    calibration: Optional[Calibration]

    def is_current(self, kept: Optional[Path]) -> bool:
        return kept is not None if self.calibration is None else self.calibration.is_that_of(kept)

    def load(self, folder: Path) -> _Network:
        from openvino import Tensor

        # Mapped, so that a process takes from the disk what it uses, and processes share it.
        blob = np.memmap(folder / _FILE, np.uint8, "c")
        with runtime_errors("openvino"):
            return _Network(self.core.import_model(Tensor(blob, shared_memory=True), "CPU", self.settings), blob)

    def compile(self, graph: AnySizeGraph) -> tuple[_Network, Write]:
        from depthcli.backends.exports import to_openvino

        with runtime_errors("openvino"):
            model = to_openvino(graph.trace, graph.examples, any_size=True)
        facts: dict[str, str] = {}
        if self.calibration is not None:
            model, facts = self.calibration.quantized(model, graph)
        with runtime_errors("openvino"):
            compiled = self.core.compile_model(model, "CPU", self.settings)

        def write(folder: Path) -> None:
            (folder / _FILE).write_bytes(compiled.export_model().getbuffer())
            for file, text in facts.items():
                (folder / file).write_text(text, encoding="utf-8")

        return _Network(compiled), write


def open_cpu(device: str) -> tuple[Any, list[str], str]:
    """Return OpenVINO's core, what the CPU computes natively, and a name for the CPU. Raises EngineError."""
    if device not in ("auto", "cpu"):
        raise EngineError(f"openvino runs on the CPU here, not on {device}", "use --backend torch")
    with runtime_errors("openvino"):
        core = shared_core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return core, capabilities, _digest([core.get_property("CPU", "FULL_DEVICE_NAME"), *capabilities])


def describe(precision: str) -> str:
    """Return engine, version, device and precision."""
    return f"openvino {version('openvino')} cpu {precision}"


def cpu_settings(precision: str) -> dict[str, Any]:
    """Return how a network is compiled that computes in fp32, bf16 or fp16."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": compute_threads(),
        "NUM_STREAMS": 1,
        # Two processes that pin their threads pin them to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def shared_core() -> Any:
    """Return OpenVINO's core, one for the whole life of a process. Raises EngineError where the package is missing.

    Each core gives signal handlers a stack, and of two that go in the order they came the second gives them back that
    of the first, which is freed: the next Ctrl-C would be a segmentation fault (seen with 2026.4).
    """
    return _only_core(_import_openvino())


@functools.cache
def _only_core(openvino: Any) -> Any:
    return openvino.Core()


def _import_openvino() -> Any:
    """Import it without its converter of models, which takes two thirds of the time and brings the telemetry in.

    It leaves the converter out by itself where that cannot be imported; whoever calls it later gets it.
    """
    try:
        with _without("openvino.tools.ovc"):
            import openvino

        if not hasattr(openvino, "convert_model"):
            openvino.convert_model = _convert_model
    except ImportError as error:
        raise EngineError(
            f"openvino is not installed or does not load here: {error}",
            "pip install openvino (Python 3.10 or later), or use --backend torch",
        ) from error
    return openvino


def _convert_model(*arguments: Any, **options: Any) -> Any:
    from openvino.tools.ovc import convert_model

    return convert_model(*arguments, **options)


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Within this context a module that is not loaded yet cannot be imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def pick_precision(wanted: str, capabilities: list[str], row: ModelRow) -> str:
    """Return fp32, bf16, fp16 or int8 for what the user said. Raises EngineError for what the CPU does not compute."""
    if wanted == "exact":
        raise EngineError(
            "only torch computes exactly as the reference does", "use --backend torch, or --precision fp32"
        )
    if wanted == "auto":
        # The narrow layers of the packaged network lose half a percent in bf16, a transformer a third of that.
        coarse = isinstance(row.network, LiteConfig)
        return "bf16" if _CAPABILITIES["bf16"] in capabilities and not coarse else "fp32"
    if wanted not in ("fp32", "int8") and _CAPABILITIES[wanted] not in capabilities:
        raise EngineError(f"this CPU does not compute in {wanted}", "use --precision fp32")
    return wanted


def _digest(facts: list[str]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
