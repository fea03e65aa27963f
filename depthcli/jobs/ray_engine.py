"""The folder job on a Ray cluster: actors keep their model and take chunks of names, one process here hands them out.

Pictures and results never pass through Ray: an actor reads and writes files as `run_folder` does, and sends rows. So
all nodes see the same folders, or a store. A chunk of an actor that is lost goes to another; its files are written
anew, with the same bytes.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from typing import Any, Callable, Optional

from depthcli.errors import DepthError, EngineError, PictureError, UsageError, first_line
from depthcli.host.cores import usable_cores
from depthcli.jobs.folder import Stages
from depthcli.jobs.manifest import Result
from depthcli.jobs.picture_job import FolderJob, failure, look_up, note
from depthcli.jobs.ray_choice import RayChoice
from depthcli.jobs.targets import Task
from depthcli.predict.picture import DepthEstimator

_POLL_SECONDS = 0.2  # between two looks at `stop`
_IN_FLIGHT = 2  # chunks of one actor: the next is there when one ends
_MOST_KILLS = 3  # actors that a chunk may end before it is split
_MOST_FAILED_STARTS = 3  # actors in a row that end before their model is loaded
_LATE = 3.0  # times the median of a picture: a chunk that is copied to an idle actor at the end
_REMEMBERED = 1000  # chunks whose times make the median
_COPIED_AFTER = 5.0  # seconds; shorter chunks are not copied


def run_on_ray(
    job: FolderJob,
    choice: RayChoice,
    check: Callable[[], tuple[Callable[[], DepthEstimator], str]],
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """Do the job as `run_folder` does, with results in the order in which chunks end.

    check: called in this process, once there is work; loads the model, so that it is refused only once, and returns
    what makes the estimator of each actor, which is pickled, and the sha256 of its weights. A stop drops the chunks at
    hand: what is done of them is found by the next run.
    Raises as `run_folder`, UsageError without ray or its cluster, EngineError if actors do not start.
    """
    with closing(_Driver(job, choice, check)) as driver:
        for result in driver.results(stop):
            note(job, result)
            yield result


# --- On the nodes -----------------------------------------------------------------------------------------------------


class _Actor:
    """Does chunks one after another with one estimator."""

    def __init__(self, job: FolderJob, load: Callable[[], DepthEstimator], folder: str, cpus: int) -> None:
        with suppress(OSError):  # names are as the first process has them; a node without that folder says so by name
            os.chdir(folder)
        _ignore_interrupts()
        self._job, self._load = job, load
        self._neighbours = max(1, usable_cores() // cpus)
        self._estimator: Optional[DepthEstimator] = None

    def ready(self) -> str:
        """Load the model; return the sha256 of its weights."""
        self._estimator = self._load()
        return str(self._estimator.weights.sha256)

    def do(self, tasks: Sequence[Task]) -> list[Result]:
        """Return the results of a chunk."""
        estimator, share = self._estimator, replace(self._job, tasks=iter(tasks))
        assert estimator is not None
        with closing(Stages(share, lambda: estimator, self._neighbours, keeps=True)) as stages:
            return list(stages.results(lambda: False))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the first process decides


# --- In the first process ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Chunk:
    """Tasks that are handed out together. kills: actors that ended while they did it. calls: copies on their way."""

    tasks: list[Task]
    kills: int = 0
    calls: int = 0
    done: bool = False


@dataclass(eq=False)
class _Hired:
    """An actor. starting: the call that loads its model. calls: its chunks, the oldest first, which it does first."""

    handle: Any
    starting: Any
    calls: deque[tuple[Any, _Chunk]] = field(default_factory=deque)
    ready: bool = False
    since: float = 0.0  # when it began its oldest chunk


class _Driver:
    def __init__(
        self, job: FolderJob, choice: RayChoice, check: Callable[[], tuple[Callable[[], DepthEstimator], str]]
    ) -> None:
        self._job, self._choice, self._check = job, choice, check
        self._to_come = look_up(job)
        self._exhausted = False
        self._known: deque[Result] = deque()  # of tasks without work
        self._waiting: deque[_Chunk] = deque()
        self._team: list[_Hired] = []
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)  # a picture, of the chunks that are done
        self._failed_starts = 0
        self._weights = ""
        self._ray: Any = None
        self._started_ray = False

    def close(self) -> None:
        """End the actors, and what was started here."""
        for hired in self._team:
            self._kill(hired)
        if self._started_ray:
            self._ray.shutdown()

    def results(self, stop: Callable[[], bool]) -> Iterator[Result]:
        """Yield the results as chunks end."""
        self._look_ahead(1)
        while not stop():
            while self._known:
                yield self._known.popleft()
                if stop():
                    return
            at_work = any(not chunk.done for hired in self._team for _, chunk in hired.calls)
            if self._exhausted and not self._waiting and not at_work:
                return
            if self._ray is None and self._waiting:
                self._open()
            self._look_ahead(_IN_FLIGHT * max(1, len(self._team)))
            if self._ray is not None:
                self._hire()
                self._hand_out()
                yield from self._hear()

    def _look_ahead(self, count: int) -> None:
        """Look up tasks until so many chunks wait, if there are any; tasks without work are told first."""
        chunk = self._choice.chunk
        while len(self._waiting) < count and len(self._known) < chunk and not self._exhausted:
            tasks, seen = [], 0
            for task, file, known in islice(self._to_come, chunk):
                file.close()
                seen += 1
                if isinstance(known, Result):
                    self._known.append(known)
                else:
                    tasks.append(task)
            self._exhausted = seen < chunk
            if tasks:
                self._waiting.append(_Chunk(tasks))

    # --- Actors -------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Load the model here, connect to the cluster, and say what an actor is."""
        if self._job.manifest is not None:
            self._job.manifest.check()
        load, self._weights = self._check()
        self._ray = _import_ray()
        self._started_ray = _connect(self._ray, self._choice.address)
        choice = self._choice
        if choice.most is None:
            room = _room(self._ray, choice)
            if not room:
                wanted = f"{choice.cpus} CPUs and {choice.gpus:g} GPUs"
                hint = "ask for less, or name `workers` for a cluster that grows"
                raise UsageError(f"the cluster has no room for a worker with {wanted}", hint)
            self._choice = choice = replace(choice, most=max(choice.least, room))
        # What is done was looked up; an actor writes no manifest, and lists no store.
        remote = self._job.remote and replace(self._job.remote)
        share = replace(self._job, tasks=(), if_exists="overwrite", manifest=None, remote=remote)
        options = {"num_cpus": choice.cpus, "num_gpus": choice.gpus, "max_restarts": 0, "max_task_retries": 0}
        self._make = self._ray.remote(**options)(_Actor).remote
        self._arguments = (self._ray.put(share), self._ray.put(load), os.getcwd(), choice.cpus)

    def _hire(self) -> None:
        """Ask for actors: those that have no room yet make the cluster grow if it can."""
        busy = sum(1 for hired in self._team if hired.calls)
        wanted = min(self._choice.most or 1, max(self._choice.least, busy + len(self._waiting)))
        if not self._waiting:
            return
        while len(self._team) < wanted:
            handle = self._make(*self._arguments)
            self._team.append(_Hired(handle, handle.ready.remote()))

    def _hand_out(self) -> None:
        """Give chunks to the actors that have room, to all of them in turn; at the end copies of late ones."""
        for place in range(_IN_FLIGHT):
            for hired in self._team:
                if hired.ready and len(hired.calls) == place and self._waiting:
                    self._call(hired, self._next_chunk())
        if self._exhausted and not self._waiting:
            for hired in self._team:
                late = self._late_chunk() if hired.ready and not hired.calls else None
                if late is not None:
                    self._call(hired, late)

    def _next_chunk(self) -> _Chunk:
        """Return the chunk to hand out; a part of it when nothing comes after, so that all actors end together."""
        chunk = self._waiting.popleft()
        if not self._exhausted or chunk.kills:
            return chunk
        left = len(chunk.tasks) + sum(len(each.tasks) for each in self._waiting)
        size = math.ceil(left / (_IN_FLIGHT * len(self._team)))
        if size < len(chunk.tasks):
            self._waiting.appendleft(_Chunk(chunk.tasks[size:]))
            chunk = _Chunk(chunk.tasks[:size])
        return chunk

    def _late_chunk(self) -> Optional[_Chunk]:
        """Return the chunk that is in work for the longest and has no copy, if it is late."""
        if not self._seconds:
            return None
        usual, now = statistics.median(self._seconds), time.monotonic()
        # Also those that wait behind one that does not end.
        for since, chunk in sorted(self._unfinished(), key=itemgetter(0)):
            if now - since > max(_LATE * usual * len(chunk.tasks), _COPIED_AFTER):
                return chunk
        return None

    def _unfinished(self) -> Iterator[tuple[float, _Chunk]]:
        """Yield (when its actor began its oldest chunk, chunk) of those that were handed out once and are not done."""
        for hired in self._team:
            yield from ((hired.since, chunk) for _, chunk in hired.calls if not chunk.done and chunk.calls == 1)

    def _call(self, hired: _Hired, chunk: _Chunk) -> None:
        if not hired.calls:
            hired.since = time.monotonic()
        chunk.calls += 1
        hired.calls.append((hired.handle.do.remote(chunk.tasks), chunk))

    # --- Answers ------------------------------------------------------------------------------------------------------

    def _hear(self) -> Iterator[Result]:
        """Wait a little for answers; yield the results in them."""
        asked = {call: hired for hired in self._team for call, _ in hired.calls}
        asked.update((hired.starting, hired) for hired in self._team if not hired.ready)
        if not asked:
            return
        done, _ = self._ray.wait(list(asked), num_returns=1, timeout=_POLL_SECONDS, fetch_local=False)
        for call in done:
            hired = asked[call]
            if hired not in self._team:
                continue
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise _reason(error) from error
            except self._ray.exceptions.RayError as error:  # its process, its node, or the way to it
                yield from self._lose(hired, error)
                continue
            if call == hired.starting:
                self._began(hired, answer)
            else:
                yield from self._ended(hired, call, answer)

    def _began(self, hired: _Hired, weights: str) -> None:
        if weights != self._weights:
            raise EngineError(
                f"a node has other weights (sha256 {weights[:12]}, not {self._weights[:12]})",
                "put the same files on every node",
            )
        hired.ready, self._failed_starts = True, 0

    def _ended(self, hired: _Hired, call: Any, results: list[Result]) -> Iterator[Result]:
        place = next(number for number, (each, _) in enumerate(hired.calls) if each == call)
        chunk = hired.calls[place][1]
        del hired.calls[place]
        self._seconds.append((time.monotonic() - hired.since) / len(chunk.tasks))
        hired.since = time.monotonic()
        chunk.calls -= 1
        if not chunk.done:  # else a copy was faster
            chunk.done = True
            yield from results

    def _lose(self, hired: _Hired, error: Exception) -> Iterator[Result]:
        """Forget an actor; its chunks go to others. Raises EngineError if actors do not even start."""
        self._kill(hired)
        self._team.remove(hired)
        if not hired.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise EngineError(
                    f"{self._failed_starts} workers ended while they started: {first_line(error)}",
                    "look at Ray's logs; the memory may be short, or depthcli missing on a node",
                ) from error
        for number, (_, chunk) in reversed(list(enumerate(hired.calls))):
            chunk.calls -= 1
            if chunk.done or chunk.calls:
                continue
            chunk.kills += number == 0  # it was in work, the others waited
            if chunk.kills < _MOST_KILLS:
                self._waiting.appendleft(chunk)
            elif len(chunk.tasks) == 1:
                (task,) = chunk.tasks
                ends = PictureError(f"{task.name} ends the process that works on it", "try it alone with `depth image`")
                yield failure(task, ends, self._job.settings)
            else:
                middle = len(chunk.tasks) // 2
                for tasks in (chunk.tasks[middle:], chunk.tasks[:middle]):
                    # Of a chunk that ended three, a part is soon known; a single picture gets another chance.
                    self._waiting.appendleft(_Chunk(tasks, kills=_MOST_KILLS - (2 if len(tasks) == 1 else 1)))

    def _kill(self, hired: _Hired) -> None:
        with suppress(Exception):  # it may have ended
            self._ray.kill(hired.handle)


def _import_ray() -> Any:
    """Return ray, which would take SIGTERM for itself. Raises UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'depthcli[ray]', with Python 3.10 or later"
        raise UsageError("`engine` ray needs ray, which is not installed", hint) from error
    finally:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, before)
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Connect to a cluster; return whether that was done here. Raises UsageError."""
    if ray.is_initialized():
        return False
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except Exception as error:
        hint = "start one, name its address with `ray_address`, or local to start one on this machine"
        raise UsageError(f"no Ray cluster answers at {address}: {first_line(error)}", hint) from error
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before)
    return True


def _room(ray: Any, choice: RayChoice) -> int:
    """Return how many actors the cluster has room for."""
    there = ray.cluster_resources()
    by_cpu = int(there.get("CPU", 0) // choice.cpus)
    return min(by_cpu, int(there.get("GPU", 0) / choice.gpus)) if choice.gpus else by_cpu


def _reason(error: Any) -> DepthError:
    """Return the error of an actor that ended the job."""
    cause = error.cause if isinstance(error.cause, DepthError) else error
    return cause if isinstance(cause, DepthError) else EngineError(f"a worker failed: {first_line(error.cause)}")
