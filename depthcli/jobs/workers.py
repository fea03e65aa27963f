"""The folder job in several processes, each with its own cores and its own copy of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Callable, Union

from depthcli.errors import DepthError
from depthcli.host.atomic import remove_partials
from depthcli.host.cores import share_cores
from depthcli.jobs.folder import Stages
from depthcli.jobs.manifest import Result
from depthcli.jobs.picture_job import FolderJob, look_up, note
from depthcli.jobs.targets import Task
from depthcli.jobs.worker_process import WorkerProcess
from depthcli.predict.picture import DepthEstimator

_POLL_SECONDS = 0.2  # between two looks at `stop`
_MOST_WAITING = 10_000  # results that are held for the sake of their order
_MORE = "more"  # what a worker sends for its next task


def run_in_workers(
    job: FolderJob,
    workers: int,
    check: Callable[[], Sequence[Callable[[], DepthEstimator]]],
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """Do the job as `run_folder` does; each worker takes the next picture when it has room for one.

    check: called in this process, once there is work; loads the model, so that it is converted and refused only once,
    and returns what makes the estimator of each worker, which is pickled.
    Raises as `run_folder`, and EngineError if a worker dies.
    """
    with closing(_Crew(job, workers, check)) as crew:
        for result in crew.results(stop):
            note(job, result)
            yield result


@dataclass(eq=False)
class _Entry:
    """A task, and its result once there is one."""

    task: Task
    result: Result | None


class _Crew:
    """The workers, the tasks that wait for one, and the results in the order of the tasks."""

    def __init__(
        self, job: FolderJob, workers: int, check: Callable[[], Sequence[Callable[[], DepthEstimator]]]
    ) -> None:
        self._job, self._workers, self._check = job, workers, check
        self._to_come = look_up(job)
        self._exhausted = self._stopped = False
        self._entries: deque[_Entry] = deque()  # from the oldest without a result on
        self._waiting: deque[_Entry] = deque()  # those among them that no worker has
        self._team: list[_Worker] = []
        self._folders: set[Path] = set()
        self._error: DepthError | None = None

    def close(self) -> None:
        """End the workers, and remove the partial files of those that were killed."""
        for worker in self._team:
            worker.close()
        for folder in self._folders:
            remove_partials(folder)

    def results(self, stop: Callable[[], bool]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; after `stop` or an error, those that are still finished."""
        while True:
            while self._entries and self._entries[0].result is not None:
                yield self._entries.popleft().result  # type: ignore[misc]
                self._look_at(stop)
            if not self._team:
                self._look_ahead(self._workers)
                if self._waiting and not self._stopped:
                    self._look_at(stop)
                if self._stopped or not self._entries:
                    return
                if self._waiting:
                    self._hire()
            elif all(worker.ended for worker in self._team):
                break
            else:
                self._serve()
                self._look_at(stop)
        # Of those that were begun, some were dropped after a stop.
        yield from (entry.result for entry in self._entries if entry.result is not None)
        if self._error is not None:
            raise self._error

    def _look_at(self, stop: Callable[[], bool]) -> None:
        if not self._stopped and stop():
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._stopped = True
        for worker in self._team:
            worker.ask_to_stop()

    def _look_ahead(self, count: int) -> None:
        """Look up tasks until so many wait for a worker, if there are any; not too far."""
        while len(self._waiting) < count and len(self._entries) < _MOST_WAITING and not self._exhausted:
            found = next(self._to_come, None)
            if found is None:
                self._exhausted = True
                return
            task, file, known = found
            file.close()
            entry = _Entry(task, known)
            self._entries.append(entry)
            if entry.result is None:
                self._waiting.append(entry)

    def _hire(self) -> None:
        """Start the workers: no more than there are tasks, if these are few."""
        if self._job.manifest is not None:
            self._job.manifest.check()
        loads = self._check()
        count = min(self._workers, len(self._waiting)) if self._exhausted else self._workers
        self._team = [_Worker(self._job, load, cores, count) for load, cores in zip(loads, share_cores(count))]

    def _serve(self) -> None:
        """Hear the workers that have a result or want a task."""
        # A worker that is far ahead waits, unless the oldest task is its own.
        oldest = self._entries[0] if len(self._entries) >= _MOST_WAITING else None
        listened = [w for w in self._team if not w.ended and (oldest is None or w.has(oldest) or not w.hungry)]
        for connection in wait([worker.connection for worker in listened], _POLL_SECONDS):
            worker = next(worker for worker in listened if worker.connection is connection)
            answer = worker.hear()
            if isinstance(answer, DepthError):
                self._error = self._error or answer
                self._ask_to_stop()
        for worker in listened:
            if worker.hungry:
                worker.give(self._next_task())

    def _next_task(self) -> _Entry | None:
        self._look_ahead(1)
        if self._stopped or not self._waiting:
            return None
        entry = self._waiting.popleft()
        self._folders.update(path.parent for path in self._job.paths(entry.task))
        return entry


class _Worker(WorkerProcess):
    """A process that asks for tasks and sends their results in order, then None or a DepthError."""

    def __init__(self, job: FolderJob, load: Callable[[], DepthEstimator], cores: list[int], workers: int) -> None:
        # What is done was looked up; a worker writes no manifest.
        share = replace(job, tasks=(), if_exists="overwrite", manifest=None)
        super().__init__(_work, (share, load, workers), cores, workers)
        self._at_work: deque[_Entry] = deque()
        self.hungry = False

    def has(self, entry: _Entry) -> bool:
        """Return whether a task is this worker's."""
        return entry in self._at_work

    def hear(self) -> DepthError | None:
        """Take one message; return an error if it is one."""
        answer: Union[str, Result, DepthError, None] = self.receive()
        if answer == _MORE:
            self.hungry = True
        elif isinstance(answer, Result):
            self._at_work.popleft().result = answer
        else:
            self.ended, self.hungry = True, False
        return answer if isinstance(answer, DepthError) else None

    def give(self, entry: _Entry | None) -> None:
        """Answer its question: the next task, None if there is none."""
        self.hungry = False
        if entry is not None:
            self._at_work.append(entry)
        self.send(entry and entry.task)

    def ask_to_stop(self) -> None:
        """Let it finish the pictures at hand and no others."""
        self.send(None)


def _asked(connection: Connection) -> Iterator[Task]:
    """Yield the tasks that the first process gives, one for each question."""
    while True:
        connection.send(_MORE)
        task = connection.recv()
        if task is None:
            return
        yield task


def _work(connection: Connection, job: FolderJob, load: Callable[[], DepthEstimator], workers: int) -> None:
    """Do a share of a job in a process of its own. It ends early if its parent asks for it."""
    last: Any = None
    try:
        with closing(Stages(replace(job, tasks=_asked(connection)), load, workers)) as stages:
            for result in stages.results(connection.poll):
                connection.send(result)
    except DepthError as error:
        last = error
    connection.send(last)
