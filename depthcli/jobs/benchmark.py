"""The one place where speed is measured: engines side by side, whole processes, folders, and the forms others use.

Machines are shared and their clocks move, so that a time by itself says little. What is compared is measured in turns
(one run of each, again and again), and the ratio is the median of the ratios of the turns.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Callable, ClassVar, Optional, Union, cast

import numpy as np
from PIL import Image

from depthcli.backends import BACKENDS, COMPILED, Backend, EngineChoice, check_choice, open_backend
from depthcli.cores import compute_threads, usable_cores
from depthcli.errors import CheckpointError, DepthError, EngineError, ModelError, PictureError, UsageError
from depthcli.estimator import ModelChoice, resolve_model
from depthcli.flops import network_flops
from depthcli.io.images import Picture, read_picture
from depthcli.io.writers import OutputSpec
from depthcli.jobs.inputs import find_pictures
from depthcli.postprocess import to_depth_map
from depthcli.preprocess import InputPlan, plan_input, to_network_input
from depthcli.weights import WeightsFile
from depthcli.zoo import LiteConfig, ModelRow, find_row, is_row, select_row

if TYPE_CHECKING:
    from depthcli.jobs.peers import OfficialEngine

Talk = Callable[[str], None]

OFFICIAL = "official form"
OFFICIAL_FUSED = "official form, fused attention"
OFFICIAL_LOOP = "official script's loop"
STAGES = ("read", "prepare", "run", "finish", "write")
# What is seconds long is repeated no more often than this, whatever --runs is.
LONG_RUNS = 3
_PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
# Of the flags of a CPU, those that decide how fast a network is.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "sve",
)
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
    form. Raises UsageError for what cannot be.
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

    def __post_init__(self) -> None:
        for choice in self.engines():
            check_choice(choice)
        if self.runs < 1:
            raise UsageError(f"{self.runs} runs measure nothing", "--runs is at least 1")
        if self.warmup < 0:
            raise UsageError(f"{self.warmup} runs of warm-up cannot be", "--warmup is at least 0")
        if self.images is not None and self.picture is not None:
            raise UsageError("--images and --picture name two kinds of pictures", "leave out one")
        if self.images is not None and not self.images.is_dir():
            raise UsageError(f"{self.images} is not a folder", "--images takes a folder of pictures")
        if self.picture is not None and min(self.picture) < 1:
            raise UsageError(f"a picture of {_by(self.picture)} pixels cannot be", "give --picture as 640x480")
        if self.input_size is not None:
            plan_input(1, 1, self.input_size)

    def engines(self) -> list[EngineChoice]:
        """Return the engines to measure, each once, in the order they were named."""
        every = [name for name in BACKENDS if name not in COMPILED]
        names = [name for item in self.backends for name in (every if item == "all" else (item,))]
        choices = [EngineChoice(name, self.device, self.precision, self.calibration) for name in names]
        if self.peers:
            # The reference, to compare others with; torch's own float32 is the same engine.
            exact = EngineChoice("torch", self.device, "exact")
            same = [replace(exact, precision=precision) for precision in ("auto", "fp32")]
            choices = [exact, *(choice for choice in choices if choice not in same)]
        return list(dict.fromkeys(choices))


@dataclass(frozen=True)
class _Row:
    """One line of the result."""

    row: ClassVar[str]

    def to_json(self) -> str:
        """Return the row as one line of JSON; `row` names its kind."""
        return json.dumps({"row": self.row, **asdict(self)}, allow_nan=False)


@dataclass(frozen=True)
class Machine(_Row):
    """What a reader has to know before any figure.

    cores: those this process may use; threads: what an operation of torch takes. flags: of the CPU, those that matter.
    picture_size, input_size: (width, height) in pixels of the picture the engines are timed on. pictures: how many.
    gflop: 1e9 operations in one pass over it, see depthcli.flops. random_weights: nobody trained them; speed does not
    depend on it. load: the load average of one minute before the start, None where there is none. date: ISO 8601, UTC.
    """

    row: ClassVar[str] = "machine"
    cpu: str
    cores: int
    threads: int
    flags: tuple[str, ...]
    system: str
    python: str
    versions: Mapping[str, str]
    model: str
    title: str
    random_weights: bool
    pictures: int
    picture_size: tuple[int, int]
    input_size: tuple[int, int]
    gflop: float
    runs: int
    warmup: int
    load: Optional[float]
    date: str


@dataclass(frozen=True)
class Network(_Row):
    """The network alone, in one engine: from one prepared picture to its raw answer.

    name: the engine's, or the peer's. engine: with version, device and precision. faster: times faster than the row
    `reference`, the median of the turns' ratios. median_ms, p90_ms, min_ms: of the timed runs. spread: from the first
    to the third quartile, as a share of the median. gflop_s: the network's operations over the median. roofline: that
    over what the best matrix product of this precision reached, None where none was measured. open_s: seconds to load
    the network into the engine, with the converted graph in the cache. error: why there are no figures, or empty.
    """

    row: ClassVar[str] = "network"
    name: str
    backend: str
    precision: str
    engine: str = ""
    faster: Optional[float] = None
    reference: str = ""
    median_ms: Optional[float] = None
    p90_ms: Optional[float] = None
    min_ms: Optional[float] = None
    spread: Optional[float] = None
    gflop_s: Optional[float] = None
    roofline: Optional[float] = None
    open_s: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Roofline(_Row):
    """The best product of two square matrices in torch: what the machine can do in a precision. side: of the matrix."""

    row: ClassVar[str] = "roofline"
    precision: str
    device: str
    gflop_s: float
    side: int


@dataclass(frozen=True)
class Stages(_Row):
    """One picture in one process, a stage at a time: median milliseconds each.

    read: file to pixels; prepare: pixels to network input; run: the network; finish: answer to depth map at the
    picture's size; write: depth map to colour PNG in memory. All but `run` are the same code for every engine.
    """

    row: ClassVar[str] = "stages"
    name: str
    precision: str
    faster: float
    reference: str
    total_ms: float
    read_ms: float
    prepare_ms: float
    run_ms: float
    finish_ms: float
    write_ms: float


@dataclass(frozen=True)
class Process(_Row):
    """`depth image` as a process of its own, from its start to its end: Python, imports, loading, one picture.

    first_s: the very first, with no converted graph in the cache; again_s: median of those after it, and `faster` is
    about them. peak_mb: resident memory at its highest, 1e6 bytes, None where the system does not say.
    """

    row: ClassVar[str] = "process"
    name: str
    precision: str
    faster: Optional[float] = None
    reference: str = ""
    first_s: Optional[float] = None
    again_s: Optional[float] = None
    peak_mb: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Folder(_Row):
    """`depth dir` over all pictures, as a process of its own, from its start to its end.

    seconds: median of the runs. network_s: what the pictures take in the engine alone, and over_network is seconds over
    that: 1 would be a job that costs nothing but the network. format: what is written. The official script's loop runs
    in this process, and loading Python, torch and its model is not counted.
    """

    row: ClassVar[str] = "folder"
    name: str
    precision: str
    format: str
    pictures: int = 0
    faster: Optional[float] = None
    reference: str = ""
    seconds: Optional[float] = None
    seconds_per_picture: Optional[float] = None
    pictures_per_second: Optional[float] = None
    network_s: Optional[float] = None
    over_network: Optional[float] = None
    peak_mb: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Load(_Row):
    """The load average of one minute, before and after, when the benchmark is part of it. seconds: it took."""

    row: ClassVar[str] = "load"
    before: Optional[float]
    after: Optional[float]
    seconds: float


Row = Union[Machine, Network, Roofline, Stages, Process, Folder, Load]


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


def run_benchmark(job: BenchJob, talk: Talk = lambda line: None) -> Iterator[Row]:
    """Measure, and yield the rows; nothing is downloaded, and nothing is kept.

    talk: takes one line at a time about what goes on. An engine that is not installed or fails becomes a row that says
    so. Raises UsageError or ModelError for a model that cannot be, EngineError where no engine runs.
    """
    before, started = _load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="depth-bench-") as name, _cache_of_its_own(Path(name) / "graphs"):
        bench = _Bench(job, Path(name), talk)
        yield bench.machine(before)
        bench.start_processes()  # before an engine is opened here, which would fill its cache
        bench.open()
        try:
            yield from bench.networks()
            yield from bench.processes()
            if job.images is not None:
                yield from bench.folders()
        finally:
            bench.close()
    yield Load(before, _load_average(), round(time.perf_counter() - started, 1))


def obtain(choice: ModelChoice, folder: Path, talk: Talk) -> tuple[ModelRow, WeightsFile, bool]:
    """Return the row, its weights, and whether they are random ones, as where they are not on this machine.

    folder: where random weights are written. Raises UsageError or ModelError as `resolve_model` does.
    """
    if choice == ModelChoice():
        choice = replace(choice, encoder="vits")
    try:
        return (*resolve_model(replace(choice, offline=True), talk), False)
    except CheckpointError:
        raise
    except ModelError:
        named = choice.model
        if choice.checkpoint is not None or not (named is None or is_row(named)):
            raise
    row = (
        find_row(named) if named else select_row("vits" if choice.encoder == "auto" else choice.encoder, choice.metric)
    )
    from depthcli.jobs.peers import random_weights

    talk(f"the weights of {row.name} are not on this machine: random ones take as long and give no depth")
    return row, random_weights(row, folder), True


@dataclass
class _Contender:
    """One engine in the race.

    choice: None for a peer. times: milliseconds per size of input, turn by turn. processes: the first, then the others.
    """

    name: str
    choice: Optional[EngineChoice]
    precision: str
    backend: Optional[Backend] = None
    engine: str = ""
    open_s: Optional[float] = None
    error: str = ""
    times: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    processes: list[_Ended] = field(default_factory=list)


class _Bench:
    """A benchmark under way: its model, its pictures, its engines."""

    def __init__(self, job: BenchJob, folder: Path, talk: Talk) -> None:
        self.job, self.folder, self.talk = job, folder, talk
        self.row, self.weights, self.random = obtain(job.model, folder, talk)
        self.input_size = self.row.input_size if job.input_size is None else job.input_size
        self.pictures, self.plans = self._pictures()
        self.plan = self.plans[0]
        self.long_runs = min(job.runs, LONG_RUNS)
        self.contenders = [_Contender(choice.backend, choice, choice.precision) for choice in job.engines()]

    def _pictures(self) -> tuple[list[Path], list[InputPlan]]:
        """Return the pictures that can be read and their plans."""
        if self.job.images is None:
            path = self.folder / "synthetic.jpg"
            path.write_bytes(photograph(*(self.job.picture or _SYNTHETIC)))
            found = [path]
        else:
            found = [self.job.images / relative for relative in find_pictures(self.job.images)]
        paths, plans = [], []
        for path in found:
            try:
                size = read_picture(path).size
            except PictureError as error:
                self.talk(f"left out: {error}")
                continue
            paths.append(path)
            plans.append(plan_input(*size, self.input_size))
        if not paths:
            raise UsageError(f"there is no picture in {self.job.images}")
        return paths, plans

    def machine(self, load: Optional[float]) -> Machine:
        """Return the head of the result."""
        return Machine(
            cpu=cpu_model(),
            cores=usable_cores(),
            threads=compute_threads(),
            flags=cpu_flags(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions=versions(),
            model=self.row.name,
            title=self.row.title,
            random_weights=self.random,
            pictures=len(self.pictures),
            picture_size=self.plan.picture_size,
            input_size=self.plan.input_size,
            gflop=network_flops(self.row.network, *self.plan.input_size) / 1e9,
            runs=self.job.runs,
            warmup=self.job.warmup,
            load=load,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

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
            contender.error = _reason(error)
            return
        contender.open_s = time.perf_counter() - started
        contender.engine = contender.backend.description
        contender.precision = contender.engine.split()[-1]
        if contender.choice is not None:
            contender.name = contender.engine.split()[0]

    def _peers(self) -> list[_Contender]:
        if isinstance(self.row.network, LiteConfig):
            self.talk(f"there is no official code for {self.row.name}: it is compared with eager torch")
            return []
        from depthcli.jobs.peers import OfficialEngine

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
        from depthcli.jobs.peers import best_product

        lines = {}
        for item in self.contenders:
            if item.error or item.precision in lines:
                continue
            device = item.engine.split()[-2]
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
                    item.error = _reason(error)
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
        from depthcli.io.writers import FORMATS

        times = [time.perf_counter()]
        picture = read_picture(path)
        times.append(time.perf_counter())
        to_network_input(picture.rgb, plan)
        times.append(time.perf_counter())
        depth = to_depth_map(output, plan, self.row)
        times.append(time.perf_counter())
        FORMATS["color"].write(depth, picture.rgb, io.BytesIO(), OutputSpec().colormap)
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
                peak_mb=_peak(again),
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
        runs: dict[int, list[_Ended]] = {number: [] for number in range(len(racing))}
        loop: list[tuple[float, int]] = []
        for turn in range(self.long_runs):
            counted = f"{turn + 1} of {self.long_runs}"
            for number, item in enumerate(racing):
                assert item.choice is not None
                self.talk(f"folder: {_title(item)}, {counted}")
                target = self.folder / f"folder-{number}-{turn}"
                runs[number].append(self._depth("dir", self.job.images, target, item.choice, "-f", spec))
            if official is not None:
                from depthcli.jobs.peers import official_loop

                self.talk(f"folder: {OFFICIAL_LOOP}, {counted}")
                target = self.folder / f"loop-{turn}"
                target.mkdir()
                loop.append(official_loop(official, self.pictures, target, self.input_size))
        yield from self._folder_rows(spec, racing, runs, loop)

    def _folder_rows(
        self,
        spec: str,
        racing: Sequence[_Contender],
        runs: Mapping[int, Sequence[_Ended]],
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
            yield replace(row, network_s=network, over_network=row.seconds / network, peak_mb=_peak(ended))

    def _all_sizes(self) -> None:
        """Time the engines at those sizes of input that the first picture does not have."""
        done = {self.plan.input_size}
        for path, plan in zip(self.pictures, self.plans):
            if plan.input_size not in done:
                self._turns(read_picture(path), plan, 1, self.long_runs)
                done.add(plan.input_size)

    def _depth(self, command: str, source: Path, target: Path, choice: EngineChoice, *more: str) -> _Ended:
        model = ("--model", self.row.name, "--checkpoint", str(self.weights.path), "--offline")
        engine = ("--backend", choice.backend, "--device", choice.device, "--precision", choice.precision)
        size = ("--input-size", str(self.input_size))
        trust = ("--trust-checkpoint",) if self.job.model.trust else ()
        steps = ("--calibration", str(choice.calibration)) if choice.calibration else ()
        options = (*model, *engine, *size, *steps, *trust, *more)
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


def _reason(error: Exception) -> str:
    """Return one line; an error that was not raised on purpose is named by its class too."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if isinstance(error, DepthError) else f"{type(error).__name__}: {line}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def photograph(width: int, height: int) -> bytes:
    """Return the bytes of a JPEG with the spectrum of a photograph: smooth, with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    picture += random.normal(0, 4, picture.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# A command as a process of its own
# ---------------------------------------------------------------------------------------------------------------------

# A process passes its own peak of memory on to those it starts, so a small one stands between us and the command.
_RUNNER = """\
import json, os, signal, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: process.terminate())
peak = None
if hasattr(os, "wait4"):
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
else:
    process.wait()
print(json.dumps([process.returncode, time.perf_counter() - started, peak]))
"""


@dataclass(frozen=True)
class _Ended:
    """How a process ended. seconds: from its start to its end; peak: bytes of resident memory, or None."""

    seconds: float
    peak: Optional[int]
    error: str = ""


def run_alone(arguments: Sequence[str]) -> _Ended:
    """Run `depth` with these arguments as a process of its own, and time it."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-I", "-S", "-c", _RUNNER, sys.executable, "-m", "depthcli", *arguments]
    runner = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        out, err = runner.communicate()
    except BaseException:  # we are interrupted: the command is not to go on without us
        runner.terminate()
        runner.communicate()
        raise
    says = [line for line in err.splitlines() if line.strip()] or ["it ended without a word"]
    if runner.returncode or not out:
        return _Ended(0.0, None, says[-1])
    code, seconds, peak = json.loads(out)
    return _Ended(seconds, peak, re.sub("^error: ", "", says[-1]) if code else "")


def _peak(runs: Sequence[_Ended]) -> Optional[float]:
    peaks = [ended.peak for ended in runs if ended.peak]
    return max(peaks) / _MEGABYTE if peaks else None


@contextlib.contextmanager
def _cache_of_its_own(folder: Path) -> Iterator[None]:
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


# ---------------------------------------------------------------------------------------------------------------------
# The machine
# ---------------------------------------------------------------------------------------------------------------------


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where the system keeps the name to itself."""
    names = _cpuinfo("model name")
    return names or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return those of the CPU's flags that decide how fast a network is; empty where the system does not list them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return tuple(flag for flag in _FLAGS if flag in flags)


def versions() -> dict[str, str]:
    """Return the versions of what computes, where it is installed; nothing is imported."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{re.escape(key)}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _load_average() -> Optional[float]:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows
        return None
