"""The clip job: one clip through one model into files, in memory that does not grow, going on where it was left.

Two passes. The first makes the depth: a thread reads, this one runs the network, another settles and spools. The second
shows it, in the range of the whole clip, which is known by then. What a run leaves behind, whatever ended it, is a
spool of whole shards, from which the next one goes on to the same bytes.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np

from depthcli.depthmap import Provenance
from depthcli.errors import (
    SOME_FAILED,
    ClipError,
    DepthError,
    DeviceLostError,
    DiskFullError,
    Log,
    ModelError,
    UsageError,
    first_line,
)
from depthcli.host.atomic import remove_partials, temporary_path
from depthcli.host.cores import usable_cores
from depthcli.io.codecs.depth_files import (
    FARTHEST_MILLIMETRE,
    MILLIMETRES,
)
from depthcli.io.video.animations import WEBP
from depthcli.io.video.clip import ClipInfo, Frame, Number, Selection
from depthcli.io.video.reader import STDIN, Clip, PatientPipe, open_clip
from depthcli.io.video.spool import Spool, SpooledFrame, bytes_per_frame, check_disk, readable
from depthcli.io.video.writers import (
    VALUES,
    VIDEO_FORMATS,
    Timing,
    video_writer,
)
from depthcli.jobs.clip_results import CHANGED, GONE, GROWN, ClipFiles, already_there, check_one_model, spool_of
from depthcli.jobs.clip_show import MILLIMETRE_FORMATS, Show
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.jobs.pipeline import Lane
from depthcli.pixels.colormap import DEFAULT_COLORMAP
from depthcli.predict.clip import ClipEstimator, State, Step, join_states, part_of, provenance_of_clip
from depthcli.temporal.cuts import CutDetector
from depthcli.temporal.ranges import ValueRange
from depthcli.version import __version__
from depthcli.zoo.rows import ModelRow

MAKING, WRITING = "depth", "write"
NO_LOCKS = "the disk of the results has no file locks: do not start the same command twice at once"
_AHEAD = 3  # frames that are read, and answers that are settled, beside the one in the network
# Settings that shape the maps and are not part of the model, its engine or its input.
_SHAPING = ("steady", "exact", "shape-policy")
# In what an unfinished run may differ from this one, in words.
_OTHER = {
    "clip": "other frames",
    "options": "other options",
    "exact": "other options",
    "model": "another model",
    "engine": "another engine",
    "version": "another version",
}
# What a kill may cost: shards are kept when they are large, or after so many seconds.
_KEEP_SECONDS = 30.0


@dataclass(frozen=True)
class ClipJob:
    """What is to be done with one clip.

    source: a video file, a folder of frames, or "-" for stdin. outputs: (format, path) of each file or folder to write.
    rate, size: of raw video on stdin; rate also of a folder. value_range: (lo, hi) that is shown, in the numbers of the
    model; None for that of the whole clip. scenes: begin anew at cuts. if_exists: skip, overwrite or error where all
    outputs are there. settings: the options that shape the maps, ready for JSON.
    """

    source: Union[Path, str]
    outputs: Sequence[tuple[str, Path]]
    selection: Selection = field(default_factory=Selection)
    rate: Optional[Number] = None
    size: Optional[tuple[int, int]] = None
    colormap: str = DEFAULT_COLORMAP
    value_range: Optional[tuple[float, float]] = None
    scenes: bool = True
    if_exists: str = "skip"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(self.value_range)
        if self.source == STDIN and any(name == "side" for name, _ in self.outputs):
            raise UsageError("what comes on stdin cannot be read twice, as side wants", "save it to a file first")
        source = os.path.realpath(self.source)
        for _, path in self.outputs:
            if os.path.realpath(path) == source:
                raise UsageError(f"the result would replace the clip {path}", "use another -o")
            place = next((str(place) for place in (path, *path.parents) if os.path.exists(place)), "")
            if place and not (os.path.isfile(place) or os.path.isdir(place)):
                raise UsageError(f"{place} is a pipe or a device, no file or folder", "-o - sends a stream to stdout")

    @property
    def name(self) -> str:
        """What to call the clip."""
        return "stdin" if self.source == STDIN else str(self.source)

    @property
    def said(self) -> str:
        """The options that shape the result, as one line."""
        every = {
            **self.settings,
            **_described(self.selection),
            "rate": self.rate,
            "size": self.size,
            "colormap": self.colormap,
            "range": self.value_range,
            "scenes": None if self.scenes else "off",
        }
        return " ".join(f"{name}={value}" for name, value in every.items() if value is not None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is written."""
        return tuple(path for _, path in self.outputs)

    @property
    def exact(self) -> bool:
        """Whether a format wants the very numbers of the maps, for which 16 bits are too few."""
        return any(VIDEO_FORMATS[name].takes == VALUES for name, _ in self.outputs)

    @cached_property
    def spool_folder(self) -> Path:
        """Where the depth is kept while it is made: beside the results, of a name that other formats share.

        That of a stream has a name which nobody else can have: the same stream cannot be sent again to go on from.
        """
        name, path = self.outputs[0]
        if self.source == STDIN:
            return temporary_path(path.parent)
        ending = VIDEO_FORMATS[name].ending
        stem = path.name[: -len(ending)] if path.name.endswith(ending) else path.stem
        return spool_of(path.with_name(stem))


@dataclass(frozen=True)
class Progress:
    """How far a clip is. stage: "depth" or "write". frames: done of about `total`, None where nobody knows."""

    clip: str
    stage: str
    frames: int
    total: Optional[int]


def _described(selection: Selection) -> dict[str, Any]:
    """Return what a selection says, under the names of the options."""
    facts = {field.name.replace("_", "-"): getattr(selection, field.name) for field in fields(selection)}
    return {**facts, "stride": None if selection.stride == 1 else selection.stride}


Events = Generator[Union[Progress, Result], None, None]


def check_range(value_range: Optional[tuple[float, float]]) -> None:
    """Raise UsageError for a range that is none."""
    if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise UsageError(f"a range from {value_range[0]:g} to {value_range[1]:g} is none", "give --range as 0,80")


def run_clip(
    job: ClipJob,
    load: Callable[[], ClipEstimator],
    stop: Callable[[], bool] = lambda: False,
    talk: Log = lambda line: None,
) -> Events:
    """Do the job; yield how far it is, and in the end one Result, unless it was stopped.

    load: returns the estimator; called when the clip has been opened. stop: asked between frames; where it says True
    the work so far is kept and the job ends. What is wrong with the clip or its outputs, whatever a library raises for
    it, becomes a Result; what loading the model raises, ModelError, DeviceLostError and DiskFullError are raised, as
    they would end every other clip too.
    """
    started = time.perf_counter()
    loading = False
    try:
        settled = already_there(job.name, job.source, job.paths, job.if_exists, job.said, job.spool_folder.exists())
        if settled is not None:
            yield settled
            return
        for path in job.paths:
            for folder in (path.parent, path):
                remove_partials(folder)
        with open_clip(job.source, job.rate, job.size, stdin=stdin_of(job, stop)) as clip:
            loading = True
            estimator = load()
            loading = False
            yield from _Work(job, clip, estimator, stop, talk, started).events()
    except (ModelError, DeviceLostError, DiskFullError, UsageError):
        raise
    except Exception as error:
        if loading:
            raise
        yield _failed(job, error, started)


def check_models(jobs: Sequence[ClipJob], estimator: ClipEstimator) -> None:
    """Raise UsageError where results or unfinished work of another model would be mixed with those of a run."""
    for job in jobs:
        if job.if_exists != "overwrite" and job.source != STDIN:
            check_one_model(job.paths, job.spool_folder, estimator.row.name, estimator.weights.sha256)


def stdin_of(job: ClipJob, stop: Callable[[], bool]) -> Optional[PatientPipe]:
    """Return what a clip on stdin is read from, None for every other clip. stop: whether nobody wants it any more."""
    return PatientPipe(stop) if job.source == STDIN else None


def _texts(job: ClipJob) -> tuple[str, ...]:
    return tuple(map(str, job.paths))


def _failed(job: ClipJob, error: Exception, started: float) -> Result:
    code = error.exit_code if isinstance(error, DepthError) else 1
    words = str(error)
    if isinstance(error, MemoryError):
        words = "the machine ran out of memory"
    elif not isinstance(error, DepthError):
        words = f"{job.name} failed: {first_line(error)} ({type(error).__name__})"
    return Result(job.name, _texts(job), FAILED, milliseconds_since(started), error=words, code=code)


def milliseconds_since(started: float) -> float:
    """Return how long ago that was, by time.perf_counter."""
    return round(1000 * (time.perf_counter() - started), 1)


@dataclass(frozen=True, eq=False)
class _Read:
    """A frame that was read. cuts: the state of the detector behind it."""

    time: Fraction
    duration: Fraction
    prepared: Any
    cut: bool
    cuts: State


class _Work:
    """One clip under way."""

    def __init__(
        self,
        job: ClipJob,
        clip: Clip,
        estimator: ClipEstimator,
        stop: Callable[[], bool],
        talk: Log,
        started: float,
    ) -> None:
        self._job, self._clip, self._estimator = job, clip, estimator
        self._stop, self._talk, self._started = stop, talk, started
        self._info = clip.info
        self._total = job.selection.count(clip.info)
        self._plan = estimator.plan(clip.info.size)
        self._notes = (*clip.info.notes, *self._plan.notes)
        self._files = ClipFiles.of(job.source)
        self._warnings: list[str] = []

    def events(self) -> Events:
        """Make the depth, unless it is in the spool, and write it."""
        for note in self._notes:
            self._talk(f"{self._info.name}: {note}")
        job, size = self._job, self._estimator.map_size(self._info.size)
        exact = job.exact or self._estimator.exact
        need = (self._total or 0) * bytes_per_frame(size, exact)
        with Spool(job.spool_folder, self._identity(), exact) as spool, ExitStack() as stack:
            if job.source == STDIN:
                stack.callback(spool.remove)  # nobody could go on with it
            if spool.differs:
                other = " and ".join(dict.fromkeys(_OTHER[name] for name in spool.differs))
                self._talk(f"{self._info.name}: what was left of a run with {other} is not used")
            if not spool.locked:
                self._talk(NO_LOCKS)
            free = check_disk(job.spool_folder, need - spool.frames * bytes_per_frame(size, exact))
            if self._total and spool.ended is None:
                self._talk(
                    f"{self._info.name}: about {self._total} frames; while it is made their depth takes "
                    f"{readable(need)} on disk, {readable(free)} are free"
                )
            try:
                if spool.ended is None:
                    yield from self._make(spool)
                if spool.ended is None:
                    return  # stopped
                self._check_clip(spool)
            except _OtherClipError:
                spool.remove()
                raise
            try:
                notes = yield from self._write(spool)
            except _StopError:
                return
            for note in notes:
                self._talk(f"{self._info.name}: {note}")
            damage, highest = spool.ended["damage"], spool.ended["max"]
            spool.remove()
        yield Result(
            job.name,
            _texts(job),
            FAILED if damage else DONE,
            milliseconds_since(self._started),
            error=f"{damage}; the depth of what could be read is there" if damage else "",
            code=SOME_FAILED if damage else 0,
            notes=(*self._notes, *notes),
            warnings=(*self._warnings, *self._provenance().warnings(self._info.size), *self._clamped(highest)),
            model=self._estimator.row.name,
            weights=self._estimator.weights.sha256,
            settings=job.said,
        )

    def _check_clip(self, spool: Spool) -> None:
        """Take note of what has become of the clip while it was read. Raises ClipError where the work is of no use.

        Only frames that are others make it so: a clip that is gone may come back, and one that has grown is what it was
        up to there.
        """
        name, state = self._info.name, self._files.compare()
        if state == CHANGED:
            raise _OtherClipError(f"{name} has changed while it was read", "start the same command again")
        if state == GONE:
            if spool.ended is None or any(name == "side" for name, _ in self._job.outputs):
                hint = "put it back and start the same command again: what was made of it is kept"
                raise ClipError(f"{name} is gone, or a part of it, since it was opened", hint)
            sound = ", so there is no sound" if self._info.audio and self._job.selection.whole else ""
            self._warnings.append(f"the clip is gone since it was read{sound}")
        if state == GROWN:
            hint = "the same command makes all of it"
            self._warnings.append(f"the clip has grown since it was opened; what came later may be missing: {hint}")

    def _write(self, spool: Spool) -> Generator[Progress, None, tuple[str, ...]]:
        made_of = self._files.made_of(self._job.spool_folder.parent)
        return _write(self._job, self._info, self._estimator.row, self._provenance(), spool, made_of, self._stop)

    def _clamped(self, highest: float) -> tuple[str, ...]:
        """Return a warning where 16-bit millimetres cannot hold a metric clip."""
        names = [name for name, _ in self._job.outputs if name in MILLIMETRE_FORMATS]
        if not (self._estimator.row.kind.is_metric and names) or highest * MILLIMETRES <= FARTHEST_MILLIMETRE:
            return ()
        return (f"depth beyond 65.535 m, up to {highest:.1f} m, was clamped in {names[0]}; exr and npz hold all",)

    def _provenance(self) -> Provenance:
        return provenance_of_clip(self._estimator, self._plan, Path(self._info.name).name)

    def _identity(self) -> dict[str, Any]:
        """Return what makes the maps what they are, by what a user would call it."""
        job, row = self._job, self._estimator.row
        settings = {name: job.settings[name] for name in _SHAPING if job.settings.get(name) is not None}
        return {
            "clip": self._files.identity,
            "options": {
                "selection": repr(job.selection),
                "raw": [str(job.rate), list(job.size or ())],
                "scenes": job.scenes,
                "input": list(self._plan.input_size),
                **settings,
            },
            "model": {"name": row.name, "weights": self._estimator.weights.sha256, "max_depth": row.max_depth},
            "engine": self._estimator.engine,
            "version": __version__,
        }

    # --- The first pass -----------------------------------------------------------------------------------------------

    def _make(self, spool: Spool) -> Iterator[Progress]:
        """Make the depth of all frames that are not in the spool yet."""
        state = spool.state() or {}
        fed = int(state.get("fed", 0))
        settler = _Settler(self._estimator, spool, state)
        self._estimator.restore(part_of(state, "run"), part_of(state, "settled"))
        cuts = CutDetector()
        if state:
            cuts.restore(part_of(state, "cuts"))
            self._talk(f"{self._info.name}: going on behind frame {spool.frames}")
        damage: Optional[ClipError] = None
        done = False
        frames = self._clip.frames(self._job.selection, fed)
        with closing(frames), Lane[Optional[_Read]](1) as reading, Lane[None](1) as settling:  # type: ignore[type-var]
            try:
                for _ in range(_AHEAD):
                    reading.put(self._read, frames, cuts)
                while not self._stop():
                    try:
                        item = reading.take()
                    except ClipError as error:
                        damage, item = error, None
                        self._check_clip(spool)  # what cannot be read is not damaged where it is not there any more
                    if item is None:
                        done = not self._stop()  # a stopped reader of stdin also says that there is no more
                        break
                    reading.put(self._read, frames, cuts)
                    step = self._estimator.run(item.prepared, item.cut)
                    fed += 1
                    settling.put(settler.settle, step, item, fed)
                    while len(settling) > _AHEAD:
                        settling.take()
                    yield Progress(self._info.name, MAKING, fed, self._total)
                if done:
                    settling.put(settler.settle, self._estimator.finish(), None, fed)
                    while settling:
                        settling.take()
            finally:
                if not done:  # stopped, or something went wrong: what is settled is kept all the same
                    with suppress(DepthError):
                        settling.settle()
                        settler.keep()
        if not done:
            return
        if not fed:
            spool.remove()  # there is nothing to go on from
            raise damage or ClipError(f"{self._info.name} has no frame that was asked for", "see --start and --end")
        spool.end({"frames": fed, **settler.facts(), "damage": str(damage) if damage else ""})

    def _read(self, frames: Iterator[Frame], cuts: CutDetector) -> Optional[_Read]:
        """Return the next frame, ready for the network, or None behind the last."""
        frame = next(frames, None)
        if frame is None:
            return None
        cut = self._job.scenes and cuts.is_cut(frame.rgb)
        return _Read(frame.time, frame.duration, self._estimator.prepare(frame.rgb), cut, cuts.state())


class _Settler:
    """What becomes of a network's answers: maps in the spool, and their range. Belongs to one thread."""

    def __init__(self, estimator: ClipEstimator, spool: Spool, state: State) -> None:
        self._estimator, self._spool = estimator, spool
        self._range = ValueRange()
        self._times: deque[tuple[Fraction, Fraction]] = deque()  # of the frames whose maps are not final yet
        self._extremes = (np.inf, -np.inf)
        self._state: Optional[Callable[[], State]] = None
        self._kept = time.monotonic()
        self._broken = False
        if state:
            self._range.restore(part_of(state, "range"))
            self._extremes = (float(state["extremes"][0]), float(state["extremes"][1]))
            self._times.extend((Fraction(a, b), Fraction(c, d)) for a, b, c, d in state["times"].tolist())

    def settle(self, step: Step, item: Optional[_Read], fed: int) -> None:
        """Spool the maps of a step. item: the frame it took, None at the end. fed: frames until now."""
        if self._broken:  # a frame is missing: nothing behind it may be kept
            return
        self._broken, self._state = True, None
        if item is not None:
            self._times.append((item.time, item.duration))
        for answer in step.answers:
            values = self._estimator.settle(answer)
            self._range.add(values)
            low, high = self._extremes
            self._extremes = min(low, float(values.min())), max(high, float(values.max()))
            self._spool.add(values, *self._times.popleft())
        self._broken = False
        run = step.state
        if run is None or item is None:
            self._state = None
            return
        cuts = item.cuts
        self._state = lambda: {
            **join_states(run=run(), settled=self._estimator.settled_state(), cuts=cuts, range=self._range.state()),
            "fed": np.array(fed),
            "extremes": np.array(self._extremes),
            "times": np.array(
                [(*a.as_integer_ratio(), *b.as_integer_ratio()) for a, b in self._times], np.int64
            ).reshape(-1, 4),
        }
        if self._spool.full or time.monotonic() - self._kept > _KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Keep what is settled, where the work can be left now."""
        if self._state is not None:
            self._spool.keep(self._state())
            self._kept = time.monotonic()

    def facts(self) -> dict[str, Any]:
        """Return what is shown of all maps so far, and their smallest and largest value."""
        return {"range": self._range.range(), "min": self._extremes[0], "max": self._extremes[1]}


# --- The second pass --------------------------------------------------------------------------------------------------


def _write(
    job: ClipJob,
    info: ClipInfo,
    row: ModelRow,
    provenance: Provenance,
    spool: Spool,
    made_of: Mapping[str, Any],
    stop: Callable[[], bool],
) -> Generator[Progress, None, tuple[str, ...]]:
    """Write all outputs from the spool; return what could not be kept. Raises _StopError where it is to stop."""
    assert spool.ended is not None
    shown = job.value_range or tuple(spool.ended["range"])
    extremes = spool.ended["min"], spool.ended["max"]
    show = Show(
        info.size, row, provenance, (shown[0], shown[1]), job.colormap, extremes, job.said, spool.ended["damage"]
    )
    timing = Timing.of(info, job.selection)
    # A folder, an animated WebP, or a clip that has gone, which is warned of, has nothing to take along.
    along = job.source != STDIN and os.path.isfile(job.source) and info.codec != WEBP
    source, whole = Path(job.source) if along else None, job.selection.whole
    lost = ("the sound was left out, as the clip came on stdin",) if info.audio and job.source == STDIN else ()
    numbers = () if job.selection.fps is not None else info.numbers
    number_of = (lambda moment: numbers[round(moment * info.rate)]) if numbers else None
    needs_source = any(name == "side" for name, _ in job.outputs)
    orders = [(name, path, show.size(name), timing, show.facts(name)) for name, path in job.outputs]
    keep = spool.was_writing({"files": [(name, path.name, facts) for name, path, _, _, facts in orders]})
    with ExitStack() as stack:
        writers = {
            order[0]: stack.enter_context(
                video_writer(*order, source, info.pixel_aspect, made_of, number_of, keep, whole)
            )
            for order in orders
        }
        sources: Iterator[Optional[Frame]] = iter(lambda: None, 0)
        if needs_source:
            clip = stack.enter_context(open_clip(job.source, job.rate, job.size))
            sources = clip.frames(job.selection)
        lane = stack.enter_context(Lane[tuple[SpooledFrame, dict[str, np.ndarray]]](max(1, usable_cores() - 1)))
        to_come = enumerate(zip(spool.read(), sources))
        done, more = 0, True
        while more or lane:
            while more and len(lane) < usable_cores() + 1:
                index, pair = next(to_come, (0, None))
                if pair is None:
                    more = False
                else:
                    names = [name for name, writer in writers.items() if not writer.has(index, pair[0].time)]
                    lane.put(_shown, show, names, *pair)
            if not lane:
                break
            frame, pictures = lane.take()
            for name, writer in writers.items():
                if name in pictures:
                    writer.write(pictures[name], frame.time, frame.duration)
                else:
                    writer.skip(frame.time, frame.duration)
            done += 1
            yield Progress(info.name, WRITING, done, spool.ended["frames"])
            if stop():
                raise _StopError
        if done != spool.ended["frames"]:
            raise ClipError(f"{info.name} has changed while it was read", "start the same command again")
    return (*lost, *dict.fromkeys(note for writer in writers.values() for note in writer.notes))


class _OtherClipError(ClipError):
    """The frames that were read are not those of the clip that is there now."""


class _StopError(Exception):
    """Ends the writers as an error does, so that none of what is half written gets its name."""


def _shown(
    show: Show, names: Sequence[str], frame: SpooledFrame, source: Optional[Frame]
) -> tuple[SpooledFrame, dict[str, np.ndarray]]:
    pictures = show.pictures(names, frame.values, None if source is None else source.rgb) if names else []
    return frame, dict(zip(names, pictures))
