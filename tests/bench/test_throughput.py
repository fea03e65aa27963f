"""The figures of an engine kept busy are right where they can be known, and a copy that fails is not waited for."""

from __future__ import annotations

import threading
import time

import pytest

from depthcli.bench.throughput import cost_per_million, figures, measure


def test_figures_of_calls_that_are_known():
    # Two threads with four calls in a second each; after the first second one of them stands still.
    calls = [(0.25 * n, 0.25 * n + 0.2) for n in range(8)] + [(0.25 * n, 0.25 * n + 0.2) for n in range(4)]
    found = figures([*calls, (1.8, 2.0)], batch=3)
    assert (found.pictures, found.seconds) == (39, 2.0)
    assert found.throughput_avg == 19.5 and found.throughput_peak == 24
    assert found.percentile(50) == pytest.approx(200) == found.percentile(99)


def test_every_copy_is_run_by_all_its_workers_at_the_same_time():
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    together = threading.Barrier(4)

    def copy(number: int) -> None:
        if threading.get_ident() not in seen[number]:
            seen[number].add(threading.get_ident())
            together.wait(10)  # ends only where four run at once
        time.sleep(0.001)

    found = measure([lambda: copy(0), lambda: copy(1)], workers=2, batch=1, seconds=0.05)
    assert [len(threads) for threads in seen.values()] == [2, 2]
    assert found.pictures >= 4 and found.seconds >= 0.05


def test_a_copy_that_fails_ends_the_measurement_with_what_it_raised():
    def broken() -> None:
        raise ValueError("no such core")

    with pytest.raises(ValueError, match="no such core"):
        measure([lambda: None, broken], workers=2, batch=1, seconds=0.01)


def test_the_price_of_a_million_pictures():
    assert cost_per_million(throughput=100, cost_per_hour=0.36) == pytest.approx(1.0)
