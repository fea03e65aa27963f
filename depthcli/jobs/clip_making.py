"""The first pass over a clip: the depth of every frame into the spool, resumed where an earlier run ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from typing import Any, Callable, Optional

import numpy as np

from depthcli.errors import ClipError, DepthError, Log, StoppedError
from depthcli.io.video.clip import ClipInfo, Frame, Selection
from depthcli.io.video.reader import Clip
from depthcli.io.video.spool import Spool
from depthcli.jobs.clip_job import MAKING, Progress
from depthcli.predict.clip import FrameLoop, FrameMap, readable_frames
from depthcli.temporal.ranges import ValueRange
from depthcli.temporal.state import join_states, part_of

# A kill costs at most the work since the last shard; one is written after so many seconds, or when it is large.
_KEEP_SECONDS = 30.0


def no_frames(info: ClipInfo) -> ClipError:
    """Return the error for a clip of which no frame was selected."""
    return ClipError(f"{info.name} has no frame that was asked for", "see `start` and `end`")


def make_depth(
    loop: FrameLoop,
    clip: Clip,
    selection: Selection,
    spool: Spool,
    stop: Callable[[], bool],
    check: Callable[[], None],
    log: Log,
) -> Iterator[Progress]:
    """Put the depth of all remaining frames into the spool; yield the progress after each one.

    The readable frames of a damaged clip are made. check: called if the clip is damaged, raises if the clip has
    changed. Raises StoppedError if it was asked to stop. Finished maps are kept after any error.
    """
    state = spool.state()
    recorder = _Recorder(loop, spool, state)
    if state is not None:
        loop.restore(state)
        log(f"{clip.info.name}: resumed after frame {spool.frames}")
    damage: list[ClipError] = []
    made, total = loop.fed, selection.count(clip.info)
    try:
        with ExitStack() as stack:
            frames = stack.enter_context(closing(clip.frames(selection, made)))  # type: ignore[type-var]
            steps = loop.run(until_stopped(frames, damage, stop, check), recorder.add)
            for _ in stack.enter_context(closing(steps)):  # type: ignore[type-var]
                reached = loop.reached
                if loop.fed > made or reached:  # the steps after the last frame only bring the remaining maps
                    made = loop.fed
                    if reached is None:
                        yield Progress(clip.info.name, MAKING, made, total)
                    else:
                        yield Progress(clip.info.name, MAKING, reached.frames, total, reached.doing)
                    if stop():
                        raise StoppedError
    except BaseException:
        with suppress(DepthError):
            recorder.keep()
        raise
    if not made:
        spool.remove()
        raise damage[0] if damage else no_frames(clip.info)
    spool.end({"frames": made, **recorder.facts(), "damage": str(damage[0]) if damage else ""})


def until_stopped(
    frames: Iterator[Frame], damage: list[ClipError], stop: Callable[[], bool], check: Callable[[], None] = lambda: None
) -> Iterator[Frame]:
    """Yield the readable frames, as readable_frames. Raises StoppedError. check: called if the clip is damaged."""
    yield from readable_frames(frames, damage)
    if damage:
        check()
    if stop():  # the pipe of a stopped job ends as if the clip had
        raise StoppedError


class _Recorder:
    """Puts maps into the spool and keeps their range, in the thread that makes the maps."""

    def __init__(self, loop: FrameLoop, spool: Spool, state: Optional[Mapping[str, np.ndarray]]) -> None:
        self._loop, self._spool = loop, spool
        self._range = ValueRange()
        self._extremes = (np.inf, -np.inf)
        self._kept = time.monotonic()
        self._complete = True  # all maps that were passed to `add` are in the spool
        if state is not None:
            self._range.restore(part_of(state, "range"))
            self._extremes = (float(state["extremes"][0]), float(state["extremes"][1]))

    def add(self, maps: list[FrameMap]) -> None:
        """Put maps into the spool, and write a shard if it is time for one."""
        self._complete = False
        for item in maps:
            self._range.add(item.values)
            low, high = self._extremes
            self._extremes = min(low, float(item.values.min())), max(high, float(item.values.max()))
            self._spool.add(item.values, item.time, item.duration, item.cut)
        self._complete = True
        if self._spool.full or self._loop.costly or time.monotonic() - self._kept > _KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write a shard, if the work can be resumed after the maps that were added last."""
        state = self._loop.state() if self._complete else None
        if state is not None:
            parts = join_states(range=self._range.state())
            self._spool.keep({**state, **parts, "extremes": np.array(self._extremes)})
            self._kept = time.monotonic()

    def facts(self) -> dict[str, Any]:
        """Return the range that is shown of all maps, and their smallest and largest value."""
        return {"range": self._range.range(), "min": self._extremes[0], "max": self._extremes[1]}
