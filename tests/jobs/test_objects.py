"""Objects of many pictures: stages at the same time, results in order, few pictures in memory."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from depthcli import DepthKind, DepthMap
from depthcli.errors import DiskFullError, PictureError, UsageError
from depthcli.io.masks.found import ObjectMask
from depthcli.jobs import objects as jobs
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED
from depthcli.jobs.objects import ObjectsJob, run_objects
from depthcli.jobs.targets import Task
from depthcli.objects.sources import FoundMasks
from tests.conftest import broken, photo, tree

PAUSE = 0.15


class Masks:
    """One object in every picture. at: called for pictures in a step, by (step, name)."""

    facts = MappingProxyType({"source": "fake", "digest": ""})

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], object] = {}
        self.log: list[tuple[str, str]] = []
        self.threads: dict[str, set[int]] = {}
        self.alive, self.most = 0, 0
        self.lock = threading.Lock()

    def step(self, name: str, picture: str) -> None:
        with self.lock:
            self.log.append((name, picture))
            self.threads.setdefault(name, set()).add(threading.get_ident())
            self.alive += {"prepare": 1, "finish": -1}.get(name, 0)
            self.most = max(self.most, self.alive)
        call = self.at.get((name, picture), self.at.get((name, "*")))
        if call is not None:
            call()

    def prepare(self, rgb, path=None, number=0):
        self.step("prepare", path.name)
        return path.name

    def run(self, prepared):
        self.step("run", prepared)
        return prepared

    def finish(self, prepared, answer, size):
        self.step("finish", prepared)
        assert prepared == answer
        mask = np.zeros(size[::-1], bool)
        mask[10:50, 10:60] = True
        return FoundMasks([ObjectMask(mask, prepared)])

    def close(self) -> None: ...


class Depth:
    def prepare(self, task, picture):
        return picture.size

    def run(self, prepared):
        return prepared

    def finish(self, prepared, answer):
        return DepthMap(np.full(answer[::-1], 2, np.float32), DepthKind.METRIC_DEPTH), ()


def tasks(count: int) -> list[Task]:
    names = [f"{number:02d}.png" for number in range(count)]
    return [Task(photo(f"in/{name}"), name, Path(f"out/{name[:-4]}")) for name in names]


def run(job: ObjectsJob, masks: Masks, stop=lambda: False):
    with closing(run_objects(job, lambda: masks, Depth, stop)) as results:
        return list(results)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("depthcli.jobs.folder.usable_cores", lambda: 2)


def test_stages_overlap_and_results_keep_the_order(two_cores):
    masks = Masks()
    masks.at = {(step, "*"): (lambda: time.sleep(PAUSE)) for step in ("prepare", "run", "finish")}
    masks.at["finish", "01.png"] = lambda: time.sleep(4 * PAUSE)
    kept: list[str] = []
    job = ObjectsJob(tasks(8), ("json",), keep=lambda document: kept.append(document["picture"]["path"]))
    started = time.perf_counter()
    results = run(job, masks)
    assert time.perf_counter() - started < 0.75 * (3 * 8 + 3) * PAUSE
    assert [result.input for result in results] == kept == [f"{number:02d}.png" for number in range(8)]
    assert masks.threads["run"] == {threading.get_ident()} and threading.get_ident() not in masks.threads["finish"]


def test_few_pictures_are_in_memory_however_many_there_are(two_cores):
    masks = Masks()
    masks.at["run", "*"] = lambda: time.sleep(0.005)
    assert len(run(ObjectsJob(tasks(40), ("json",)), masks)) == 40
    assert masks.most <= 6


def test_where_memory_is_short_pictures_go_one_by_one(two_cores, monkeypatch):
    monkeypatch.setattr(jobs, "free_memory", lambda: 1000)
    masks = Masks()
    assert len(run(ObjectsJob(tasks(6), ("json",)), masks)) == 6
    assert masks.most == 1


def test_memory_that_others_take_is_waited_for(two_cores):
    masks, failures = Masks(), []

    def fails() -> None:
        if not failures:
            failures.append(1)
            raise PictureError("no memory", "")

    masks.at = {("run", "01.png"): fails, ("finish", "00.png"): lambda: time.sleep(0.3)}
    results = run(ObjectsJob(tasks(2), ("json",)), masks)
    assert failures and {result.status for result in results} == {DONE}


@pytest.mark.parametrize("step", ["prepare", "run", "finish"])
def test_a_picture_that_fails_stops_no_other(two_cores, step):
    masks = Masks()

    def fails() -> None:
        raise UsageError("this one fails", "")

    masks.at[step, "02.png"] = fails
    work = tasks(5)
    broken("in/03.png")
    results = run(ObjectsJob(work, ("json",)), masks)
    assert [result.status for result in results] == [DONE, DONE, FAILED, FAILED, DONE]
    assert "this one fails" in results[2].error
    assert sorted(tree("out")) == [f"{number:02d}_objects.json" for number in (0, 1, 4)]


def test_a_full_disk_ends_the_job(two_cores, monkeypatch):
    def full(*_: object) -> None:
        raise DiskFullError("the disk is full", "")

    monkeypatch.setattr(jobs, "write_objects", full)
    with pytest.raises(DiskFullError):
        run(ObjectsJob(tasks(5), ("json",)), Masks())


def test_a_stopped_job_ends_with_whole_pictures_and_goes_on(two_cores):
    masks, work = Masks(), tasks(8)
    first = run(ObjectsJob(work, ("json",)), masks, lambda: ("run", "02.png") in masks.log)
    assert 3 <= len(first) < 8 and len(tree("out")) == len(first)
    before = tree("out")
    results = run(ObjectsJob(work, ("json",)), Masks())
    assert [result.status for result in results] == [SKIPPED] * len(first) + [DONE] * (8 - len(first))
    assert len(tree("out")) == 8 and before.items() <= tree("out").items()


def test_what_is_there_opens_nothing(two_cores):
    work = tasks(3)
    run(ObjectsJob(work, ("json",)), Masks())
    assert [result.status for result in run_objects(ObjectsJob(work, ("json",)), None, None)] == [SKIPPED] * 3
