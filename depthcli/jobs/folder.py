"""The folder job: many pictures through one model into files, resumable, one bad file never stopping the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from depthcli.errors import DepthError, DiskFullError, OutputError, PictureError, UsageError
from depthcli.estimator import DepthEstimator
from depthcli.io.atomic import remove_partials
from depthcli.io.images import Picture, read_picture
from depthcli.io.writers import OutputSpec
from depthcli.jobs.inputs import Task
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Manifest, Result

IF_EXISTS = ("skip", "overwrite", "error")


@dataclass(frozen=True)
class FolderJob:
    """What is to be done.

    tasks: the pictures; outputs: the files for each; if_exists: skip, overwrite or error for a picture whose files are
    all there; batch: pictures of equal input size that share one run of the network; settings: the options that shape
    a result, as one line; manifest: where each result is noted, or None.
    """

    tasks: Sequence[Task]
    outputs: OutputSpec
    if_exists: str = "skip"
    batch: int = 1
    settings: str = ""
    manifest: Optional[Manifest] = None

    def __post_init__(self) -> None:
        if self.if_exists not in IF_EXISTS:
            raise UsageError(f"--if-exists {self.if_exists} means nothing", f"choose from: {', '.join(IF_EXISTS)}")
        if self.batch < 1:
            raise UsageError(f"a batch of {self.batch} means nothing", "--batch is at least 1")
        sources = {os.path.realpath(task.source) for task in self.tasks if isinstance(task.source, Path)}
        for task in self.tasks:
            for path in self.outputs.paths(task.stem):
                if os.path.realpath(path) in sources:
                    raise UsageError(f"the result for {task.name} would replace the picture {path}", "use another -o")

    def paths(self, task: Task) -> tuple[Path, ...]:
        """Return the files that a task makes."""
        return self.outputs.paths(task.stem)

    def exists(self, task: Task) -> bool:
        """True where all files of a task are there; a file that is there is whole."""
        return all(os.path.exists(path) for path in self.paths(task))


@dataclass(frozen=True)
class _Open:
    """A picture that was read and waits for its batch."""

    task: Task
    picture: Picture
    input_size: tuple[int, int]
    seconds: float


def run_folder(
    job: FolderJob, load: Callable[[], DepthEstimator], stop: Callable[[], bool] = lambda: False
) -> Iterator[Result]:
    """Do the job; yield one Result per task as it is settled, in the order of the tasks.

    load: makes the estimator; called once, when the first picture has been read. stop: asked between pictures; when it
    says True the job ends after the pictures at hand, leaving no partial file.
    Raises ModelError or EngineError where the model does not load, DiskFullError where nothing more can be written.
    """
    for folder in {task.stem.parent for task in job.tasks}:
        remove_partials(folder)
    model = _Once(load)
    try:
        for group in _groups(job, model, stop):
            if isinstance(group, Result):
                yield _noted(job, group)
            else:
                yield from _settle(job, model.get(), group)
    finally:
        model.close()


class _Once:
    """The estimator, made when it is first asked for: a misspelt path or a finished folder costs no loading."""

    def __init__(self, load: Callable[[], DepthEstimator]) -> None:
        self._load = load
        self._estimator: DepthEstimator | None = None

    def get(self) -> DepthEstimator:
        if self._estimator is None:
            self._estimator = self._load()
        return self._estimator

    def close(self) -> None:
        if self._estimator is not None:
            self._estimator.close()


def _groups(job: FolderJob, model: _Once, stop: Callable[[], bool]) -> Iterator[Result | list[_Open]]:
    """Yield, in the order of the tasks, what is settled already and groups of pictures for one run of the network."""
    waiting: list[_Open] = []
    for task in job.tasks:
        if stop():
            break
        item = _existing(job, task) or _open(job, model, task)
        if waiting and (isinstance(item, Result) or item.input_size != waiting[0].input_size):
            yield waiting
            waiting = []
        if isinstance(item, Result):
            yield item
            continue
        waiting.append(item)
        if len(waiting) == job.batch:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _existing(job: FolderJob, task: Task) -> Result | None:
    """Return the result of a task whose files are all there, or None where it is to be done."""
    if job.if_exists == "overwrite" or not job.exists(task):
        return None
    if job.if_exists == "error":
        return _failed(job, task, OutputError(f"{job.paths(task)[0]} is there already"))
    return _result(job, task, SKIPPED)


def _open(job: FolderJob, model: _Once, task: Task) -> _Open | Result:
    """Read one picture and see whether it fits into the memory."""
    started = time.perf_counter()
    try:
        picture = read_picture(task.source, None if isinstance(task.source, Path) else task.name)
    except (DepthError, MemoryError) as error:
        return _failed(job, task, error)
    read = time.perf_counter() - started
    estimator = model.get()  # an error here is not the picture's: it ends the job
    try:
        input_size = estimator.plan(picture).input_size
    except (DepthError, MemoryError) as error:
        return _failed(job, task, error)
    return _Open(task, picture, input_size, read)


def _settle(job: FolderJob, estimator: DepthEstimator, waiting: Sequence[_Open]) -> Iterator[Result]:
    """Run the network over one group and write its files; a picture that fails does not take the others with it."""
    started = time.perf_counter()
    try:
        depths = estimator.estimate_batch([item.picture for item in waiting])
    except (DepthError, MemoryError) as error:
        if len(waiting) > 1:
            for item in waiting:
                yield from _settle(job, estimator, [item])
        else:
            yield _noted(job, _failed(job, waiting[0].task, error))
        return
    share = (time.perf_counter() - started) / len(waiting)
    for item, depth in zip(waiting, depths):
        started = time.perf_counter()
        try:
            job.outputs.write(depth, item.picture.rgb, job.paths(item.task))
        except DiskFullError:
            raise
        except (OutputError, PictureError) as error:
            yield _noted(job, _failed(job, item.task, error))
            continue
        seconds = item.seconds + share + time.perf_counter() - started
        yield _noted(
            job,
            _result(
                job,
                item.task,
                DONE,
                ms=round(1000 * seconds, 1),
                notes=item.picture.notes,
                warnings=job.outputs.warnings(depth),
                model=estimator.row.name,
                weights=estimator.weights.sha256,
                settings=job.settings,
            ),
        )


def _result(job: FolderJob, task: Task, status: str, **facts: Any) -> Result:
    return Result(input=task.name, outputs=tuple(str(path) for path in job.paths(task)), status=status, **facts)


def _failed(job: FolderJob, task: Task, error: DepthError | MemoryError) -> Result:
    if isinstance(error, MemoryError):
        error = PictureError("not enough memory", "use a smaller --input-size")
    line = " ".join(str(error).split())
    return Result(task.name, (), FAILED, error=line, code=error.exit_code, settings=job.settings)


def _noted(job: FolderJob, result: Result) -> Result:
    """Write a result into the manifest; a skipped picture only where a killed run did not come to note it."""
    if job.manifest is not None and (result.status != SKIPPED or result.input not in job.manifest.rows):
        job.manifest.add(result)
    return result
