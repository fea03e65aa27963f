"""The folder job in several processes, each with its own cores and its own copy of the network."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Callable, Union

from depthcli.errors import DepthError, EngineError
from depthcli.host.atomic import remove_partials
from depthcli.host.cores import share_cores, usable_cores
from depthcli.host.quiet import own_descriptor_2
from depthcli.jobs.folder import Stages
from depthcli.jobs.manifest import Result
from depthcli.jobs.picture_job import FolderJob, look_up, note
from depthcli.jobs.targets import Task
from depthcli.predict.picture import DepthEstimator

_POLL_SECONDS = 0.2  # between two looks at `stop`


def run_in_workers(
    job: FolderJob,
    workers: int,
    check: Callable[[], Callable[[], DepthEstimator]],
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """Do the job as `run_folder` does; worker n of N takes the pictures n, n + N, ... of those that are to be done.

    check: called in this process, once there is work; loads the model, so that it is converted and refused only once,
    and returns what makes the estimator of a worker, which is pickled.
    Raises as `run_folder`, and EngineError if a worker dies.
    """
    folders = {path.parent for path in job.every_path()}
    for folder in folders:
        remove_partials(folder)
    known = [_known(task, found) for task, found in _found(job)]
    to_do = [item for item in known if isinstance(item, Task)]
    team: list[_Worker] = []
    try:
        if to_do and not stop():
            if job.manifest is not None:
                job.manifest.check()
            load = check()
            count = min(workers, len(to_do))
            team = [_Worker(job, to_do[n::count], load, cores, count) for n, cores in enumerate(share_cores(count))]
        for result in _in_order(known, team, stop):
            note(job, result)
            yield result
    finally:
        for worker in team:
            worker.close()
        for folder in folders if team else ():
            remove_partials(folder)  # of workers that were stopped at once


def _found(job: FolderJob) -> Iterator[tuple[Task, Union[Result, int]]]:
    for task, file, found in look_up(job):
        file.close()
        yield task, found


def _known(task: Task, found: Union[Result, int]) -> Union[Result, Task]:
    return found if isinstance(found, Result) else task


def _in_order(known: list[Union[Result, Task]], team: list[_Worker], stop: Callable[[], bool]) -> Iterator[Result]:
    """Yield the results in the order of the tasks; after `stop` or an error, those that the workers still finish."""
    turns = deque(team)
    error: DepthError | None = None
    stopped = False
    for item in known:
        if isinstance(item, Result):
            if not stopped:
                yield item
            continue
        if not team:  # stopped before it began
            return
        worker = turns[0]
        turns.rotate(-1)
        while not stopped and not worker.ready(_POLL_SECONDS):
            stopped = stop()
            if stopped:
                _ask_to_stop(team)
        answer = worker.take()
        if isinstance(answer, DepthError):
            error = error or answer
        if not isinstance(answer, Result):
            if not stopped:
                stopped = True
                _ask_to_stop(team)
            continue
        yield answer
        if not stopped and stop():
            stopped = True
            _ask_to_stop(team)
    if error is not None:
        raise error


def _ask_to_stop(team: list[_Worker]) -> None:
    for worker in team:
        worker.ask_to_stop()


class _Worker:
    """A process that does its share of the tasks and sends their results in order, then None or a DepthError."""

    def __init__(
        self, job: FolderJob, tasks: list[Task], load: Callable[[], DepthEstimator], cores: list[int], workers: int
    ) -> None:
        # What is done was looked up; a worker writes no manifest.
        share = replace(job, tasks=tasks, if_exists="overwrite", manifest=None)
        # Not forked: threads of engines do not survive a fork.
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        threads = max(1, usable_cores() // workers)
        arguments = (theirs, share, load, cores, threads, workers)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._ended = False

    def ready(self, seconds: float) -> bool:
        """Wait for an answer at most so long; return whether there is one."""
        return self._ended or self._connection.poll(seconds)

    def take(self) -> Union[Result, DepthError, None]:
        """Return the next result; None or an error if there will be no more."""
        if self._ended:
            return None
        try:
            answer: Union[Result, DepthError, None] = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            answer = EngineError(
                f"a worker process ended with code {self._process.exitcode}",
                "the memory may be short: use fewer `workers`, and run the same command again",
            )
        self._ended = not isinstance(answer, Result)
        return answer

    def ask_to_stop(self) -> None:
        """Let it finish the pictures at hand and no others."""
        with suppress(OSError):
            self._connection.send(None)

    def close(self) -> None:
        """Wait for it if it has sent all, else kill it."""
        if not self._ended:
            self._process.kill()
        self._process.join()
        self._connection.close()


def _work(
    connection: Connection,
    job: FolderJob,
    load: Callable[[], DepthEstimator],
    cores: list[int],
    threads: int,
    workers: int,
) -> None:
    """Do a share of a job in a process of its own. It ends early if its parent asks for it or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    own_descriptor_2()
    last: Any = None
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            with closing(Stages(job, load, workers)) as stages:
                for result in stages.results(connection.poll):
                    connection.send(result)
        except DepthError as error:
            last = error
        connection.send(last)
