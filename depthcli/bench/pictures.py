"""Speed with pictures: the network alone, each stage, whole processes, folders, and throughput, all in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from depthcli.backends import Backend, open_backend, remembered_backend
from depthcli.backends.artifact import read_artifact
from depthcli.bench.busy import measure_throughput
from depthcli.bench.commands import measure_folders, process_rows, time_processes
from depthcli.bench.contenders import (
    LONG_RUNS,
    Contender,
    MeasuredModel,
    check_runs,
    each_backend,
    machine_row,
    measured_model,
    own_cache,
    reason,
)
from depthcli.bench.fastest import check_rememberable, fastest_of, keep_fastest
from depthcli.bench.networks import measure_networks
from depthcli.bench.operators import measure_operators
from depthcli.bench.quality import measure_quality, quality_choices
from depthcli.bench.rows import Load, Row
from depthcli.bench.sample import Sample
from depthcli.bench.synthetic_clips import photograph
from depthcli.choices.model import COMPILED_BACKENDS, BackendChoice, ModelChoice
from depthcli.choices.settings import check_input_size
from depthcli.errors import EngineError, Log, PictureError, UsageError, first_line
from depthcli.host.machine import load_average
from depthcli.io.pictures.images import read_picture
from depthcli.jobs.find import find_in_folder
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.zoo.rows import LiteConfig, ModelRow, ModelTask, NestedConfig, SkyConfig

if TYPE_CHECKING:
    from depthcli.bench.peers import OfficialNetwork

OFFICIAL = "official form"
OFFICIAL_FUSED = "official form, fused attention"
PLAIN_OPENVINO = "plain ONNX export, OpenVINO"
PLAIN_ONNX = "plain ONNX export, ONNX Runtime"
TRANSFORMERS = "transformers"
_SYNTHETIC = (640, 480)


@dataclass(frozen=True)
class BenchJob:
    """What to measure. Raises UsageError.

    backends: names of backends, auto, or all (those that run checkpoints). backend: their device, precision and other
    options. input_size: shorter side of the input in pixels, None for the model's own. images: folder of pictures, or
    None for a synthetic picture of `picture` (width, height) pixels. runs: how often each backend is timed, after
    `warmup` runs that do not count. peers: also run the official code's network, a plain ONNX export and transformers.
    profile: also time each operator of the network. quality: compare the maps of `images` with exact ones instead of
    timing processes and folders; `auto` is then every precision of OpenVINO, int8 calibrated on `images` if there is no
    `calibration`. duration: seconds of the throughput
    test, which is for compiled networks, and for all backends if cost_per_hour, the price of this machine, is given.
    remember: let `auto` take the fastest from now on.
    """

    model: ModelChoice = field(default_factory=ModelChoice)
    backends: Sequence[str] = ("auto",)
    device: str = "auto"
    precision: str = "auto"
    calibration: Optional[Path] = None
    input_size: Optional[int] = None
    images: Optional[Path] = None
    picture: Optional[tuple[int, int]] = None
    runs: int = 10
    warmup: int = 2
    peers: bool = False
    profile: bool = False
    quality: bool = False
    artifacts: Optional[Path] = None
    shape_policy: str = "strict"
    allow_standin: bool = False
    duration: float = 10.0
    cost_per_hour: Optional[float] = None
    remember: bool = False

    def __post_init__(self) -> None:
        choices = self.choices()
        check_runs(self.runs, self.warmup)
        check_input_size(self.input_size)
        for name, value in (("duration", self.duration), ("cost_per_hour", self.cost_per_hour)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"`{name}` must be more than 0, got {value}")
        if (self.artifacts or self.allow_standin) and not any(choice.runs_compiled for choice in choices):
            setting = "artifacts" if self.artifacts else "allow_standin"
            backends = " or ".join(COMPILED_BACKENDS)
            raise UsageError(f"`{setting}` needs a compiled network", f"set `backend` to {backends}")
        if self.remember:
            check_rememberable([self._choice(name) for name in each_backend(self.backends)])
        if self.quality and self.images is None:
            raise UsageError("`quality` needs pictures", "set `images` to a folder of them")
        if self.images is not None and self.picture is not None:
            raise UsageError("`images` and `picture` exclude each other", "leave out one of them")
        if self.images is not None and not self.images.is_dir():
            raise UsageError(f"{self.images} is not a folder", "set `images` to a folder of pictures")
        if self.picture is not None and min(self.picture) < 1:
            width, height = self.picture
            raise UsageError(f"`picture` must be at least 1x1, got {width}x{height}")

    def choices(self) -> list[BackendChoice]:
        """Return the backends to measure, each once, in the order of their names."""
        if self.quality and self.images is not None and tuple(self.backends) == ("auto",) and self.precision == "auto":
            return quality_choices(self.device, self.images, self.calibration)
        choices = [self._choice(name) for name in each_backend(self.backends)]
        if self.peers or self.quality:
            # The reference to compare with. In float32 torch's own precisions are the same.
            exact = BackendChoice("torch", self.device, "exact")
            same = [replace(exact, precision=precision) for precision in ("auto", "fp32")]
            choices = [exact, *(choice for choice in choices if choice not in same)]
        return list(dict.fromkeys(choices))

    def _choice(self, name: str) -> BackendChoice:
        if name not in COMPILED_BACKENDS:
            return BackendChoice(name, self.device, self.precision, self.calibration)
        return BackendChoice(
            name,
            self.device,
            self.precision,
            artifacts=self.artifacts,
            shape_policy=self.shape_policy,
            allow_standin=self.allow_standin and name == "neuron",
        )


def run_benchmark(job: BenchJob, log: Log = lambda line: None) -> Iterator[Row]:
    """Measure and yield the rows, without downloads. A backend that is missing or fails becomes a row with the reason.

    log: receives lines about the progress. Raises UsageError or ModelError for the model, EngineError if no backend
    runs.
    """
    before, started = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="depth-bench-") as name, own_cache(Path(name) / "graphs"):
        sample = _sample(job, Path(name), log)
        contenders = [Contender(choice.backend, choice, choice.precision) for choice in job.choices()]
        yield machine_row(sample.model, sample.plan, len(sample.pictures), job.runs, job.warmup, before)
        long_runs = min(job.runs, LONG_RUNS)
        # No command about one picture takes a network for scenes; the network alone is measured, with one view.
        alone = job.quality or sample.model.row.task is ModelTask.SCENE
        if not alone:
            time_processes(sample, contenders, long_runs)  # before a backend is opened here, which would fill its cache
        try:
            official = _open(job, sample, contenders)
            yield from measure_networks(sample, contenders, job.warmup, job.runs)
            fastest = fastest_of(sample.model.row, job.precision, contenders) if job.remember else None
            if job.quality:
                yield from measure_quality(sample, contenders, job.calibration is None)
            if job.profile:
                yield from measure_operators(sample, contenders, long_runs)
            if not alone:
                yield from process_rows(contenders)
            yield from measure_throughput(sample, contenders, job.duration, job.cost_per_hour)
            if job.images is not None and not alone:
                yield from measure_folders(sample, contenders, job.images, official, long_runs)
        finally:
            for contender in contenders:
                contender.close()
    if fastest is not None:  # in the user's cache, not in that of the benchmark
        keep_fastest(fastest, log)
    yield Load(before, load_average(), round(time.perf_counter() - started, 1))


def model_of(job: BenchJob, folder: Path, log: Log) -> MeasuredModel:
    """Return the model to measure; if only compiled networks are measured, the one they were made from."""
    choices = job.choices()
    compiled = choices[0] if all(choice.runs_compiled for choice in choices) else None
    return measured_model(job.model, folder, log, compiled)


def _sample(job: BenchJob, folder: Path, log: Log) -> Sample:
    model = model_of(job, folder, log)
    input_size = model.row.input_size if job.input_size is None else job.input_size
    if job.images is not None:
        found = [job.images / relative for relative in find_in_folder(job.images)]
    else:
        size = job.picture or _SYNTHETIC
        if job.picture is None and all(choice.runs_compiled for choice in job.choices()):
            size = read_artifact(model.weights.path).input_size  # the one that was compiled
            input_size = min(size)
        found = [folder / "synthetic.jpg"]
        found[0].write_bytes(photograph(*size))
    pictures: list[Path] = []
    plans: list[InputPlan] = []
    for path in found:
        try:
            size = read_picture(path).size
        except Exception as error:  # whatever a decoder raises for one picture, the others are measured
            named = isinstance(error, PictureError)
            log(f"left out: {error}" if named else f"left out: {path}: {first_line(error)}")
            continue
        pictures.append(path)
        plans.append(plan_input(*size, model.row.input.with_size(input_size)))
    if not pictures:
        raise UsageError(f"there is no picture in {job.images}")
    return Sample(model, input_size, pictures, plans, folder, job.model, log)


def _open(job: BenchJob, sample: Sample, contenders: list[Contender]) -> Optional[OfficialNetwork]:
    """Load the network into every backend; keep one of those that turn out to be the same. Return the official one."""
    opened: set[str] = set()
    for item in list(contenders):
        assert item.choice is not None
        choice = item.choice
        _load(
            item,
            lambda choice=choice: open_backend(  # type: ignore[misc]
                sample.model.row,
                sample.model.weights,
                replace(choice, backend=remembered_backend(choice, sample.model.row) or choice.backend),
                sample.choice.trust,
                sample.log,
            ),
            sample.log,
        )
        if item.description in opened:
            item.close()
            contenders.remove(item)
        elif item.description:
            opened.add(item.description)
    official = _open_peers(job, sample, contenders) if job.peers else None
    if all(item.error for item in contenders):
        raise EngineError(contenders[0].error)
    return official


def _load(item: Contender, make: Callable[[], Backend], log: Log) -> None:
    log(f"opening {item.name}")
    started = time.perf_counter()
    try:
        item.backend = make()
    except Exception as error:  # whatever is wrong with one backend, the others are measured
        item.error = reason(error)
        return
    item.open_s = time.perf_counter() - started
    traits = item.backend.traits
    item.description, item.precision, item.device = traits.description, traits.precision, traits.device
    if item.choice is not None:
        item.name = traits.name


def _open_peers(job: BenchJob, sample: Sample, contenders: list[Contender]) -> Optional[OfficialNetwork]:
    """Put other people's forms of the network before the contenders; return the official code's."""
    row = sample.model.row
    if isinstance(row.network, (LiteConfig, SkyConfig, NestedConfig)):
        sample.log(f"there is no official code for {row.name}: it is compared with eager torch")
        return None
    from depthcli.bench.other_forms import export_plainly, plain_onnxruntime, plain_openvino, transformers_network
    from depthcli.bench.peers import OfficialNetwork

    facts = (row, sample.model.weights, job.device, job.model.trust)
    exported = sample.folder / "plain.onnx"

    def plainly(run: Callable[[ModelRow, Path, str], Backend], precision: str) -> Backend:
        if not exported.exists():
            export_plainly(sample.model, sample.plan, exported, job.model.trust)
        return run(row, exported, precision)

    makers: list[tuple[str, str, Callable[[], Backend]]] = [
        (OFFICIAL, "fp32", lambda: OfficialNetwork(*facts)),
        (OFFICIAL_FUSED, "fp32", lambda: OfficialNetwork(*facts, fused=True)),
        *((TRANSFORMERS, name, lambda name=name: transformers_network(row, name)) for name in ("fp32", "bf16")),
        *((PLAIN_ONNX, name, lambda name=name: plainly(plain_onnxruntime, name)) for name in ("fp32", "int8")),
        *((PLAIN_OPENVINO, name, lambda name=name: plainly(plain_openvino, name)) for name in ("fp32", "bf16")),
    ]
    if row.task is ModelTask.SCENE:  # others do not have it, and there attention is fused already
        makers = makers[:1]
    peers = [Contender(name, None, precision) for name, precision, _ in makers]
    contenders[:0] = peers
    for peer, (_, _, make) in zip(peers, makers):
        _load(peer, make, sample.log)
    official = peers[0].backend
    return official if isinstance(official, OfficialNetwork) else None
