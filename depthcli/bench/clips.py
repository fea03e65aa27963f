"""What a clip costs and how steady its depth is: frame by frame, behind the filter, and by a model for video.

Speed is measured in turns, as in `jobs.benchmark`: one turn sends the clip through every engine of steadiness twice,
first with each step by itself, the network alone among them, then as `depth video` does it, all steps at once. What a
job keeps of its network's speed is the ratio of the two, turn by turn.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli.backends import BACKENDS
from depthcli.bench import synthetic_clips as bench_clips
from depthcli.bench.own_process import Ended, run_alone
from depthcli.bench.pictures import (
    LONG_RUNS,
    cache_of_its_own,
    machine_row,
    median,
    model_options,
    obtain_model,
    peak_megabytes,
    reason,
    times_faster,
)
from depthcli.bench.rows import Load, Machine, Row, Video
from depthcli.choices import COMPILED_BACKENDS, BackendChoice, ClipChoice, ModelChoice, check_input_size
from depthcli.errors import EngineError, Log, UsageError
from depthcli.eval.temporal import SteadinessMeter, cut_bleeding
from depthcli.host.machine import load_average
from depthcli.io.codecs.codes import Look, encode
from depthcli.io.codecs.formats import Holds
from depthcli.io.video.clip import Frame, Selection
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.reader import open_clip
from depthcli.io.video.spool import Spool
from depthcli.io.video.writers import video_writer
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.manifest import DONE, Result
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.predict.clip import FrameLoop, open_clip_predictor
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.temporal.ranges import ValueRange
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask, is_row

# Frame by frame, the filter behind it, and the model for video of that encoder.
OFF, ON, VDA = "off", "on", "vda"
STAGES = ("read", "prepare", "network", "settle", "spool", "write")
# Two windows of a model for video, to the frame.
FRAMES = 44
_LEAST_FRAMES = 8
# Frames behind a cut, and of a shot, that are compared with themselves alone.
_ALONE = 2
_MOST_BLEEDING = 1000.0


@dataclass(frozen=True)
class VideoBenchJob:
    """What is to be measured.

    model: of the frames, or a model for video, which is then measured alone. backends, device, precision, input_size:
    as in BenchJob. clip: a video file or a folder of frames, or None for a synthetic one. frames: how many are taken
    of it, and how many the synthetic clips have. runs: turns, no more than LONG_RUNS, after `warmup` frames that do
    not count. Raises UsageError for what cannot be.
    """

    model: ModelChoice = field(default_factory=ModelChoice)
    backends: Sequence[str] = ("auto",)
    device: str = "auto"
    precision: str = "auto"
    input_size: Optional[int] = None
    clip: Optional[Path] = None
    frames: int = FRAMES
    runs: int = LONG_RUNS
    warmup: int = 2

    def __post_init__(self) -> None:
        for choice in self.engines():
            if choice.runs_compiled:
                raise UsageError(f"{choice.backend} is not measured with clips", "leave out --video")
        if self.runs < 1:
            raise UsageError(f"{self.runs} runs measure nothing", "--runs is at least 1")
        if self.warmup < 0:
            raise UsageError(f"{self.warmup} frames of warm-up cannot be", "--warmup is at least 0")
        if self.frames < _LEAST_FRAMES:
            raise UsageError(f"{self.frames} frames say too little", f"--frames is at least {_LEAST_FRAMES}")
        check_input_size(self.input_size)

    def engines(self) -> list[BackendChoice]:
        """Return the engines to measure, each once, in the order they were named."""
        every = [name for name in BACKENDS if name not in COMPILED_BACKENDS]
        names = [name for item in self.backends for name in (every if item == "all" else (item,))]
        return [BackendChoice(name, self.device, self.precision) for name in dict.fromkeys(names)]


def run_video_benchmark(job: VideoBenchJob, talk: Log = lambda line: None) -> Iterator[Row]:
    """Measure, and yield the rows; nothing is downloaded, and nothing is kept.

    talk: takes one line at a time about what goes on. What does not run becomes a row that says so. Raises UsageError
    or ModelError for a model that cannot be, ClipError for a clip that cannot be read, EngineError where nothing runs.
    """
    before, started = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="depth-bench-") as name, cache_of_its_own(Path(name) / "graphs"):
        bench = _VideoBench(job, Path(name), talk)
        yield bench.machine(before)
        try:
            bench.open()
            bench.measure_steadiness()
            bench.measure_speed()
        finally:
            bench.close()
        bench.run_processes()  # which have the memory to themselves
        yield from bench.rows()
    yield Load(before, load_average(), round(time.perf_counter() - started, 1))


# ---------------------------------------------------------------------------------------------------------------------
# One clip through one predictor
# ---------------------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time the block as a part of a stage, or of what a FrameLoop calls it."""
        stage = "settle" if stage == "postprocess" else stage
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class Mapped:
    """A frame, whether a shot begins with it, and its steady map (H, W) float32."""

    frame: Frame
    cut: bool
    values: np.ndarray


def mapped(predictor: ClipPredictor, frames: Iterable[Frame]) -> Iterator[Mapped]:
    """Send a clip through a predictor; yield the frames with their maps, in order."""
    waiting: deque[Frame] = deque()
    source = iter(frames)
    first = next(source, None)
    if first is None:
        return

    def noted() -> Iterator[Frame]:
        for frame in chain([first], source):
            waiting.append(frame)
            yield frame

    loop = FrameLoop(predictor, (first.rgb.shape[1], first.rgb.shape[0]), threads=False)
    for maps in loop.run(noted()):
        for item in maps:
            yield Mapped(waiting.popleft(), item.cut, item.values)


def by_stages(job: ClipJob, predictor: ClipPredictor) -> tuple[dict[str, float], int]:
    """Do a job that writes an mp4 one step after the other; return each stage's seconds, and the number of frames."""
    (_, path), *_ = job.outputs
    watch, found = Stopwatch(), ValueRange()
    with open_clip(job.source) as clip:
        info = clip.info
        loop = FrameLoop(predictor, info.size, threads=False, timed=watch.of)
        provenance = loop.provenance(Path(info.name).name)
        with closing(clip.frames(job.selection)) as frames, Spool(job.spool_folder, {}, predictor.exact) as spool:  # type: ignore[type-var]
            for item in chain.from_iterable(loop.run(frames)):
                with watch.of("spool"):
                    found.add(item.values)
                    spool.add(item.values, item.time, item.duration)
                    if spool.full:
                        spool.keep(None)
            with watch.of("spool"):
                spool.end({})
            look = Look(range=found.range())
            output = ClipOutput("mp4", path, info.size, Timing.of(info, job.selection), {})
            with watch.of("write"), video_writer(output) as writer:
                for kept in spool.read():
                    pixels = encode(loop.depth_map(kept.values, provenance), Holds.COLOR, look)
                    writer.write(pixels, kept.time, kept.duration)
            count = spool.frames
            spool.remove()
    return watch.seconds, count


def all_at_once(job: ClipJob, predictor: ClipPredictor) -> float:
    """Do a job as `depth video` does it; return the seconds. Raises EngineError where it fails."""
    started = time.perf_counter()
    for event in run_clip(job, lambda: predictor):
        if isinstance(event, Result) and event.status != DONE:
            raise EngineError(event.error)
    return time.perf_counter() - started


def steadiness(predictor: ClipPredictor, clip: Iterable[Frame], count: int) -> dict[str, Any]:
    """Return the figures of steadiness, numbers or None, named as in the row. count: frames of the synthetic clips."""
    moving, resting = SteadinessMeter(), SteadinessMeter()
    for item in mapped(predictor, clip):
        moving.add(item.frame.rgb, item.values, item.cut)
    for item in mapped(predictor, bench_clips.still(count)):
        resting.add(item.frame.rgb, item.values, item.cut)
    moved, rested = moving.result(), resting.result()
    return {
        "opw": moved.opw,
        "flow_flicker": moved.flow_flicker,
        "range_jitter": moved.range_jitter,
        "flicker": rested.flicker,
        "contrast_kept": rested.contrast_kept,
        "cut_bleeding": _bleeding(predictor, count),
    }


def _bleeding(predictor: ClipPredictor, count: int) -> float:
    """Compare frames behind a cut, and in the middle of the shot before it, with what they are alone."""
    behind, inside = (range(first, first + _ALONE) for first in (count // 2, count // 4))
    kept = {
        item.frame.index: item
        for item in mapped(predictor, bench_clips.cutting(count))
        if item.frame.index in (*behind, *inside)
    }
    pairs = {number: (item.values, _alone(predictor, item.frame)) for number, item in kept.items()}
    after, elsewhere = ([pairs[number] for number in numbers] for numbers in (behind, inside))
    return min(cut_bleeding(after, elsewhere), _MOST_BLEEDING)


def _alone(predictor: ClipPredictor, frame: Frame) -> np.ndarray:
    """Return the map of a frame that is a clip by itself."""
    (item,) = mapped(predictor, [frame])
    return item.values


# ---------------------------------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    row: ModelRow
    weights: WeightsFile
    random: bool


@dataclass(frozen=True)
class _Turn:
    """stages: seconds of each; seconds: of the whole job."""

    stages: Mapping[str, float]
    seconds: float


@dataclass
class _Contender:
    """One engine of steadiness on one engine for networks."""

    steady: str
    model: _Model
    choice: BackendChoice
    name: str
    precision: str
    predictor: Optional[ClipPredictor] = None
    engine: str = ""
    error: str = ""
    frames: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    turns: list[_Turn] = field(default_factory=list)
    processes: list[Ended] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.steady}, {self.name} {self.precision}"


class _VideoBench:
    """A benchmark under way: its models, its clip, its engines."""

    def __init__(self, job: VideoBenchJob, folder: Path, talk: Log) -> None:
        self.job, self.folder, self.talk = job, folder, talk
        self.models = self._models()
        self.clip = self._clip()
        self.selection = Selection(max_frames=job.frames)
        with open_clip(self.clip) as clip:
            self.size = clip.info.size
            self.expected = self.selection.count(clip.info) or job.frames
        self.turns = min(job.runs, LONG_RUNS)
        self.contenders = [
            _Contender(steady, model, choice, choice.backend, choice.precision)
            for choice in job.engines()
            for steady, model in self.models.items()
        ]

    def _models(self) -> dict[str, _Model]:
        """Return the model of each engine of steadiness: that for pictures twice, and that for video of its size."""
        model = _Model(*obtain_model(self.job.model, self.folder, self.talk, video=True))
        if model.row.task is ModelTask.CLIP:
            return {VDA: model}
        video = f"vda-{'metric-' if model.row.kind.is_metric else ''}{model.row.encoder}"
        if not is_row(video):
            return {OFF: model, ON: model}
        named = ModelChoice(model=video, trust=self.job.model.trust)
        return {OFF: model, ON: model, VDA: _Model(*obtain_model(named, self.folder, self.talk, video=True))}

    def _clip(self) -> Path:
        if self.job.clip is not None:
            return self.job.clip
        path = self.folder / "synthetic.mp4"
        bench_clips.write_clip(bench_clips.panning(self.job.frames), path)
        return path

    def machine(self, load: Optional[float]) -> Machine:
        """Return the head of the result."""
        model = next(iter(self.models.values()))
        plan = self._plan(model.row)
        return machine_row(model.row, model.random, plan, self.expected, self.turns, self.job.warmup, load)

    def _plan(self, row: ModelRow) -> InputPlan:
        return plan_input(*self.size, row.input.with_size(self.job.input_size))

    # --- In this process ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load all that there is to compare; what is the same under two names is kept once."""
        opened: set[tuple[str, str]] = set()
        for item in list(self.contenders):
            self.talk(f"opening {item.title}")
            try:
                item.predictor = self._predictor(item)
            except Exception as error:  # whatever ails one, the others are measured
                item.error = reason(error)
                continue
            item.engine = item.predictor.description
            item.name, item.precision = item.engine.split()[0], item.engine.split()[-1]
            if (item.steady, item.engine) in opened:
                item.predictor.close()
                self.contenders.remove(item)
            opened.add((item.steady, item.engine))
        self._check()

    def _predictor(self, item: _Contender) -> ClipPredictor:
        model, choice, job = item.model, item.choice, self.job
        named = ModelChoice(model=model.row.name, checkpoint=model.weights.path, offline=True, trust=job.model.trust)
        steady = "auto" if item.steady == VDA else item.steady
        clip = ClipChoice(steady, input_size=job.input_size, backend=choice)
        return open_clip_predictor(named, clip, self.talk)

    def close(self) -> None:
        """Free the engines; closing twice is no error."""
        for item in self.contenders:
            if item.predictor is not None:
                item.predictor.close()
                item.predictor = None

    def _running(self) -> Iterator[tuple[_Contender, ClipPredictor]]:
        for item in self.contenders:
            if item.predictor is not None and not item.error:
                yield item, item.predictor

    def _check(self) -> None:
        if all(item.error for item in self.contenders):
            raise EngineError(self.contenders[0].error)

    def measure_steadiness(self) -> None:
        """Warm up, and take the figures of steadiness where the weights have any."""
        for item, predictor in self._running():
            self.talk(f"{item.title}: {self.job.warmup} frames of warm-up")
            try:
                for frame in bench_clips.panning(self.job.warmup, self.size):
                    _alone(predictor, frame)
                if item.model.random:
                    continue
                self.talk(f"{item.title}: steadiness")
                with open_clip(self.clip) as clip, closing(clip.frames(self.selection)) as frames:  # type: ignore[type-var]
                    item.figures = steadiness(predictor, frames, self.job.frames)
            except Exception as error:  # as above
                item.error = reason(error)
        self._check()

    def measure_speed(self) -> None:
        """Send the clip through all, in turns."""
        for turn in range(self.turns):
            for number, (item, predictor) in enumerate(self._running()):
                self.talk(f"{item.title}: turn {turn + 1} of {self.turns}")
                path = self.folder / f"depth-{number}.mp4"
                job = ClipJob(self.clip, [("mp4", path)], selection=self.selection, if_exists="overwrite")
                try:
                    stages, item.frames = by_stages(job, predictor)
                    item.turns.append(_Turn(stages, all_at_once(job, predictor)))
                except Exception as error:  # as above
                    item.error = reason(error)
        self._check()

    # --- Processes of their own ---------------------------------------------------------------------------------------

    def run_processes(self) -> None:
        """Time `depth video` from start to end, in turns, with converted networks in the cache."""
        for turn in range(self.turns):
            for number, item in enumerate(self.contenders):
                if item.error:
                    continue
                self.talk(f"whole process: {item.title}, {turn + 1} of {self.turns}")
                ended = self._depth_video(item, self.folder / f"process-{number}.mp4")
                item.processes.append(ended)
                item.error = ended.error

    def _depth_video(self, item: _Contender, target: Path) -> Ended:
        model, job = item.model, self.job
        input_size = job.input_size or model.row.input_size
        options = model_options(model.row, model.weights, item.choice, input_size, job.model.trust)
        steady = () if item.steady == VDA else ("--steady", item.steady)
        what = ("--max-frames", str(job.frames), "--if-exists", "overwrite", "--quiet")
        return run_alone(["video", str(self.clip), "-o", str(target), *what, *options, *steady])

    # --- Rows ---------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Video]:
        """Yield what was measured."""
        reference = next((item for item in self.contenders if not item.error), None)
        for item in self.contenders:
            yield self._row(item, reference)
        if reference is None:
            raise EngineError(self.contenders[0].error)

    def _row(self, item: _Contender, reference: _Contender | None) -> Video:
        model = item.model
        row = Video(
            steady=item.steady,
            name=item.name,
            backend=item.choice.backend,
            precision=item.precision,
            model=model.row.name,
            title=model.row.title,
            random_weights=model.random,
            clip="synthetic" if self.job.clip is None else self.job.clip.resolve().name,
            clip_size=self.size,
            engine=item.engine,
            error=item.error,
        )
        if item.error or reference is None:
            return row
        stages = {name: [turn.stages[name] for turn in item.turns] for name in STAGES}
        whole = [turn.seconds for turn in item.turns]
        process = median([ended.seconds for ended in item.processes])
        per_frame: dict[str, Any] = {
            f"{name}_ms": 1000 * median(seconds) / item.frames for name, seconds in stages.items()
        }
        return replace(
            row,
            input_size=self._plan(model.row).input_size,
            frames=item.frames,
            faster=times_faster([turn.seconds for turn in reference.turns], whole),
            reference=reference.title,
            network_fps=item.frames / median(stages["network"]),
            clip_fps=item.frames / median(whole),
            share=median([network / seconds for network, seconds in zip(stages["network"], whole)]),
            process_s=process,
            process_fps=item.frames / process,
            peak_mb=peak_megabytes(item.processes),
            **per_frame,
            **item.figures,
        )
