"""Writing a model as a file that another program runs, without this one: one size of input, checked before it is kept.

The file is the static graph of the network (nets/static_graph.py). Everything around it, reading, resizing and the unit
of the answer, is described in the file's own metadata and in a .json beside it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from depthcli.errors import EngineError, OutputError, UsageError
from depthcli.io.atomic import atomic_path
from depthcli.preprocess import MEAN, STD
from depthcli.version import __version__
from depthcli.weights import WeightsFile, is_published
from depthcli.zoo import PATCH, ModelRow

if TYPE_CHECKING:
    import torch

SCHEMA = "depthcli-network/1"
# How far the file's float32 answer may be from eager torch's, over its maximum; 1.2e-6 to 1.3e-5 were measured.
BOUND = 5e-5


@dataclass(frozen=True)
class Target:
    """A kind of file. suffixes: of what is written, the main one first. engine: the package that checks it."""

    suffixes: tuple[str, ...]
    engine: str


TARGETS = {"onnx": Target((".onnx",), "onnxruntime"), "openvino": Target((".xml", ".bin"), "openvino")}


@dataclass(frozen=True)
class CompileJob:
    """What is to be written. height, width: of the network's input, multiples of 14; output: the main file."""

    target: str
    row: ModelRow
    weights: WeightsFile
    height: int
    width: int
    batch: int
    output: Path
    trust: bool = False

    def __post_init__(self) -> None:
        check_target(self.target, self.height, self.width, self.batch)
        suffix = TARGETS[self.target].suffixes[0]
        if self.output.suffix != suffix:
            raise UsageError(f"{self.target} is written as {suffix}, not {self.output.name}", "name such a file")


@dataclass(frozen=True)
class Compiled:
    """What was written. difference: of its answer from eager float32, over the maximum."""

    paths: tuple[Path, ...]
    difference: float


def check_target(target: str, height: int, width: int, batch: int) -> None:
    """Raise UsageError for a target or an input that cannot be, EngineError where the target's engine is missing."""
    if target not in TARGETS:
        raise UsageError(f"nothing is compiled for {target!r}", f"choose from: {', '.join(TARGETS)}")
    if batch < 1 or min(height, width) < PATCH or height % PATCH or width % PATCH:
        raise UsageError(
            f"a network input of {height}x{width}, {batch} at once, cannot be",
            f"sides are multiples of {PATCH}, and --batch is at least 1",
        )
    engine = TARGETS[target].engine
    if importlib.util.find_spec(engine) is None:
        raise EngineError(
            f"{engine}, which checks what is written for {target}, is not installed", f"pip install {engine}"
        )


def compile_model(job: CompileJob) -> Compiled:
    """Write the file, run it once, compare it with the readable network, and only then give it its name.

    Raises ModelError for weights that do not fit, EngineError where a package is missing or the answers differ,
    OutputError where nothing can be written.
    """
    from depthcli.nets.build import load_network
    from depthcli.nets.checkpoint import read_state
    from depthcli.nets.static_graph import trace

    target = TARGETS[job.target]
    state = read_state(job.weights.path, job.weights.sha256, trust=job.trust)
    network = load_network(job.row, state, job.weights.path.name)
    graph = trace(network, job.batch, job.height, job.width)
    facts = describe_network(job)
    try:
        with tempfile.TemporaryDirectory(prefix="depthcli-") as name:
            draft = Path(name) / job.output.name
            _write(job, graph, draft, facts)
            difference = _difference(network, _RUNNERS[job.target](draft), job)
            if not difference <= BOUND:
                raise EngineError(
                    f"{target.engine} answers otherwise than torch: the difference is {difference:.1e} of the maximum",
                    "please report this, with the versions of both",
                )
            paths = [job.output.with_suffix(suffix) for suffix in target.suffixes]
            for path in paths[::-1]:  # the main file last: where it is, the others are
                _move(draft.with_suffix(path.suffix), path)
    except OSError as error:
        raise OutputError(f"cannot write {job.output}: {error.strerror or error}") from error
    sidecar = job.output.with_suffix(".json")
    with atomic_path(sidecar) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Compiled((*paths, sidecar), difference)


def describe_network(job: CompileJob) -> dict[str, Any]:
    """Return what a program has to know to run the file, ready for JSON."""
    row = job.row
    published = is_published(row, job.weights)
    return {
        "schema": SCHEMA,
        "depthcli": __version__,
        "model": row.name,
        "model_title": row.title if published else f"{job.weights.path.name}, a {row.encoder} of its own",
        "weights_sha256": job.weights.sha256,
        "weights_licence": row.licence if published else "",
        "input": {
            "name": "image",
            "shape": [job.batch, 3, job.height, job.width],
            "dtype": "float32",
            "meaning": "RGB / 255, less mean, over std; resized by the bicubic rule without antialiasing",
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
        },
        "output": {
            "name": "depth",
            "shape": [job.batch, job.height, job.width],
            "dtype": "float32",
            "kind": row.kind.value,
            "near_is": "high" if row.kind.near_is_high else "low",
            "meaning": f"times {row.max_depth:g}: depth in metres" if row.max_depth else row.kind.meaning,
        },
    }


def _write(job: CompileJob, graph: torch.jit.ScriptModule, path: Path, facts: Mapping[str, Any]) -> None:
    import torch

    from depthcli.backends.exports import export_onnx, export_openvino

    export = export_onnx if job.target == "onnx" else export_openvino
    examples = {"image": torch.zeros(job.batch, 3, job.height, job.width)}
    export(graph, examples, path, any_size=False, facts={"depthcli": json.dumps(facts)})


def _difference(network: torch.nn.Module, run: Callable[[np.ndarray], np.ndarray], job: CompileJob) -> float:
    import torch

    image = np.random.default_rng(0).standard_normal((job.batch, 3, job.height, job.width)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(image)).numpy()
    return float(np.abs(run(image) - wanted).max() / np.abs(wanted).max())


def _run_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {"image": image})[0])


def _run_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from depthcli.backends.openvino import shared_core

    compiled = shared_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: np.array(compiled([image])[0])


_RUNNERS = {"onnx": _run_onnx, "openvino": _run_openvino}


def _move(source: Path, path: Path) -> None:
    with atomic_path(path) as partial:
        shutil.copyfile(source, partial)
