"""Clips as jobs on disk: one folder each, done one after the other, resumed after a restart, removed after a while.

FOLDER/<id>/job.json       what is to be done, and what has become of it; written when the whole clip is there
FOLDER/<id>/files/         the clip, and beside it its results, as `depth video` leaves them
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Optional
from urllib.parse import quote

from depthcli.camera import Camera
from depthcli.choices import ModelChoice
from depthcli.errors import (
    ClipError,
    DepthError,
    DeviceLostError,
    DiskFullError,
    EngineError,
    Log,
    UsageError,
    first_line,
)
from depthcli.host.atomic import atomic_path, try_lock
from depthcli.io.codecs.encode import Look
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.names import fitting_name, sidecar_of
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob, Progress
from depthcli.jobs.find import CLIP_SUFFIXES, Input
from depthcli.jobs.manifest import DONE as RESULT_DONE
from depthcli.jobs.manifest import Result
from depthcli.jobs.targets import Target, plan_clips
from depthcli.predict.clip import open_clip_predictor
from depthcli.predict.clip_predictors import ClipPredictor, FrameByFrame
from depthcli.serve.answers import media_type_of
from depthcli.serve.clip_query import ClipWish
from depthcli.serve.metrics import Metrics
from depthcli.serve.models import Models
from depthcli.serve.problems import Refusal
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings
from depthcli.zoo.rows import ModelTask, find_row

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED)
ENDED = (DONE, FAILED, CANCELLED)
SOURCE = "source"
_JOB, _FILES, _LOCK = "job.json", "files", ".depthcli-serve.lock"
_MOST_JOBS = 10_000  # that are kept, ended ones too: each takes some kB of memory, whatever its files take
_MOST_NAME = 150  # bytes, with room for the endings of results
_LOOK_SECONDS = 60.0  # between two looks for what has expired


@dataclass(frozen=True)
class JobFile:
    """A file of a job, by its name in the job's folder."""

    name: str
    format: str


@dataclass(frozen=True)
class JobRecord:
    """A job as it is on disk, and its progress. frames, eta_s: None if unknown. ended: when, on time.time; 0 before.

    wish: what was asked for. key: that the sender gave it. version: counts changes, for those who watch.
    """

    id: str
    name: str
    wish: ClipWish
    state: str = QUEUED
    stage: str = ""
    frames_done: int = 0
    frames: Optional[int] = None
    fps: float = 0.0
    eta_s: Optional[float] = None
    created: float = 0.0
    updated: float = 0.0
    ended: float = 0.0
    files: tuple[JobFile, ...] = ()
    error: str = ""
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    key: str = ""
    version: int = field(default=0, compare=False)


class ClipJobs:
    """The jobs of one folder. Threads may share it; `start` it once, and `close` it in the end.

    Raises UsageError for a folder that cannot be used, or that another service uses.
    """

    def __init__(
        self, folder: Path, settings: ServiceSettings, models: Models, runner: Runner, metrics: Metrics, log: Log
    ) -> None:
        self._folder, self._settings, self._models = folder, settings, models
        self._runner, self._metrics, self._log = runner, metrics, log
        self._jobs: dict[str, JobRecord] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._cancelled: set[str] = set()
        self._uploads: set[str] = set()
        self._lock = self._locked()
        self._thread = threading.Thread(target=self._work, name="clips", daemon=True)

    def start(self) -> None:
        """Take up what an earlier service left: unfinished clips go on, half uploads are removed."""
        for place in sorted(self._folder.iterdir()):
            if not place.is_dir():
                continue
            record = _read(place / _JOB)
            if record is None:
                shutil.rmtree(place, ignore_errors=True)
            else:
                waits = record.state == RUNNING
                self._jobs[record.id] = replace(record, state=QUEUED, stage="") if waits else record
        self._count()
        self._thread.start()

    def stop(self) -> None:
        """Stop at the next frame; what is not done stays queued."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait for it."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()
        self._lock.close()

    @property
    def busy(self) -> bool:
        """Whether a clip is at work, or an upload."""
        return bool(self._uploads) or any(job.state == RUNNING for job in self._jobs.values())

    # --- What requests ask for ----------------------------------------------------------------------------------------

    def list(self) -> list[JobRecord]:
        """Return the jobs, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: -job.created)

    def get(self, name: str) -> JobRecord:
        """Return a job. Raises Refusal."""
        found = self._jobs.get(name)
        if found is None:
            raise Refusal(404, "there is no such job", "it may have expired")
        return found

    def path_of(self, job: JobRecord, name: str) -> Path:
        """Return the path of a file of a job. Raises Refusal for a name that is not in its list."""
        if all(file.name != name for file in job.files):
            raise Refusal(404, f"the job has no file {name!r}")
        return self._folder / job.id / _FILES / name

    @contextmanager
    def upload(self, name: str, wish: ClipWish, key: str = "") -> Iterator[Upload]:
        """Give a place for the bytes of a clip; with `Upload.finish` it becomes a job, else nothing is left.

        key: of the sender, to know the job again.

        Raises UsageError for a wish that cannot be granted, DiskFullError if there is no room.
        """
        name = _plain_name(name)
        place = self._folder / secrets.token_urlsafe(12)
        source = place / _FILES / name
        self._plan(source, wish)  # raises for options that make no sense
        self.expire()
        if len(self._jobs) + len(self._uploads) >= _MOST_JOBS:
            raise DiskFullError(f"the service keeps {_MOST_JOBS} jobs already", "delete some, or try again later")
        upload = Upload(source, self._settings.disk - self.bytes_used(), self._settings.max_clip_bytes)
        self._uploads.add(place.name)
        try:
            with upload:
                yield upload
            if upload.finished:
                now = time.time()
                source_file = JobFile(name, SOURCE)
                record = JobRecord(place.name, name, wish, created=now, updated=now, files=(source_file,), key=key)
                self._put(record)
                upload.job = record
        finally:
            self._uploads.discard(place.name)
            if upload.job is None:
                shutil.rmtree(place, ignore_errors=True)

    def cancel(self, name: str) -> Optional[JobRecord]:
        """Cancel a job that waits or runs, and return it; forget one that has ended, and return None."""
        with self._changed:
            job = self.get(name)
            if job.state in ENDED:
                del self._jobs[name]
                self._count()
                ended = True
            else:
                ended = False
                self._cancelled.add(name)
                running = job.state == RUNNING
        if ended:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            return None
        if running:  # its thread removes the files
            return replace(job, state=CANCELLED)
        return self._end(job, CANCELLED)

    def expire(self) -> None:
        """Remove the jobs whose time is over."""
        since = time.time() - self._settings.keep
        with self._changed:
            old = [job.id for job in self._jobs.values() if job.state in ENDED and job.ended <= since]
            for name in old:
                del self._jobs[name]
        for name in old:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        if old:
            self._count()

    def bytes_used(self) -> int:
        """Return what all jobs take on the disk."""
        used = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with suppress(OSError):
                    used += os.lstat(os.path.join(folder, name)).st_size
        return used

    def describe(self, job: JobRecord, root: str) -> dict[str, Any]:
        """Return what clients see of a job, JSON-ready. root: the path before /v1."""
        url = f"{root}/v1/jobs/{job.id}"
        files = []
        for file in job.files:
            with suppress(OSError):
                size = (self._folder / job.id / _FILES / file.name).stat().st_size
                files.append({**asdict(file), "size": size, "media_type": media_type_of(file.name), "url": ""})
                files[-1]["url"] = f"{url}/files/{_quoted(file.name)}"
        facts = asdict(job)
        for key in ("wish", "version", "ended"):
            del facts[key]
        return {
            **facts,
            "url": url,
            "model": job.wish.model,
            "formats": list(job.wish.formats),
            "files": files,
            "expires": job.ended + self._settings.keep if job.state in ENDED else None,
        }

    # --- The work -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._next() is not None, timeout=_LOOK_SECONDS)
                if self._stopping:
                    return
                job = self._next()
            self.expire()
            if job is not None:
                self._run(job)
                gc.collect()  # reference cycles hold the decoders and encoders of a film, with their threads

    def _next(self) -> Optional[JobRecord]:
        waiting = [job for job in self._jobs.values() if job.state == QUEUED and job.id not in self._cancelled]
        return min(waiting, key=lambda job: job.created, default=None)

    def _run(self, job: JobRecord) -> None:
        source = self._folder / job.id / _FILES / job.name
        job = self._put(replace(job, state=RUNNING, error="", exit_code=0))
        began, first = time.monotonic(), 0
        result: Optional[Result] = None
        try:
            with (
                self._models_of(job.wish) as load,
                closing(run_clip(self._plan(source, job.wish), load, lambda: self._is_stopped(job.id))) as events,
            ):
                for event in events:
                    if not isinstance(event, Progress):
                        result = event
                        continue
                    if event.stage != job.stage:
                        began, first = time.monotonic(), event.frames
                    fps = (event.frames - first) / max(time.monotonic() - began, 1e-9)
                    left = None if event.total is None or not fps else max(0.0, (event.total - event.frames) / fps)
                    job = self._put(
                        replace(
                            job,
                            stage=event.stage,
                            frames_done=event.frames,
                            frames=event.total,
                            fps=round(fps, 3),
                            eta_s=None if left is None else round(left, 1),
                        ),
                        keep=False,
                    )
        except DeviceLostError as error:
            self._runner.lost = error
            self._put(replace(job, state=QUEUED, stage=""))
            self.stop()
            return
        except Exception as error:
            result = _failure(job, error)
        if result is not None:
            self._finish(job, result, source)
        elif job.id in self._cancelled:
            self._end(job, CANCELLED)
        else:  # the service stops
            self._put(replace(job, state=QUEUED, stage=""))

    def _finish(self, job: JobRecord, result: Result, source: Path) -> None:
        """Note what has become of a clip, with its files; those of one format of many frames as a ZIP."""
        files = [JobFile(job.name, SOURCE)]
        state = DONE if result.status == RESULT_DONE else FAILED
        error, code = result.error, result.code
        try:
            for format, path in self._plan(source, job.wish).outputs:
                if path.is_dir():
                    files.append(JobFile(_packed(path).name, format))
                elif path.is_file():
                    files.append(JobFile(path.name, format))
                if sidecar_of(path).is_file():
                    files.append(JobFile(sidecar_of(path).name, "json"))
        except (OSError, DepthError) as broken:
            state, error, code = FAILED, f"cannot pack the frames: {first_line(broken)}", 1
        place = str(source.parent) + os.sep
        self._end(
            replace(
                job,
                files=tuple(files),
                error=error.replace(place, ""),
                exit_code=code,
                notes=tuple(note.replace(place, "") for note in result.notes),
                warnings=tuple(warning.replace(place, "") for warning in result.warnings),
            ),
            state,
        )

    @contextmanager
    def _models_of(self, wish: ClipWish) -> Iterator[Callable[[], ClipPredictor]]:
        """Give what makes the predictor of a clip, whose runs of the network take their turn with the pictures."""
        opened: list[ClipPredictor] = []
        row = find_row(wish.model)
        try:
            if row.task is ModelTask.CLIP:

                def load() -> ClipPredictor:
                    choice = replace(self._settings.choice, model=wish.model)
                    opened.append(open_clip_predictor(choice, wish.choice(self._settings.backend), self._log))
                    return _InTurn(opened[0], self._runner)

                yield load
            else:
                with self._models.use(wish.model) as estimator:
                    variant = estimator.variant(input_size=wish.input_size, panorama=wish.panorama)
                    frames = FrameByFrame(variant, wish.steady != "off", wish.batch)
                    yield lambda: _InTurn(frames, self._runner)
        finally:
            for predictor in opened:
                predictor.close()

    def _plan(self, source: Path, wish: ClipWish) -> ClipJob:
        (outputs,) = plan_clips([Input(source, Path(source.name))], wish.formats, Target.of(None))
        return ClipJob(
            source,
            outputs,
            model=ModelChoice(model=wish.model),
            clip=wish.choice(self._settings.backend),
            look=Look(wish.colormap, wish.limits),
            selection=wish.selection(),
            if_exists="skip",
            noted=wish.noted,
        )

    def _is_stopped(self, name: str) -> bool:
        return self._stopping or name in self._cancelled

    def _end(self, job: JobRecord, state: str) -> JobRecord:
        if state == CANCELLED:
            shutil.rmtree(self._folder / job.id / _FILES, ignore_errors=True)
            job = replace(job, files=())
        self._cancelled.discard(job.id)
        return self._put(replace(job, state=state, stage="", eta_s=None, ended=time.time()))

    def _put(self, job: JobRecord, keep: bool = True) -> JobRecord:
        """Take a new state of a job. keep: write it to the disk, too."""
        with self._changed:
            before = self._jobs.get(job.id)
            job = replace(job, updated=time.time(), version=1 + (before.version if before else 0))
            if keep:
                facts = {key: value for key, value in asdict(job).items() if key != "version"}
                with suppress(OSError, DepthError), atomic_path(self._folder / job.id / _JOB) as partial:
                    partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")
            self._jobs[job.id] = job
            self._changed.notify_all()
        if keep:
            self._count()
        return job

    def _count(self) -> None:
        for state in STATES:
            self._metrics.jobs.labels(state).set(sum(job.state == state for job in list(self._jobs.values())))

    def _locked(self) -> IO[bytes]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / _LOCK).open("ab")
        except OSError as error:
            raise UsageError(
                f"cannot use the folder {self._folder}: {error.strerror}", "give `clips` another"
            ) from error
        if try_lock(lock) is False:
            lock.close()
            raise UsageError(f"another service uses {self._folder}", "give `clips` another folder")
        return lock


class Upload:
    """The bytes of a clip on their way to the disk."""

    def __init__(self, path: Path, room: int, most: int) -> None:
        self._path, self._room, self._most = path, room, most
        self._size = 0
        self._file: Optional[IO[bytes]] = None
        self.finished = False
        self.job: Optional[JobRecord] = None

    def __enter__(self) -> Upload:
        try:
            self._path.parent.mkdir(parents=True)
            self._file = self._path.open("xb")
        except OSError as error:
            raise DiskFullError(f"cannot write the clip: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def expect(self, size: int) -> None:
        """Raise Refusal or DiskFullError if so many bytes in all do not fit."""
        if size > self._most:
            raise Refusal(413, f"the clip is larger than {self._most / 1e6:.4g} MB", "make it smaller first")
        if size > self._room:
            raise DiskFullError("the clips fill their part of the disk", "delete jobs, or try again later")

    def write(self, data: bytes) -> None:
        """Add bytes."""
        assert self._file is not None
        self._size += len(data)
        self.expect(self._size)
        try:
            self._file.write(data)
        except OSError as error:
            raise DiskFullError(f"cannot write the clip: {error.strerror}") from error

    def finish(self) -> None:
        """Note that these were all bytes. Raises ClipError if there are none."""
        if not self._size:
            raise ClipError("the clip is empty", "send the file as the body")
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DiskFullError(f"cannot write the clip: {error.strerror}") from error
        self.finished = True


class _InTurn:
    """A predictor whose network runs in the runner's thread, when no picture waits."""

    def __init__(self, predictor: ClipPredictor, runner: Runner) -> None:
        self._predictor, self._runner = predictor, runner
        self.row, self.weights, self.warnings = predictor.row, predictor.weights, predictor.warnings
        self.description, self.exact = predictor.description, predictor.exact
        self.map_size = (0, 0)
        self.prepare, self.postprocess = predictor.prepare, predictor.postprocess
        self.state, self.restore, self.close = predictor.state, predictor.restore, predictor.close
        self.reached = predictor.reached

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> Any:
        """See ClipPredictor."""
        plan = self._predictor.begin(size, camera, frames)
        self.map_size, self.row, self.warnings = self._predictor.map_size, self._predictor.row, self._predictor.warnings
        return plan

    def feed(self, prepared: Any, cut: bool) -> Any:
        """See ClipPredictor."""
        return self._runner.call(lambda: self._predictor.feed(prepared, cut))

    def advance(self) -> Any:
        """See ClipPredictor."""
        return self._runner.call(self._predictor.advance)

    def finish(self) -> Any:
        """See ClipPredictor."""
        return self._runner.call(self._predictor.finish)


def _plain_name(name: str) -> str:
    """Return the name of a clip's file. Raises UsageError for one that is no clip, or leads elsewhere."""
    plain = Path(name or "clip.mp4").name
    if plain != (name or "clip.mp4") or not plain.isprintable() or plain.startswith(".") or "\\" in plain:
        raise UsageError(f"{name!r} is not the name of a file", "give a name without a folder")
    if Path(plain).suffix.lower() not in CLIP_SUFFIXES:
        raise UsageError(f"{name!r} is not the name of a clip", "its suffix tells, such as .mp4")
    if len(plain.encode(errors="replace")) > _MOST_NAME:
        suffix = Path(plain).suffix
        return fitting_name(Path(), Path(plain).stem[:40], suffix)
    return plain


def _packed(folder: Path) -> Path:
    """Pack the frames of a folder into a ZIP beside it, stored; return its path."""
    path = folder.with_name(f"{folder.name}.zip")
    if not path.exists():
        with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.iterdir()):
                with file.open("rb") as data, archive.open(zipfile.ZipInfo(file.name), "w", force_zip64=True) as entry:
                    shutil.copyfileobj(data, entry, 1 << 20)
    return path


def _failure(job: JobRecord, error: Exception) -> Result:
    if isinstance(error, MemoryError):
        error = EngineError("not enough memory", "use a smaller `input_size`")
    line = str(error) if isinstance(error, DepthError) else f"{type(error).__name__}: {first_line(error)}"
    return Result(job.name, (), "failed", error=line, code=error.exit_code if isinstance(error, DepthError) else 1)


def _read(path: Path) -> Optional[JobRecord]:
    """Return a job from the disk, None if it cannot be read."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["wish"] = ClipWish.of(facts["wish"])
        facts["files"] = tuple(JobFile(**file) for file in facts["files"])
        facts["notes"], facts["warnings"] = tuple(facts["notes"]), tuple(facts["warnings"])
        record = JobRecord(**facts)
    except (OSError, ValueError, KeyError, TypeError, DepthError):
        return None
    known = (
        record.state in STATES and record.id == path.parent.name and all(row in CLIPS for row in record.wish.formats)
    )
    return record if known else None


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")
