"""Writing a model as a file that another program runs, without this one: one size of input, checked before it is kept.

The file is the static graph of the network (nets/static_graph.py). Everything around it, reading, resizing and the unit
of the answer, is described in the file's own metadata and in a .json beside it.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from depthcli.backends.archive import seal
from depthcli.backends.artifact import FOLDER, SCHEMA, SUFFIX, sidecar_of
from depthcli.backends.neuron.flavours import FLAVOURS
from depthcli.errors import DepthError, EngineError, OutputError, UsageError, first_line
from depthcli.host.atomic import atomic_path
from depthcli.host.memory import free_memory, predict_bytes
from depthcli.io.pictures.images import is_picture, picture_size
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.version import __version__
from depthcli.zoo.identify import is_published
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import PATCH, InputPolicy, ModelRow
from depthcli.zoo.verify import digest

if TYPE_CHECKING:
    import torch

# Ratios of sides; 1620x1080 and not 6048x4032, which the reference rounds to another width.
_COMMON = ((1, 1), (4, 3), (1620, 1080), (16, 9))
# How far the file's float32 answer may be from eager torch's, over its maximum; 1.2e-6 to 1.3e-5 were measured.
BOUND = 5e-5


@dataclass(frozen=True)
class Target:
    """A kind of file. suffixes: of what is written, the main one first. engine: the package that checks it."""

    suffixes: tuple[str, ...]
    engine: str


TARGETS = {
    "onnx": Target((".onnx",), "onnxruntime"),
    "openvino": Target((".xml", ".bin"), "openvino"),
    "torchscript": Target((SUFFIX,), "torch"),
    **{target: Target((SUFFIX,), flavour.package) for target, flavour in FLAVOURS.items()},
}


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
    check_size(height, width, batch)
    engine = TARGETS[target].engine
    if target in FLAVOURS:
        FLAVOURS[target].require(compiler=True)
    elif importlib.util.find_spec(engine) is None:
        raise EngineError(
            f"{engine}, which checks what is written for {target}, is not installed", f"pip install {engine}"
        )


def check_size(height: int, width: int, batch: int) -> None:
    """Raise UsageError for an input that cannot be."""
    if batch < 1 or min(height, width) < PATCH or height % PATCH or width % PATCH:
        raise UsageError(
            f"a network input of {height}x{width}, {batch} at once, cannot be",
            f"sides are multiples of {PATCH}, and --batch is at least 1",
        )


def output_path(output: Optional[str], target: str, row: ModelRow, height: int, width: int, batch: int) -> Path:
    """Return the file to write. output: what was named, a file, or a folder (one that is there, without a suffix, or
    with / at its end), or None.
    """
    if output and not output.endswith("/") and Path(output).suffix and not Path(output).is_dir():
        return Path(output)
    suffix = TARGETS[target].suffixes[0]
    kind = f"_{target}" if suffix == SUFFIX else ""  # of which there are several
    name = f"{row.name}_{height}x{width}" + (f"_b{batch}" if batch > 1 else "") + kind
    folder = Path(output) if output else FOLDER if suffix == SUFFIX else Path()
    return folder / (name + suffix)


def preset_sizes(preset: str, policy: InputPolicy) -> list[tuple[int, int]]:
    """Return the (height, width) of a preset: "common" is square, 4:3, 3:2, 16:9 and their portraits."""
    if preset != "common":
        raise UsageError(f"no preset is called {preset!r}", "choose from: common")
    landscape = [plan_input(width, height, policy).input_size for width, height in _COMMON]
    sizes = [(height, width) for width, height in landscape]
    return list(dict.fromkeys([*sizes, *((width, height) for height, width in sizes)]))


def sizes_of(folder: Path, policy: InputPolicy) -> list[tuple[tuple[int, int], int]]:
    """Return the (height, width) that the pictures of a folder ask for and how many do, the most frequent first.

    Raises UsageError for a folder without pictures.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for path in sorted(path for path in folder.rglob("*") if is_picture(path)) if folder.is_dir() else ():
        size = picture_size(path)
        if size is not None:
            width, height = plan_input(*size, policy).input_size
            counts[height, width] += 1
    if not counts:
        raise UsageError(f"{folder} holds no pictures", "--from-dir names a folder of pictures")
    return counts.most_common()


def compile_model(job: CompileJob) -> Compiled:
    """Write the file, run it once, compare it with the readable network, and only then give it its name.

    Raises ModelError for weights that do not fit, EngineError where a package is missing or the answers differ,
    OutputError where nothing can be written.
    """
    from depthcli.graphs.static import guarded, trace
    from depthcli.nets.build import read_network

    target = TARGETS[job.target]
    check_room(job)
    network = read_network(job.row, job.weights, job.trust)
    facts = describe_network(job)
    try:
        with tempfile.TemporaryDirectory(prefix="depthcli-") as name:
            draft = Path(name) / job.output.name
            with compiler_errors(target.engine):
                graph = trace(network, job.batch, job.height, job.width)
                if job.target == "torchscript":
                    graph = guarded(graph, job.batch, job.height, job.width)
                facts = _write(job, graph, draft, facts)
                difference = _difference(network, _RUNNERS[job.target](draft), job)
            if not difference <= BOUND:
                raise EngineError(
                    f"{target.engine} answers otherwise than torch: the difference is {difference:.1e} of the maximum",
                    "please report this, with the versions of both",
                )
            paths = [job.output.with_suffix(suffix) for suffix in target.suffixes]
            facts["file_sha256"] = digest(draft)
            facts["files_sha256"] = {path.name: digest(draft.with_suffix(path.suffix)) for path in paths}
            for path in paths[::-1]:  # the main file last: where it is, the others are
                keep_file(draft.with_suffix(path.suffix), path)
    except OSError as error:
        raise OutputError(f"cannot write {job.output}: {error.strerror or error}") from error
    sidecar = sidecar_of(job.output)
    with atomic_path(sidecar) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Compiled((*paths, sidecar), difference)


def check_room(job: CompileJob) -> None:
    """Raise EngineError where running the network once, in torch, would not fit into the memory."""
    size = job.width, job.height
    need, free = predict_bytes(job.row.network, InputPlan(size, size), job.batch), free_memory()
    if free is not None and need > free:
        raise EngineError(
            f"an input of {job.height}x{job.width} needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "use a smaller --size or --batch",
        )


@contextmanager
def compiler_errors(engine: str) -> Iterator[None]:
    """Within this context what torch and the engines raise becomes an EngineError."""
    try:
        yield
    except (DepthError, OSError):
        raise
    except MemoryError as error:
        raise EngineError("the machine ran out of memory", "use a smaller --size or --batch") from error
    except Exception as error:  # the engines' own have no class in common
        raise EngineError(f"the network cannot be written or run with {engine}: {first_line(error)}") from error


def describe_network(job: CompileJob) -> dict[str, Any]:
    """Return what a program has to know to run the file, ready for JSON."""
    row = job.row
    published = is_published(row, job.weights)
    return {
        "schema": SCHEMA,
        "depthcli": __version__,
        "target": job.target,
        "versions": {"python": platform.python_version(), "torch": version("torch"), "numpy": np.__version__},
        "model": row.name,
        "model_title": row.title if published else f"{job.weights.path.name}, a {row.encoder} of its own",
        "weights_sha256": job.weights.sha256,
        "max_depth": row.max_depth,
        "weights_licence": row.licence if published else "",
        "input": {
            "name": "image",
            "shape": [job.batch, 3, job.height, job.width],
            "dtype": "float32",
            "meaning": "RGB / 255, less mean, over std; resized by the bicubic rule without antialiasing",
            "mean": list(row.input.mean),
            "std": list(row.input.std),
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


def _write(job: CompileJob, graph: torch.jit.ScriptModule, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the file; return the facts as they are in it."""
    import torch

    from depthcli.backends.onnx import export_onnx
    from depthcli.backends.openvino import export_openvino
    from depthcli.graphs.jit import quiet_jit

    if job.target == "torchscript":
        with quiet_jit():
            torch.jit.save(graph, str(path))
        return seal(path, facts)
    export = export_onnx if job.target == "onnx" else export_openvino
    examples = {"image": torch.zeros(job.batch, 3, job.height, job.width)}
    export(graph, examples, path, {"depthcli": json.dumps(facts)})
    return facts


def _difference(network: torch.nn.Module, run: Callable[[np.ndarray], np.ndarray], job: CompileJob) -> float:
    import torch

    image = np.random.default_rng(0).standard_normal((job.batch, 3, job.height, job.width)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(image)).numpy()
    return float(np.abs(run(image) - wanted).max() / np.abs(wanted).max())


def _run_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from depthcli.backends.onnx import run_onnx_file

    return run_onnx_file(path)


def _run_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from depthcli.backends.openvino import run_openvino_file

    return run_openvino_file(path)


def _run_torchscript(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from depthcli.backends.torchscript import run_torchscript_file

    return run_torchscript_file(path)


_RUNNERS = {"onnx": _run_onnx, "openvino": _run_openvino, "torchscript": _run_torchscript}


def keep_file(source: Path, path: Path) -> None:
    """Copy a finished file to where it belongs; it is there whole or not at all."""
    with atomic_path(path) as partial:
        shutil.copyfile(source, partial)
