"""The folder job on Ray clusters of this machine: nothing is lost, and the files are those of one process.

The engine sleeps: several nodes on one machine show how work is handed out, not how fast networks are.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, ModelError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.find import Input, find_in_folder
from depthcli.jobs.folder import run_folder
from depthcli.jobs.manifest import Manifest, read_rows
from depthcli.jobs.picture_job import FolderJob
from depthcli.jobs.ray_choice import RayChoice
from depthcli.jobs.ray_engine import run_on_ray
from depthcli.jobs.targets import plan_pictures
from depthcli.predict.picture import DepthEstimator
from tests.conftest import photo, tree
from tests.jobs.sleeping import SECONDS, LoadTogether, Sleeping

# What Ray warns of, and what it leaves open, is its own.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray", reason="the extra ray is optional, and large")
SHA = Sleeping.weights.sha256


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head with one core, which tests add nodes to."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = signal.getsignal(signal.SIGTERM)
    made = tried(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}))
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    signal.signal(signal.SIGTERM, before)


def tried(start):
    """Return what starts a node of Ray, which gives up after half a minute: too soon on a busy machine."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:  # Ray's own has no class
            if "timed out during startup" not in str(error):
                raise
    return start()


def grown(cluster, nodes: int):
    """Give a cluster this many nodes of one core."""
    while len(cluster.list_all_nodes()) < nodes:
        tried(lambda: cluster.add_node(num_cpus=1))
    cluster.wait_for_nodes()
    deadline = time.monotonic() + 60
    while ray.cluster_resources().get("CPU") != nodes and time.monotonic() < deadline:
        time.sleep(0.1)
    return cluster


def make_job(count: int, killer: bool = False) -> FolderJob:
    for number in range(count):
        photo(f"in/{number:03d}.png", (20 + number % 5, 15))
    if killer:
        photo("in/killer.png", (20, 15))
    pictures = [Input(Path("in", name), name) for name in find_in_folder(Path("in"))]
    manifest = Manifest(Path("out/manifest.jsonl"))
    return FolderJob(plan_pictures(pictures, Path("out")), OutputSpec(("gray",)), manifest=manifest)


def together(count: int):
    folder = Path("loaded").absolute()
    folder.mkdir(exist_ok=True)
    return LoadTogether(folder, count), SHA


def files_of_one_process(job: FolderJob) -> dict[str, bytes]:
    pictures = [Input(task.source, task.source.relative_to("in")) for task in job.tasks]
    engine = Sleeping()
    engine.run = lambda batch, recheck=False: [item.image for item in batch]
    list(run_folder(FolderJob(plan_pictures(pictures, Path("alone")), job.outputs), lambda: engine))
    return tree("alone")


def reached(nodes: int, chunk: int) -> float:
    """Do 70 pictures on so many nodes; return the ideal time over the time from the first task to the last file."""
    shutil.rmtree("loaded", ignore_errors=True)
    shutil.rmtree("out", ignore_errors=True)
    job = make_job(70)
    results = list(run_on_ray(job, RayChoice(least=nodes, most=nodes, chunk=chunk), lambda: together(nodes)))
    assert Counter(result.status for result in results) == {"done": 70}
    assert sorted(result.input for result in results) == sorted(task.name for task in job.tasks)
    assert len(list(Path("loaded").iterdir())) == nodes
    began = max(path.stat().st_mtime for path in Path("loaded").iterdir())
    ended = max(path.stat().st_mtime for path in Path("out").glob("*.png"))
    return 70 * SECONDS / nodes / (ended - began)


@pytest.mark.parametrize(("nodes", "wanted"), [(1, 0.9), (2, 0.9), (4, 0.85)])
def test_every_node_takes_its_share_of_the_work(cluster, nodes, wanted):
    """The count is no multiple of chunks and nodes. A busy machine may take any time, so the best of three counts."""
    grown(cluster, nodes)
    best = 0.0
    for _ in range(3):
        best = max(best, reached(nodes, chunk=8))
        if best >= wanted:
            break
    print(f"{nodes} nodes: {best:.3f} of ideal")
    assert best >= wanted


def test_a_node_that_is_removed_costs_its_chunks_at_hand_and_nothing_else(cluster):
    grown(cluster, 4)
    job = make_job(80)
    choice = RayChoice(least=4, most=4, chunk=4)
    seen, calls, removed = [], Counter(), False
    for result in run_on_ray(job, choice, lambda: (partial(_counting, Path("calls").absolute()), SHA)):
        seen.append(result.input)
        if len(seen) >= 32 and not removed:
            removed = True
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    calls.update(path.read_text() for path in Path("calls").iterdir())
    assert Counter(seen) == {task.name: 1 for task in job.tasks}
    assert [row["status"] for row in read_rows(Path("out/manifest.jsonl"))] == ["done"] * 80
    assert tree("out") == files_of_one_process(job)
    again = sum(count - 1 for count in calls.values())
    print(f"{again} pictures again")
    assert again <= 2 * choice.chunk


class _Counting(Sleeping):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def run(self, batch, recheck=False):
        for item in batch:
            (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").write_text(Path(item.picture.name).name)
        return super().run(batch, recheck)


def _counting(folder: Path) -> _Counting:
    return _Counting(folder)


def test_a_picture_that_ends_its_process_is_named_and_the_rest_is_done(cluster):
    grown(cluster, 2)
    job = make_job(15, killer=True)
    results = list(run_on_ray(job, RayChoice(most=2, chunk=8), lambda: (Sleeping, SHA)))
    failed = [result for result in results if result.status == "failed"]
    assert [Path(result.input).name for result in failed] == ["killer.png"]
    assert "ends the process" in failed[0].error and len(results) == 16
    assert len(tree("out")) == 15


def _tiny() -> DepthEstimator:
    return DepthEstimator("tiny", BackendChoice("torch", precision="fp32", device="cpu"), input_size=56)


def test_the_real_job_gives_the_files_of_one_process(cluster):
    grown(cluster, 2)
    for number in range(12):
        photo(f"in/{number % 3}/{number}.jpg", (80 + number, 60))
    Path("in/0/broken.jpg").write_bytes(b"\xff\xd8\xff")
    pictures = [Input(Path("in", name), name) for name in find_in_folder(Path("in"))]
    jobs = [FolderJob(plan_pictures(pictures, Path(out)), OutputSpec(("color", "npz"))) for out in ("out", "alone")]
    with _tiny() as estimator:
        sha256 = estimator.weights.sha256
    found = list(run_on_ray(jobs[0], RayChoice(most=2, chunk=3), lambda: (_tiny, sha256)))
    alone = list(run_folder(jobs[1], _tiny))
    assert sorted((result.input, result.status, result.error) for result in found) == sorted(
        (result.input, result.status, result.error) for result in alone
    )
    assert tree("out") == tree("alone") and len(tree("out")) == 24
    Path("in/0/broken.jpg").unlink()
    tasks = [task for task in jobs[0].tasks if "broken" not in task.name]
    again = run_on_ray(replace(jobs[0], tasks=tasks), RayChoice(), lambda: pytest.fail("a model is loaded"))
    assert Counter(result.status for result in again) == {"skipped": 12}


def _missing() -> DepthEstimator:
    raise ModelError("the weights are gone", "put them back")


def _dying() -> DepthEstimator:
    os._exit(1)


@pytest.mark.parametrize(
    ("load", "sha256", "error"),
    [(_missing, SHA, ModelError), (_dying, SHA, EngineError), (Sleeping, "cd" * 32, EngineError)],
)
def test_actors_that_cannot_start_end_the_job_with_their_reason(cluster, load, sha256, error):
    job = make_job(3)
    with pytest.raises(error, match=r"weights are gone|while they started|other weights"):
        list(run_on_ray(job, RayChoice(most=1), lambda: (load, sha256)))
    assert not tree("out")
