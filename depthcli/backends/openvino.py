"""OpenVINO, the engine for CPUs: a network is compiled once for every size of picture, kept in the cache, and mapped.

Transformers run in bf16 where the CPU computes it, which halves the time of float32 and moves the answer by a few
thousandths of its range; all else in float32. What of OpenVINO talks to a network, its telemetry, stays unused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthcli.backends import Arrays, EngineChoice
from depthcli.backends.graphs import KeptGraph, graph_name, obtain_graph
from depthcli.cores import compute_threads
from depthcli.errors import EngineError
from depthcli.memory import check_memory, free_memory
from depthcli.preprocess import InputPlan
from depthcli.weights import Talk, WeightsFile
from depthcli.zoo import LiteConfig, ModelRow

if TYPE_CHECKING:
    from depthcli.nets.any_size import AnySizeGraph

_FILE = "compiled.blob"
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
# How OpenVINO names what a CPU computes natively.
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


class OpenVino:
    """One network on the CPU, compiled for every size at once."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: EngineChoice, trust: bool, talk: Talk) -> None:
        if choice.device not in ("auto", "cpu"):
            raise EngineError(f"openvino runs on the CPU here, not on {choice.device}", "use --backend torch")
        ov = _import_openvino()
        self._row = row
        with _engine_errors():
            core = ov.Core()
            capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            cpu = [core.get_property("CPU", "FULL_DEVICE_NAME"), *capabilities]
        precision = _pick_precision(choice.precision, capabilities, row)
        # Between its int8 layers a network computes in the best that the CPU has.
        hint = _pick_precision("auto", capabilities, row) if precision == "int8" else precision
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[hint],
            "INFERENCE_NUM_THREADS": compute_threads(),
            "NUM_STREAMS": 1,
            # Two processes that pin their threads pin them to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        # What is compiled for one CPU need not run on another that shares the cache.
        name = f"{graph_name('openvino', row, weights)}-{precision}-{_digest(cpu)}"

        def write(graph: AnySizeGraph, folder: Path) -> None:
            with _engine_errors():
                model = _convert(graph)
            if calibration is not None:
                model = calibration.quantized(model, graph, folder)
            with _engine_errors():
                (folder / _FILE).write_bytes(core.compile_model(model, "CPU", settings).export_model().getbuffer())

        calibration = None
        is_current = None
        if precision == "int8":
            from depthcli.backends.quantize import Calibration

            calibration = Calibration(row, choice.calibration, talk)
            is_current = calibration.is_that_of
        self._graph: KeptGraph = obtain_graph(name, row, weights, trust, talk, write, is_current)
        with _engine_errors():
            # Mapped, so that a process takes from the disk what it uses, and processes share it.
            blob = np.memmap(self._graph.folder / _FILE, np.uint8, "c")
            compiled = core.import_model(ov.Tensor(blob, shared_memory=True), "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        self._blob: Any = blob
        self.description = f"openvino {version('openvino')} cpu {precision}"

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
        with _engine_errors():
            for image in np.ascontiguousarray(inputs["image"])[:, None]:
                results = self._request.infer(self._graph.inputs(image), share_inputs=True)
                depth.append(results[0].copy())  # the next picture is written to the same memory
        return {"depth": np.concatenate(depth)}

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._request = self._blob = None
        self._graph.close()


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


def _pick_precision(wanted: str, capabilities: list[str], row: ModelRow) -> str:
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


def _convert(graph: AnySizeGraph) -> Any:
    from depthcli.backends.exports import to_openvino

    return to_openvino(graph.trace, graph.examples, any_size=True)


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise EngineError("the machine ran out of memory", "use a smaller --input-size") from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise EngineError(f"openvino failed: {reason}", "try --backend torch") from error
