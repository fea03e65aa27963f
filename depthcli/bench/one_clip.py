"""Measure one clip with one predictor: the time of each stage, the whole job, and the steadiness."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from depthcli.bench import synthetic_clips
from depthcli.errors import EngineError
from depthcli.eval.steadiness import SteadinessMeter, cut_bleeding
from depthcli.io.codecs.encode import Look, encode
from depthcli.io.codecs.formats import Holds
from depthcli.io.video.clip import Frame
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.reader import open_clip
from depthcli.io.video.spool import Spool
from depthcli.io.video.writers import video_writer
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.manifest import DONE, Result
from depthcli.predict.clip import FrameLoop
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.temporal.ranges import ValueRange

STAGES = ("read", "prepare", "network", "settle", "spool", "write")
_ALONE = 2  # frames after a cut, and inside a shot, that are compared with maps of single frames
_MOST_BLEEDING = 1000.0


class Stopwatch:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time the block as part of a stage; `postprocess` of a FrameLoop is the row's `settle`."""
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
    """Run a job that writes an mp4, one stage after the other. Return the seconds of each stage, and the frames."""
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
    """Return the seconds of a job as `depth video` does it. Raises EngineError if it fails."""
    started = time.perf_counter()
    for event in run_clip(job, lambda: predictor):
        if isinstance(event, Result) and event.status != DONE:
            raise EngineError(event.error)
    return time.perf_counter() - started


def steadiness(predictor: ClipPredictor, clip: Iterable[Frame], count: int) -> dict[str, Any]:
    """Return the steadiness as fields of the row. count: frames of the synthetic clips."""
    moving, resting = SteadinessMeter(), SteadinessMeter()
    for item in mapped(predictor, clip):
        moving.add(item.frame.rgb, item.values, item.cut)
    for item in mapped(predictor, synthetic_clips.still(count)):
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
    """Compare frames after a cut, and inside the shot before it, with their maps as single frames."""
    behind, inside = (range(first, first + _ALONE) for first in (count // 2, count // 4))
    kept = {
        item.frame.index: item
        for item in mapped(predictor, synthetic_clips.cutting(count))
        if item.frame.index in (*behind, *inside)
    }
    pairs = {number: (item.values, map_alone(predictor, item.frame)) for number, item in kept.items()}
    after, elsewhere = ([pairs[number] for number in numbers] for numbers in (behind, inside))
    return min(cut_bleeding(after, elsewhere), _MOST_BLEEDING)


def map_alone(predictor: ClipPredictor, frame: Frame) -> np.ndarray:
    """Return the map of a frame as a clip of one frame."""
    (item,) = mapped(predictor, [frame])
    return item.values
