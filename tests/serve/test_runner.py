"""What waits, what runs together, what is kept: the parts of a service without its sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import DeviceLostError, EngineError, ModelError, UsageError
from depthcli.serve import models as models_module
from depthcli.serve.admission import Bodies, Places, Room
from depthcli.serve.metrics import Metrics
from depthcli.serve.models import Models
from depthcli.serve.problems import BusyError
from depthcli.serve.results import Result, Results
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings
from tests.serve.running import until

LATER = 1e12


class FakeEstimator:
    """Counts the pictures of each run, and waits for `gate`."""

    def __init__(self, best_batch: int = 4, mixes_sizes: bool = False, error: Exception | None = None) -> None:
        self.best_batch, self.mixes_sizes, self.error = best_batch, mixes_sizes, error
        self.row, self.detail = SimpleNamespace(name="fake"), "off"
        self.runs: list[list[Any]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()

    def run(self, batch: list[Any], recheck: bool = False) -> list[Any]:
        self.begun.set()
        assert self.gate.wait(10)
        self.runs.append([item.name for item in batch])
        if self.error and (len(batch) > 1 or batch[0].name == "bad"):
            raise self.error
        return [f"depth of {item.name}" for item in batch]


def item(name: str, size: tuple[int, int] = (14, 14)) -> Any:
    return SimpleNamespace(name=name, plan=SimpleNamespace(input_size=size))


@pytest.fixture
def runner():
    made = Runner(Metrics())
    yield made
    made.close()


def held(runner: Runner, estimator: FakeEstimator) -> Any:
    """Submit a picture and wait until the network has begun with it."""
    first = runner.submit(estimator, item("first"), LATER)
    assert estimator.begun.wait(10)
    return first


def test_what_waits_and_fits_runs_together_and_nothing_waits_for_more(runner):
    estimator = FakeEstimator(best_batch=3)
    first = held(runner, estimator)
    sizes = [(14, 14), (28, 14), (14, 14), (14, 14), (14, 14)]
    futures = [runner.submit(estimator, item(str(number), size), LATER) for number, size in enumerate(sizes)]
    estimator.gate.set()
    assert first.result(10)[0] == "depth of first"
    assert [future.result(10)[0] for future in futures] == [f"depth of {number}" for number in range(5)]
    assert estimator.runs == [["first"], ["0", "2", "3"], ["1"], ["4"]]


def test_a_backend_that_mixes_sizes_takes_any(runner):
    estimator = FakeEstimator(best_batch=8, mixes_sizes=True)
    held(runner, estimator)
    futures = [runner.submit(estimator, item(str(n), (14 * n, 14)), LATER) for n in range(1, 4)]
    estimator.gate.set()
    assert all(future.result(10) for future in futures) and estimator.runs[1] == ["1", "2", "3"]


def test_what_nobody_wants_any_more_never_runs(runner):
    estimator = FakeEstimator(best_batch=1)
    held(runner, estimator)
    left = runner.submit(estimator, item("left"), LATER)
    late = runner.submit(estimator, item("late"), time.monotonic() - 1)
    good = runner.submit(estimator, item("good"), LATER)
    assert left.cancel()
    estimator.gate.set()
    assert good.result(10)[0] == "depth of good"
    with pytest.raises(BusyError, match="too long"):
        late.result(10)
    assert estimator.runs == [["first"], ["good"]]


def test_one_bad_picture_does_not_fail_its_batch(runner):
    estimator = FakeEstimator(error=ValueError("broken"))
    estimator.error = None
    held(runner, estimator)
    estimator.error = ValueError("broken")
    futures = {name: runner.submit(estimator, item(name), LATER) for name in ("a", "bad", "c")}
    estimator.gate.set()
    assert futures["a"].result(10)[0] == "depth of a" and futures["c"].result(10)[0] == "depth of c"
    with pytest.raises(ValueError, match="broken"):
        futures["bad"].result(10)


def test_a_lost_device_is_known(runner):
    estimator = FakeEstimator(error=DeviceLostError("gone"))
    estimator.gate.set()
    with pytest.raises(DeviceLostError):
        runner.submit(estimator, item("bad"), LATER).result(10)
    assert runner.lost is not None


def test_pictures_go_before_the_frames_of_clips(runner):
    estimator = FakeEstimator()
    held(runner, estimator)
    order: list[str] = []
    threads = [threading.Thread(target=lambda: runner.call(lambda: order.append("frame"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(runner._calls) == 2)
    picture = runner.submit(estimator, item("picture"), LATER)
    picture.add_done_callback(lambda _: order.append("picture"))
    estimator.gate.set()
    for thread in threads:
        thread.join(10)
    assert order == ["picture", "frame", "frame"]


def test_passes_take_turns_with_pictures_which_wait_for_one_at_most(runner):
    estimator = FakeEstimator(best_batch=1)
    first = held(runner, estimator)
    order: list[str] = []

    def another(name: str) -> Any:
        return runner.submit_pass("detector", lambda: order.append(name), LATER)

    def picture(name: str) -> Any:
        future = runner.submit(estimator, item(name), LATER)
        future.add_done_callback(lambda _: order.append(name))
        return future

    futures = [another("pass 1"), another("pass 2"), picture("a"), picture("b"), another("pass 3"), picture("c")]
    left = another("left")
    assert left.cancel()
    estimator.gate.set()
    for future in (first, *futures):
        future.result(10)
    # All that waited through the first pass go before the next one; then the older one goes.
    assert order == ["pass 1", "a", "b", "c", "pass 2", "pass 3"]


def test_a_pass_that_waited_too_long_or_fails_is_an_error_of_its_own(runner):
    estimator = FakeEstimator()
    held(runner, estimator)
    late = runner.submit_pass("detector", lambda: 1, time.monotonic() - 1)
    bad = runner.submit_pass("detector", lambda: 1 // 0, LATER)
    good = runner.submit_pass("detector", lambda: 7, LATER)
    estimator.gate.set()
    assert good.result(10)[0] == 7
    with pytest.raises(BusyError, match="too long"):
        late.result(10)
    with pytest.raises(ZeroDivisionError):
        bad.result(10)
    lost = runner.submit_pass("detector", lambda: (_ for _ in ()).throw(DeviceLostError("gone")), LATER)
    with pytest.raises(DeviceLostError):
        lost.result(10)
    assert runner.lost is not None


def test_a_call_returns_and_raises_what_it_does(runner):
    assert runner.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        runner.call(lambda: 1 // 0)


def test_a_closed_runner_refuses_what_waits():
    runner, estimator = Runner(Metrics()), FakeEstimator()
    first = held(runner, estimator)
    waiting = runner.submit(estimator, item("waits", (28, 28)), LATER)
    closing = threading.Thread(target=runner.close)
    closing.start()
    until(lambda: not runner.alive)
    estimator.gate.set()
    closing.join(10)
    assert first.result(1)[0] == "depth of first"
    with pytest.raises(BusyError):
        waiting.result(1)
    with pytest.raises(BusyError):
        runner.submit(estimator, item("new"), LATER)


# --- Admission --------------------------------------------------------------------------------------------------------


def test_places_are_taken_at_once_or_refused():
    places = Places(2)
    with places.one(), places.one():
        with pytest.raises(BusyError) as refused, places.one():
            pass
        assert refused.value.status == 503 and int(refused.value.headers["Retry-After"]) >= 1
    assert places.taken == 0


def test_twenty_large_pictures_are_never_in_work_together():
    """100 megapixels of 27 bytes each, in the room for three."""
    size, most = 100_000_000 * 27, 3 * 100_000_000 * 27
    inside, peak, done = 0, 0, 0

    async def picture(room: Room) -> None:
        nonlocal inside, peak, done
        async with room.taken(size, 30):
            inside += 1
            peak = max(peak, inside)
            await asyncio.sleep(0.002)
            inside -= 1
        done += 1

    async def every() -> None:
        room = Room(most)
        await asyncio.gather(*(picture(room) for _ in range(20)))
        async with room.taken(10 * size, 0.01):  # one alone always fits
            pass

    asyncio.run(every())
    assert (peak, done) == (3, 20)


def test_room_is_given_back_by_those_who_give_up():
    async def every() -> None:
        room = Room(10)
        async with room.taken(10, 1):
            with pytest.raises(BusyError):
                async with room.taken(5, 0.01):
                    pass
            waiting = asyncio.ensure_future(room._take(5, 10))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with room.taken(10, 0.01):
            pass

    asyncio.run(every())


def test_a_small_picture_does_not_pass_a_large_one_for_ever():
    async def every() -> list[str]:
        room, order = Room(10), []

        async def picture(name: str, size: int) -> None:
            async with room.taken(size, 5):
                order.append(name)
                await asyncio.sleep(0.001)

        await asyncio.gather(picture("a", 6), picture("large", 10), picture("small", 1))
        return order

    assert asyncio.run(every()) == ["a", "large", "small"]


def test_bodies_that_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("depthcli.serve.admission.free_memory", lambda: 800)
    bodies = Bodies(least=50)
    bodies.add(100)
    with pytest.raises(BusyError):
        bodies.add(1)
    bodies.remove(100)
    bodies.add(1)


# --- Kept maps --------------------------------------------------------------------------------------------------------


def result(side: int = 10) -> Result:
    return Result(
        DepthMap(np.ones((side, side), np.float32), DepthKind.RELATIVE_DISPARITY),
        np.zeros((side, side, 3), np.uint8),
        "",
        {},
    )


def test_the_map_that_was_used_longest_ago_leaves_first():
    kept = Results(most=3 * result().size)
    first, second, third = (kept.add(result()) for _ in range(3))
    assert kept.get(first) is not None
    fourth = kept.add(result())
    assert [kept.get(name) is not None for name in (first, second, third, fourth)] == [True, False, True, True]
    huge = kept.add(result(100))
    assert kept.get(huge) is not None and kept.get(first) is None


def test_all_that_a_map_holds_is_counted():
    whole = np.zeros((1000, 1000, 3), np.uint8)
    assert replace(result(), rgb=whole[:1, :1]).size > whole.nbytes  # a part keeps the whole alive
    kept = Results(most=1 << 20)
    names = [kept.add(result(1)) for _ in range(300)]
    assert 50 < sum(kept.get(name) is not None for name in names) < 200  # not a million maps of one pixel


def test_answers_of_a_detector_are_counted_with_their_map():
    kept = Results(most=3 * result().size)
    first, second = kept.add(result()), kept.add(result())
    kept.add_answers(second, (np.zeros((5, 5), np.float32),))
    found = kept.get(second)
    assert found is not None and found.size == result().size + 100 and kept.get(first) is not None
    kept.add_answers(second, (np.zeros(result().size, np.uint8), np.zeros(result().size, np.uint8)))
    assert kept.get(second) is not None and kept.get(first) is None, "the other one made room"
    kept.add_answers("gone", (np.zeros(9),))
    kept.remove(second)
    assert kept._held == 0


def test_a_small_machine_keeps_fewer_maps(monkeypatch):
    monkeypatch.setattr("depthcli.serve.results.free_memory", lambda: 16 * result().size)
    kept = Results()
    names = [kept.add(result()) for _ in range(5)]
    assert [kept.get(name) is not None for name in names] == [False, False, False, True, True]
    kept.remove(names[4])
    kept.add(result())
    assert kept.get(names[3]) is not None


def test_a_map_is_forgotten_after_its_time():
    kept = Results(seconds=60)
    name = kept.add(replace(result(), made=time.monotonic() - 61))
    assert kept.get(name) is None


# --- Models -----------------------------------------------------------------------------------------------------------


@dataclass
class FakeModel:
    row: Any
    closed: bool = False
    description: str = "fake"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch):
    """The models that were opened, in their order; opening one of `failing` fails."""
    found: list[FakeModel] = []

    def open_model(choice: Any, *_: Any, **__: Any) -> FakeModel:
        if choice.model == "vitl":
            raise ModelError("no weights of vitl")
        found.append(FakeModel(SimpleNamespace(name=choice.model)))
        return found[-1]

    monkeypatch.setattr(models_module, "DepthEstimator", open_model)
    return found


def models(*names: str, **settings: Any) -> Models:
    return Models(ServiceSettings(models=names, **settings), Metrics(), lambda line: None)


def test_an_idle_model_leaves_and_the_first_stays(opened):
    made = models("tiny", "vits", keep_alive=0.05)
    made.load_first()
    with made.use("vits"):
        time.sleep(0.1)
        made.drop_idle()
        assert made.is_loaded("vits")  # it is in use
    made.drop_idle()
    assert made.is_loaded("vits")  # not long enough ago
    time.sleep(0.1)
    made.drop_idle()
    assert (made.is_loaded("vits"), made.is_loaded("tiny")) == (False, True)
    assert [(model.row.name, model.closed) for model in opened] == [("tiny", False), ("vits", True)]


@pytest.mark.parametrize(("keep_alive", "stays"), [(0.0, False), (float("inf"), True)])
def test_keep_alive_of_0_is_at_once_and_of_minus_1_never(opened, keep_alive, stays):
    made = models("tiny", "vits", keep_alive=keep_alive)
    made.load_first()
    with made.use("vits"):
        pass
    made.drop_idle()
    assert made.is_loaded("vits") is stays


def test_when_memory_is_short_the_model_used_longest_ago_leaves(opened, monkeypatch):
    made = models("tiny", "vits", "vitb", "metric-outdoor-vitl", keep_alive=float("inf"))
    made.load_first()
    for name in ("vitb", "vits"):
        with made.use(name):
            pass
    monkeypatch.setattr(models_module, "free_memory", lambda: 10**12 if opened[1].closed else 1)
    with made.use("metric-outdoor-vitl"):
        pass
    assert [model.row.name for model in opened if model.closed] == ["vitb"]


def test_a_model_is_loaded_once_for_many(opened):
    made = models("tiny", "vits")

    def use() -> None:
        with made.use("vits"):
            time.sleep(0.01)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1 and made._loaded["vits"].users == 0


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_requests(opened):
    made = models("vitl", "tiny")
    with pytest.raises(ModelError):
        made.load_first()
    assert isinstance(made.error, ModelError)
    with made.use("tiny"):
        pass


@pytest.mark.parametrize("names", [("da3-small",), ("vda-vits",), ("nope",)])
def test_models_that_a_service_cannot_have(names):
    with pytest.raises((UsageError, ModelError, EngineError)):
        models(*names)


def test_a_model_for_clips_takes_no_pictures(opened):
    made = models("tiny", "vda-vits")
    assert (made.check(None), made.check_clip(None), made.check_clip("tiny")) == ("tiny", "vda-vits", "tiny")
    with pytest.raises(UsageError, match="for clips"):
        made.check("vda-vits")
