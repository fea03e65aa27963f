"""Scenes in chunks: the path of a known walk, real paths against themselves, memory, and what the alignment costs.

    python benchmarks/long_scene.py world [--views N]
    python benchmarks/long_scene.py memory [--views N] [--few N]
    python benchmarks/long_scene.py paths FILE...
    python benchmarks/long_scene.py cost [--models NAME,...] [--input-size PIXELS] [--chunks N,...]

world: a walk round a traced hall, with a stand-in network whose depth is noisy, wrong by a part that changes slowly,
and of another scale and world in each run; errors are parts of the path's length. memory: peaks of processes of their
own, with as many points in both. paths: camera files or text. cost: CPU seconds of a chunk's network, with rule-made
weights, and of fitting the chunk to the one before.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depthcli.choices.scenes import ChunksChoice, SceneChoice, ViewsChoice  # noqa: E402
from depthcli.eval.poses import score_path  # noqa: E402
from depthcli.geometry.poses import inverted  # noqa: E402
from depthcli.io.trajectories import read_trajectory  # noqa: E402
from depthcli.jobs.scene import SceneJob, run_scene  # noqa: E402
from depthcli.jobs.scene_inputs import recognise  # noqa: E402
from depthcli.predict import scene as predict  # noqa: E402
from tests.jobs import walks  # noqa: E402

CHUNK, POINTS = 60, 200_000
FORMATS = ("poses", "ply", "glb", "cameras", "transforms")
Rows = Iterator[tuple[str, str]]


def stand_in(walker: walks.Walker) -> None:
    """Put a stand-in in the place of all networks of this process."""
    patched: Any = predict
    patched.resolve_model, patched.open_backend = walks.stand_in(walker)


def run(folder: Path, formats: tuple[str, ...], loops: bool = True, overwrite: bool = False) -> None:
    job = SceneJob(
        recognise([str(folder / "walk")]),
        folder=folder / "out",
        formats=formats,
        views=ViewsChoice(input_size=walks.SIZE[0]),
        show=SceneChoice(confidence=0, points=POINTS),
        chunks=ChunksChoice(CHUNK, None, loops),
        if_exists="overwrite" if overwrite else "skip",
    )
    for _ in run_scene(job, lambda: predict.SceneEstimator(job.model, job.backend, views=job.views)):
        pass


def world(views: int) -> Rows:
    for wrong in (0.0, 0.2):
        walker = walks.Walker(walks.poses(views), wrong=wrong)
        stand_in(walker)
        with tempfile.TemporaryDirectory() as place:
            walks.pictures(Path(place) / "walk", views)
            for loops in (False, True):
                run(Path(place), ("poses",), loops, overwrite=loops)
                path = read_trajectory(Path(place) / "out/camera_poses.txt").extrinsics
                score = score_path(path, walker.truth)
                parts = [slice(start, start + CHUNK) for start in range(0, views - CHUNK + 1, CHUNK)]
                scales = [score_path(path[part], walker.truth[part]).scale for part in parts]
                yield (
                    f"{views} views, {wrong:.0%} wrong, {'with' if loops else 'without'} loops: ATE, scale drift",
                    f"{score.ate_rmse / score.length:.3%}, {max(scales) / min(scales) - 1:.2%}",
                )


def memory(few: int, views: int) -> Rows:
    peaks = []
    for count in (few, views):
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, __file__, "one", "--views", str(count)], capture_output=True, text=True, check=True
        )
        peaks.append(float(ended.stdout))
        yield f"{count} views: peak of the process", f"{peaks[-1]:.1f} MB, {time.perf_counter() - started:.0f} s"
    yield "more than for the few", f"{peaks[1] / peaks[0] - 1:+.1%}"


def one(views: int) -> None:
    """Print the peak of this process, in megabytes, after a scene of so many views."""
    stand_in(walks.Walker(walks.poses(views, rounds=1.05 * max(1, views / 3000))))
    with tempfile.TemporaryDirectory() as place:
        walks.pictures(Path(place) / "walk", views)
        run(Path(place), FORMATS)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def paths(files: list[Path]) -> Rows:
    for file in files:
        truth = read_trajectory(file).extrinsics
        itself = score_path(truth, truth)
        yield f"{file.name}: {len(truth)} cameras against themselves, ATE", f"{itself.ate_rmse:.1e}"
        back = inverted(truth)
        back[:, :, 3] *= 1.1
        grown, places = inverted(back), inverted(truth)[:, :, 3]
        known = 0.1 * np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
        found, scaled = score_path(grown, truth, "se3"), score_path(grown, truth)
        yield f"{file.name}: a tenth larger, ATE after SE3, as known", f"{found.ate_rmse:.9f}, {known:.9f}"
        yield f"{file.name}: a tenth larger, scale and ATE after Sim3", f"{scaled.scale:.9f}, {scaled.ate_rmse:.1e}"


def cost(models: list[str], chunks: list[int], input_size: int) -> Rows:
    from depthcli.choices.model import ModelChoice
    from depthcli.geometry.scene_join import fit_views
    from tests.reference import filled_weights

    generator = np.random.default_rng(0)
    for name in models:
        with tempfile.TemporaryDirectory() as place:
            path = filled_weights(Path(place), name)
            choice = ModelChoice(model=name, checkpoint=path)
            with predict.SceneEstimator(choice, "torch", views=ViewsChoice(input_size=input_size)) as estimator:
                for count in chunks:
                    pixels = generator.integers(0, 255, (count, 20, 36, 3), np.uint8).repeat(36, 1).repeat(36, 2)
                    views = [estimator.read(picture, f"{number}.png") for number, picture in enumerate(pixels)]
                    estimator.run(views[:2])  # what is made once
                    started = time.process_time()
                    scene = estimator.run(views)
                    network = time.process_time() - started
                    shared = count // 2
                    other = estimator.run(views[shared:]) if count < 12 else scene
                    started = time.process_time()
                    for _ in range(5):
                        fit_views(other.views[:shared], scene.views[-shared:])
                    fit = (time.process_time() - started) / 5
                    yield (
                        f"{name}, {count} views of {scene.size}: network, fit of {shared} shared views",
                        f"{network:.1f} s, {fit:.3f} s of CPU: {fit / network:.2%}",
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("world", "memory", "one", "paths", "cost"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--views", type=int, default=600)
    parser.add_argument("--few", type=int, default=300)
    parser.add_argument("--models", default="da3-small,da3-base")
    parser.add_argument("--chunks", default="8,16")
    parser.add_argument("--input-size", type=int, default=504)
    chosen = parser.parse_args()
    if chosen.what == "one":
        one(chosen.views)
        return
    rows = {
        "world": lambda: world(chosen.views),
        "memory": lambda: memory(chosen.few, chosen.views),
        "paths": lambda: paths(chosen.files),
        "cost": lambda: cost(
            chosen.models.split(","), [int(count) for count in chosen.chunks.split(",")], chosen.input_size
        ),
    }[chosen.what]()
    for name, value in rows:
        print(f"{name}: {value}", flush=True)


if __name__ == "__main__":
    main()
