"""Compile a checkpoint to files that run without this program, one for each input size.

A file holds the static graph of the network (graphs/static.py), and metadata that describe input and output, as does a
.json beside it. It is run once and compared with the network before it gets its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from depthcli.backends.artifact import FOLDER, SCHEMA, SUFFIX
from depthcli.backends.detector import SCHEMA as DETECTOR_SCHEMA
from depthcli.backends.detector import SUFFIXES
from depthcli.backends.export import BOUND, Export, Shape, answers_difference, checked
from depthcli.backends.neuron.common import cast_arguments
from depthcli.backends.neuron.flavours import CHIPS, FLAVOURS
from depthcli.choices.compiler import CompilerChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import DepthError, DiskFullError, EngineError, Log, OutputError, UsageError, first_line
from depthcli.host.atomic import atomic_path
from depthcli.host.memory import free_memory, predict_bytes
from depthcli.io.names import sidecar_of
from depthcli.io.pictures.files import is_picture
from depthcli.io.pictures.images import picture_size
from depthcli.objects.detect import DEVIATION, MEAN
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.predict.model import resolve_model
from depthcli.version import __version__
from depthcli.zoo.detectors import DetectorFiles, find_detector, licence_of
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import PATCH, InputPolicy, ModelRow
from depthcli.zoo.verify import digest

if TYPE_CHECKING:
    import torch

    from depthcli.backends.converted import ReadyNetwork
    from depthcli.backends.neuron.analysis import Analysis
    from depthcli.graphs.any_size import AnySizeGraph
    from depthcli.nets.rf_detr import RfDetr

Size = tuple[int, int]  # height, width
# Ratios of sides; 1620x1080 and not 6048x4032, which the reference rounds to another width.
_COMMON = ((1, 1), (4, 3), (1620, 1080), (16, 9))


@dataclass(frozen=True)
class Target:
    """A kind of file. suffixes: of its files, the main one first. package: runs it. module: exports it."""

    suffixes: tuple[str, ...]
    package: str
    module: str


TARGETS = {
    "onnx": Target((".onnx",), "onnxruntime", "depthcli.backends.onnx"),
    "openvino": Target((".xml", ".bin"), "openvino", "depthcli.backends.openvino"),
    "torchscript": Target((SUFFIX,), "torch", "depthcli.backends.torchscript"),
    **{
        name: Target((SUFFIX,), flavour.package, "depthcli.backends.neuron.export")
        for name, flavour in FLAVOURS.items()
    },
}


@dataclass(frozen=True)
class CompileJob:
    """What to compile. Raises UsageError.

    target: one of TARGETS. sizes: (height, width) of inputs, multiples of 14; else those of a `preset`, or those that
    the pictures in `from_dir` need, or the model's own, square. batch: pictures per run.
    output: a file; or a folder: an existing one, a name without suffix, or one that ends in /. None for the default.
    options: for AWS's chips.
    """

    target: str
    model: ModelChoice = field(default_factory=ModelChoice)
    sizes: tuple[Size, ...] = ()
    preset: Optional[str] = None
    from_dir: Optional[Path] = None
    batch: int = 1
    output: Optional[str] = None
    options: CompilerChoice = field(default_factory=CompilerChoice)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(f"unknown `target` {self.target!r}", f"choose from: {', '.join(TARGETS)}")
        if self.target in FLAVOURS:
            cast_arguments(self.target, FLAVOURS[self.target].casts, self.options.fast_math)
        elif self.options != CompilerChoice():
            raise UsageError(f"`target` {self.target} needs no compiler", "leave out the options for AWS Inferentia")
        if sum(bool(given) for given in (self.sizes, self.preset, self.from_dir)) > 1:
            raise UsageError("`size`, `preset` and `from_dir` exclude each other", "give one of them")
        if self.batch < 1:
            raise UsageError(f"`batch` must be at least 1, got {self.batch}")
        for height, width in self.sizes:
            if min(height, width) < PATCH or height % PATCH or width % PATCH:
                raise UsageError(f"sides of `size` must be multiples of {PATCH}, got {height}x{width}")


@dataclass(frozen=True)
class Compiled:
    """One input size: its files and how they were checked, or the error. size: (height, width)."""

    size: Size
    paths: tuple[Path, ...] = ()
    export: Optional[Export] = None
    error: Optional[DepthError] = None

    @property
    def summary(self) -> str:
        """How well the result was checked, in one line."""
        name, export = _name(self.size), self.export
        if export is None:
            return f"error: {name}: {self.error}"
        if export.difference is not None:
            return f"{name} differs from torch by {export.difference:.1e} of the maximum"
        checked = (
            "not run: there is no Neuron device here"
            if export.device is None
            else f"differs from the CPU by {100 * export.device:.2f} % of the standard deviation in the mean"
        )
        return f"{name} compiled in {export.seconds:.0f} s; {checked}"


@dataclass(frozen=True)
class Analyzed:
    """Whether a model would compile for an AWS chip, for one input size (height, width)."""

    target: str
    model: str
    size: Size
    analysis: Analysis

    @property
    def lines(self) -> list[str]:
        """The findings, for people."""
        found = self.analysis
        verdict = "no obstacle found" if found.passed else f"cannot be compiled for {self.target}"
        lines = [
            f"{self.model} {_name(self.size)}: {verdict}",
            "  operators: " + ", ".join(f"{operator} {count}" for operator, count in found.operators.items()),
            f"  unknown to the converter: {', '.join(found.unknown) or 'none'}",
            f"  differs from the network by {found.difference:.1e} of the maximum (bound {found.bound:.0e})",
        ]
        if "aten::upsample_bilinear2d" in found.operators:
            return [*lines, "  its bilinear resizes have aligned corners, not yet tested on these chips"]
        mean = f"{100 * found.snapped_mean:.2f} % of the standard deviation in the mean"
        return [*lines, f"  with resizes exact in bfloat16: {found.snapped:.1e} of the maximum, {mean}"]


def compile_model(job: CompileJob, log: Log) -> Iterator[Compiled]:
    """Write a file for each input size, and yield the results.

    One failed size does not stop the others; if it is the only one, or the disk is full, its error is raised.
    Raises ModelError for weights that do not fit, EngineError for a missing package.
    """
    _require(job.target)
    model = resolve_model(job.model, log)
    row, sizes = model.row, _sizes(job, model.row, log)
    outputs = [output_path(job.output, job.target, row, size, job.batch) for size in sizes]
    if len(set(outputs)) < len(outputs):
        raise UsageError(f"{len(sizes)} networks do not fit into one file {job.output}", "give a folder as `output`")
    loaded = LoadedModel.read(row, model.weights, model.trust)
    for size, output in zip(sizes, outputs):
        try:
            export, paths = write_network(loaded, job.target, (job.batch, *size), output, job.options, log)
        except DepthError as error:
            if len(sizes) == 1 or isinstance(error, DiskFullError):
                raise
            yield Compiled(size, error=error)
        else:
            yield Compiled(size, paths, export)


@dataclass(frozen=True)
class DetectorJob:
    """A detector to compile. Raises UsageError.

    target: onnx or openvino. detector: name of a row, a folder or a .pth; see `find_detector`. output: as of
    CompileJob; None for the folder where `depth objects` finds it.
    """

    target: str
    detector: str
    output: Optional[str] = None
    offline: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        if self.target not in SUFFIXES:
            raise UsageError(
                f"`detector` is not compiled for {self.target}", f"choose a `target` from: {', '.join(SUFFIXES)}"
            )


def compile_detector(job: DetectorJob, log: Log) -> Compiled:
    """Write a detector as a file of its one input size, after it was run and compared with torch.

    Raises ModelError for weights that do not fit, DownloadError, EngineError for a missing package or other answers.
    """
    _require(job.target)
    files = find_detector(job.detector, offline=job.offline, log=log)
    if files.path.suffix.lower() in SUFFIXES.values():
        raise UsageError(f"{files.path} is compiled already", "`detector` takes a row, a folder or a .pth")
    from depthcli.graphs.detector import trace_detector
    from depthcli.nets.rf_detr import RfDetr

    with _compiler_errors("transformers"):
        detector = RfDetr(files, trust=job.trust)
        graph = trace_detector(detector)
    facts = describe_detector(files, job.target, graph)
    size = detector.side, detector.side
    output = _place(job.output, FOLDER, f"{files.stem}_{_name(size)}", job.target)

    def write(draft: Path) -> Export:
        module: Any = importlib.import_module(TARGETS[job.target].module)
        module.export_one(graph.parts["network"], draft, facts)
        return Export(facts, compare_detector(detector, module.open_file(draft)))

    _check_suffix(job.target, output)
    export, paths = _written(job.target, output, write)
    return Compiled(size, paths, export)


def compare_detector(detector: RfDetr, ready: ReadyNetwork) -> float:
    """Return how far a compiled detector is from torch, over the maximum. Raises EngineError.

    The first stage sorts its proposals by score. Two that are closer than rounding may change places, and all that
    follows with them, so the best of three inputs counts.
    """
    differences = []
    for number in range(3):
        image = np.random.default_rng(number).standard_normal((3, detector.side, detector.side)).astype(np.float32)
        found = [array[0] for array in ready.infer(image[None])]
        differences.append(answers_difference(found, detector.run(image)))
        if differences[-1] <= BOUND:
            break
    return checked(min(differences), ready.package)


def analyze_model(job: CompileJob, log: Log) -> Iterator[Analyzed]:
    """Yield for each input size whether it would compile for an AWS chip; nothing is written."""
    if job.target not in FLAVOURS:
        raise UsageError(f"`analyze_only` needs `target` {' or '.join(CHIPS)}, got {job.target}")
    from depthcli.backends.neuron.analysis import analyze

    model = resolve_model(job.model, log)
    row, sizes = model.row, _sizes(job, model.row, log)
    loaded = LoadedModel.read(row, model.weights, model.trust)
    for size in sizes:
        analysis = analyze(FLAVOURS[job.target], loaded.network, (job.batch, *size))
        yield Analyzed(job.target, row.name, size, analysis)


@dataclass(frozen=True)
class LoadedModel:
    """A row and its network, with the weights of a file."""

    row: ModelRow
    weights: WeightsFile
    network: torch.nn.Module

    @classmethod
    def read(cls, row: ModelRow, weights: WeightsFile, trust: bool = False) -> LoadedModel:
        """Read the weights. Raises ModelError."""
        from depthcli.nets.build import read_network

        return cls(row, weights, read_network(row, weights, trust))


def write_network(
    model: LoadedModel, target: str, shape: Shape, output: Path, options: CompilerChoice, log: Log
) -> tuple[Export, tuple[Path, ...]]:
    """Export the network for one batch and input size, run it, and only then write the files; return their paths.

    Raises EngineError if it cannot be exported or differs from the network, OutputError if it cannot be written.
    """

    def write(draft: Path) -> Export:
        exporter: Any = importlib.import_module(TARGETS[target].module)
        facts = describe_network(model, target, shape)
        export: Export = exporter.export(model.network, shape, draft, facts, options, log)
        return export

    _check_suffix(target, output)
    _check_room(model.row, shape)
    return _written(target, output, write)


def _check_suffix(target: str, output: Path) -> None:
    suffix = TARGETS[target].suffixes[0]
    if output.suffix != suffix:
        raise UsageError(f"the file for `target` {target} ends in {suffix}, got {output.name}")


def _written(target: str, output: Path, write: Callable[[Path], Export]) -> tuple[Export, tuple[Path, ...]]:
    """Let `write` make the main file of a target as a draft; give the files their names, and describe them beside."""
    kind = TARGETS[target]
    paths = [output.with_suffix(suffix) for suffix in kind.suffixes]
    try:
        with tempfile.TemporaryDirectory(prefix="depthcli-") as name:
            draft = Path(name) / output.name
            with _compiler_errors(kind.package):
                export = write(draft)
            sums = {path.name: digest(draft.with_suffix(path.suffix)) for path in paths}
            sidecar = {**export.facts, "file_sha256": sums[output.name]}
            sidecar.update(export.proof if target in FLAVOURS else {"files_sha256": sums})
            for path in paths[::-1]:  # the main file last: once it exists, so do the others
                with atomic_path(path) as partial:
                    shutil.copyfile(draft.with_suffix(path.suffix), partial)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    with atomic_path(sidecar_of(output)) as partial:
        partial.write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    return export, (*paths, sidecar_of(output))


def output_path(output: Optional[str], target: str, row: ModelRow, size: Size, batch: int) -> Path:
    """Return the file to write for an `output` as in CompileJob."""
    shared = TARGETS[target].suffixes[0] == SUFFIX  # by several targets
    name = f"{row.name}_{_name(size)}" + (f"_b{batch}" if batch > 1 else "") + (f"_{target}" if shared else "")
    return _place(output, FOLDER if shared else Path(), name, target)


def _place(output: Optional[str], folder: Path, name: str, target: str) -> Path:
    """Return the file that an `output` names; or a name in the folder that it names, or in this one."""
    if output and not output.endswith("/") and Path(output).suffix and not Path(output).is_dir():
        return Path(output)
    return (Path(output) if output else folder) / (name + TARGETS[target].suffixes[0])


def _sizes(job: CompileJob, row: ModelRow, log: Log) -> list[Size]:
    """Return the (height, width) of the inputs to compile, each once."""
    if job.preset is not None:
        return preset_sizes(job.preset, row.input)
    if job.from_dir is not None:
        counted = sizes_of(job.from_dir, row.input)
        for size, count in counted:
            log(f"{_name(size)}: {count} picture{'s' if count > 1 else ''}")
        return [size for size, _ in counted]
    return list(dict.fromkeys(job.sizes or [(row.input_size, row.input_size)]))


def preset_sizes(preset: str, policy: InputPolicy) -> list[Size]:
    """Return the (height, width) of a preset: "common" is square, 4:3, 3:2, 16:9 and their portraits."""
    if preset != "common":
        raise UsageError(f"unknown `preset` {preset!r}", "choose from: common")
    landscape = [plan_input(width, height, policy).input_size for width, height in _COMMON]
    sizes = [(height, width) for width, height in landscape]
    return list(dict.fromkeys([*sizes, *((width, height) for height, width in sizes)]))


def sizes_of(folder: Path, policy: InputPolicy) -> list[tuple[Size, int]]:
    """Return the (height, width) that a folder's pictures need and their numbers, the most frequent first.

    Raises UsageError for a folder without pictures.
    """
    counts: Counter[Size] = Counter()
    for path in sorted(path for path in folder.rglob("*") if is_picture(path)) if folder.is_dir() else ():
        size = picture_size(path)
        if size is not None:
            width, height = plan_input(*size, policy).input_size
            counts[height, width] += 1
    if not counts:
        raise UsageError(f"{folder} holds no pictures", "`from_dir` names a folder of pictures")
    return counts.most_common()


def describe_network(model: LoadedModel, target: str, shape: Shape) -> dict[str, Any]:
    """Return what a program has to know to run the file, ready for JSON."""
    row, weights, (batch, height, width) = model.row, model.weights, shape
    provenance = provenance_of(row, weights)
    return {
        "schema": SCHEMA,
        "depthcli": __version__,
        "target": target,
        "versions": {"python": platform.python_version(), "torch": version("torch"), "numpy": np.__version__},
        "model": row.name,
        "model_title": provenance.model_title,
        "weights_sha256": weights.sha256,
        "max_depth": row.max_depth,
        "weights_licence": provenance.licence,
        "input": {
            "name": "image",
            "shape": [batch, 3, height, width],
            "dtype": "float32",
            "meaning": "RGB / 255, less mean, over std; resized by the bicubic rule without antialiasing",
            "mean": list(row.input.mean),
            "std": list(row.input.std),
        },
        "output": {
            "name": "depth" if len(row.outputs) == 1 else "maps",
            "shape": [batch, height, width] if len(row.outputs) == 1 else [batch, len(row.outputs), height, width],
            **({"maps": list(row.outputs)} if len(row.outputs) > 1 else {}),
            "dtype": "float32",
            "kind": row.kind.value,
            "near_is": "high" if row.kind.near_is_high else "low",
            "meaning": f"times {row.max_depth:g}: depth in metres" if row.max_depth else row.kind.meaning,
        },
    }


def describe_detector(files: DetectorFiles, target: str, graph: AnySizeGraph) -> dict[str, Any]:
    """Return what a program has to know to run a compiled detector, ready for JSON."""
    part = graph.parts["network"]
    ((name, image),) = part.examples.items()
    meanings = (
        "before the sigmoid, a row for each query; columns without a name in `classes` are no classes",
        "middle and size of each query's box, 0 to 1 of the picture's sides",
        "above 0 inside of each query's mask, of the whole picture",
    )
    return {
        "schema": DETECTOR_SCHEMA,
        "depthcli": __version__,
        "target": target,
        "versions": {"python": platform.python_version(), "torch": version("torch"), "numpy": np.__version__},
        "detector": files.name,
        "weights_sha256": files.sha256,
        "weights_licence": licence_of(files),
        "input": {
            "name": name,
            "shape": list(image.shape),
            "dtype": "float32",
            "meaning": "RGB / 255, less mean, over std; stretched to the square, bilinear without antialiasing",
            "mean": list(MEAN),
            "std": list(DEVIATION),
        },
        "outputs": [
            {"name": each, "dtype": "float32", "meaning": meaning} for each, meaning in zip(part.outputs, meanings)
        ],
        **graph.facts,
    }


def _require(target: str) -> None:
    """Raise EngineError if the package that runs a target's files is missing."""
    package = TARGETS[target].package
    if target in FLAVOURS:
        FLAVOURS[target].require(compiler=True)
    elif importlib.util.find_spec(package) is None:
        raise EngineError(f"{package} is not installed, which checks files for {target}", f"pip install {package}")


def _check_room(row: ModelRow, shape: Shape) -> None:
    """Raise EngineError if one run of the network in torch would exceed the memory."""
    batch, height, width = shape
    need, free = predict_bytes(row.network, InputPlan((width, height), (width, height)), batch), free_memory()
    if free is not None and need > free:
        raise EngineError(
            f"an input of {height}x{width} needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "use a smaller `size` or `batch`",
        )


@contextmanager
def _compiler_errors(package: str) -> Iterator[None]:
    """Turn errors of torch and of a target's package into an EngineError."""
    try:
        yield
    except (DepthError, OSError):
        raise
    except MemoryError as error:
        raise EngineError("the machine ran out of memory", "use a smaller `size` or `batch`") from error
    except Exception as error:  # the packages' classes have no base in common
        raise EngineError(f"the network cannot be written or run with {package}: {first_line(error)}") from error


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
