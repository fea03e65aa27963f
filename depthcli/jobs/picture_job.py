"""What is to be done with many pictures, and what is known of each before it is read. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from depthcli.choices.settings import IF_EXISTS, check_batch, require
from depthcli.errors import DepthError, OutputError, PictureError, first_line
from depthcli.host.atomic import remove_partials
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.manifest import FAILED, SKIPPED, Manifest, Result
from depthcli.jobs.picture_file import PictureFile
from depthcli.jobs.picture_results import file_facts, find_results
from depthcli.jobs.targets import Task, refuse_replacing

if TYPE_CHECKING:
    from depthcli.jobs.remote_output import Publisher


@dataclass(frozen=True)
class FolderJob:
    """Pictures to estimate; fill it by keywords.

    tasks: the pictures; a sequence is checked as a whole. outputs: the files, or the stream, for each. if_exists: skip,
    overwrite or error for a picture whose files exist and are its maps. batch: pictures of equal input size that share
    one run of the network.
    settings: the options that shape a result, as one line. manifest: of the results, or None. keep_alpha: transparent
    pixels are invalid in the results. digests: note the sha256 of the files. remote: the
    store that takes them.
    """

    tasks: Iterable[Task]
    outputs: OutputSpec
    if_exists: str = "skip"
    batch: int = 1
    settings: str = ""
    manifest: Optional[Manifest] = None
    keep_alpha: bool = False
    digests: bool = False
    remote: Optional[Publisher] = None

    def __post_init__(self) -> None:
        require("if_exists", self.if_exists, IF_EXISTS)
        check_batch(self.batch)
        if isinstance(self.tasks, Sequence):
            pictures = [task.source for task in self.tasks if isinstance(task.source, Path)]
            refuse_replacing("picture", ((task.name, self.paths(task)) for task in self.tasks), pictures)

    @property
    def total(self) -> Optional[int]:
        """Number of tasks; None if it is not known yet."""
        return len(self.tasks) if isinstance(self.tasks, Sequence) else getattr(self.tasks, "total", None)

    @property
    def is_far(self) -> bool:
        """Whether pictures or results are in a store."""
        return self.remote is not None or getattr(self.tasks, "place", None) is not None

    @property
    def is_single(self) -> bool:
        """Whether there is at most one task."""
        return isinstance(self.tasks, Sequence) and len(self.tasks) <= 1

    def paths(self, task: Task) -> tuple[Path, ...]:
        """Return the files that a task makes; none if it writes to a stream."""
        return self.outputs.paths(task.stem)

    def every_path(self) -> Iterator[Path]:
        """Yield the files of all tasks."""
        return (path for task in self.tasks for path in self.paths(task))

    def action(self, task: Task) -> str:
        """Return what will become of a task: write, overwrite, skip or error."""
        try:
            with closing(PictureFile(task.source, task.name)) as file:
                existing = _existing_result(self, task, file)
        except DepthError:
            return "error"
        if existing is not None:
            return "error" if existing.status == FAILED else "skip"
        return "overwrite" if any(map(os.path.lexists, self.paths(task))) else "write"


def note(job: FolderJob, result: Result) -> None:
    """Add a result to the manifest; a skipped one if the manifest does not know yet what was found."""
    if job.manifest is not None and (result.status != SKIPPED or result.source is not None):
        job.manifest.add(result)


def look_up(job: FolderJob) -> Iterator[tuple[Task, PictureFile, Optional[Result]]]:
    """Yield each task and its file, with its result if it is done already.

    Partial files of killed runs are removed from the folders of the results on the way.
    """
    cleaned: set[Path] = set()
    for task in job.tasks:
        for folder in {path.parent for path in job.paths(task)} - cleaned:
            remove_partials(folder)
            cleaned.add(folder)
        file = PictureFile(task.source, task.name)
        try:
            existing = _existing_result(job, task, file)
        except Exception as error:
            existing = failed(job, task, error)
        if existing is not None:
            file.close()
        yield task, file, existing


def _existing_result(job: FolderJob, task: Task, file: PictureFile) -> Result | None:
    """Return the result of a task whose files exist, None if it has to be done. Raises OutputError."""
    paths = job.paths(task)
    if job.if_exists == "overwrite" or not paths:
        return None
    if job.remote is not None:
        if not job.remote.is_there(paths):
            return None
        if job.if_exists == "error":
            return failed(job, task, OutputError(f"{job.remote.address(str(paths[0]))} is there already"))
        return result_of(job, task, SKIPPED)
    if job.if_exists == "error":
        there = [path for path in paths if os.path.lexists(path)]
        return failed(job, task, OutputError(f"{there[0]} is there already")) if there else None
    try:
        found = find_results(file, paths, task.name, job.manifest)
        if found is None:
            return None
        if all(item.noted for item in found):
            return result_of(job, task, SKIPPED)
        made_by = max((item.made_by for item in found), key=lambda made_by: len(made_by.settings))  # the fullest
        return result_of(
            job,
            task,
            SKIPPED,
            model=made_by.model,
            weights=made_by.weights,
            settings=made_by.settings,
            source=file.facts(),
            files=tuple(file_facts(os.stat(path)) for path in paths),
        )
    except (OSError, PictureError):  # a picture that is gone or may not be read: reading it will tell
        return None


def result_of(job: FolderJob, task: Task, status: str, **facts: Any) -> Result:
    """Return the result of a task with the files that it makes."""
    return Result(input=task.name, outputs=tuple(str(path) for path in job.paths(task)), status=status, **facts)


def failed(job: FolderJob, task: Task, error: Exception) -> Result:
    """Return the result of a task that an error ended."""
    return failure(task, error, job.settings)


def failure(task: Task, error: Exception, settings: str) -> Result:
    """Return the result of a task that an error ended. settings: the options of the job, as one line."""
    if isinstance(error, MemoryError):
        error = PictureError("not enough memory", "use a smaller `input_size`")
    if not isinstance(error, DepthError):  # a library's message may be empty, or make no sense alone
        error = DepthError(f"{type(error).__name__}: {first_line(error)}")
    line = " ".join(str(error).split())
    return Result(task.name, (), FAILED, error=line, code=error.exit_code, settings=settings)
