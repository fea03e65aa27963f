"""The one place where speed is measured: engines side by side, whole processes, folders, and the forms others use.

Machines are shared and their clocks move, so that a time by itself says little. What is compared is measured in turns
(one run of each, again and again), and the ratio is the median of the ratios of the turns.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, cast

import numpy as np

from depthcli.backends import BACKENDS, Backend, open_backend
from depthcli.backends.artifact import STANDIN, read_artifact
from depthcli.backends.neuron import common
from depthcli.bench.flops import network_flops
from depthcli.bench.own_process import Ended, run_alone
from depthcli.bench.rows import Folder, Load, Machine, Network, Process, Roofline, Row, Stages, Throughput
from depthcli.bench.synthetic_clips import photograph
from depthcli.bench.throughput import Figures, cost_per_million, figures, measure
from depthcli.choices import COMPILED_BACKENDS, BackendChoice, ModelChoice, check_input_size
from depthcli.errors import (
    CheckpointError,
    DepthError,
    EngineError,
    Log,
    ModelError,
    PictureError,
    UsageError,
    first_line,
)
from depthcli.host.cores import compute_threads, usable_cores
from depthcli.host.machine import cpu_flags, cpu_model, load_average, versions
from depthcli.io.codecs.files import write_still
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.jobs.find import find_in_folder
from depthcli.jobs.folder import FolderJob, run_folder
from depthcli.jobs.targets import Task
from depthcli.pixels.postprocess import to_depth_map
from depthcli.pixels.preprocess import InputPlan, plan_input, to_network_input
from depthcli.predict.model import Model, resolve_model
from depthcli.predict.picture import DepthEstimator
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import LiteConfig, ModelRow, ModelTask, find_row, is_row, select_row
from depthcli.zoo.verify import digest

if TYPE_CHECKING:
    from depthcli.bench.peers import OfficialEngine


OFFICIAL = "official form"
OFFICIAL_FUSED = "official form, fused attention"
OFFICIAL_LOOP = "official script's loop"
STAGES = ("read", "prepare", "run", "finish", "write")
# What is seconds long is repeated no more often than this, whatever --runs is.
LONG_RUNS = 3
# Where the engines keep converted networks (graph_cache.FOLDER_VARIABLE).
_CACHE = "DEPTHCLI_CACHE"
_SYNTHETIC = (640, 480)
_MEGABYTE = 1e6


# ---------------------------------------------------------------------------------------------------------------------
# What is to be measured, and what comes of it
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchJob:
    """What is to be measured.

    backends: names of BACKENDS, auto, or all that take checkpoints. input_size: shorter side of the input, None for the
    model's own. images: a folder of pictures, or None for one synthetic picture of `picture` (width, height) pixels.
    runs: how often each engine is timed, after `warmup` runs that do not count. peers: also run the official code's
    form. artifacts, shape_policy, allow_standin: as in BackendChoice, for the engines that run compiled networks.
    duration: seconds that each engine is kept busy for its throughput; that is measured for compiled networks, and for
    all where cost_per_hour, the price of this machine, is given. Raises UsageError for what cannot be.
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
    artifacts: Optional[Path] = None
    shape_policy: str = "strict"
    allow_standin: bool = False
    duration: float = 10.0
    cost_per_hour: Optional[float] = None

    def __post_init__(self) -> None:
        self.engines()  # which checks them
        if self.runs < 1:
            raise UsageError(f"{self.runs} runs measure nothing", "--runs is at least 1")
        if not 0 < self.duration < float("inf"):
            raise UsageError(f"{self.duration} seconds measure nothing", "--duration is more than 0")
        if self.cost_per_hour is not None and not 0 < self.cost_per_hour < float("inf"):
            raise UsageError(f"a machine for {self.cost_per_hour} an hour cannot be", "--cost-per-hour is more than 0")
        if (self.artifacts or self.allow_standin) and not any(map(is_compiled, self.engines())):
            option = "--artifacts" if self.artifacts else "--allow-standin"
            raise UsageError(
                f"{option} belongs to compiled networks", f"say --backend {' or '.join(COMPILED_BACKENDS)}"
            )
        if self.warmup < 0:
            raise UsageError(f"{self.warmup} runs of warm-up cannot be", "--warmup is at least 0")
        if self.images is not None and self.picture is not None:
            raise UsageError("--images and --picture name two kinds of pictures", "leave out one")
        if self.images is not None and not self.images.is_dir():
            raise UsageError(f"{self.images} is not a folder", "--images takes a folder of pictures")
        if self.picture is not None and min(self.picture) < 1:
            raise UsageError(f"a picture of {_by(self.picture)} pixels cannot be", "give --picture as 640x480")
        check_input_size(self.input_size)

    def engines(self) -> list[BackendChoice]:
        """Return the engines to measure, each once, in the order they were named."""
        every = [name for name in BACKENDS if name not in COMPILED_BACKENDS]
        names = [name for item in self.backends for name in (every if item == "all" else (item,))]
        choices = [self._choice(name) for name in names]
        if self.peers:
            # The reference, to compare others with; torch's own float32 is the same engine.
            exact = BackendChoice("torch", self.device, "exact")
            same = [replace(exact, precision=precision) for precision in ("auto", "fp32")]
            choices = [exact, *(choice for choice in choices if choice not in same)]
        return list(dict.fromkeys(choices))

    def _choice(self, name: str) -> BackendChoice:
        if name not in COMPILED_BACKENDS:
            return BackendChoice(name, self.device, self.precision, self.calibration)
        standin = self.allow_standin and name == "neuron"
        return BackendChoice(
            name,
            self.device,
            self.precision,
            artifacts=self.artifacts,
            shape_policy=self.shape_policy,
            allow_standin=standin,
        )


def is_compiled(choice: BackendChoice) -> bool:
    """Return whether an engine runs files of `depth compile`."""
    return choice.backend in COMPILED_BACKENDS


# ---------------------------------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------------------------------


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def p90(values: Sequence[float]) -> float:
    """Return the value that nine of ten stay below, interpolated linearly."""
    return float(np.percentile(values, 90))


def spread(values: Sequence[float]) -> float:
    """Return the distance from the first to the third quartile, as a share of the median."""
    first, middle, third = np.percentile(values, (25, 50, 75))
    return float((third - first) / middle)


def times_faster(reference: Sequence[float], values: Sequence[float]) -> float:
    """Return how many times faster `values` are than `reference`: the median of the ratios, turn by turn."""
    return median([before / after for before, after in zip(reference, values)])


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def run_benchmark(job: BenchJob, talk: Log = lambda line: None) -> Iterator[Row]:
    """Measure, and yield the rows; nothing is downloaded, and nothing is kept.

    talk: takes one line at a time about what goes on. An engine that is not installed or fails becomes a row that says
    so. Raises UsageError or ModelError for a model that cannot be, EngineError where no engine runs.
    """
    before, started = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="depth-bench-") as name, cache_of_its_own(Path(name) / "graphs"):
        bench = _Bench(job, Path(name), talk)
        yield bench.machine(before)
        bench.start_processes()  # before an engine is opened here, which would fill its cache
        bench.open()
        try:
            yield from bench.networks()
            yield from bench.processes()
            yield from bench.throughputs()
            if job.images is not None:
                yield from bench.folders()
        finally:
            bench.close()
    yield Load(before, load_average(), round(time.perf_counter() - started, 1))


def obtain(job: BenchJob, folder: Path, talk: Log) -> tuple[ModelRow, WeightsFile, bool]:
    """Return the row, its weights, and whether they are random ones, as where they are not on this machine.

    Where nothing but compiled networks is measured, they say what they were made of. folder: where random weights are
    written. Raises UsageError or ModelError as `resolve_model` does, EngineError where there is no compiled network.
    """
    engines = job.engines()
    if all(map(is_compiled, engines)):
        found = resolve_model(job.model, talk, backend=engines[0])
        return found.row, found.weights, False
    return obtain_model(job.model, folder, talk)


def obtain_model(
    choice: ModelChoice, folder: Path, talk: Log, video: bool = False
) -> tuple[ModelRow, WeightsFile, bool]:
    """Return the row, its weights, and whether they are random ones; as `obtain`. video: a model for clips will do."""
    if choice == ModelChoice():
        choice = replace(choice, encoder="vits")
    try:
        tasks = tuple(ModelTask) if video else (ModelTask.PICTURE,)
        found = resolve_model(replace(choice, offline=True), talk, tasks=tasks)
        return found.row, found.weights, False
    except CheckpointError:
        raise
    except ModelError:
        named = choice.model
        if choice.checkpoint is not None or not (named is None or is_row(named)):
            raise
    row = (
        find_row(named) if named else select_row("vits" if choice.encoder == "auto" else choice.encoder, choice.metric)
    )
    from depthcli.nets.random_weights import random_weights

    talk(f"the weights of {row.name} are not on this machine: random ones take as long and give no depth")
    return row, random_weights(row, folder), True


def machine_row(
    row: ModelRow, random: bool, plan: InputPlan, pictures: int, runs: int, warmup: int, load: Optional[float]
) -> Machine:
    """Return the head of a result: this machine, and the model and the pictures that it is measured with."""
    return Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        threads=compute_threads(),
        flags=cpu_flags(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions(),
        model=row.name,
        title=row.title,
        random_weights=random,
        pictures=pictures,
        picture_size=plan.picture_size,
        input_size=plan.input_size,
        # Of a model for clips only the part that it shares with one for pictures is counted.
        gflop=None if row.task is ModelTask.CLIP else network_flops(row.network, *plan.input_size) / 1e9,
        runs=runs,
        warmup=warmup,
        load=load,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def model_options(
    row: ModelRow, weights: WeightsFile, choice: BackendChoice, input_size: int, trust: bool
) -> tuple[str, ...]:
    """Return the options by which a command runs this network in this engine, and downloads nothing."""
    checkpoint = () if is_compiled(choice) else ("--checkpoint", str(weights.path))
    model = ("--model", row.name, *checkpoint, "--offline")
    engine = ("--backend", choice.backend, "--device", choice.device, "--precision", choice.precision)
    return (*model, *engine, "--input-size", str(input_size), *(("--trust-checkpoint",) if trust else ()))


@dataclass
class _Contender:
    """One engine in the race.

    choice: None for a peer. times: milliseconds per size of input, turn by turn. processes: the first, then the others.
    """

    name: str
    choice: Optional[BackendChoice]
    precision: str
    backend: Optional[Backend] = None
    engine: str = ""
    device: str = ""
    open_s: Optional[float] = None
    error: str = ""
    times: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    processes: list[Ended] = field(default_factory=list)


class _Bench:
    """A benchmark under way: its model, its pictures, its engines."""

    def __init__(self, job: BenchJob, folder: Path, talk: Log) -> None:
        self.job, self.folder, self.talk = job, folder, talk
        self.row, self.weights, self.random = obtain(job, folder, talk)
        self.input_size = self.row.input_size if job.input_size is None else job.input_size
        self.pictures, self.plans = self._pictures()
        self.plan = self.plans[0]
        self.long_runs = min(job.runs, LONG_RUNS)
        self.contenders = [_Contender(choice.backend, choice, choice.precision) for choice in job.engines()]

    def _pictures(self) -> tuple[list[Path], list[InputPlan]]:
        """Return the pictures that can be read and their plans."""
        if self.job.images is None:
            path = self.folder / "synthetic.jpg"
            path.write_bytes(photograph(*(self.job.picture or self._synthetic_size())))
            found = [path]
        else:
            found = [self.job.images / relative for relative in find_in_folder(self.job.images)]
        paths, plans = [], []
        for path in found:
            try:
                size = read_picture(path).size
            except Exception as error:  # whatever a decoder raises for one picture, the others are measured
                named = isinstance(error, PictureError)
                self.talk(f"left out: {error}" if named else f"left out: {path}: {first_line(error)}")
                continue
            paths.append(path)
            plans.append(plan_input(*size, self.row.input.with_size(self.input_size)))
        if not paths:
            raise UsageError(f"there is no picture in {self.job.images}")
        return paths, plans

    def _synthetic_size(self) -> tuple[int, int]:
        """Return a size of picture: one whose input was compiled, where nothing but compiled networks is measured."""
        if not all(map(is_compiled, self.job.engines())):
            return _SYNTHETIC
        size = read_artifact(self.weights.path).input_size
        self.input_size = min(size)
        return size

    def machine(self, load: Optional[float]) -> Machine:
        """Return the head of the result."""
        return machine_row(self.row, self.random, self.plan, len(self.pictures), self.job.runs, self.job.warmup, load)

    # --- Engines ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load the network into every engine; those that are the same engine under two names are kept once."""
        if self.job.peers:
            self.contenders[:0] = self._peers()
        opened: dict[str, _Contender] = {}
        for contender in list(self.contenders):
            if contender.choice is not None:
                choice = contender.choice
                self._open(
                    contender,
                    lambda choice=choice: open_backend(  # type: ignore[misc]
                        self.row, self.weights, choice, self.job.model.trust, self.talk
                    ),
                )
                if contender.engine in opened:
                    self._close_one(contender)
                    self.contenders.remove(contender)
                elif contender.engine:
                    opened[contender.engine] = contender
        if all(contender.error for contender in self.contenders):
            raise EngineError(self.contenders[0].error)

    def _open(self, contender: _Contender, make: Callable[[], Backend]) -> None:
        self.talk(f"opening {contender.name}")
        started = time.perf_counter()
        try:
            contender.backend = make()
        except Exception as error:  # whatever ails one engine, the others are measured
            contender.error = reason(error)
            return
        contender.open_s = time.perf_counter() - started
        traits = contender.backend.traits
        contender.engine, contender.precision, contender.device = traits.description, traits.precision, traits.device
        if contender.choice is not None:
            contender.name = traits.name

    def _peers(self) -> list[_Contender]:
        if isinstance(self.row.network, LiteConfig):
            self.talk(f"there is no official code for {self.row.name}: it is compared with eager torch")
            return []
        from depthcli.bench.peers import OfficialEngine

        plain, fused = (_Contender(name, None, "fp32") for name in (OFFICIAL, OFFICIAL_FUSED))
        facts = (self.row, self.weights, self.job.device, self.job.model.trust)
        self._open(plain, lambda: OfficialEngine(*facts))
        self._open(fused, lambda: OfficialEngine(*facts, fused=True))
        return [plain, fused]

    def _official(self) -> OfficialEngine | None:
        """Return the official code's form, where it runs."""
        item = self.contenders[0]
        return cast("OfficialEngine", item.backend) if item.name == OFFICIAL and not item.error else None

    def close(self) -> None:
        """Free the engines; closing twice is no error."""
        for contender in self.contenders:
            self._close_one(contender)

    def _close_one(self, contender: _Contender) -> None:
        if contender.backend is not None:
            contender.backend.close()
            contender.backend = None

    # --- The network alone, and the stages around it ------------------------------------------------------------------

    def networks(self) -> Iterator[Row]:
        """Time the engines in turns, then yield their rows, the rooflines and the stages."""
        rooflines = self._rooflines()
        picture = read_picture(self.pictures[0])
        stages = self._turns(picture, self.plan, self.job.warmup, self.job.runs, stages=True)
        for precision, line in self._rooflines().items():
            if precision not in rooflines or line.gflop_s > rooflines[precision].gflop_s:
                rooflines[precision] = line
        size = self.plan.input_size
        reference = next((item for item in self.contenders if not item.error), None)
        gflop = network_flops(self.row.network, *size) / 1e9
        for item in self.contenders:
            yield self._network_row(item, reference, gflop, rooflines)
        if reference is None:
            raise EngineError(self.contenders[0].error)
        yield from rooflines.values()
        yield from self._stage_rows(stages)

    def _network_row(
        self, item: _Contender, reference: _Contender | None, gflop: float, rooflines: Mapping[str, Roofline]
    ) -> Network:
        row = Network(
            name=item.name,
            backend=item.choice.backend if item.choice else "",
            precision=item.precision,
            engine=item.engine,
            error=item.error,
        )
        if item.error or reference is None:
            return row
        times = item.times[self.plan.input_size]
        speed = gflop / (median(times) / 1000)
        line = rooflines.get(item.precision)
        return replace(
            row,
            faster=times_faster(reference.times[self.plan.input_size], times),
            reference=_title(reference),
            median_ms=median(times),
            p90_ms=p90(times),
            min_ms=min(times),
            spread=spread(times),
            gflop_s=speed,
            roofline=speed / line.gflop_s if line else None,
            open_s=item.open_s,
        )

    def _rooflines(self) -> dict[str, Roofline]:
        """Measure the best matrix product in each precision that an engine computes in."""
        from depthcli.bench.peers import best_product

        lines = {}
        for item in self.contenders:
            if item.error or item.precision in lines:
                continue
            device = item.device
            self.talk(f"matrix products in {item.precision}")
            best = best_product(item.precision, device, self.long_runs)
            if best is not None:
                lines[item.precision] = Roofline(item.precision, device, *best)
        return lines

    def _turns(
        self, picture: Picture, plan: InputPlan, warmup: int, runs: int, stages: bool = False
    ) -> dict[str, list[float]]:
        """Run each engine once in every turn and note its time; return those of the other stages, where asked for."""
        inputs = {"image": to_network_input(picture.rgb, plan)[None]}
        others: dict[str, list[float]] = {name: [] for name in STAGES if name != "run"}
        output: Optional[np.ndarray] = None
        count = sum(not item.error for item in self.contenders)
        self.talk(f"network at {_by(plan.input_size)}: {warmup} + {runs} turns of {count} engines")
        for turn in range(-warmup, runs):
            for item in self.contenders:
                if item.error or item.backend is None or (not stages and item.choice is None):
                    continue
                try:
                    if turn == -warmup:
                        item.backend.check(plan, 1)
                    started = time.perf_counter()
                    answer = item.backend.run(inputs)["depth"][0]
                    milliseconds = 1000 * (time.perf_counter() - started)
                except Exception as error:  # as above
                    item.error = reason(error)
                    continue
                output = answer if output is None else output
                if turn >= 0:
                    item.times.setdefault(plan.input_size, []).append(milliseconds)
            if stages and output is not None:
                for name, milliseconds in self._other_stages(self.pictures[0], plan, output).items():
                    if turn >= 0:
                        others[name].append(milliseconds)
        return others

    def _other_stages(self, path: Path, plan: InputPlan, output: np.ndarray) -> dict[str, float]:
        """Return the milliseconds of what is done to a picture before and after the network."""
        times = [time.perf_counter()]
        picture = read_picture(path)
        times.append(time.perf_counter())
        to_network_input(picture.rgb, plan)
        times.append(time.perf_counter())
        depth = to_depth_map(output, plan, self.row)
        times.append(time.perf_counter())
        write_still(STILLS["color"], depth, io.BytesIO())
        times.append(time.perf_counter())
        names = [name for name in STAGES if name != "run"]
        return {name: 1000 * (after - before) for name, before, after in zip(names, times, times[1:])}

    def _stage_rows(self, others: Mapping[str, Sequence[float]]) -> Iterator[Stages]:
        """Put the other stages around each engine's network."""
        around = {f"{name}_ms": median(times) for name, times in others.items()}
        rest = [sum(turn) for turn in zip(*others.values())]
        reference: tuple[str, list[float]] | None = None
        for item in self.contenders:
            if item.error or item.choice is None:
                continue
            times = item.times[self.plan.input_size]
            totals = [run + other for run, other in zip(times, rest)]
            reference = reference or (_title(item), totals)
            yield Stages(
                name=item.name,
                precision=item.precision,
                faster=times_faster(reference[1], totals),
                reference=reference[0],
                total_ms=median(totals),
                run_ms=median(times),
                **around,
            )

    # --- Processes of their own ---------------------------------------------------------------------------------------

    def start_processes(self) -> None:
        """Time `depth image` from start to end: the first of each engine, then all in turns."""
        for turn in range(1 + self.long_runs):
            for number, item in enumerate(self.contenders):
                assert item.choice is not None  # peers have no command, and are not here yet
                if item.processes and item.processes[-1].error:
                    continue
                self.talk(f"whole process: {_title(item)}, {turn + 1} of {1 + self.long_runs}")
                target = self.folder / f"process-{number}.png"
                item.processes.append(self._depth("image", self.pictures[0], target, item.choice))

    def processes(self) -> Iterator[Process]:
        """Yield what `start_processes` has measured."""
        reference: tuple[str, list[float]] | None = None
        for item in self.contenders:
            if item.choice is None:
                continue
            first, *again = item.processes
            row = Process(name=item.name, precision=item.precision, error=item.processes[-1].error)
            if row.error:
                yield row
                continue
            seconds = [ended.seconds for ended in again]
            reference = reference or (_title(item), seconds)
            yield replace(
                row,
                faster=times_faster(reference[1], seconds),
                reference=reference[0],
                first_s=first.seconds,
                again_s=median(seconds),
                peak_mb=peak_megabytes(again),
            )

    # --- Kept busy ----------------------------------------------------------------------------------------------------

    def throughputs(self) -> Iterator[Throughput]:
        """Keep each engine busy, the network alone and then from file to file."""
        for item in self.contenders:
            if item.choice is None or item.error or item.backend is None:
                continue
            if is_compiled(item.choice) or self.job.cost_per_hour is not None:
                yield from self._throughputs_of(item)

    def _throughputs_of(self, item: _Contender) -> Iterator[Throughput]:
        about = self._about(item)
        best = 0.0
        row = about
        try:
            for row, copies in self._loads(item, about):
                self.talk(f"throughput: {_title(item)}, {row.n_models} x {row.workers_per_model}")
                before = time.process_time()
                found = measure(copies, row.workers_per_model, row.batch_size, self.job.duration)
                best = max(best, found.throughput_avg)
                yield self._measured(row, found, time.process_time() - before)
            self._close_one(item)  # its cores go to the estimator
            yield self._end_to_end(item, row, best)
        except Exception as error:  # as above
            yield replace(about, error=reason(error))

    def _about(self, item: _Contender) -> Throughput:
        """Return a row without figures."""
        width, height = self.plan.input_size
        row = Throughput(
            scope="model",
            name=item.name,
            precision=item.precision,
            simulated=bool(item.choice and item.choice.allow_standin and STANDIN in item.engine),
            engine=item.engine,
            instance_type=common.instance_type(),
            height=height,
            width=width,
            cost_per_hour=self.job.cost_per_hour,
        )
        artifact = item.backend.traits.compiled.get(self.plan.input_size) if item.backend else None
        if artifact is None:
            return row
        return replace(
            row,
            target=artifact.target,
            model_filename=artifact.path.name,
            model_sha256=digest(artifact.path),
            compiler_args=artifact.compiler_args,
            batch_size=artifact.batch,
        )

    def _loads(self, item: _Contender, about: Throughput) -> Iterator[tuple[Throughput, list[Callable[[], object]]]]:
        """Yield what an engine is to bear: one copy fed by one thread, and all of them by two, where it has several."""
        backend = item.backend
        assert backend is not None
        image = to_network_input(read_picture(self.pictures[0]).rgb, self.plan)
        batch = np.stack([image] * about.batch_size)
        traits = backend.traits
        copies: list[Callable[[], object]] = [
            functools.partial(backend.run, {"image": batch}, replica=number) for number in range(traits.replicas)
        ]
        yield about, copies[:1]
        if traits.replicas * traits.workers > 1:
            yield replace(about, n_models=traits.replicas, workers_per_model=traits.workers), copies

    def _end_to_end(self, item: _Contender, about: Throughput, network: float) -> Throughput:
        """Do the folder job in this process, over as many pictures as the network takes in the time given."""
        assert item.choice is not None
        sizes = {plan.input_size for plan in self.plans}
        self.talk(f"throughput: {_title(item)}, from file to file")
        model = Model(self.row, self.weights, self.job.model.trust)
        with DepthEstimator(model, item.choice, input_size=self.input_size) as estimator:
            for path, plan in zip(self.pictures, self.plans):  # each size is loaded before the clock runs
                if plan.input_size in sizes:
                    sizes.discard(plan.input_size)
                    estimator.estimate(path)
            count = max(2 * estimator.best_batch, round(network * self.job.duration))
            with tempfile.TemporaryDirectory(dir=self.folder) as name:
                pictures = itertools.islice(itertools.cycle(self.pictures), count)
                tasks = [Task(path, str(path), Path(name) / str(number)) for number, path in enumerate(pictures)]
                before, started, calls = time.process_time(), time.perf_counter(), []
                for result in run_folder(FolderJob(tasks=tasks, outputs=OutputSpec()), lambda: estimator):
                    if result.error:
                        raise EngineError(result.error)
                    ended = time.perf_counter()
                    calls.append((ended, result.ms))
        seconds = ended - started
        whole = figures([(started, ended) for ended, _ in calls], 1)
        found = replace(whole, seconds=seconds, latencies_ms=tuple(ms for _, ms in calls))
        return self._measured(replace(about, scope="end_to_end"), found, time.process_time() - before)

    def _measured(self, row: Throughput, found: Figures, cpu: float) -> Throughput:
        price = self.job.cost_per_hour
        return replace(
            row,
            n=found.pictures,
            duration_s=found.seconds,
            throughput_avg=found.throughput_avg,
            throughput_peak=found.throughput_peak,
            latency_ms_p50=found.percentile(50),
            latency_ms_p90=found.percentile(90),
            latency_ms_p95=found.percentile(95),
            latency_ms_p99=found.percentile(99),
            host_cpu_percent=100 * cpu / (found.seconds * usable_cores()),
            cost_per_1m=None if price is None else cost_per_million(found.throughput_avg, price),
        )

    def folders(self) -> Iterator[Folder]:
        """Time `depth dir` over the pictures, in turns with the official script's loop where that was asked for."""
        assert self.job.images is not None
        racing = [item for item in self.contenders if item.choice is not None and not item.error]
        self._all_sizes()
        official = self._official()
        for item in self.contenders:  # the commands have the memory to themselves
            if item.name != OFFICIAL:
                self._close_one(item)
        spec = "side" if official else "color"
        runs: dict[int, list[Ended]] = {number: [] for number in range(len(racing))}
        loop: list[tuple[float, int]] = []
        for turn in range(self.long_runs):
            counted = f"{turn + 1} of {self.long_runs}"
            for number, item in enumerate(racing):
                assert item.choice is not None
                self.talk(f"folder: {_title(item)}, {counted}")
                target = self.folder / f"folder-{number}-{turn}"
                runs[number].append(self._depth("dir", self.job.images, target, item.choice, "-f", spec))
            if official is not None:
                from depthcli.bench.peers import official_loop

                self.talk(f"folder: {OFFICIAL_LOOP}, {counted}")
                target = self.folder / f"loop-{turn}"
                target.mkdir()
                loop.append(official_loop(official, self.pictures, target, self.input_size))
        yield from self._folder_rows(spec, racing, runs, loop)

    def _folder_rows(
        self,
        spec: str,
        racing: Sequence[_Contender],
        runs: Mapping[int, Sequence[Ended]],
        loop: Sequence[tuple[float, int]],
    ) -> Iterator[Folder]:
        # Per picture, as OpenCV may not read all of them.
        reference: tuple[str, list[float]] | None = None
        if loop:
            each = [seconds / max(done, 1) for seconds, done in loop]
            reference = (OFFICIAL_LOOP, each)
            row = Folder(OFFICIAL_LOOP, "fp32", spec, loop[0][1])
            yield _timed(row, [seconds for seconds, _ in loop], 1.0, reference[0])
        for number, item in enumerate(racing):
            ended = runs[number]
            row = Folder(item.name, item.precision, spec, len(self.pictures))
            failed = next((one.error for one in ended if one.error), "")
            if failed:
                yield replace(row, error=failed)
                continue
            seconds = [one.seconds for one in ended]
            each = [one / len(self.pictures) for one in seconds]
            reference = reference or (_title(item), each)
            row = _timed(row, seconds, times_faster(reference[1], each), reference[0])
            assert row.seconds is not None
            network = sum(median(item.times[plan.input_size]) for plan in self.plans) / 1000
            yield replace(row, network_s=network, over_network=row.seconds / network, peak_mb=peak_megabytes(ended))

    def _all_sizes(self) -> None:
        """Time the engines at those sizes of input that the first picture does not have."""
        done = {self.plan.input_size}
        for path, plan in zip(self.pictures, self.plans):
            if plan.input_size not in done:
                self._turns(read_picture(path), plan, 1, self.long_runs)
                done.add(plan.input_size)

    def _depth(self, command: str, source: Path, target: Path, choice: BackendChoice, *more: str) -> Ended:
        common = model_options(self.row, self.weights, choice, self.input_size, self.job.model.trust)
        steps = ("--calibration", str(choice.calibration)) if choice.calibration else ()
        files = ("--artifacts", str(choice.artifacts)) if choice.artifacts else ()
        shape = ("--shape-policy", choice.shape_policy) if choice.shape_policy != "strict" else ()
        standin = ("--allow-standin",) if choice.allow_standin else ()
        options = (*common, *steps, *files, *shape, *standin, *more)
        return run_alone([command, str(source), "-o", str(target), "--quiet", *options])


def _timed(row: Folder, seconds: Sequence[float], faster: float, reference: str) -> Folder:
    whole = median(seconds)
    return replace(
        row,
        faster=faster,
        reference=reference,
        seconds=whole,
        seconds_per_picture=whole / max(row.pictures, 1),
        pictures_per_second=row.pictures / whole,
    )


def _title(item: _Contender) -> str:
    return f"{item.name} {item.precision}"


def reason(error: Exception) -> str:
    """Return why an engine failed, in one line; an error that was not raised on purpose is named by its class too."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if isinstance(error, DepthError) else f"{type(error).__name__}: {line}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def peak_megabytes(runs: Sequence[Ended]) -> Optional[float]:
    """Return the most memory that a process took, in 1e6 bytes; None where the system does not say."""
    peaks = [ended.peak for ended in runs if ended.peak]
    return max(peaks) / _MEGABYTE if peaks else None


@contextlib.contextmanager
def cache_of_its_own(folder: Path) -> Iterator[None]:
    """Keep what engines convert in here, so that the first time is a first time and the user's cache stays his."""
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_CACHE, None)
        else:
            os.environ[_CACHE] = before
