"""ONNX Runtime in float32, the backend for CPUs without OpenVINO, and the export to ONNX. Needs the extra [onnx]."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from depthcli.backends import Arrays, Traits
from depthcli.backends.converted import (
    ConvertedGraph,
    ReadyNetwork,
    Write,
    entry_name,
    file_errors,
    graph_name,
    runtime_errors,
    trace_of,
    uninterrupted,
)
from depthcli.backends.executed import ExecutedNode, with_median_times
from depthcli.backends.export import Export, Shape, compare
from depthcli.choices.compiler import CompilerChoice
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, Log, first_line
from depthcli.host.cores import compute_threads
from depthcli.host.memory import check_memory, free_memory
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

if TYPE_CHECKING:
    import torch

    from depthcli.graphs.any_size import AnySizeGraph, Part

_FILE = "network.onnx"
# Layer norm is one operation from this version on, and every runtime since 2022 reads it.
OPSET = 17
_OUTPUT = "depth"
_FACTS = "depthcli"  # where a file keeps its description
_WIDTHS = {"int64": 8, "double": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}  # bytes, else 4


class OnnxRuntime:
    """One network for pictures on the CPU, at every input size."""

    def __init__(
        self,
        row: ModelRow,
        weights: WeightsFile,
        choice: BackendChoice,
        trust: bool,
        log: Log,
        records: Optional[Path] = None,
    ) -> None:
        """See open_backend. records: folder for ONNX Runtime's clock around every node, which `profile` reads."""
        if choice.device not in ("auto", "cpu"):
            raise EngineError(f"onnx runs on the CPU here, not on {choice.device}", "use `backend` torch")
        if choice.precision not in ("auto", "fp32"):
            raise EngineError(f"onnx computes in fp32, not {choice.precision}", "use `backend` openvino or torch")
        converter = _Converter(_import_onnxruntime(), records)
        self._row = row
        name = graph_name("onnxruntime", row, weights)
        self._graph = ConvertedGraph(converter, name, trace_of(row, weights, trust), log)
        self._names = [item.name for item in self._graph.network.get_inputs()]
        self.traits = Traits("onnxruntime", version("onnxruntime"), "cpu", "fp32")

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan unchanged: every size runs."""
        return plan

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """See Backend. The images of a batch run one by one."""
        check_memory(self._row.network, plan, 1, free_memory(), plain_attention=True)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """See Backend."""
        session, names = self._graph.network, self._names
        if session is None:
            raise EngineError("this backend is closed", "open another one")
        with runtime_errors("onnxruntime"):
            answers = [
                session.run(None, dict(zip(names, self._graph.inputs.of(image))))
                for image in np.ascontiguousarray(inputs["image"])[:, None]
            ]
        self._graph.computed()
        return {name: np.concatenate(parts) for name, parts in zip(self._row.outputs, zip(*answers))}

    def executed(self) -> list[list[ExecutedNode]]:
        """Return the nodes of every run until now, run by run; it needs `records`, and ends their writing."""
        events = json.loads(Path(self._graph.network.end_profiling()).read_text(encoding="utf-8"))
        runs: list[list[ExecutedNode]] = []
        for event in events:
            if event["name"] == "model_run":
                runs.append([])
        counted = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
        each = len(counted) // len(runs)
        return [[_node(event) for event in counted[i * each : (i + 1) * each]] for i in range(len(runs))]

    def close(self) -> None:
        """Free the network; closing twice is allowed."""
        self._graph.close()


@dataclass(frozen=True)
class _Converter:
    runtime: Any
    records: Optional[Path]

    def is_current(self, kept: Optional[Path]) -> bool:
        return kept is not None

    def load(self, folder: Path) -> Any:
        return self._session(str(folder / _FILE))

    def convert(self, graph: AnySizeGraph) -> tuple[Any, Write]:
        (part,) = graph.parts.values()
        content = to_onnx(part.trace, part.examples, any_size=part.any_size, outputs=part.outputs)

        def write(folder: Path) -> None:
            (folder / _FILE).write_bytes(content)

        return self._session(content), write

    def _session(self, model: Union[str, bytes]) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = compute_threads()
        options.log_severity_level = 3  # errors only
        if self.records is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(self.records / "onnxruntime")
        with runtime_errors("onnxruntime"):
            return self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_converted(form: str, sha256: str, trace: Callable[[], AnySizeGraph], log: Log) -> ReadyNetwork:
    """Return a graph of one part and size, from the cache or converted now. form, sha256: see `entry_name`.

    Raises EngineError, and what `trace` raises.
    """
    name = entry_name("onnxruntime", form, sha256)
    graph = ConvertedGraph(_Converter(_import_onnxruntime(), None), name, trace, log)

    def infer(image: np.ndarray) -> list[np.ndarray]:
        answers = _answers(graph.network, image)
        graph.computed()
        return answers

    return ReadyNetwork(graph.facts, "onnxruntime", infer, graph.close)


def open_file(path: Path) -> ReadyNetwork:
    """Return a network that `export_one` wrote. Raises EngineError, and CheckpointError for another file."""
    converter = _Converter(_import_onnxruntime(), None)
    with file_errors(path):
        session = converter._session(str(path))
        facts = json.loads(session.get_modelmeta().custom_metadata_map.get(_FACTS) or "{}")
    return ReadyNetwork(facts, "onnxruntime", lambda image: _answers(session, image))


def _answers(session: Any, image: np.ndarray) -> list[np.ndarray]:
    with runtime_errors("onnxruntime"):
        answers: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: image})
    return answers


def profile(backend: OnnxRuntime, inputs: Arrays, runs: int = 5) -> list[ExecutedNode]:
    """Return the nodes of a backend that was opened with `records`, with the medians of several runs."""
    for _ in range(runs + 1):
        backend.run(inputs)
    return with_median_times(backend.executed()[1:])  # the first prepares kernels


def _node(event: Mapping[str, Any]) -> ExecutedNode:
    facts = event["args"]
    inputs, outputs = (_typed_shapes(facts[key]) for key in ("input_type_shape", "output_type_shape"))
    shapes = tuple(shape for _, shape in inputs)
    kind = facts["op_name"]
    return ExecutedNode(
        part="depth",
        name=event["name"],
        kind=kind,
        kernel=inputs[0][0] if inputs else "",
        operations=(),
        milliseconds=event["dur"] / 1000,
        inputs=shapes,
        outputs=tuple(shape for _, shape in outputs),
        flops=_flops(kind, shapes, math.prod(outputs[0][1]) if outputs else 0),
        bytes=sum(_WIDTHS.get(name, 4) * math.prod(shape) for name, shape in (*inputs, *outputs)),
    )


def _typed_shapes(listed: Sequence[Mapping[str, Sequence[int]]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(shape)) for item in listed for name, shape in item.items()]


def _flops(kind: str, inputs: tuple[tuple[int, ...], ...], written: int) -> int:
    """Return the operations of a product with so many output values; a multiply-add counts as 2.

    0 for convolutions whose weights ONNX Runtime has packed, as it does not list their shape.
    """
    if kind in ("MatMul", "FusedMatMul", "Gemm"):
        return 2 * written * inputs[0][-1]
    weights = inputs[1] if len(inputs) > 1 and len(inputs[1]) == 4 else None
    if weights and kind in ("Conv", "FusedConv", "NhwcFusedConv"):
        return 2 * written * math.prod(weights[1:])
    if weights and kind == "ConvTranspose":
        return 2 * math.prod(inputs[0]) * math.prod(weights[1:])
    return 0


def export(
    network: torch.nn.Module, shape: Shape, path: Path, facts: Mapping[str, Any], options: CompilerChoice, log: Log
) -> Export:
    """Write a network as ONNX, with the facts in its metadata, and run it once. Raises EngineError."""
    import torch

    from depthcli.graphs.static import trace

    batch, height, width = shape
    image, names = torch.zeros(batch, 3, height, width), (facts["output"]["name"],)
    content = to_onnx(trace(network, *shape), {"image": image}, any_size=False, outputs=names)
    _save(content, path, facts)
    return Export(facts, compare(network, shape, run_file(path), "onnxruntime"))


def export_one(part: Part, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a part of one size as ONNX, with the facts in its metadata. Raises EngineError."""
    _save(to_onnx(part.trace, part.examples, any_size=False, outputs=part.outputs), path, facts)


def _save(content: bytes, path: Path, facts: Mapping[str, Any]) -> None:
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {_FACTS: json.dumps(facts)})
    onnx.save(model, str(path))


def to_onnx(trace: Any, examples: Mapping[str, Any], any_size: bool, outputs: Sequence[str] = (_OUTPUT,)) -> bytes:
    """Return a trace as the content of an ONNX file.

    examples: input tensors (B, C, H, W) by name, in order. any_size: leave H and W of inputs and outputs open.
    outputs: names of the outputs (B, H, W), in order.
    Raises EngineError if the package `onnx` is missing or the network cannot be exported.
    """
    if importlib.util.find_spec("onnx") is None:  # which torch needs for it
        raise EngineError("writing ONNX needs the package onnx", 'pip install "depthcli[onnx]"')
    import torch

    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in examples}
    export: Any = torch.onnx.export  # its type hints lack streams
    # torch 1.13 has only the exporter for traces; later versions have to be told.
    traces = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    content = io.BytesIO()
    try:
        with uninterrupted(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that exporter is deprecated
            export(
                trace,
                tuple(examples.values()),
                content,
                input_names=list(examples),
                output_names=list(outputs),
                dynamic_axes={**axes, **{name: {1: "height", 2: "width"} for name in outputs}} if any_size else None,
                opset_version=OPSET,
                **traces,
            )
    except RuntimeError as error:  # above all: protobuf holds at most 2 GB, which vitg exceeds
        raise EngineError(f"the network cannot be written as ONNX: {first_line(error)}", "use openvino") from error
    return content.getvalue()


def run_file(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that runs an exported file: (B, 3, H, W) -> (B, H, W)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {"image": image})[0])


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be loaded: {error}", 'pip install "depthcli[onnx]"') from error
    onnxruntime.set_default_logger_severity(3)  # it reports each device that it does not find
    return onnxruntime
