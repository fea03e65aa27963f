"""The depth of a clip as a stream for another program: made and sent frame by frame, nothing kept on disk."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Callable, Optional

from depthcli.errors import SOME_FAILED, ClipError, DepthError, OutputError, StoppedError, UsageError, first_line
from depthcli.io.codecs.encode import encode
from depthcli.io.codecs.formats import Holds
from depthcli.io.video.clip_output import Timing
from depthcli.io.video.pipe import PipeWriter
from depthcli.io.video.reader import Clip, open_clip
from depthcli.jobs.clip import stdin_of
from depthcli.jobs.clip_job import MAKING, ClipJob, Events, Progress, milliseconds_since
from depthcli.jobs.clip_making import no_frames, until_stopped
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.predict.clip import FrameLoop, FrameMap, camera_of_clip
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.temporal.ranges import StreamRange

# Frames of look-ahead for the range, as that of a whole stream is known only at its end.
_LOOK_AHEAD = 30
PIPES = {"y4m": (Holds.COLOR, True), "rgb24": (Holds.COLOR, False), "gray16le": (Holds.SHADES, False)}


def stream_clip(
    job: ClipJob,
    pipe: str,
    load: Callable[[], ClipPredictor],
    target: Optional[BinaryIO] = None,
    stop: Callable[[], bool] = lambda: False,
) -> Events:
    """Send the depth of a clip to stdout as it is made; nothing is kept to resume from.

    pipe: one of PIPES. target: written to instead of stdout. The range is that of the job, or one that looks 30 frames
    ahead and follows slowly. Yields as `run_clip`. Raises ClipError for the clip, OutputError for the stream, and
    BrokenPipeError if its reader has gone.
    """
    try:
        yield from _stream(job, pipe, load, target, stop)
    except StoppedError:
        return
    except (DepthError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ClipError(f"{job.name} failed: {first_line(error)} ({type(error).__name__})") from error


def _stream(
    job: ClipJob, pipe: str, load: Callable[[], ClipPredictor], target: Optional[BinaryIO], stop: Callable[[], bool]
) -> Events:
    if pipe not in PIPES:
        raise UsageError(f"unknown `pipe` {pipe!r}", f"choose from: {', '.join(PIPES)}")
    if target is None and (sys.stdout is None or sys.stdout.isatty()):
        raise UsageError("stdout is a terminal", "pipe it into a program, such as ffplay -")
    started = time.perf_counter()
    damage: list[ClipError] = []
    made = 0
    with open_clip(job.source, job.rate, job.size, stdin=stdin_of(job, stop)) as clip:
        predictor, info = load(), clip.info
        if PIPES[pipe][1] and job.selection.fps is None:  # y4m has one rate for all frames
            job = replace(job, selection=replace(job.selection, fps=info.rate))
        camera = camera_of_clip(info, job.cameras, job.clip.panorama).camera
        # Without threads: a live frame must not wait.
        loop = FrameLoop(predictor, info.size, camera, find_cuts=job.clip.scenes, threads=False)
        sender = _Sender(job, pipe, clip, loop, target or sys.stdout.buffer)
        total = job.selection.count(info)
        with closing(clip.frames(job.selection)) as frames:  # type: ignore[type-var]
            for maps in loop.run(until_stopped(frames, damage, stop)):
                sender.add(maps)
                if loop.fed > made or loop.reached:
                    made = loop.fed
                    yield Progress(info.name, MAKING, made, total)
                    if stop():
                        return
        sender.finish()
    if not made:
        raise damage[0] if damage else no_frames(info)
    yield Result(
        job.name,
        ("-",),
        FAILED if damage else DONE,
        milliseconds_since(started),
        error=str(damage[0]) if damage else "",
        code=SOME_FAILED if damage else 0,
        model=predictor.row.name,
        weights=predictor.weights.sha256,
    )


class _Sender:
    """Writes maps to the stream as soon as their range is known."""

    def __init__(self, job: ClipJob, pipe: str, clip: Clip, loop: FrameLoop, stream: BinaryIO) -> None:
        info = clip.info
        self._look, self._ranges = job.look, StreamRange(_LOOK_AHEAD)
        self._holds, y4m = PIPES[pipe]
        self._loop, self._provenance = loop, loop.provenance(Path(info.name).name)
        self._stream, self._waiting = stream, deque[FrameMap]()
        self._writer = PipeWriter(
            stream, self._holds, info.size, Timing.of(info, job.selection), y4m, info.pixel_aspect
        )

    def add(self, maps: Sequence[FrameMap]) -> None:
        """Take the next maps, and send those whose range is known."""
        for item in maps:
            self._waiting.append(item)
            self._send([self._look.range] if self._look.range else self._ranges.add(item.values, item.cut))

    def finish(self) -> None:
        """Send the rest."""
        self._send(self._ranges.finish())
        with _writing(self._stream):
            self._stream.flush()

    def _send(self, ranges: Sequence[tuple[float, float]]) -> None:
        for shown in ranges:
            item = self._waiting.popleft()
            depth = self._loop.depth_map(item.values, self._provenance)
            pixels = encode(depth, self._holds, replace(self._look, range=shown))
            with _writing(self._stream):
                self._writer.write(pixels, item.time)


@contextmanager
def _writing(stream: BinaryIO) -> Iterator[None]:
    """Raise OutputError for errors of the system, but BrokenPipeError if the reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = getattr(stream, "name", "")
        place = name if isinstance(name, str) and name != "<stdout>" else "stdout"
        raise OutputError(f"cannot write {place}: {error.strerror}", "make room and start the command again") from error
