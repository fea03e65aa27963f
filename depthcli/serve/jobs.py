"""Long work as jobs on disk: one folder each, done one after the other, resumed after a restart, removed after a while.

FOLDER/<id>/job.json       what is to be done, and what has become of it; written when all that was sent is there
FOLDER/<id>/files/         what was sent, and its results, as the command line leaves them
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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Optional, Protocol, Union
from urllib.parse import quote

from depthcli.errors import (
    ClipError,
    DepthError,
    DeviceLostError,
    DiskFullError,
    EngineError,
    UsageError,
    first_line,
)
from depthcli.host.atomic import atomic_path, try_lock
from depthcli.jobs.clip_job import Progress
from depthcli.serve.answers import media_type_of
from depthcli.serve.metrics import Metrics
from depthcli.serve.problems import Refusal
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED)
ENDED = (DONE, FAILED, CANCELLED)
_SENT = {"clip": "clip is", "scene": "pictures are"}  # what was sent, and a verb
SOURCE = "source"
_JOB, _FILES, _LOCK = "job.json", "files", ".depthcli-serve.lock"
_MOST_JOBS = 10_000  # that are kept, ended ones too: each takes some kB of memory, whatever its files take
_LOOK_SECONDS = 60.0  # between two looks for what has expired


@dataclass(frozen=True)
class JobFile:
    """A file of a job, by its name among them. path: where it lies below `files`; empty if that is its name."""

    name: str
    format: str
    path: str = ""


@dataclass(frozen=True)
class Outcome:
    """What has become of a job. done: all of it. results: rows about its parts, JSON-ready, if it has parts."""

    done: bool
    files: tuple[JobFile, ...]
    error: str = ""
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    results: tuple[dict[str, Any], ...] = ()


class Wish(Protocol):
    """What is asked for, as a frozen dataclass that is JSON-ready."""

    @property
    def model(self) -> str:
        """Name of the model's row."""
        ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of the results."""
        ...


class Work(Protocol):
    """Does the jobs of one kind."""

    @property
    def kind(self) -> str:
        """Name of the kind."""
        ...

    @property
    def space(self) -> int:
        """How many times the bytes that are sent it takes on the disk, without the results."""
        ...

    def wish_of(self, facts: Mapping[str, Any]) -> Any:
        """Return the wish that was kept as JSON. Raises UsageError."""
        ...

    def check(self, wish: Any, source: Path) -> None:
        """Raise UsageError for a wish that cannot be granted. source: where what is sent will lie."""
        ...

    def receive(self, wish: Any, source: Path) -> tuple[JobFile, ...]:
        """Look at what was sent, and return the files of the new job. Raises DepthError for what makes no sense."""
        ...

    def run(self, wish: Any, source: Path, stop: Callable[[], bool]) -> Generator[Union[Progress, Outcome], None, None]:
        """Do a job: yield its progress and, unless `stop` returns True before that, its outcome."""
        ...

    def drop_idle(self) -> None:
        """Free what has not been used for a while."""
        ...

    def close(self) -> None:
        """Free what is kept between jobs."""
        ...


@dataclass(frozen=True)
class JobRecord:
    """A job as it is on disk, and its progress. frames, eta_s: None if unknown. ended: when, on time.time; 0 before.

    kind: of the work. name: for people. sent: name of the file that was sent, if it is another. wish: what was asked
    for. key: that the sender gave it. results: as of Outcome. version: counts changes, for those who watch.
    """

    id: str
    kind: str
    name: str
    wish: Wish
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
    results: tuple[dict[str, Any], ...] = ()
    key: str = ""
    sent: str = ""
    version: int = field(default=0, compare=False)


class Jobs:
    """The jobs of one folder. Threads may share it; `start` it once, and `close` it in the end.

    works: what does them, one for each kind. Raises UsageError for a folder that cannot be used, or that another
    service uses.
    """

    def __init__(
        self,
        folder: Path,
        settings: ServiceSettings,
        works: Sequence[Work],
        runner: Runner,
        metrics: Metrics,
    ) -> None:
        self._folder, self._settings = folder, settings
        self._works = {work.kind: work for work in works}
        self._runner, self._metrics = runner, metrics
        self._jobs: dict[str, JobRecord] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._cancelled: set[str] = set()
        self._uploads: set[str] = set()
        self._lock = self._locked()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Take up what an earlier service left: unfinished jobs go on, half uploads are removed."""
        for place in sorted(self._folder.iterdir()):
            if not place.is_dir():
                continue
            record = self._read(place / _JOB)
            if record is None:
                shutil.rmtree(place, ignore_errors=True)
            else:
                waits = record.state == RUNNING
                self._jobs[record.id] = replace(record, state=QUEUED, stage="") if waits else record
        self._count()
        self._thread.start()

    def stop(self) -> None:
        """Stop at the next step; what is not done stays queued."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait for it."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()
        for work in self._works.values():
            work.close()
        self._lock.close()

    @property
    def busy(self) -> bool:
        """Whether a job is at work, or an upload."""
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
        file = next(file for file in job.files if file.name == name)
        return self._folder / job.id / _FILES / (file.path or name)

    @contextmanager
    def upload(self, kind: str, name: str, wish: Wish, key: str = "", shown: str = "") -> Iterator[Upload]:
        """Give a place for the bytes of a job; with `Upload.finish` it becomes one, else nothing is left.

        kind: of the work. name: of the file. key: of the sender, to know the job again. shown: its name, if that is
        another. Raises UsageError for a wish that cannot be granted, DiskFullError if there is no room.
        """
        place, work = self._folder / secrets.token_urlsafe(12), self._works[kind]
        source = place / _FILES / name
        work.check(wish, source)
        self.expire()
        if len(self._jobs) + len(self._uploads) >= _MOST_JOBS:
            raise DiskFullError(f"the service keeps {_MOST_JOBS} jobs already", "delete some, or try again later")
        room = (self._settings.disk - self.bytes_used()) // work.space
        upload = Upload(source, room, self._settings.max_clip_bytes, kind)
        self._uploads.add(place.name)
        try:
            with upload:
                yield upload
            if upload.finished:
                now = time.time()
                record = JobRecord(
                    place.name,
                    kind,
                    shown or name,
                    wish,
                    created=now,
                    updated=now,
                    files=upload.files,
                    key=key,
                    sent=name if shown else "",
                )
                self._put(record)
                upload.job = record
        finally:
            self._uploads.discard(place.name)
            if upload.job is None:
                shutil.rmtree(place, ignore_errors=True)

    def receive(self, wish: Wish, upload: Upload) -> None:
        """Finish an upload, and look at what was sent. Raises DepthError for what makes no sense."""
        upload.finish()
        upload.files = self._works[upload.kind].receive(wish, upload.path)
        upload.finished = True

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
        if job.id in self._cancelled:  # it ends with its step, which may take a while
            job = replace(job, state=CANCELLED, stage="", files=())
        files = []
        for file in job.files:
            with suppress(OSError):
                size = (self._folder / job.id / _FILES / (file.path or file.name)).stat().st_size
                files.append({**asdict(file), "size": size, "media_type": media_type_of(file.name), "url": ""})
                files[-1]["url"] = f"{url}/files/{_quoted(file.name)}"
        facts = asdict(job)
        for key in ("wish", "version", "ended", "sent"):
            del facts[key]
        return {
            **facts,
            "url": url,
            "ahead": self._ahead(job),
            "model": job.wish.model,
            "formats": list(job.wish.formats),
            "files": files,
            "expires": job.ended + self._settings.keep if job.ended else None,  # it may still end its step
        }

    def _ahead(self, job: JobRecord) -> int:
        """Return how many jobs are done before one that waits."""
        if job.state != QUEUED:
            return 0
        return sum(
            other.state == RUNNING or (other.state == QUEUED and other.created < job.created)
            for other in list(self._jobs.values())
        )

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
        job = self._put(replace(job, state=RUNNING, error="", exit_code=0))
        work, source = self._works[job.kind], self._folder / job.id / _FILES / (job.sent or job.name)
        began, first = time.monotonic(), 0
        outcome: Optional[Outcome] = None
        try:
            with closing(work.run(job.wish, source, lambda: self._is_stopped(job.id))) as events:
                for event in events:
                    if isinstance(event, Outcome):
                        outcome = event
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
            outcome = _failure(job, error)
        if outcome is not None:
            self._finish(job, outcome)
        elif job.id in self._cancelled:
            self._end(job, CANCELLED)
        else:  # the service stops
            self._put(replace(job, state=QUEUED, stage=""))

    def _finish(self, job: JobRecord, outcome: Outcome) -> None:
        """Note what has become of a job."""
        facts = {name: value for name, value in vars(outcome).items() if name != "done"}
        self._end(replace(job, **facts), DONE if outcome.done else FAILED)

    def _read(self, path: Path) -> Optional[JobRecord]:
        """Return a job from the disk, None if it cannot be read."""
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            facts.setdefault("kind", "clip")  # as older services wrote it
            facts["wish"] = self._works[facts["kind"]].wish_of(facts["wish"])
            facts["files"] = tuple(JobFile(**file) for file in facts["files"])
            for name in ("notes", "warnings", "results"):
                facts[name] = tuple(facts.get(name, ()))
            record = JobRecord(**facts)
        except (OSError, ValueError, KeyError, TypeError, DepthError):
            return None
        return record if record.state in STATES and record.id == path.parent.name else None

    def _is_stopped(self, name: str) -> bool:
        return self._stopping or name in self._cancelled

    def _end(self, job: JobRecord, state: str) -> JobRecord:
        if state == CANCELLED:
            shutil.rmtree(self._folder / job.id / _FILES, ignore_errors=True)
            job = replace(job, files=())
        ended = self._put(replace(job, state=state, stage="", eta_s=None, ended=time.time()))
        self._cancelled.discard(job.id)
        return ended

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
            if before is not None and before.state != job.state:  # those behind it have moved up
                for other in self._jobs.values():
                    if other.state == QUEUED and other.id != job.id:
                        self._jobs[other.id] = replace(other, version=other.version + 1)
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
    """The bytes of a job on their way to the disk. kind: of the work."""

    def __init__(self, path: Path, room: int, most: int, kind: str) -> None:
        self.path, self.kind = path, kind
        self._room, self._most = room, most
        self.files: tuple[JobFile, ...] = ()
        self._size = 0
        self._file: Optional[IO[bytes]] = None
        self.finished = False
        self.job: Optional[JobRecord] = None

    def __enter__(self) -> Upload:
        try:
            self.path.parent.mkdir(parents=True)
            self._file = self.path.open("xb")
        except OSError as error:
            raise DiskFullError(f"cannot write what was sent: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def expect(self, size: int) -> None:
        """Raise Refusal or DiskFullError if so many bytes in all do not fit."""
        if size > self._most:
            raise Refusal(413, f"the {_SENT[self.kind]} larger than {self._most / 1e6:.4g} MB", "make it smaller first")
        if size > self._room:
            raise DiskFullError("the jobs fill their part of the disk", "delete jobs, or try again later")

    def write(self, data: bytes) -> None:
        """Add bytes."""
        assert self._file is not None
        self._size += len(data)
        self.expect(self._size)
        try:
            self._file.write(data)
        except OSError as error:
            raise DiskFullError(f"cannot write what was sent: {error.strerror}") from error

    def finish(self) -> None:
        """Note that these were all bytes. Raises ClipError if there are none."""
        if not self._size:
            raise ClipError(f"the {_SENT[self.kind]} empty", "send the file as the body")
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DiskFullError(f"cannot write what was sent: {error.strerror}") from error


def packed_folder(folder: Path) -> Path:
    """Pack the frames of a folder into a ZIP beside it, stored; return its path."""
    path = folder.with_name(f"{folder.name}.zip")
    if not path.exists():
        with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.iterdir()):
                with file.open("rb") as data, archive.open(zipfile.ZipInfo(file.name), "w", force_zip64=True) as entry:
                    shutil.copyfileobj(data, entry, 1 << 20)
    return path


def _failure(job: JobRecord, error: Exception) -> Outcome:
    if isinstance(error, MemoryError):
        error = EngineError("not enough memory", "use a smaller `input_size`")
    line = str(error) if isinstance(error, DepthError) else f"{type(error).__name__}: {first_line(error)}"
    return Outcome(False, job.files, line, error.exit_code if isinstance(error, DepthError) else 1)


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")
