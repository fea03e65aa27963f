"""The folder job: many pictures through one model into files, resumable; one bad file never stops the rest."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np

from depthcli.calibration import describe_calibration
from depthcli.depthmap import DepthMap
from depthcli.errors import DeviceLostError, DiskFullError, PictureError
from depthcli.host.cores import usable_cores
from depthcli.host.memory import BYTES_PER_PIXEL, free_memory
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import Picture
from depthcli.jobs.manifest import DONE, Result
from depthcli.jobs.picture_file import PictureFile, file_digest
from depthcli.jobs.picture_job import FolderJob, failed, look_up, note, result_of
from depthcli.jobs.picture_results import file_facts, made_settings
from depthcli.jobs.pipeline import Lane, wait_for_oldest
from depthcli.jobs.targets import Task
from depthcli.pixels.postprocess import Answer
from depthcli.predict.picture import DepthEstimator, Prepared

# Part of the free memory for pictures on their way; the network needs the rest, most of it at large inputs.
_SHARE = 0.25
_MOST_OPEN = 64  # files that wait to be read; a process may often have no more than 256
_WAITING = 8  # threads that read, and that write, if files are in a store
_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class _ReadPicture:
    """A picture that was read.

    facts: about its file. prepared: None if the calling thread has to prepare it, without a model or enough memory so
    far. seconds: of work on it.
    """

    task: Task
    picture: Picture
    facts: dict[str, Any]
    prepared: Prepared | None
    seconds: float


def bytes_of(file: PictureFile, more: int = 0) -> int:
    """Return the bytes that a picture takes; none if it cannot be read. more: bytes per pixel beside those of depth."""
    width, height = file.size or (0, 0)
    return width * height * (BYTES_PER_PIXEL + more)


def thread_counts(single: bool) -> tuple[int, int]:
    """Return how many threads read and how many write.

    The network in the calling thread needs the cores too: a third of them reads, half of them does the heavier writing
    (resizing back, colours, PNG). A single picture needs no thread.
    """
    if single:
        return 0, 0
    cores = usable_cores()
    return max(1, cores // 3), max(1, cores // 2)


def run_folder(
    job: FolderJob, load: Callable[[], DepthEstimator], stop: Callable[[], bool] = lambda: False
) -> Generator[Result, None, None]:
    """Do the job; yield one Result per task, in the order of the tasks.

    While one picture is in the network, other threads read the next and write the last. `load`, the network and `stop`
    run in the thread that asks for results. Close the iterator to stop early: threads and partial files are cleaned up.

    load: makes the estimator; called once, when the first picture has been read. stop: asked between pictures; after it
    returns True the job ends with the pictures that the network has begun or done.
    Raises ModelError or EngineError if the model does not load, DeviceLostError if the device fails, DiskFullError if
    nothing more can be written, BrokenPipeError if the stream's reader has gone.
    """
    with closing(Stages(job, load)) as stages:
        for result in stages.results(stop):
            note(job, result)
            yield result


class Stages:
    """Pictures pass `reading`, the network and `finishing` in the order of the tasks, as do results without work.

    Threads call `_read` and `_finish` only; everything else belongs to the calling thread.
    """

    def __init__(
        self, job: FolderJob, load: Callable[[], DepthEstimator], workers: int = 1, keeps: bool = False
    ) -> None:
        """workers: processes that share the memory. keeps: the estimator stays open at the end."""
        self._job = job
        self._load, self._keeps = load, keeps
        self._loaded: DepthEstimator | None = None
        # Pictures that are read beside those of the next batch, and that may be finishing when the network starts.
        self._ahead, self._behind = thread_counts(job.is_single)
        if job.is_far and self._ahead:  # they mostly wait
            self._ahead, self._behind = max(self._ahead, _WAITING), max(self._behind, _WAITING)
        self._reading: Lane[Result | _ReadPicture] = Lane(self._ahead)
        self._finishing: Lane[Result] = Lane(self._behind)
        self._to_come = look_up(job)
        self._next = next(self._to_come, None)
        self._group: list[_ReadPicture] = []
        # For each task on its way, in their order: its file and the bytes that the picture takes.
        self._held: deque[tuple[PictureFile, int]] = deque()
        free = free_memory()
        self._budget = math.inf if free is None else free * _SHARE / workers

    def close(self) -> None:
        """Wait for the threads, close the files that were not read, and free the model."""
        with ExitStack() as stack:  # an interrupt of one step does not keep the others from being done
            if self._loaded is not None and not self._keeps:
                stack.callback(self._loaded.close)
            for file in [held for held, _ in self._held] + ([] if self._next is None else [self._next[1]]):
                stack.callback(file.close)
            stack.callback(self._reading.close)
            stack.callback(self._finishing.close)

    def _estimator(self) -> DepthEstimator:
        """Return the estimator, loaded at first use: a misspelt path or a finished folder loads nothing."""
        if self._loaded is None:
            if self._job.manifest is not None:
                self._job.manifest.check()
            self._loaded = self._load()
        return self._loaded

    @property
    def _batch(self) -> int:
        """Return the pictures per run: as the user wants, or more if the backend does."""
        return max(self._job.batch, self._loaded.best_batch if self._loaded else 1)

    def results(self, stop: Callable[[], bool]) -> Iterator[Result]:
        """Yield the results of the tasks; after `stop` or a failure nothing new begins."""
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
        """Start reading as many pictures as may be read now."""
        while self._next is not None and len(self._reading) < self._ahead + self._batch:
            task, file, known = self._next
            need = 0 if known is not None else bytes_of(file)
            if known is not None:
                self._reading.put_done(known)
                self._held.append((file, 0))
            elif self._has_room(need):
                if len(self._reading) >= _MOST_OPEN:
                    file.close()
                self._reading.put(self._read, task, file)
                self._held.append((file, need))
            else:
                return
            self._next = next(self._to_come, None)

    def _has_room(self, need: int) -> bool:
        """Return whether a picture fits beside those in work. A batch always does."""
        held = [size for _, size in self._held]
        return sum(held) + need <= self._budget or sum(map(bool, held)) < self._batch

    def _take(self) -> None:
        """Move the oldest picture out of `reading`, and through the network if its batch is complete."""
        item = self._reading.take()
        self._read_ahead()  # before the model loads or runs
        if isinstance(item, _ReadPicture):
            item = self._prepared(item)
        if self._group and (isinstance(item, Result) or not self._share_run(item, self._group[0])):
            self._run_group()
        if isinstance(item, Result):
            self._finishing.put_done(item)
            return
        self._group.append(item)
        if len(self._group) >= self._batch:
            self._run_group()

    def _share_run(self, item: _ReadPicture, other: _ReadPicture) -> bool:
        return self._estimator().mixes_sizes or _input_size(item) == _input_size(other)

    def _read(self, task: Task, file: PictureFile) -> Result | _ReadPicture:
        """Read one picture, and prepare it if there is a model."""
        started = time.perf_counter()
        facts = {"sha256": ""}
        try:
            with closing(file):
                if self._job.paths(task):  # what goes to a stream is never compared
                    # Before the picture: one that is replaced meanwhile does not look done to the next run.
                    with suppress(OSError, PictureError):  # reading it will tell
                        facts = file.facts()
                picture = file.read(self._job.keep_alpha)
        except Exception as error:  # whatever a decoder raises
            return failed(self._job, task, error)
        prepared = None
        if self._loaded is not None:
            with suppress(Exception):  # tried again when less is at work
                prepared = self._loaded.prepare(picture)
        return _ReadPicture(task, picture, facts, prepared, time.perf_counter() - started)

    def _prepared(self, item: _ReadPicture) -> Result | _ReadPicture:
        """Return a picture prepared: here if the reader could not."""
        estimator = self._estimator()  # an error here is not the picture's: it ends the job
        if item.prepared is not None:
            return item
        started = time.perf_counter()
        try:
            prepared = self._finishing.with_room(lambda: estimator.prepare(item.picture))
        except Exception as error:
            return failed(self._job, item.task, error)
        return replace(item, prepared=prepared, seconds=item.seconds + time.perf_counter() - started)

    def _run_group(self) -> None:
        if self._group:
            self._run(self._group)
        self._group = []

    def _run(self, group: Sequence[_ReadPicture]) -> None:
        """Run the network over pictures of one size; if a batch fails, each picture alone."""
        estimator = self._estimator()
        batch = [item.prepared for item in group if item.prepared is not None]
        started = time.perf_counter()
        try:
            if len(batch) > 1:
                outputs = estimator.run(batch)
            else:  # in threads, other pictures have taken memory since this one was prepared
                outputs = self._finishing.with_room(lambda: estimator.run(batch, recheck=self._ahead > 0))
        except DeviceLostError:
            raise
        except Exception as error:  # whatever a backend raises
            if len(group) == 1:
                self._finishing.put_done(failed(self._job, group[0].task, error))
                return
            outputs = None
        if outputs is None:
            for item in group:
                self._run([item])
            return
        share = (time.perf_counter() - started) / len(group)
        for item, prepared, output in zip(group, batch, outputs):
            without_input = replace(prepared, image=_NOTHING)
            self._finishing.put(self._finish, item.task, item.facts, without_input, output, item.seconds + share)

    def _finish(self, task: Task, facts: dict[str, Any], prepared: Prepared, output: Answer, seconds: float) -> Result:
        """Make the depth map from the network's answer and write it."""
        job, estimator = self._job, self._estimator()
        started = time.perf_counter()
        try:
            depth = finish_map(estimator, prepared, output, facts["sha256"])
            if self._finishing.closed:  # nobody waits for this any more
                raise CancelledError
            job.outputs.write(depth, prepared.picture.rgb, job.paths(task))
            calibration = depth.calibration
            warnings = warnings_of(prepared, depth, job.outputs)
            files = tuple(file_facts(os.stat(path)) for path in job.paths(task))
            digests = tuple(map(file_digest, job.paths(task))) if job.digests else ()
            if job.remote is not None:
                job.remote.publish(job.paths(task))
        except (DiskFullError, CancelledError, BrokenPipeError):
            raise
        except Exception as error:
            return failed(job, task, error)
        return result_of(
            job,
            task,
            DONE,
            ms=round(1000 * (seconds + time.perf_counter() - started), 1),
            notes=prepared.picture.notes,
            warnings=warnings,
            model=estimator.row.name,
            weights=estimator.weights.sha256,
            settings=made_settings(job.settings, estimator.remembered),
            source=facts,
            files=files,
            digests=digests,
            calibration=describe_calibration(calibration) if calibration else None,
        )


def finish_map(estimator: DepthEstimator, prepared: Prepared, answer: Answer, sha256: str) -> DepthMap:
    """Return the depth map of a picture that says which file it was made of. sha256: of the file, "" if unknown."""
    depth = estimator.finish(prepared, answer)
    return depth.with_provenance(replace(depth.provenance, source_sha256=sha256))


def warnings_of(prepared: Prepared, depth: DepthMap, outputs: OutputSpec) -> tuple[str, ...]:
    """Return what a user should know about a picture, its map and its files, one line each."""
    doubts = depth.calibration.warnings if depth.calibration else ()
    return (*prepared.picture.warnings, *doubts, *outputs.warnings(depth))


def _input_size(item: _ReadPicture) -> tuple[int, int]:
    assert item.prepared is not None
    return item.prepared.plan.input_size
