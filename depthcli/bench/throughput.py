"""Measure throughput and latency of busy copies of a network, with the names of AWS's neuronperf for comparison."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable

import numpy as np

_WINDOW = 1.0  # seconds; the peak is the best window
_WARMUP_CALLS = 2  # per worker, not counted


@dataclass(frozen=True)
class Figures:
    """Throughput and latency. latencies_ms: of each call; pictures: in all calls; seconds: from first to last."""

    pictures: int
    seconds: float
    throughput_avg: float
    throughput_peak: float
    latencies_ms: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Return the milliseconds that `share` percent of the calls stay below."""
        return float(np.percentile(self.latencies_ms, share))


def measure(copies: Sequence[Callable[[], object]], workers: int, batch: int, seconds: float) -> Figures:
    """Keep every copy of a network busy from `workers` threads each, and return the figures.

    copies: each call runs one batch of `batch` pictures, from several threads if workers > 1. seconds: duration, at
    least one call of each worker. Errors of the calls are raised.
    """
    start = threading.Barrier(len(copies) * workers)

    def work(copy: Callable[[], object]) -> list[tuple[float, float]]:
        for _ in range(_WARMUP_CALLS):
            copy()
        start.wait()
        calls: list[tuple[float, float]] = []
        end = time.perf_counter() + seconds
        while not calls or time.perf_counter() < end:
            began = time.perf_counter()
            copy()
            calls.append((began, time.perf_counter()))
        return calls

    def guarded(copy: Callable[[], object]) -> list[tuple[float, float]]:
        try:
            return work(copy)
        except BaseException:
            start.abort()  # the others must not wait for this one
            raise

    with ThreadPoolExecutor(len(copies) * workers) as pool:
        futures = [pool.submit(guarded, copy) for copy in copies for _ in range(workers)]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error  # the cause, not the broken barriers
        calls = [call for future in futures for call in future.result()]
    return figures(calls, batch)


def figures(calls: Sequence[tuple[float, float]], batch: int) -> Figures:
    """Return the figures of calls, each from a begin to an end in seconds."""
    first, last = min(began for began, _ in calls), max(ended for _, ended in calls)
    seconds = last - first
    ends = np.array([ended for _, ended in calls]) - first
    average = batch * len(calls) / seconds
    whole = int(seconds / _WINDOW)
    windows = np.histogram(ends, bins=whole, range=(0, whole * _WINDOW))[0] if whole else np.zeros(0)
    peak = float(windows.max()) * batch / _WINDOW if whole > 1 else average
    return Figures(
        pictures=batch * len(calls),
        seconds=seconds,
        throughput_avg=average,
        throughput_peak=max(peak, average),
        latencies_ms=tuple(1000 * (ended - began) for began, ended in calls),
    )


def cost_per_million(throughput: float, cost_per_hour: float) -> float:
    """Return what a million pictures cost at so many a second, in the currency of the hour's price."""
    return 1e6 / throughput * cost_per_hour / 3600
