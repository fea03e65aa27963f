"""The clip job: one clip through one model into files, in constant memory, resumed after an interruption.

The first pass makes the depth: a thread reads, this one runs the network, another postprocesses and spools. The second
pass writes it in the range of the whole clip. An interrupted run leaves complete shards, and the next one continues to
the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from depthcli.errors import (
    SOME_FAILED,
    ClipError,
    DeviceLostError,
    DiskFullError,
    Log,
    ModelError,
    StoppedError,
    UsageError,
)
from depthcli.geometry.shapes import remarks
from depthcli.host.atomic import remove_partials
from depthcli.io.codecs.encode import in_millimetres, is_clamped
from depthcli.io.codecs.formats import CLIP_ROWS, Holds, check_kind
from depthcli.io.codecs.stereo import ASSUMED
from depthcli.io.codecs.stills import MOST_CODE
from depthcli.io.names import STDIN
from depthcli.io.video.reader import Clip, PatientPipe, open_clip
from depthcli.io.video.spool import Spool, bytes_per_frame, check_disk, readable
from depthcli.jobs.clip_job import (
    ClipJob,
    Events,
    Progress,
    failed_clip,
    milliseconds_since,
    texts_of,
)
from depthcli.jobs.clip_making import make_depth
from depthcli.jobs.clip_results import CHANGED, GONE, GROWN, ClipFiles, already_there, check_one_model
from depthcli.jobs.clip_shots import ShownClip, with_metres
from depthcli.jobs.clip_writing import write_outputs
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.predict.clip import FrameLoop, camera_of_clip
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.version import __version__
from depthcli.views.layouts import LAYOUTS

NO_LOCKS = "the disk of the results has no file locks: do not start the same command twice at once"
# Raise it when the arrays of a state change: unfinished work is not resumed from a state of another format.
_STATE_FORMAT = 4
_MOST_SHAPES = 100  # frames that become points or meshes without being asked twice: a cloud takes tens of megabytes
# In what an unfinished run may differ from this one, in words.
_OTHER = {
    "clip": "other frames",
    "options": "other options",
    "exact": "other options",
    "model": "another model",
    "backend": "another backend",
    "version": "another version",
}


def run_clip(
    job: ClipJob,
    load: Callable[[], ClipPredictor],
    stop: Callable[[], bool] = lambda: False,
    log: Log = lambda line: None,
) -> Events:
    """Do the job; yield its progress, and in the end one Result, unless it was stopped.

    load: returns the predictor; called when the clip has been opened. stop: asked between frames; if it returns True
    the work is kept and the job ends. Errors of the clip or its outputs become a Result. Errors of `load`, ModelError,
    DeviceLostError and DiskFullError are raised, as they would end every other clip too.
    """
    started = time.perf_counter()
    loading = False
    try:
        settled = already_there(
            job.name, job.source, job.paths, job.if_exists, job.settings_text, job.spool_folder.exists()
        )
        if settled is not None:
            yield settled
            return
        for path in job.paths:
            for folder in (path.parent, path):
                remove_partials(folder)
        with open_clip(job.source, job.rate, job.size, stdin=stdin_of(job, stop)) as clip:
            loading = True
            predictor = load()
            loading = False
            yield from _Work(job, clip, predictor, stop, log, started).events()
    except StoppedError:
        return
    except _RefusedError as refused:
        yield failed_clip(job, refused.reason, started)
    except (ModelError, DeviceLostError, DiskFullError, UsageError):
        raise
    except Exception as error:
        if loading:
            raise
        yield failed_clip(job, error, started)


def check_models(jobs: Sequence[ClipJob], predictor: ClipPredictor) -> None:
    """Raise UsageError if results or unfinished work of another model would be mixed with those of a run."""
    for job in jobs:
        if job.if_exists != "overwrite" and job.source != STDIN:
            check_one_model(job.paths, job.spool_folder, predictor.row.name, predictor.weights.sha256)


def stdin_of(job: ClipJob, stop: Callable[[], bool]) -> Optional[PatientPipe]:
    """Return the pipe that a clip on stdin is read from, None for every other clip."""
    return PatientPipe(stop) if job.source == STDIN else None


class _OtherClipError(ClipError):
    """The frames that were read are not those of the clip that is there now."""


class _RefusedError(Exception):
    """What was given does not fit this clip, and may fit others."""

    def __init__(self, reason: UsageError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _refusing(name: str = "") -> Iterator[None]:
    """Within this context a UsageError refuses this clip alone. name: to begin the message with."""
    try:
        yield
    except UsageError as error:
        error.message = f"{name}: {error.message}" if name else error.message
        raise _RefusedError(error) from error


class _Work:
    """One clip under way."""

    def __init__(
        self, job: ClipJob, clip: Clip, predictor: ClipPredictor, stop: Callable[[], bool], log: Log, started: float
    ) -> None:
        self._job, self._clip, self._predictor = job, clip, predictor
        self._stop, self._log, self._started = stop, log, started
        self._info = clip.info
        self._total = job.selection.count(clip.info)
        with _refusing():  # whose messages have the name
            self._seen_by = camera_of_clip(clip.info, job.cameras, job.clip.panorama)
        self._loop = FrameLoop(
            predictor, clip.info.size, self._seen_by.camera, frames=self._total, find_cuts=job.clip.scenes
        )
        self._provenance = self._loop.provenance(Path(clip.info.name).name)
        self._notes = (*clip.info.notes, *self._seen_by.notes, *self._loop.plan.notes)
        self._check_formats()
        self._files = ClipFiles.of(job.source)
        self._warnings: list[str] = [*self._seen_by.warnings, *self._loop.warnings]

    def _check_formats(self) -> None:
        """Raise UsageError for formats that cannot hold the maps, and for more points and meshes than anybody wants."""
        row, metres = self._predictor.row, self._job.metres
        for name, _ in self._job.outputs:
            check_kind(CLIP_ROWS[name], row.kind if metres is None else metres.kind)
        selection = self._job.selection
        chosen = selection.stride > 1 or selection.fps is not None or selection.max_frames is not None
        files = [name for name in self._job.shapes if CLIP_ROWS[name].folder]
        if files and not chosen and (self._total or 0) > _MOST_SHAPES:
            raise UsageError(
                f"{self._info.name} has {self._total} frames, and each would become a file of {files[0]}",
                "choose some with `stride`, `fps` or `max_frames`",
            )

    def events(self) -> Events:
        """Make the depth, unless it is in the spool, and write it."""
        self._say(*self._notes)
        exact = self._job.exact or self._predictor.exact
        with Spool(self._job.spool_folder, self._identity(), exact) as spool, ExitStack() as stack:
            if self._job.source == STDIN:
                stack.callback(spool.remove)  # a stream cannot be resumed
            self._check_disk(spool, exact)
            try:
                if spool.ended is None:
                    yield from self._make(spool)
                self._check_clip(spool)
            except _OtherClipError:
                spool.remove()
                raise
            shown = self._shown(spool)
            self._say(*shown.lines)
            notes = yield from self._write(shown, spool)
            self._say(*notes)
            assert spool.ended is not None
            damage = spool.ended["damage"]
            spool.remove()
        yield Result(
            self._job.name,
            texts_of(self._job),
            FAILED if damage else DONE,
            milliseconds_since(self._started),
            error=f"{damage}; the depth of what could be read is there" if damage else "",
            code=SOME_FAILED if damage else 0,
            notes=(*self._notes, *shown.lines, *notes),
            warnings=(
                *self._warnings,
                *self._assumed(),
                *self._provenance.warnings(self._info.size),
                *shown.warnings,
                *self._clamped(shown),
            ),
            model=self._predictor.row.name,
            weights=self._predictor.weights.sha256,
            settings=self._job.settings_text,
        )

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._log(f"{self._info.name}: {line}")

    def _check_disk(self, spool: Spool, exact: bool) -> None:
        """Note an earlier run's spool, and how much the depth takes. Raises DiskFullError."""
        if spool.differs:
            other = " and ".join(dict.fromkeys(_OTHER[name] for name in spool.differs))
            self._say(f"what was left of a run with {other} is not used")
        if not spool.locked:
            self._log(NO_LOCKS)
        frame = bytes_per_frame(self._predictor.map_size, exact)
        need = (self._total or 0) * frame
        free = check_disk(self._job.spool_folder, need - spool.frames * frame)
        if self._total and spool.ended is None:
            self._say(
                f"about {self._total} frames; while it is made their depth takes {readable(need)} on disk, "
                f"{readable(free)} are free"
            )

    def _make(self, spool: Spool) -> Iterator[Progress]:
        def check() -> None:
            self._check_clip(spool)  # what cannot be read is not damaged if it is not there any more

        return make_depth(self._loop, self._clip, self._job.selection, spool, self._stop, check, self._log)

    def _shown(self, spool: Spool) -> ShownClip:
        """Return what is written, in metres if they were asked for."""
        job, ended, row = self._job, spool.ended, self._predictor.row
        assert ended is not None
        low, high = ended["range"]
        extremes = float(np.float32(ended["min"])), float(np.float32(ended["max"]))
        camera, frames = self._seen_by.camera, ended["frames"]
        shown = ShownClip(self._info, row, self._provenance, camera, (low, high), extremes, frames=frames)
        with _refusing(self._info.name):
            if job.metres is not None:
                limit = None if row.kind.is_metric else job.model.max_depth
                shown = with_metres(shown, job.metres.up_to(limit) if limit else job.metres, job.selection, spool)
            for name, _ in job.outputs:
                check_kind(CLIP_ROWS[name], shown.kind)
        if any(CLIP_ROWS[name].spatial for name, _ in job.outputs):
            self._warnings.extend(remarks(shown.depth_map(next(spool.read())), shape=bool(job.shapes)))
        return shown

    def _write(self, shown: ShownClip, spool: Spool) -> Generator[Progress, None, tuple[str, ...]]:
        made_of = self._files.made_of(self._job.spool_folder.parent)
        if self._job.noted is not None:
            made_of["place"] = self._job.noted.place
        return write_outputs(self._job, shown, spool, made_of, self._stop)

    def _check_clip(self, spool: Spool) -> None:
        """Note changes of the clip while it was read. Raises ClipError if its frames have changed.

        A missing clip may come back, and a longer one has the same frames up to there.
        """
        name, state = self._info.name, self._files.compare()
        if state == CHANGED:
            raise _OtherClipError(f"{name} has changed while it was read", "start the same command again")
        if state == GONE:
            if spool.ended is None or self._job.needs_source:
                hint = "put it back and start the same command again: what was made of it is kept"
                raise ClipError(f"{name} is gone, or a part of it, since it was opened", hint)
            sound = ", so there is no sound" if self._info.audio and self._job.selection.whole else ""
            self._warnings.append(f"the clip is gone since it was read{sound}")
        if state == GROWN:
            hint = "the same command makes all of it"
            self._warnings.append(f"the clip has grown since it was opened; what came later may be missing: {hint}")

    def _assumed(self) -> tuple[str, ...]:
        """Return a warning if the outputs need the camera of the clip, which is never known."""
        stereo = self._job.stereo
        return (ASSUMED,) if stereo is not None and LAYOUTS[stereo.layout].spherical else ()

    def _clamped(self, shown: ShownClip) -> tuple[str, ...]:
        """Return a warning for each format whose codes cannot hold a metric clip."""
        highest = shown.extremes[1]
        lines = []
        for name, _ in self._job.outputs:
            row = CLIP_ROWS[name]
            if in_millimetres(row.holds, shown.kind) and is_clamped(highest):
                limit, became = 65.535, "was clamped"
            elif row.holds is Holds.METRES and highest * row.scale > MOST_CODE:
                limit, became = MOST_CODE / row.scale, "has no depth"
            else:
                continue
            up_to = f"up to {highest:.1f} m"
            lines.append(f"depth beyond {limit:.6g} m, {up_to}, {became} in {name}; exr and npz hold all")
        return tuple(lines)

    def _identity(self) -> dict[str, Any]:
        """Return everything that determines the maps, under the names that users know."""
        job, row = self._job, self._predictor.row
        return {
            "clip": self._files.identity,
            "options": {
                "selection": repr(job.selection),
                "raw": [str(job.rate), list(job.size or ())],
                "scenes": job.clip.scenes,
                "input": list(self._loop.plan.input_size),
                "focal": list(self._seen_by.camera.focal) if self._seen_by.camera and row.canonical_focal else None,
                **job.shape,
            },
            "model": {"name": row.name, "weights": self._predictor.weights.sha256, "max_depth": row.max_depth},
            "backend": self._predictor.description,
            "version": [__version__, _STATE_FORMAT],
        }
