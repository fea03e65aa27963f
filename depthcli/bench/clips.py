"""Speed and steadiness of clips: frame by frame, with the filter, and with a video model.

Each turn sends the clip through every contender twice: one stage after the other, and all stages at once as
`depth video`. The ratio is the share of the network's speed that a job keeps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from depthcli.bench import synthetic_clips
from depthcli.bench.contenders import (
    LONG_RUNS,
    MeasuredModel,
    check_runs,
    each_backend,
    machine_row,
    measured_model,
    own_cache,
    peak_megabytes,
    reason,
)
from depthcli.bench.one_clip import STAGES, all_at_once, by_stages, map_alone, steadiness
from depthcli.bench.own_process import Ended, run_alone
from depthcli.bench.rows import Load, Machine, Row, Video
from depthcli.bench.statistics import median, times_faster
from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.settings import check_input_size
from depthcli.errors import EngineError, Log, UsageError
from depthcli.host.machine import load_average
from depthcli.io.video.clip import Selection
from depthcli.io.video.reader import open_clip
from depthcli.jobs.clip_job import ClipJob
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.predict.clip import open_clip_predictor
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.zoo.rows import ModelRow, ModelTask, is_row

# How depth is made steady: not at all, by the filter, or by the video model of the same encoder.
OFF, ON, VDA = "off", "on", "vda"
# Two windows of a video model.
FRAMES = 44
_LEAST_FRAMES = 8


@dataclass(frozen=True)
class VideoBenchJob:
    """What to measure. Raises UsageError.

    model: of the frames; a video model is measured alone. backends, device, precision, input_size: as in BenchJob.
    clip: video file or folder of frames, None for a synthetic clip. frames: number taken of it, and length of the
    synthetic clips. runs: turns, at most LONG_RUNS, after `warmup` frames that do not count.
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
        for choice in self.choices():
            if choice.runs_compiled:
                raise UsageError(f"{choice.backend} is not measured with clips", "leave out `video`")
        check_runs(self.runs, self.warmup)
        check_input_size(self.input_size)
        if self.frames < _LEAST_FRAMES:
            raise UsageError(f"`frames` must be at least {_LEAST_FRAMES}, got {self.frames}")

    def choices(self) -> list[BackendChoice]:
        """Return the backends to measure, each once, in the order of their names."""
        return [BackendChoice(name, self.device, self.precision) for name in each_backend(self.backends)]


def run_video_benchmark(job: VideoBenchJob, log: Log = lambda line: None) -> Iterator[Row]:
    """Measure and yield the rows, without downloads. A contender that fails becomes a row with the reason.

    log: receives lines about the progress. Raises UsageError or ModelError for the model, ClipError if the clip cannot
    be read, EngineError if nothing runs.
    """
    before, started = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="depth-bench-") as name, own_cache(Path(name) / "graphs"):
        bench = _VideoBench(job, Path(name), log)
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


@dataclass
class _Contender:
    """One way to steady depth on one backend.

    turns: seconds of each stage, and of the whole job, turn by turn. figures: of steadiness.
    """

    steady: str
    model: MeasuredModel
    choice: BackendChoice
    name: str
    precision: str
    predictor: Optional[ClipPredictor] = None
    description: str = ""
    error: str = ""
    frames: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    turns: list[tuple[Mapping[str, float], float]] = field(default_factory=list)
    processes: list[Ended] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.steady}, {self.name} {self.precision}"

    @property
    def seconds(self) -> list[float]:
        return [whole for _, whole in self.turns]


class _VideoBench:
    """A running benchmark: its models, its clip, its contenders."""

    def __init__(self, job: VideoBenchJob, folder: Path, log: Log) -> None:
        self.job, self.folder, self.log = job, folder, log
        self.models = self._models()
        self.clip = self._clip()
        self.selection = Selection(max_frames=job.frames)
        with open_clip(self.clip) as clip:
            self.size = clip.info.size
            self.expected = self.selection.count(clip.info) or job.frames
        self.turns = min(job.runs, LONG_RUNS)
        self.contenders = [
            _Contender(steady, model, choice, choice.backend, choice.precision)
            for choice in job.choices()
            for steady, model in self.models.items()
        ]

    def _models(self) -> dict[str, MeasuredModel]:
        """Return the model of each way: the picture model twice, and the video model of its size."""
        model = measured_model(self.job.model, self.folder, self.log, clips=True)
        if model.row.task is ModelTask.CLIP:
            return {VDA: model}
        video = f"vda-{'metric-' if model.row.kind.is_metric else ''}{model.row.encoder}"
        if not is_row(video):
            return {OFF: model, ON: model}
        named = ModelChoice(model=video, trust=self.job.model.trust)
        return {OFF: model, ON: model, VDA: measured_model(named, self.folder, self.log, clips=True)}

    def _clip(self) -> Path:
        if self.job.clip is not None:
            return self.job.clip
        path = self.folder / "synthetic.mp4"
        synthetic_clips.write_clip(synthetic_clips.panning(self.job.frames), path)
        return path

    def machine(self, load: Optional[float]) -> Machine:
        """Return the head of the result."""
        model = next(iter(self.models.values()))
        return machine_row(model, self._plan(model.row), self.expected, self.turns, self.job.warmup, load)

    def _plan(self, row: ModelRow) -> InputPlan:
        return plan_input(*self.size, row.input.with_size(self.job.input_size))

    # --- In this process ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load all contenders; keep one of those that turn out to be the same."""
        opened: set[tuple[str, str]] = set()
        for item in list(self.contenders):
            self.log(f"opening {item.title}")
            try:
                item.predictor = self._predictor(item)
            except Exception as error:  # whatever is wrong with one contender, the others are measured
                item.error = reason(error)
                continue
            item.description = item.predictor.description
            item.name, item.precision = item.description.split()[0], item.description.split()[-1]
            if (item.steady, item.description) in opened:
                item.predictor.close()
                self.contenders.remove(item)
            opened.add((item.steady, item.description))
        self._check()

    def _predictor(self, item: _Contender) -> ClipPredictor:
        weights, trust = item.model.weights, self.job.model.trust
        named = ModelChoice(model=item.model.row.name, checkpoint=weights.path, offline=True, trust=trust)
        steady = "auto" if item.steady == VDA else item.steady
        clip = ClipChoice(steady, input_size=self.job.input_size, backend=item.choice)
        return open_clip_predictor(named, clip, self.log)

    def close(self) -> None:
        """Free the predictors; closing twice is allowed."""
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
        """Warm up, and measure the steadiness unless the weights are random."""
        for item, predictor in self._running():
            self.log(f"{item.title}: {self.job.warmup} frames of warm-up")
            try:
                for frame in synthetic_clips.panning(self.job.warmup, self.size):
                    map_alone(predictor, frame)
                if item.model.random:
                    continue
                self.log(f"{item.title}: steadiness")
                with open_clip(self.clip) as clip, closing(clip.frames(self.selection)) as frames:  # type: ignore[type-var]
                    item.figures = steadiness(predictor, frames, self.job.frames)
            except Exception as error:  # as above
                item.error = reason(error)
        self._check()

    def measure_speed(self) -> None:
        """Send the clip through all contenders, in turns."""
        for turn in range(self.turns):
            for number, (item, predictor) in enumerate(self._running()):
                self.log(f"{item.title}: turn {turn + 1} of {self.turns}")
                path = self.folder / f"depth-{number}.mp4"
                job = ClipJob(self.clip, [("mp4", path)], selection=self.selection, if_exists="overwrite")
                try:
                    stages, item.frames = by_stages(job, predictor)
                    item.turns.append((stages, all_at_once(job, predictor)))
                except Exception as error:  # as above
                    item.error = reason(error)
        self._check()

    # --- Whole processes ----------------------------------------------------------------------------------------------

    def run_processes(self) -> None:
        """Time `depth video` from start to end, in turns, with converted networks in the cache."""
        for turn in range(self.turns):
            for number, item in enumerate(self.contenders):
                if item.error:
                    continue
                self.log(f"whole process: {item.title}, {turn + 1} of {self.turns}")
                ended = self._depth_video(item, self.folder / f"process-{number}.mp4")
                item.processes.append(ended)
                item.error = ended.error

    def _depth_video(self, item: _Contender, target: Path) -> Ended:
        input_size = self.job.input_size or item.model.row.input_size
        options = item.model.options(item.choice, input_size, self.job.model.trust)
        steady = () if item.steady == VDA else ("--steady", item.steady)
        what = ("--max-frames", str(self.job.frames), "--if-exists", "overwrite", "--quiet")
        return run_alone(["video", str(self.clip), "-o", str(target), *what, *options, *steady])

    # --- Rows ---------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Video]:
        """Yield what was measured. Raises EngineError if all contenders failed."""
        reference = next((item for item in self.contenders if not item.error), None)
        for item in self.contenders:
            yield self._row(item, reference)
        if reference is None:
            raise EngineError(self.contenders[0].error)

    def _row(self, item: _Contender, reference: Optional[_Contender]) -> Video:
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
            engine=item.description,
            error=item.error,
        )
        if item.error or reference is None:
            return row
        stages = {name: [seconds[name] for seconds, _ in item.turns] for name in STAGES}
        whole = item.seconds
        process = median([ended.seconds for ended in item.processes])
        per_frame: dict[str, Any] = {f"{name}_ms": 1000 * median(times) / item.frames for name, times in stages.items()}
        return replace(
            row,
            input_size=self._plan(model.row).input_size,
            frames=item.frames,
            faster=times_faster(reference.seconds, whole),
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
