"""One command for everything, `python -m training RUN [--realdata FOLDER]`: makes scenes, trains, keeps the weights.

Stopped and started again, it goes on: finished stages are skipped, the running one resumes from its checkpoint.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import torch

from training.pool import Filling, fill_forever
from training.train import STAGES, train


def _stage_done(run: Path, pictures: int) -> bool:
    checkpoint = run / "checkpoint.pt"
    return checkpoint.exists() and torch.load(checkpoint, map_location="cpu")["seen"] >= pictures


def main() -> None:
    """Run the stages one after the other, with a pool of scenes beside them for each size of scene."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("run", type=Path, help="folder for pools, checkpoints, log and weights")
    parser.add_argument("--realdata", type=Path, help="pictures with measured depth to score on")
    parser.add_argument("--pool", type=Path, help="folder for the scenes, best in memory (default: RUN/pool)")
    parser.add_argument("--capacity", type=int, default=16_000, help="scenes in a pool")
    parser.add_argument("--plain", action="store_true", help="do not compile the ray loop (no C++ compiler)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    before, first = None, options.run / STAGES[0].name / "checkpoint.pt"
    for number, stage in enumerate(STAGES):
        folder = options.run / stage.name
        if not _stage_done(folder, stage.plan.pictures):
            filling = Filling(*stage.scene, stage.wild, options.capacity, seed=number, compiled=not options.plain)
            pool = (options.pool or options.run / "pool") / "x".join(map(str, stage.scene))
            filler = context.Process(target=fill_forever, args=(pool, filling), daemon=True)
            filler.start()
            alive = filler.is_alive
            train(folder, stage, pool, options.run, options.realdata, before, first, options.threads, filling=alive)
            filler.terminate()
        before = folder / "checkpoint.pt"


if __name__ == "__main__":
    main()
