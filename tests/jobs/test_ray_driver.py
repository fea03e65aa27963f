"""How chunks are handed out to actors that end, hang or wait for room, on a cluster that this process plays."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from depthcli.errors import EngineError, UsageError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs import ray_engine
from depthcli.jobs.picture_job import FolderJob, result_of
from depthcli.jobs.ray_choice import RayChoice, parse_workers
from depthcli.jobs.ray_engine import run_on_ray
from depthcli.jobs.targets import Task


class LostError(Exception):
    """An actor, its node, or the way to it is gone."""


class Call:
    """One call of an actor, which is made when somebody waits for it."""

    def __init__(self, actor: Actor, work, is_chunk: bool) -> None:
        self.actor, self.work, self.is_chunk = actor, work, is_chunk


class Actor:
    """Does its calls in their order. number: how many came before."""

    def __init__(self, cluster: Cluster, job: FolderJob) -> None:
        self.cluster, self.job, self.number = cluster, job, len(cluster.actors)
        self.calls: list[Call] = []
        self.ended = False
        self.ready = SimpleNamespace(remote=lambda: self._asked(lambda: cluster.weights, False))
        self.do = SimpleNamespace(remote=lambda tasks: self._asked(lambda: self._results(tasks), True))

    def _asked(self, work, is_chunk: bool) -> Call:
        self.calls.append(Call(self, work, is_chunk))
        return self.calls[-1]

    def _results(self, tasks):
        self.cluster.sizes.append(len(tasks))
        self.cluster.asked.update(task.name for task in tasks)
        if self.cluster.lost(self, tasks):
            raise LostError
        return [result_of(self.job, task, "done") for task in tasks]


class Cluster:
    """Ray, as far as the driver asks for it.

    room: actors that it has room for. lost: whether a chunk ends its actor. hangs: whether a call never ends.
    """

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=LostError)

    def __init__(self, room: int = 2, lost=lambda actor, tasks: False, hangs=lambda call: False) -> None:
        self.room, self.lost, self.hangs, self.weights = room, lost, hangs, "ab"
        self.actors: list[Actor] = []
        self.asked: Counter = Counter()
        self.sizes: list[int] = []
        self.turn = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.room)}  # and no GPU

    def put(self, value):
        return value

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=self._made)

    def _made(self, job, *rest) -> Actor:
        self.actors.append(Actor(self, job))
        return self.actors[-1]

    def kill(self, actor: Actor) -> None:
        actor.ended = True

    def wait(self, calls, num_returns, timeout, fetch_local):
        with_room = [actor for actor in self.actors if not actor.ended][: self.room]
        able = [
            call for call in calls if call.actor in with_room and call is call.actor.calls[0] and not self.hangs(call)
        ]
        if not able:
            time.sleep(0.001)
            return [], calls
        self.turn += 1
        done = able[self.turn % len(able)]
        return [done], [call for call in calls if call is not done]

    def get(self, call: Call):
        if call.actor.ended:
            raise LostError
        call.actor.calls.remove(call)
        return call.work()


def played(monkeypatch, cluster: Cluster, count: int, **choice) -> tuple[Counter, list]:
    """Do a job of `count` pictures; return how often each result came, and the failures."""
    monkeypatch.setattr(ray_engine, "_import_ray", lambda: cluster)
    tasks = [Task(Path(f"in/{number}.png"), f"{number}.png", Path(f"out/{number}")) for number in range(count)]
    job = FolderJob(tasks, OutputSpec(("gray",)))
    results = list(run_on_ray(job, RayChoice(**choice), lambda: (object, "ab")))
    assert sorted(result.input for result in results) == sorted(task.name for task in tasks)
    return Counter(result.status for result in results), [result for result in results if result.status == "failed"]


def test_every_picture_is_done_once(monkeypatch):
    cluster = Cluster(room=3)
    assert played(monkeypatch, cluster, 50, chunk=4) == ({"done": 50}, [])
    assert set(cluster.asked.values()) == {1} and len(cluster.actors) == 3
    assert all(actor.ended for actor in cluster.actors)


def test_a_picture_that_ends_its_process_is_found_among_its_chunk(monkeypatch):
    cluster = Cluster(lost=lambda actor, tasks: any(task.name == "21.png" for task in tasks))
    counts, (failed,) = played(monkeypatch, cluster, 64, chunk=16)
    assert counts == {"done": 63, "failed": 1}
    assert failed.input == "21.png" and "ends the process" in failed.error
    assert len(cluster.actors) < 16


@pytest.mark.parametrize("every", [3, 5])
def test_actors_that_are_lost_now_and_then_lose_nothing(monkeypatch, every):
    calls = []
    cluster = Cluster(lost=lambda actor, tasks: bool(calls.append(0)) or len(calls) % every == 0)
    assert played(monkeypatch, cluster, 60, chunk=5) == ({"done": 60}, [])


def test_more_actors_than_there_is_room_for_keep_asking_and_stop_nothing(monkeypatch):
    cluster = Cluster(room=2)
    assert played(monkeypatch, cluster, 60, chunk=2, least=1, most=8) == ({"done": 60}, [])
    assert 2 < len(cluster.actors) <= 8  # those that wait make a cluster grow


def test_no_more_actors_than_chunks(monkeypatch):
    cluster = Cluster(room=9)
    played(monkeypatch, cluster, 3, chunk=2, most=9)
    assert len(cluster.actors) <= 2


def test_the_last_chunks_are_small_and_the_first_as_asked_for(monkeypatch):
    cluster = Cluster(room=4)
    assert played(monkeypatch, cluster, 650, chunk=32, least=4, most=4) == ({"done": 650}, [])
    assert cluster.sizes[:8] == [32] * 8  # while it is not known how many come
    assert cluster.sizes[-1] == 1 and max(cluster.sizes[-8:]) <= 3
    assert len(cluster.sizes) < 80 and set(cluster.asked.values()) == {1}


def test_a_late_chunk_is_copied_and_counts_once(monkeypatch):
    monkeypatch.setattr(ray_engine, "_COPIED_AFTER", 0.0)
    cluster = Cluster(hangs=lambda call: call.actor.number == 0 and call.is_chunk)
    assert played(monkeypatch, cluster, 12, chunk=2) == ({"done": 12}, [])
    assert len(cluster.actors[0].calls) == 2 and cluster.actors[0].ended  # the other one waited behind it


def test_actors_that_end_before_they_are_ready_end_the_job(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(Cluster, "get", lambda self, call: (_ for _ in ()).throw(LostError("memory")))
    with pytest.raises(EngineError, match="while they started: memory"):
        played(monkeypatch, cluster, 4)


def test_a_cluster_without_room_is_said_to_have_none(monkeypatch):
    with pytest.raises(UsageError, match="no room for a worker with 1 CPUs and 1 GPUs"):
        played(monkeypatch, Cluster(), 4, gpus=1.0)


def test_a_node_with_other_weights_ends_the_job(monkeypatch):
    cluster = Cluster()
    cluster.weights = "cd"
    with pytest.raises(EngineError, match="other weights"):
        played(monkeypatch, cluster, 4)


@pytest.mark.parametrize(("text", "workers"), [("4", (4, 4)), ("2:16", (2, 16)), ("auto", (1, None)), ("1", (1, 1))])
def test_workers_are_a_number_or_a_range(text, workers):
    assert parse_workers(text) == workers


@pytest.mark.parametrize(
    "make",
    [
        lambda: parse_workers("2:"),
        lambda: parse_workers("many"),
        lambda: RayChoice(least=3, most=2),
        lambda: RayChoice(chunk=0),
        lambda: RayChoice(cpus=0),
        lambda: RayChoice(gpus=1.5),
        lambda: RayChoice(gpus=-1),
    ],
)
def test_what_no_cluster_can_give_is_refused(make):
    with pytest.raises(UsageError):
        make()
