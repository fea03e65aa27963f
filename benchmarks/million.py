"""A million names: time to the first picture, and memory of the list, a shard, the manifest, its merging, and Ray.

    python benchmarks/million.py [--names 1000000] [--below FOLDER] [--only ray]

Empty files in a folder that is removed afterwards; each step runs in a process of its own. Memory is the growth of the
process over what it had once its imports were done. With Ray it is that of the process that hands out chunks, once the
cluster answers; its workers answer without reading.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_EACH = 1000  # pictures in a folder
_COMMON = """
import resource, sys, time
from pathlib import Path
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.folder_tasks import FolderSearch, FolderTasks
from depthcli.jobs.manifest import Manifest, Result, read_rows
from depthcli.jobs.manifests import merge_manifests
from depthcli.jobs.shards import WHOLE, Shard
root, count = Path(sys.argv[1]), int(sys.argv[2])
def tasks(shard=WHOLE):
    return FolderTasks(FolderSearch(root / "in", root / "out", shard=shard), {}, OutputSpec(("gray",)).paths)
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
next(iter(tasks()))
before, started = most(), time.perf_counter()
def told(what):
    print(f"{what:<34}{time.perf_counter() - started:8.2f} s {most() - before:8.1f} MB", flush=True)
"""
_STEPS = [
    'found = tasks(); found.check(); next(iter(found)); told("the first picture")',
    'print(sum(1 for _ in tasks()), end=" "); told("all pictures")',
    'print(sum(1 for _ in tasks(Shard(3, 16))), end=" "); told("shard 3/16")',
    'print(tasks().count(), end=" "); told("counting")',
    'print(len(Manifest(root / "out/manifest-00001-of-00002.jsonl").rows), end=" "); told("opening a manifest")',
    'print(merge_manifests(root / "out"), end=" "); told("merging two manifests")',
]
_RAY = """
import os
import ray
from depthcli.jobs import ray_engine
from depthcli.jobs.picture_job import FolderJob, result_of
from depthcli.jobs.ray_choice import RayChoice
class Answering(ray_engine._Actor):
    def ready(self):
        return "ab"
    def do(self, tasks):
        return [result_of(self._job, task, "done", ms=12.5, weights="ab" * 32) for task in tasks]
ray_engine._Actor = Answering
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ready = []
began = ray_engine._Driver._began
ray_engine._Driver._began = lambda self, *found: (began(self, *found), ready.append(time.perf_counter()))
manifest = Manifest(root / "ray/manifest.jsonl")
job = FolderJob(tasks(), OutputSpec(("gray",)), if_exists="overwrite", manifest=manifest)
results = ray_engine.run_on_ray(job, RayChoice(most=2, chunk=500), lambda: (object, "ab"))
before, started = most(), time.perf_counter()
next(results)
print(f"{time.perf_counter() - ready[0]:.2f} s after a worker was there", end=" "); told("the first through Ray")
print(1 + sum(1 for _ in results), end=" "); told("all through Ray")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--below", type=Path, help="folder for the files; default: the system's for temporary ones")
    parser.add_argument("--only", choices=["ray"], help="that step alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="depthcli-million-", dir=asked.below) as place:
        root, started = Path(place), time.perf_counter()
        make(root, asked.names)
        print(f"{asked.names} files made in {time.perf_counter() - started:.0f} s", flush=True)
        has_ray = importlib.util.find_spec("ray") is not None
        for step in ([] if asked.only else _STEPS) + ([_RAY] if has_ray else []):
            subprocess.run([sys.executable, "-c", _COMMON + step, place, str(asked.names)], check=True)


def make(root: Path, count: int) -> None:
    """Make the pictures, and the manifests of two shards that know all of them."""
    from depthcli.jobs.manifest import Result

    digest = "0123456789abcdef" * 4
    (root / "out").mkdir()
    manifests = [(root / f"out/manifest-0000{number}-of-00002.jsonl").open("w") for number in (1, 2)]
    for first in range(0, count, _EACH):
        folder = f"{first // _EACH:05d}"
        (root / "in" / folder).mkdir(parents=True)
        for number in range(first, min(first + _EACH, count)):
            name = f"{folder}/IMG_{number:07d}"
            (root / f"in/{name}.jpg").touch()
            row = Result(
                f"{name}.jpg",
                (f"{name}_depth_gray.png",),
                "done",
                12.5,
                model="tiny",
                weights=digest,
                settings="encoder=tiny backend=auto precision=auto colormap=Spectral_r",
                source={"size": 1234567, "times": [1764000000000000000] * 2, "sha256": digest},
                files=((234567, 1764000000000000000),),
                digests=(digest,),
            )
            manifests[number % 2].write(row.to_json() + "\n")
    for stream in manifests:
        stream.close()


if __name__ == "__main__":
    main()
