"""The depth of a clip as a stream for another program: made and sent frame by frame, nothing kept on disk."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Callable, Optional

import numpy as np

from depthcli.errors import SOME_FAILED, ClipError, DepthError, OutputError, UsageError, first_line
from depthcli.io.codecs.codes import Look, encode
from depthcli.io.codecs.formats import Holds
from depthcli.io.video.clip import Frame
from depthcli.io.video.clip_output import Timing
from depthcli.io.video.pipe import PipeWriter
from depthcli.io.video.reader import open_clip
from depthcli.jobs.clip import MAKING, ClipJob, Events, Progress, depth_of_frame, milliseconds_since, stdin_of
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.predict.clip import ClipEstimator, Step, provenance_of_clip
from depthcli.temporal.cuts import CutDetector
from depthcli.temporal.ranges import StreamRange

# Of the range, which is not known before the end of a stream: how many frames it looks ahead.
_LOOK_AHEAD = 30
PIPES = {"y4m": (Holds.COLOR, True), "rgb24": (Holds.COLOR, False), "gray16le": (Holds.SHADES, False)}


def stream_clip(
    job: ClipJob,
    pipe: str,
    load: Callable[[], ClipEstimator],
    target: Optional[BinaryIO] = None,
    stop: Callable[[], bool] = lambda: False,
) -> Events:
    """Send the depth of a clip to stdout as it is made: nothing is kept, so a stream that ended cannot be gone on with.

    pipe: one of PIPES. target: written to instead of stdout. The range is the one that was named, or one that looks 30
    frames ahead and follows slowly. Yields as `run_clip`; raises what is wrong with the clip, as ClipError whatever a
    library raises for it, what is wrong with the stream as OutputError, and BrokenPipeError where nobody reads it.
    """
    try:
        yield from _stream(job, pipe, load, target, stop)
    except (DepthError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ClipError(f"{job.name} failed: {first_line(error)} ({type(error).__name__})") from error


@contextmanager
def _writing(stream: BinaryIO) -> Iterator[None]:
    """Raise OutputError for what the system refuses, but BrokenPipeError where the reader has left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = getattr(stream, "name", "")
        where = name if isinstance(name, str) and name != "<stdout>" else "stdout"
        raise OutputError(
            f"cannot write {where}: {error.strerror}", "make room, and start the same command again"
        ) from error


def _stream(
    job: ClipJob,
    pipe: str,
    load: Callable[[], ClipEstimator],
    target: Optional[BinaryIO],
    stop: Callable[[], bool],
) -> Events:
    if pipe not in PIPES:
        raise UsageError(f"{pipe} is no format of a stream", f"choose from: {', '.join(PIPES)}")
    if target is None and (sys.stdout is None or sys.stdout.isatty()):
        raise UsageError("stdout is no pipe and no file", "send it to a program: depth video ... -o - | ffplay -")
    started = time.perf_counter()
    holds, y4m = PIPES[pipe]
    fed, damage = 0, ""
    with open_clip(job.source, job.rate, job.size, stdin=stdin_of(job, stop)) as clip:
        estimator = load()
        info = clip.info
        if y4m and job.selection.fps is None:  # which has one rate for all frames
            job = replace(job, selection=replace(job.selection, fps=info.rate))
        provenance = provenance_of_clip(estimator, estimator.plan(info.size), Path(info.name).name)
        timing, stream = Timing.of(info, job.selection), target or sys.stdout.buffer
        writer = PipeWriter(stream, holds, info.size, timing, y4m, info.pixel_aspect)
        estimator.restore({}, {})
        cuts, look = CutDetector(), StreamRange(_LOOK_AHEAD)
        shows: deque[bool] = deque()  # whether a shot begins with a frame, of those whose maps are not final
        times: deque[Fraction] = deque()
        waiting: deque[tuple[np.ndarray, Fraction]] = deque()

        def send(ranges: Sequence[tuple[float, float]]) -> None:
            for shown in ranges:
                values, moment = waiting.popleft()
                depth = depth_of_frame(values, info.size, estimator.row, provenance)
                pixels = encode(depth, holds, Look(job.colormap, job.value_range or shown))
                with _writing(stream):
                    writer.write(pixels, moment)

        def take(step: Step) -> None:
            for answer in step.answers:
                values = estimator.settle(answer)
                waiting.append((values, times.popleft()))
                begins = shows.popleft()
                send([job.value_range] if job.value_range else look.add(values, begins))

        total = job.selection.count(info)
        with closing(clip.frames(job.selection)) as frames:  # type: ignore[type-var]
            while True:
                frame: Optional[Frame] = None
                try:
                    frame = next(frames, None)
                except ClipError as error:
                    damage = str(error)
                if stop():
                    return
                if frame is None:
                    break
                cut = job.scenes and cuts.is_cut(frame.rgb)
                times.append(frame.time)
                shows.append(cut)
                take(estimator.run(estimator.prepare(frame.rgb), cut))
                fed += 1
                yield Progress(info.name, MAKING, fed, total)
        take(estimator.finish())
        send(look.finish())
        with _writing(stream):
            stream.flush()
    if not fed:
        raise ClipError(damage or f"{info.name} has no frame that was asked for", "see --start and --end")
    yield Result(
        job.name,
        ("-",),
        FAILED if damage else DONE,
        milliseconds_since(started),
        error=damage,
        code=SOME_FAILED if damage else 0,
        model=estimator.row.name,
        weights=estimator.weights.sha256,
    )
