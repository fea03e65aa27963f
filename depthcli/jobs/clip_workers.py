"""The clips of a folder in several processes, each with its own copy of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Callable, Union

from depthcli.errors import DepthError
from depthcli.host.cores import share_cores
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.clip_results import already_there
from depthcli.jobs.manifest import Result
from depthcli.jobs.worker_process import WorkerProcess
from depthcli.predict.clip_predictors import ClipPredictor

_POLL_SECONDS = 0.2  # between two looks at `stop`
Load = Callable[[], ClipPredictor]


def run_clips(
    jobs: Sequence[ClipJob], loads: Sequence[Load], stop: Callable[[], bool] = lambda: False
) -> Generator[Union[Result, str], None, None]:
    """Do the clips, a process for each of `loads`; yield lines for the user, and the results as clips end.

    loads: make the predictors, and are pickled. A stop keeps what is made of the clips at hand. Raises what ends a
    process, see `run_clip`, after the others have stopped, and EngineError if one dies.
    """
    waiting = deque(jobs)
    count = min(len(loads), len(jobs))
    with closing(_Crew([_Worker(load, cores, count) for load, cores in zip(loads, share_cores(count))])) as crew:
        while crew.at_work():
            if stop():
                crew.stop()
            yield from crew.hear(waiting)
    if crew.error is not None:
        raise crew.error


def settled_clip(job: ClipJob) -> Result | None:
    """Return the result of a clip that is done or must not be replaced; None if it is to be done, or tried."""
    with suppress(Exception):
        return already_there(
            job.name, job.source, job.paths, job.if_exists, job.settings_text, job.spool_folder.exists()
        )
    return None


class _Crew:
    def __init__(self, team: Sequence[_Worker]) -> None:
        self._team = team
        self._stopped = False
        self.error: DepthError | None = None

    def close(self) -> None:
        """End all processes."""
        for worker in self._team:
            worker.close()

    def at_work(self) -> bool:
        """Return whether a process has not ended yet."""
        return any(not worker.ended for worker in self._team)

    def stop(self) -> None:
        """Let each stop at the next frame."""
        if not self._stopped:
            self._stopped = True
            for worker in self._team:
                worker.send(None)

    def hear(self, waiting: deque[ClipJob]) -> Iterator[Union[Result, str]]:
        """Wait a little for messages; hand out clips, yield what is to be told."""
        heard = {worker.connection: worker for worker in self._team if not worker.ended}
        for connection in wait(list(heard), _POLL_SECONDS):
            worker = heard[connection]  # type: ignore[index]
            message = worker.hear()
            if isinstance(message, DepthError):
                self.error = self.error or message
                self.stop()
            elif isinstance(message, (Result, str)):
                yield message
            elif not worker.ended and not self._stopped:
                worker.send(waiting.popleft() if waiting else None)


class _Worker(WorkerProcess):
    """A process that sends _MORE for its next clip, lines, results, and in the end its error or _ENDED."""

    def __init__(self, load: Load, cores: list[int], count: int) -> None:
        super().__init__(_work, (load,), cores, count)

    def hear(self) -> Any:
        """Return one message, an error if the process is gone."""
        message = self.receive()
        if isinstance(message, DepthError):
            return message
        kind, content = message
        self.ended = kind == _ENDED
        return content


_MORE, _TOLD, _ENDED = "more", "told", "ended"


def _work(connection: Connection, load: Load) -> None:
    """Do clips in a process of its own. It ends early if its parent asks for it; what is made of a clip is kept."""
    opened: list[ClipPredictor] = []

    def predictor() -> ClipPredictor:
        if not opened:
            opened.append(load())
        return opened[0]

    error: DepthError | None = None
    try:
        while True:
            connection.send((_MORE, None))
            job = connection.recv()
            if job is None:
                break
            for event in run_clip(job, predictor, connection.poll, lambda line: connection.send((_TOLD, line))):
                if isinstance(event, Result):
                    connection.send((_TOLD, event))
    except DepthError as raised:
        error = raised
    finally:
        for one in opened:
            one.close()
    connection.send((_ENDED, error))
