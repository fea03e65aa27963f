"""Lanes: what goes in comes out in order, whoever is quicker; and a lane that is closed leaves nothing behind."""

from __future__ import annotations

import threading

import pytest

from depthcli.jobs.pipeline import Lane, wait_for_oldest

SECONDS = 20  # for what must happen; a test that waits so long has failed


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_entries_leave_in_the_order_they_came_though_the_first_is_done_last():
    done = threading.Event()
    with Lane[int](2) as lane:
        lane.put(lambda: done.wait(SECONDS) and 1)
        lane.put(lambda: done.set() or 2)
        lane.put_done(3)
        assert len(lane) == 3
        assert [lane.take() for _ in range(3)] == [1, 2, 3]


def test_calls_are_made_by_as_many_threads_at_once_as_were_asked_for():
    meeting = threading.Barrier(3, timeout=SECONDS)
    with Lane[int](3) as lane:
        for _ in range(3):
            lane.put(meeting.wait)
        assert sorted(lane.take() for _ in range(3)) == [0, 1, 2]


def test_without_threads_calls_are_made_at_once_by_the_caller():
    with Lane[threading.Thread](0) as lane:
        lane.put(threading.current_thread)
        assert lane.ready() and lane.take() is threading.main_thread()


@pytest.mark.parametrize("threads", [0, 1])
def test_an_error_is_raised_in_its_turn_and_the_rest_goes_on(threads):
    with Lane[int](threads) as lane:
        lane.put_done(1)
        lane.put(int, "x")
        lane.put(int, "3")
        lane.wait()
        assert lane.failed() and lane.take() == 1
        with pytest.raises(ValueError, match="invalid literal"):
            lane.take()
        assert not lane.failed() and lane.take() == 3


def test_ready_means_the_oldest():
    go = threading.Event()
    with Lane[object](2) as lane:
        assert not lane.ready()
        lane.put(go.wait, SECONDS)
        lane.put_done(None)
        assert not lane.ready()
        go.set()
        wait_for_oldest(lane, Lane(1))
        assert lane.ready()


def test_waiting_ends_with_the_first_of_several_lanes():
    go = threading.Event()
    with Lane[object](1) as slow, Lane[object](1) as quick:
        slow.put(go.wait, SECONDS)
        quick.put_done(None)
        wait_for_oldest(slow, quick)
        assert quick.ready() and not slow.ready()
        go.set()


def test_closing_waits_for_the_calls_that_have_begun_and_drops_the_others():
    begun, made = threading.Event(), []
    lane = Lane[object](1)

    def first() -> None:
        begun.set()
        while not lane.closed:
            pass
        made.append("first")

    lane.put(first)
    lane.put(made.append, "second")
    begun.wait(SECONDS)
    lane.close()
    assert made == ["first"] and not lane
