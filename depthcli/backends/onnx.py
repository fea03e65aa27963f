"""ONNX Runtime, the engine for CPUs where OpenVINO is not to be had; float32. Comes with the extra [onnx]."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from depthcli.backends import Arrays
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.converted import EngineGraph, Write, graph_name, runtime_errors
from depthcli.host.cores import compute_threads
from depthcli.host.memory import check_memory, free_memory
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeGraph

_FILE = "network.onnx"


class OnnxRuntime:
    """One network on the CPU, at every size."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        if choice.device not in ("auto", "cpu"):
            raise EngineError(f"onnx runs on the CPU here, not on {choice.device}", "use --backend torch")
        if choice.precision not in ("auto", "fp32"):
            raise EngineError(f"onnx computes in fp32, not {choice.precision}", "use --backend openvino or torch")
        engine = _GraphEngine(_import_onnxruntime())
        self._row = row
        self._graph = EngineGraph(engine, graph_name("onnxruntime", row, weights), row, weights, trust, talk)
        self._names = [item.name for item in self._graph.network.get_inputs()]
        self.description = f"onnxruntime {version('onnxruntime')} cpu fp32"

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan itself: any size will do."""
        return plan

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise PictureError where a picture of this size would not fit into the memory; a batch runs one by one."""
        check_memory(self._row.network, plan, 1, free_memory(), plain_attention=True)

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}."""
        session, names = self._graph.network, self._names
        if session is None:
            raise EngineError("this estimator is closed", "open another one")
        with runtime_errors("onnxruntime"):
            depth = [
                session.run(None, dict(zip(names, self._graph.inputs.of(image))))[0]
                for image in np.ascontiguousarray(inputs["image"])[:, None]
            ]
        self._graph.computed()
        return {"depth": np.concatenate(depth)}

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._graph.close()


@dataclass(frozen=True)
class _GraphEngine:
    runtime: Any

    def is_current(self, kept: Optional[Path]) -> bool:
        return kept is not None

    def load(self, folder: Path) -> Any:
        return self._session(str(folder / _FILE))

    def compile(self, graph: AnySizeGraph) -> tuple[Any, Write]:
        from depthcli.backends.exports import to_onnx

        content = to_onnx(graph.trace, graph.examples, any_size=True)

        def write(folder: Path) -> None:
            (folder / _FILE).write_bytes(content)

        return self._session(content), write

    def _session(self, model: Union[str, bytes]) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = compute_threads()
        options.log_severity_level = 3  # errors; what it would warn of is its own affair
        with runtime_errors("onnxruntime"):
            return self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"ONNX Runtime is not installed or does not load here: {error}", 'pip install "depthcli[onnx]"'
        ) from error
    onnxruntime.set_default_logger_severity(3)  # it looks for devices that it is not asked for, and reports each
    return onnxruntime
