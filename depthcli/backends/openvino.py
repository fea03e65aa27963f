"""OpenVINO, the backend for CPUs: a network is converted once for every input size, cached, and mapped.

Transformers run in bf16 if the CPU computes it, which takes half the time of float32 and changes the depth by a few
thousandths of its range; everything else runs in float32. OpenVINO's telemetry stays unused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from depthcli.backends import CLIP_GRAPHS, PICTURE_GRAPHS, SCENE_GRAPHS, Arrays, Traits
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
from depthcli.errors import EngineError, Log, StoppedError
from depthcli.host.cores import compute_threads
from depthcli.host.memory import check_clip_memory, check_memory, check_scene_memory, free_memory
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import LiteConfig, ModelRow, ModelTask, SkyConfig, ViewsConfig

if TYPE_CHECKING:
    import torch

    from depthcli.backends.quantize import Calibration
    from depthcli.backends.view_parts import ViewParts
    from depthcli.graphs.any_size import AnySizeGraph, Part

# The parts of a graph, and the files that keep them.
_PICTURE_FILES = {"depth": "compiled.blob"}
_CLIP_FILES = {part: f"{part}.blob" for part in ("encode", "mix", "finish")}
_SCENE_FILES = {part: f"{part}.blob" for part in ("begin", "relate", "depth", "rays", "decode", "encode")}
_EXACT_PARTS = ("decode", "encode")  # in float32 in every precision: a focal length of 8 bits is pixels off
_FILES = {ModelTask.PICTURE: _PICTURE_FILES, ModelTask.CLIP: _CLIP_FILES, ModelTask.SCENE: _SCENE_FILES}
_GRAPHS = {ModelTask.PICTURE: PICTURE_GRAPHS, ModelTask.CLIP: CLIP_GRAPHS, ModelTask.SCENE: SCENE_GRAPHS}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}  # how OpenVINO names what a CPU computes natively

Taps = Sequence[np.ndarray]  # the four feature maps (1, D, rows, cols) of one frame
_ONE = "network"  # the part of a graph that has one
_ONE_FILE = {_ONE: "compiled.blob"}
_FACTS = ["depthcli", "depthcli"]  # where a file keeps its description
_COUNTERS = {"PERF_COUNT": True}  # OpenVINO's own clock around every node
# Kernels of each kind that a network keeps for the input sizes it has seen. By itself OpenVINO keeps 5000: with
# pictures of every size tiny then takes some 300 MB more. Five sizes of tiny stay quick.
_KEPT_KERNELS = 256
_LOOK_MS = 50  # between two questions whether a run is to stop


class OpenVino:
    """One network on the CPU, compiled for every input size at once."""

    def __init__(
        self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, log: Log, count: bool = False
    ) -> None:
        """See open_backend. count: measure every node of a run for `profile`, which makes a run slightly slower."""
        if choice.device not in ("auto", "cpu"):
            raise EngineError(f"openvino runs on the CPU here, not on {choice.device}", "use `backend` torch")
        with runtime_errors("openvino"):
            core = shared_core()
            capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            cpu = _cpu_name(core)
        precision = _pick_precision(choice.precision, capabilities, row)
        kind, calibration = precision, None
        if precision == "int8":
            if row.task is ModelTask.CLIP:
                raise EngineError("video models do not run in int8", "use `precision` bf16 or fp32")
            if isinstance(row.network, (SkyConfig, ViewsConfig)):
                raise EngineError(f"{row.name} was not calibrated for int8", "use `precision` bf16 or fp32")
            from depthcli.backends.quantize import Calibration

            calibration = Calibration(row, choice.calibration, log)
            kind = f"int8-chosen-{row.input_size}"  # calibrated at that size
        # Between its int8 layers a network computes in the best precision that the CPU has.
        settings = _settings(_pick_precision("auto", capabilities, row) if calibration else precision)
        if count:
            settings.update(_COUNTERS)
        converter = _Converter(core, settings, calibration, _FILES[row.task])
        name = f"{graph_name('openvino', row, weights)}-{kind}-{cpu}"
        self._row = row
        self._graph = ConvertedGraph(converter, name, trace_of(row, weights, trust), log)
        with runtime_errors("openvino"):
            networks: Mapping[str, _Network] = self._graph.network
            self._requests = {part: network.compiled.create_infer_request() for part, network in networks.items()}
        self.traits = Traits("openvino", version("openvino"), "cpu", precision, graphs=_GRAPHS[row.task])
        self._views: Optional[ViewParts] = None
        if row.task is ModelTask.SCENE:
            from depthcli.backends.view_parts import ViewParts  # not loaded for pictures
            from depthcli.graphs.view_tables import TablesBySize

            inputs = self._graph.inputs
            assert isinstance(row.network, ViewsConfig) and inputs.positions is not None and inputs.cameras is not None
            self._views = ViewParts(self._infer_until, TablesBySize(row.network, inputs.positions), inputs.cameras)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan unchanged: every size runs."""
        return plan

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """See Backend. The images of a batch run one by one."""
        if self._row.task is ModelTask.CLIP:
            check_clip_memory(self._row.network, plan, 1, free_memory(), whole_maps=True)
        elif self._row.task is ModelTask.SCENE:
            check_scene_memory(self._row.network, plan, batch, free_memory(), further=further)
        else:
            check_memory(self._row.network, plan, 1, free_memory())

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """See Backend. Images run one by one: on a CPU a larger batch only takes more memory."""
        if not self._requests:
            raise EngineError("this backend is closed", "open another one")
        with runtime_errors("openvino"):
            if graph == "decode":
                depth = self._decode(inputs["features"])
                self._graph.computed()
                return {"depth": depth}
            if self._views is not None:
                answer = self._views.run(inputs)
                self._graph.computed()
                return answer
            images = np.ascontiguousarray(inputs["image"])[:, None]
            answers = [self._infer(graph, self._graph.inputs.of(image)) for image in images]
            if graph == "encode":
                return {"features": answers}
            self._graph.computed()
            return {name: np.concatenate(parts) for name, parts in zip(self._row.outputs, zip(*answers))}

    def executed(self) -> list[ExecutedNode]:
        """Return the nodes of the last run of each part, in order, without those of constants. It needs `count`."""
        with runtime_errors("openvino"):
            return [node for part, request in self._requests.items() for node in _executed(part, request)]

    def close(self) -> None:
        """Free the network; closing twice is allowed."""
        self._requests = {}
        self._graph.close()

    def _decode(self, frames: Sequence[Taps]) -> np.ndarray:
        (mixed,) = self._infer("mix", [np.concatenate([taps[level] for taps in frames]) for level in (2, 3)])
        finished = (self._infer("finish", [mixed[i : i + 1], taps[1], taps[0]]) for i, taps in enumerate(frames))
        return np.concatenate([answer[0] for answer in finished])

    def _infer(self, part: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return _copied(self._requests[part].infer(list(inputs), share_inputs=True))

    def _infer_until(self, part: str, inputs: Sequence[np.ndarray], stop: Callable[[], bool]) -> list[np.ndarray]:
        """Return what a part answers. Raises StoppedError once `stop` returns True, and Ctrl-C ends it as soon."""
        if stop():
            raise StoppedError
        request, shared = self._requests[part], list(inputs)
        request.start_async(shared, share_inputs=True)
        try:
            while not request.wait_for(_LOOK_MS):
                if stop():
                    raise StoppedError
        except BaseException:
            request.cancel()  # it ends with its node, and reads the inputs until then
            with contextlib.suppress(Exception):
                request.wait()
            raise
        return _copied(request.results)


@dataclass(frozen=True)
class _Network:
    """A compiled part, and the mapped file that it reads its weights from, which OpenVINO does not keep alive."""

    compiled: Any
    blob: Optional[np.ndarray] = None


@dataclass(frozen=True)
class _Converter:
    core: Any
    settings: dict[str, Any]
    calibration: Optional[Calibration]
    files: Mapping[str, str]

    def is_current(self, kept: Optional[Path]) -> bool:
        return kept is not None if self.calibration is None else self.calibration.is_that_of(kept)

    def load(self, folder: Path) -> dict[str, _Network]:
        from openvino import Tensor

        networks = {}
        for part, file in self.files.items():
            # Mapped: a process reads from the disk only what it uses, and processes share it.
            blob = np.memmap(folder / file, np.uint8, "c")
            with runtime_errors("openvino"):
                compiled = self.core.import_model(Tensor(blob, shared_memory=True), "CPU", self._settings(part))
            networks[part] = _Network(compiled, blob)
        return networks

    def convert(self, graph: AnySizeGraph) -> tuple[dict[str, _Network], Write]:
        networks: dict[str, _Network] = {}
        facts: dict[str, str] = {}
        for part, traced in graph.parts.items():
            with runtime_errors("openvino"):
                model = to_openvino(traced.trace, traced.examples, traced.any_size, traced.axes, traced.outputs)
            if self.calibration is not None:
                model, facts = self.calibration.quantized(model, graph, self.settings)
            with runtime_errors("openvino"):
                networks[part] = _Network(self.core.compile_model(model, "CPU", self._settings(part)))

        def write(folder: Path) -> None:
            for part, file in self.files.items():
                (folder / file).write_bytes(networks[part].compiled.export_model().getbuffer())
            for file, text in facts.items():
                (folder / file).write_text(text, encoding="utf-8")

        return networks, write

    def _settings(self, part: str) -> dict[str, Any]:
        exact = self.files is _SCENE_FILES and part in _EXACT_PARTS
        return {**self.settings, "INFERENCE_PRECISION_HINT": _HINTS["fp32"]} if exact else self.settings


def open_converted(form: str, sha256: str, trace: Callable[[], AnySizeGraph], log: Log) -> ReadyNetwork:
    """Return a graph of one part and size, from the cache or converted now. form, sha256: see `entry_name`.

    Raises EngineError, and what `trace` raises.
    """
    core = shared_core()
    with runtime_errors("openvino"):
        name = f"{entry_name('openvino', form, sha256)}-fp32-{_cpu_name(core)}"
    graph = ConvertedGraph(_Converter(core, _settings("fp32"), None, _ONE_FILE), name, trace, log)
    request: list[Any] = []

    def infer(image: np.ndarray) -> list[np.ndarray]:
        with runtime_errors("openvino"):
            if not request:
                request.append(graph.network[_ONE].compiled.create_infer_request())
            answers = _copied(request[0].infer([image], share_inputs=True))
        graph.computed()
        return answers

    def close() -> None:
        request.clear()
        graph.close()

    return ReadyNetwork(graph.facts, "openvino", infer, close)


def open_file(path: Path) -> ReadyNetwork:
    """Return a network that `export_one` wrote. Raises EngineError, and CheckpointError for another file."""
    core = shared_core()
    with file_errors(path):
        with path.open("rb") as stream:
            if stream.read(5) != b"<?xml":  # for which OpenVINO tries one format after the other, and prints about it
                raise ValueError("it is no XML")
        model = core.read_model(str(path))
        facts = json.loads(model.get_rt_info(_FACTS).astype(str)) if model.has_rt_info(_FACTS) else {}
        request = core.compile_model(model, "CPU", _settings("fp32")).create_infer_request()

    def infer(image: np.ndarray) -> list[np.ndarray]:
        with runtime_errors("openvino"):
            return _copied(request.infer([image], share_inputs=True))

    return ReadyNetwork(facts, "openvino", infer)


def _copied(results: Any) -> list[np.ndarray]:
    return [results[port].copy() for port in range(len(results))]  # the next run writes to the same memory


def profile(backend: OpenVino, inputs: Arrays, graph: str = "depth", runs: int = 5) -> list[ExecutedNode]:
    """Return the nodes of a backend that was opened with `count`, with the medians of several runs.

    graph, inputs: as for `run`. A decode runs `mix` once and `finish` once per frame; each node's time is of one run.
    """
    rounds = []
    for _ in range(runs + 1):
        backend.run(inputs, graph)
        rounds.append(backend.executed())
    return with_median_times(rounds[1:])  # the first prepares kernels


def _executed(part: str, request: Any) -> Iterator[ExecutedNode]:
    times = {info.node_name: info.real_time.total_seconds() * 1e3 for info in request.get_profiling_info()}
    for node in request.get_compiled_model().get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        name, kind = node.get_friendly_name(), facts["layerType"].astype(str)
        sources = [port.get_source_output() for port in node.inputs()]
        if name not in times or kind in ("Input", "Output") or all(map(_is_constant, sources)):
            continue
        inputs, outputs = ([_shape(port) for port in ports] for ports in (sources, node.outputs()))
        # Weights are listed as float32 and held in the precision of the input.
        width = sources[0].get_element_type().size
        read = sum(math.prod(shape) for shape in inputs) * width
        written = sum(math.prod(_shape(port)) * port.get_element_type().size for port in node.outputs())
        yield ExecutedNode(
            part=part,
            name=name,
            kind=kind,
            kernel=facts["primitiveType"].astype(str),
            operations=tuple(filter(None, facts["originalLayersNames"].astype(str).split(","))),
            milliseconds=times[name],
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            flops=_flops(kind, inputs, outputs),
            bytes=read + written,
        )


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(port.get_partial_shape().to_shape())


def _is_constant(port: Any) -> bool:
    """Return whether a value of a runtime model is the same in every run: constants are reshaped and converted once."""
    node = port.get_node()
    kind = node.get_rt_info()["layerType"].astype(str)
    sources = [source.get_source_output() for source in node.inputs()]
    return kind == "Const" or (kind in ("Reorder", "Reshape") and all(map(_is_constant, sources)))


def _flops(kind: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]]) -> int:
    """Return the operations of a node's products; a multiply-add counts as 2."""
    written = math.prod(outputs[0]) if outputs else 0
    if kind in ("FullyConnected", "MatMul"):
        return 2 * written * inputs[0][-1]
    if kind == "Convolution":
        return 2 * written * math.prod(inputs[1][1:])
    if kind == "Deconvolution":
        return 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    maps = [shape for shape in inputs if len(shape) == 4]
    if kind in ("Subgraph", "ScaledDotProductAttention") and len(maps) == 3:
        # Attention. Heads and tokens come in either order; there are more tokens.
        return 4 * written * max(outputs[0][1:3])
    return 0


def export(
    network: torch.nn.Module, shape: Shape, path: Path, facts: Mapping[str, Any], options: CompilerChoice, log: Log
) -> Export:
    """Write a network as OpenVINO's .xml and .bin in float32, with the facts in its metadata, and run it once."""
    import openvino as ov
    import torch

    from depthcli.graphs.static import trace

    batch, height, width = shape
    model = to_openvino(trace(network, *shape), {"image": torch.zeros(batch, 3, height, width)}, any_size=False)
    model.outputs[0].get_tensor().set_names({facts["output"]["name"]})
    model.set_rt_info(json.dumps(facts), _FACTS)
    ov.save_model(model, path, compress_to_fp16=False)
    return Export(facts, compare(network, shape, run_file(path), "openvino"))


def export_one(part: Part, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a part of one size as OpenVINO's .xml and .bin in float32, with the facts in its metadata."""
    import openvino as ov

    model = to_openvino(part.trace, part.examples, any_size=False, outputs=part.outputs)
    model.set_rt_info(json.dumps(facts), _FACTS)
    ov.save_model(model, path, compress_to_fp16=False)


def to_openvino(
    trace: Any,
    examples: Mapping[str, Any],
    any_size: bool,
    axes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    outputs: Sequence[str] = ("depth",),
) -> Any:
    """Return a trace as a model of OpenVINO, which shares the memory of its weights. Arguments as for `to_onnx`.

    axes, outputs: see graphs.any_size.Part.

    `openvino.convert_model` takes three times as long and sends telemetry, so the frontend is used directly.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace)  # has to live as long as the conversion
    with uninterrupted():
        model = frontend.convert(frontend.load(decoder))
    for port, (name, example) in zip(model.inputs, examples.items()):
        node = port.get_node()
        node.set_friendly_name(name)
        port.get_tensor().set_names({name})
        node.set_element_type(ov.Type.f32)
        freed = axes.get(name, (2, 3)) if any_size else ()
        node.set_partial_shape(ov.PartialShape([-1 if i in freed else side for i, side in enumerate(example.shape)]))
    for port, name in zip(model.outputs, outputs):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def run_file(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that runs an exported file in float32: (B, 3, H, W) -> (B, H, W)."""
    compiled = shared_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: np.array(compiled([image])[0])


def shared_core() -> Any:
    """Return OpenVINO's core, one for the whole life of a process. Raises EngineError if the package is missing.

    Each core gives signal handlers a stack. If two cores end in the order they began, the second restores the freed
    stack of the first, and the next Ctrl-C is a segmentation fault (seen with 2026.4).
    """
    return _only_core(_import_openvino())


@functools.cache
def _only_core(openvino: Any) -> Any:
    return openvino.Core()


def _import_openvino() -> Any:
    """Import openvino without its model converter, which takes two thirds of the time and loads the telemetry.

    The package works without it, and a later call of `convert_model` still gets it.
    """
    try:
        with _without("openvino.tools.ovc"):
            import openvino

        if not hasattr(openvino, "convert_model"):
            openvino.convert_model = _convert_model
    except ImportError as error:
        raise EngineError(
            f"openvino is not installed or does not load here: {error}",
            "pip install openvino (Python 3.10 or later), or use `backend` torch",
        ) from error
    return openvino


def _convert_model(*arguments: Any, **options: Any) -> Any:
    from openvino.tools.ovc import convert_model

    return convert_model(*arguments, **options)


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Keep a module from being imported, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _cpu_name(core: Any) -> str:
    """Return a digest of the CPU: what is compiled for one need not run on another that shares the cache."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    facts = [core.get_property("CPU", "FULL_DEVICE_NAME"), *capabilities]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def _settings(precision: str) -> dict[str, Any]:
    """Return the compiler's settings for a network in fp32, bf16 or fp16."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": compute_threads(),
        "NUM_STREAMS": 1,
        # Two processes that pin their threads pin them to the same cores.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_KERNELS,
    }


def _pick_precision(wanted: str, capabilities: list[str], row: ModelRow) -> str:
    """Return fp32, bf16, fp16 or int8 for a `precision`. Raises EngineError if the CPU does not compute in it."""
    if wanted == "exact":
        raise EngineError("only torch computes exactly as the reference", "use `backend` torch, or `precision` fp32")
    if wanted == "auto":
        # The narrow layers of the packaged network lose half a percent in bf16, a transformer a third of that. The exp
        # behind the head of Depth Anything 3 turns an error in its last layer into a share of the depth.
        coarse = isinstance(row.network, (LiteConfig, SkyConfig, ViewsConfig))
        return "bf16" if _CAPABILITIES["bf16"] in capabilities and not coarse else "fp32"
    if wanted not in ("fp32", "int8") and _CAPABILITIES[wanted] not in capabilities:
        raise EngineError(f"this CPU does not compute in {wanted}", "use `precision` fp32")
    return wanted
