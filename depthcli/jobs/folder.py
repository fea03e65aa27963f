"""The folder job: many pictures through one model into files, resumable, one bad file never stopping the rest."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import numpy as np

from depthcli.choices import IF_EXISTS, check_batch, require
from depthcli.errors import (
    DepthError,
    DeviceLostError,
    DiskFullError,
    OutputError,
    PictureError,
    UsageError,
    first_line,
)
from depthcli.host.atomic import remove_partials
from depthcli.host.cores import usable_cores
from depthcli.host.memory import BYTES_PER_PIXEL, free_memory
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import Picture, picture_size, read_picture
from depthcli.jobs.existing import Source, file_facts, find_results
from depthcli.jobs.inputs import Task
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Manifest, Result
from depthcli.jobs.pipeline import Lane, wait_for_oldest
from depthcli.predict.picture import DepthEstimator, Prepared

# Of the free memory, for the pictures on their way; the rest is for the network, which needs most of it at high sizes.
_SHARE = 0.25
_NOTHING = np.empty(0, np.float32)
T = TypeVar("T")


@dataclass(frozen=True)
class FolderJob:
    """What is to be done.

    tasks: the pictures; outputs: the files for each; if_exists: skip, overwrite or error for a picture whose files are
    all there, and are maps of this picture; batch: pictures of equal input size that share one run of the network;
    settings: the options that shape a result, as one line; manifest: where each result is noted, or None;
    keep_alpha: transparent pixels are invalid in the results.
    """

    tasks: Sequence[Task]
    outputs: OutputSpec
    if_exists: str = "skip"
    batch: int = 1
    settings: str = ""
    manifest: Optional[Manifest] = None
    keep_alpha: bool = False

    def __post_init__(self) -> None:
        require("if_exists", self.if_exists, IF_EXISTS)
        check_batch(self.batch)
        sources = {os.path.realpath(task.source) for task in self.tasks if isinstance(task.source, Path)}
        for task in self.tasks:
            for path in self.outputs.paths(task.stem):
                if os.path.realpath(path) in sources:
                    raise UsageError(f"the result for {task.name} would replace the picture {path}", "use another -o")

    def paths(self, task: Task) -> tuple[Path, ...]:
        """Return the files that a task makes."""
        return self.outputs.paths(task.stem)

    def every_path(self) -> Iterator[Path]:
        """Yield the files of all tasks."""
        return (path for task in self.tasks for path in self.paths(task))

    def action(self, task: Task) -> str:
        """Return what is to become of a task: write, overwrite, skip, or error for one that cannot be done."""
        try:
            settled = _existing(self, task)
        except DepthError:
            return "error"
        if settled is not None:
            return "error" if settled.status == FAILED else "skip"
        return "overwrite" if any(map(os.path.lexists, self.paths(task))) else "write"


@dataclass(frozen=True, eq=False)
class _Open:
    """A picture that was read.

    source: facts about its file. prepared: None where the calling thread has to prepare it, as there was no model yet,
    or too little memory beside the pictures that were at work. seconds: of work on it so far.
    """

    task: Task
    picture: Picture
    source: dict[str, Any]
    prepared: Prepared | None
    seconds: float


def thread_counts(tasks: int) -> tuple[int, int]:
    """Return how many threads read and how many write.

    The network is one call after another in the calling thread and wants the cores as well, so neither end gets them
    all: a third for reading, half for writing, which has more to do (the resize back, colours, PNG). One picture has
    nothing to overlap with and needs no thread.
    """
    if tasks <= 1:
        return 0, 0
    cores = usable_cores()
    return max(1, cores // 3), max(1, cores // 2)


def run_folder(
    job: FolderJob, load: Callable[[], DepthEstimator], stop: Callable[[], bool] = lambda: False
) -> Generator[Result, None, None]:
    """Do the job; yield one Result per task as it is settled, in the order of the tasks.

    While one picture is in the network, the next are read and the last are written by other threads. `load`, the
    network and `stop` are called in the thread that asks for results. Close the iterator where it is not read to its
    end: no thread and no partial file is left then.

    load: makes the estimator; called once, when the first picture has been read. stop: asked between pictures; when it
    says True the job ends after the pictures that were in the network or behind it; those only read are not reached.
    Raises ModelError or EngineError where the model does not load, DeviceLostError where it runs no more, DiskFullError
    where nothing more can be written.
    """
    for folder in {task.stem.parent for task in job.tasks}:
        remove_partials(folder)

    def load_if_noted() -> DepthEstimator:
        if job.manifest is not None:
            job.manifest.check()
        return load()

    readers, writers = thread_counts(len(job.tasks))
    reading: Lane[Result | _Open] = Lane(readers)
    finishing: Lane[Result] = Lane(writers)
    with closing(_Once(load_if_noted)) as model, reading, finishing:
        work = _Work(job, model, reading, finishing, ahead=readers, behind=writers)
        for result in work.results(stop):
            yield _noted(job, result)


class _Once:
    """The estimator, made when it is first asked for: a misspelt path or a finished folder costs no loading.

    loaded: the estimator, or None as long as nobody asked.
    """

    def __init__(self, load: Callable[[], DepthEstimator]) -> None:
        self._load = load
        self.loaded: DepthEstimator | None = None

    def get(self) -> DepthEstimator:
        if self.loaded is None:
            self.loaded = self._load()
        return self.loaded

    def close(self) -> None:
        if self.loaded is not None:
            self.loaded.close()


class _Work:
    """The three stages of a job: pictures pass `reading`, the network and `finishing` in the order of the tasks.

    What is settled without work passes as a Result. `_read` and `_finish` are the calls that the lanes' threads make;
    all the rest is for the calling thread.

    ahead: pictures that may be read or being read beside those of the next batch; behind: those that may be finishing
    when the network starts anew.
    """

    def __init__(
        self,
        job: FolderJob,
        model: _Once,
        reading: Lane[Result | _Open],
        finishing: Lane[Result],
        ahead: int,
        behind: int,
    ) -> None:
        self._job = job
        self._model = model
        self._reading = reading
        self._finishing = finishing
        self._ahead = ahead
        self._behind = behind
        self._to_come = _looked_up(job)
        self._next = next(self._to_come, None)
        self._group: list[_Open] = []
        # One entry for each task on its way, in their order: the bytes its picture takes.
        self._held: deque[int] = deque()
        free = free_memory()
        self._budget = math.inf if free is None else free * _SHARE

    @property
    def _batch(self) -> int:
        """Pictures that share a run: as many as the user said, or more where the engine wants them."""
        loaded = self._model.loaded
        return self._job.batch if loaded is None else max(self._job.batch, loaded.best_batch)

    def results(self, stop: Callable[[], bool]) -> Iterator[Result]:
        """Yield what becomes of the tasks; after `stop`, or an error to raise, nothing new is begun."""
        while not (self._finishing.failed() or stop()):
            if self._finishing.ready():
                yield self._leave()
                continue
            self._read_ahead()
            waits_for_memory = self._next is not None and not self._reading
            if waits_for_memory or len(self._finishing) > self._behind:
                wait_for_oldest(self._finishing)
            elif self._reading.ready():
                self._take()
            elif self._reading:
                wait_for_oldest(self._reading, self._finishing)
            else:
                self._run_group()
                break
        while self._finishing:
            yield self._leave()

    def _leave(self) -> Result:
        self._held.popleft()
        return self._finishing.take()

    def _read_ahead(self) -> None:
        """Have pictures read, as many as may be."""
        while self._next is not None and len(self._reading) < self._ahead + self._batch:
            task, known = self._next
            if isinstance(known, Result):
                self._reading.put_done(known)
                self._held.append(0)
            elif self._has_room(known):
                self._reading.put(self._read, task)
                self._held.append(known)
            else:
                return
            self._next = next(self._to_come, None)

    def _has_room(self, need: int) -> bool:
        """Whether a picture fits beside those on their way. A batch does in any case: it cannot do with less."""
        return sum(self._held) + need <= self._budget or sum(map(bool, self._held)) < self._batch

    def _take(self) -> None:
        """Move the oldest picture out of `reading`, and on through the network where its batch is complete."""
        item = self._reading.take()
        self._read_ahead()  # before the model loads or runs
        if isinstance(item, _Open):
            item = self._prepared(item)
        if self._group and (isinstance(item, Result) or not self._goes_with(item, self._group[0])):
            self._run_group()
        if isinstance(item, Result):
            self._finishing.put_done(item)
            return
        self._group.append(item)
        if len(self._group) >= self._batch:
            self._run_group()

    def _goes_with(self, item: _Open, other: _Open) -> bool:
        """Whether two pictures may share a run of the network."""
        return self._model.get().mixes_sizes or _input_size(item) == _input_size(other)

    def _read(self, task: Task) -> Result | _Open:
        """Read one picture, and prepare it where that can be done by now."""
        started = time.perf_counter()
        try:
            # Before the picture: one that is replaced meanwhile does not look done to the next run.
            facts = _facts_of(task)
            name = None if isinstance(task.source, Path) else task.name
            picture = read_picture(task.source, name, keep_alpha=self._job.keep_alpha)
        except Exception as error:  # whatever a decoder raises
            return _failed(self._job, task, error)
        estimator = self._model.loaded
        prepared = None
        if estimator is not None:
            with suppress(Exception):  # to be tried again when less is at work
                prepared = estimator.prepare(picture)
        return _Open(task, picture, facts, prepared, time.perf_counter() - started)

    def _prepared(self, item: _Open) -> Result | _Open:
        """Return a picture prepared: here where the reader could not."""
        estimator = self._model.get()  # an error here is not the picture's: it ends the job
        if item.prepared is not None:
            return item
        started = time.perf_counter()
        try:
            prepared = self._with_room(lambda: estimator.prepare(item.picture))
        except Exception as error:
            return _failed(self._job, item.task, error)
        return replace(item, prepared=prepared, seconds=item.seconds + time.perf_counter() - started)

    def _with_room(self, call: Callable[[], T]) -> T:
        """Make a call; where it finds too little memory, once more when all that is being written has been."""
        try:
            return call()
        except (PictureError, MemoryError):
            if not self._finishing:
                raise
        self._finishing.settle()
        return call()

    def _run_group(self) -> None:
        group, self._group = self._group, []
        if group:
            self._run(group)

    def _run(self, group: Sequence[_Open]) -> None:
        """Run the network over pictures of one size; one that fails does not take the others with it."""
        estimator = self._model.get()
        batch = [item.prepared for item in group if item.prepared is not None]
        started = time.perf_counter()
        try:
            outputs = estimator.run(batch) if len(batch) > 1 else self._with_room(lambda: estimator.run(batch))
        except DeviceLostError:
            raise
        except Exception as error:  # whatever an engine raises
            if len(group) == 1:
                self._finishing.put_done(_failed(self._job, group[0].task, error))
                return
            outputs = None
        if outputs is None:
            for item in group:
                self._run([item])
            return
        share = (time.perf_counter() - started) / len(group)
        for item, prepared, output in zip(group, batch, outputs):
            without_input = replace(prepared, image=_NOTHING)
            self._finishing.put(self._finish, item.task, item.source, without_input, output, item.seconds + share)

    def _finish(
        self, task: Task, source: dict[str, Any], prepared: Prepared, output: np.ndarray, seconds: float
    ) -> Result:
        """Make the depth map of the network's answer and write it."""
        job, estimator = self._job, self._model.get()
        started = time.perf_counter()
        try:
            depth = estimator.finish(prepared, output)
            depth = depth.with_provenance(replace(depth.provenance, source_sha256=source["sha256"]))
            if self._finishing.closed:  # nobody waits for this any more
                raise CancelledError
            job.outputs.write(depth, prepared.picture.rgb, job.paths(task))
            warnings = (*prepared.picture.warnings, *job.outputs.warnings(depth))
            files = tuple(file_facts(os.stat(path)) for path in job.paths(task))
        except (DiskFullError, CancelledError):
            raise
        except Exception as error:
            return _failed(job, task, error)
        return _result(
            job,
            task,
            DONE,
            ms=round(1000 * (seconds + time.perf_counter() - started), 1),
            notes=prepared.picture.notes,
            warnings=warnings,
            model=estimator.row.name,
            weights=estimator.weights.sha256,
            settings=job.settings,
            source=source,
            files=files,
        )


def _looked_up(job: FolderJob) -> Iterator[tuple[Task, Result | int]]:
    """Yield each task with its result where nothing is to be done, else with the bytes that its picture will take."""
    for task in job.tasks:
        try:
            settled = _existing(job, task)
        except Exception as error:
            settled = _failed(job, task, error)
        yield task, settled or _need(task)


def _need(task: Task) -> int:
    """Return the bytes that a picture and all that is made of it take, 0 for one that cannot be read anyway."""
    width, height = picture_size(task.source) or (0, 0)
    return width * height * BYTES_PER_PIXEL


def _existing(job: FolderJob, task: Task) -> Result | None:
    """Return the result of a task whose files are all there, or None where it is to be done.

    Raises OutputError where a file is in the way.
    """
    if job.if_exists == "overwrite":
        return None
    paths = job.paths(task)
    if job.if_exists == "error":
        there = [path for path in paths if os.path.lexists(path)]
        return _failed(job, task, OutputError(f"{there[0]} is there already")) if there else None
    source = Source(task.source, task.name)
    try:
        found = find_results(source, paths, task.name, job.manifest)
        if found is None:
            return None
        if all(item.noted for item in found):
            return _result(job, task, SKIPPED)
        maker = max((item.maker for item in found), key=lambda maker: len(maker.settings))  # who says most
        return _result(
            job,
            task,
            SKIPPED,
            model=maker.model,
            weights=maker.weights,
            settings=maker.settings,
            source=source.facts(),
            files=tuple(file_facts(os.stat(path)) for path in paths),
        )
    except OSError:  # a picture that is gone or may not be read: said when it is read
        return None


def _facts_of(task: Task) -> dict[str, Any]:
    """Return the facts about the file of a picture; nothing where it cannot be read, which reading it will say."""
    with suppress(OSError):
        return Source(task.source, task.name).facts()
    return {"sha256": ""}


def _input_size(item: _Open) -> tuple[int, int]:
    assert item.prepared is not None
    return item.prepared.plan.input_size


def _result(job: FolderJob, task: Task, status: str, **facts: Any) -> Result:
    return Result(input=task.name, outputs=tuple(str(path) for path in job.paths(task)), status=status, **facts)


def _failed(job: FolderJob, task: Task, error: Exception) -> Result:
    if isinstance(error, MemoryError):
        error = PictureError("not enough memory", "use a smaller --input-size")
    if not isinstance(error, DepthError):  # of a library: what it says may be nothing, or not make sense alone
        error = DepthError(f"{type(error).__name__}: {first_line(error)}")
    line = " ".join(str(error).split())
    return Result(task.name, (), FAILED, error=line, code=error.exit_code, settings=job.settings)


def _noted(job: FolderJob, result: Result) -> Result:
    """Write a result into the manifest; a skipped picture only where that does not say yet what was found."""
    if job.manifest is not None and (result.status != SKIPPED or result.source is not None):
        job.manifest.add(result)
    return result
