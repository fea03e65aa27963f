"""The runner: one thread that runs the networks, on what waits and fits together; nothing waits for more to come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from depthcli.errors import DeviceLostError, EngineError
from depthcli.pixels.postprocess import Answer
from depthcli.predict.picture import DepthEstimator, Prepared
from depthcli.serve.metrics import Metrics
from depthcli.serve.problems import BusyError


@dataclass(eq=False)
class _Waiting:
    """A prepared picture. until: on time.monotonic, when nobody wants to wait any more for it to begin."""

    estimator: DepthEstimator
    prepared: Prepared
    until: float
    since: float = field(default_factory=time.monotonic)
    future: Future[tuple[Answer, float, float]] = field(default_factory=Future)

    @property
    def key(self) -> Hashable:
        """Pictures of one key may share a run."""
        size = () if self.estimator.mixes_sizes else self.prepared.plan.input_size
        return self.estimator.row.name, self.estimator.detail, size


@dataclass(eq=False)
class _Pass:
    """A pass of another network over one picture, as the detector's. name: of the network. until: as of _Waiting."""

    name: str
    call: Callable[[], Any]
    until: float
    since: float = field(default_factory=time.monotonic)
    future: Future[tuple[Any, float, float]] = field(default_factory=Future)


class Runner:
    """Runs networks in a thread of its own, pictures before the frames of clips. `close` it in the end.

    Passes of other networks take their turn among the pictures, each of which waits for one of them at most.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pictures: deque[_Waiting] = deque()
        self._passes: deque[_Pass] = deque()
        self._passed = 0.0  # when the last pass ended
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.lost: Optional[DeviceLostError] = None
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)
        self._thread.start()

    def submit(
        self, estimator: DepthEstimator, prepared: Prepared, until: float
    ) -> Future[tuple[Answer, float, float]]:
        """Return the future of (answer, seconds of waiting, seconds of the network). Cancel it if nobody wants it."""
        item = _Waiting(estimator, prepared, until)
        with self._changed:
            self._check()
            self._pictures.append(item)
            self._changed.notify()
        return item.future

    def submit_pass(self, name: str, call: Callable[[], Any], until: float) -> Future[tuple[Any, float, float]]:
        """Return the future of a call that runs the network of a name, as `submit` does."""
        item = _Pass(name, call, until)
        with self._changed:
            self._check()
            self._passes.append(item)
            self._changed.notify()
        return item.future

    def call(self, call: Callable[[], Any]) -> Any:
        """Make a call in the runner's thread when no picture waits, and return what it returns."""
        future: Future[Any] = Future()
        with self._changed:
            self._check()
            self._calls.append((call, future))
            self._changed.notify()
        return future.result()

    @property
    def alive(self) -> bool:
        """Whether it runs what it is given."""
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Finish the run at hand and refuse what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        waiting: list[Future[Any]] = [item.future for item in self._pictures]
        waiting += [item.future for item in self._passes]
        waiting += [future for _, future in self._calls]
        for future in waiting:
            if not future.done():
                future.set_exception(BusyError("the service is stopping"))

    def _check(self) -> None:
        if self._closed:
            raise BusyError("the service is stopping")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._pictures or self._passes or self._calls)
                if self._closed:
                    return
                another = self._take_pass()
                batch = [] if another else self._take()
                one = None if another or batch or not self._calls else self._calls.popleft()
            if another:
                self._run_pass(another)
            elif batch:
                self._run_batch(batch)
            elif one is not None:
                _make(*one)

    def _take(self) -> list[_Waiting]:
        """Return the oldest picture that is still wanted, with those behind it that may share its run."""
        taken: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        while self._pictures and (not taken or len(taken) < taken[0].estimator.best_batch):
            item = self._pictures.popleft()
            if item.future.cancelled():
                continue
            if time.monotonic() > item.until:
                item.future.set_exception(BusyError("the picture waited too long"))
            elif not taken or item.key == taken[0].key:
                if item.future.set_running_or_notify_cancel():
                    taken.append(item)
            else:
                others.append(item)
        self._pictures.extendleft(reversed(others))
        return taken

    def _take_pass(self) -> Optional[_Pass]:
        """Return the oldest pass that is still wanted, if it is its turn: no picture is older, or waited for one."""
        while self._passes:
            item = self._passes[0]
            if self._pictures and (self._pictures[0].since < item.since or self._pictures[0].since < self._passed):
                return None
            self._passes.popleft()
            if item.future.cancelled():
                continue
            if time.monotonic() > item.until:
                item.future.set_exception(BusyError("the picture waited too long"))
            elif item.future.set_running_or_notify_cancel():
                return item
        return None

    def _run_pass(self, item: _Pass) -> None:
        began = time.monotonic()
        try:
            answer = item.call()
        except Exception as error:
            item.future.set_exception(self._known(error))
            return
        finally:
            self._passed = time.monotonic()
        self._metrics.network.labels(item.name).observe(self._passed - began)
        self._metrics.queue_wait.observe(began - item.since)
        item.future.set_result((answer, began - item.since, self._passed - began))

    def _known(self, error: Exception) -> Exception:
        """Note a lost device, and return the error that requests get."""
        if isinstance(error, DeviceLostError):
            self.lost = error
        if isinstance(error, MemoryError):
            return EngineError("not enough memory", "use a smaller `input_size`")
        return error

    def _run_batch(self, batch: Sequence[_Waiting]) -> None:
        """Run the network; if a batch fails, each picture alone."""
        estimator = batch[0].estimator
        began = time.monotonic()
        try:
            answers = estimator.run([item.prepared for item in batch], recheck=True)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, DeviceLostError):
                for item in batch:
                    self._run_batch([item])
                return
            error = self._known(error)
            for item in batch:
                item.future.set_exception(error)
            return
        seconds = time.monotonic() - began
        self._metrics.network.labels(estimator.row.name).observe(seconds)
        self._metrics.batch.observe(len(batch))
        for item, answer in zip(batch, answers):
            self._metrics.queue_wait.observe(began - item.since)
            item.future.set_result((answer, began - item.since, seconds))


def _make(call: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        found = call()
    except BaseException as error:
        with suppress(Exception):
            future.set_exception(error)
    else:
        future.set_result(found)
