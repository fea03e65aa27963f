"""Train one stage of the packaged small model: scenes from a pool, checkpoints to go on from, a score on real pictures.

    python -m training.train FOLDER --stage whole --pool POOL [--start CHECKPOINT] [--realdata FOLDER] [--pictures N]

Everything of a stage lies in its FOLDER: checkpoint, best weights and their score. Started again, it goes on from the
checkpoint. `python -m training` runs all stages and the generator.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch import nn

from training.loss import affine_invariant_losses, logarithmic_losses
from training.muon import Muon
from training.network import MEAN, STD, imagenet_encoder, new_network, save_weights
from training.pool import Pool, draw_batch, open_pool
from training.score import Case, baseline, load_cases, mean, score

Shape = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    pictures: number of training pictures; batch: pictures per step; shapes: (height, width) of the inputs, drawn
    anew for every step; rate: peak learning rate of AdamW for the head, muon: that of the head's convolutions;
    encoder_rate: rate of the encoder as a share of AdamW's; frozen: stages of the encoder, from the first, that keep
    their ImageNet weights; warm: share of the steps the rate rises over; floor: the rate's last share; decay: weight
    decay of Muon; turned: share of pictures turned by quarters; average: decay of the running average; gradient:
    weight of the gradient loss; logarithmic: weight of the losses of logarithms; free: see
    loss.affine_invariant_losses; level: least levelness of a window, see pool.draw_batch.
    """

    pictures: int
    batch: int
    shapes: tuple[Shape, ...]
    rate: float = 1e-3
    muon: float = 0.02
    encoder_rate: float = 0.1
    frozen: int = 3
    warm: float = 0.02
    floor: float = 0.02
    decay: float = 0.01
    turned: float = 0.05
    average: float = 0.998
    gradient: float = 0.5
    logarithmic: float = 0.0
    free: bool = False
    level: float = -1.0


SMALL: tuple[Shape, ...] = (
    (126, 168),
    (126, 168),
    (126, 126),
    (140, 182),
    (112, 154),
    (168, 126),
    (112, 224),
    (98, 294),
)
LARGE: tuple[Shape, ...] = (
    (196, 266),
    (196, 266),
    (182, 182),
    (224, 294),
    (210, 280),
    (238, 182),
    (168, 294),
    (140, 462),
)


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    scene: (height, width) of the scenes it draws from; wild: share of wild cameras; input_size: shorter side at which
    it is scored; back: it starts that far back on the straight line from where it would to the end of the first stage,
    whose encoder has forgotten nothing of ImageNet: on photographs such a mean is better than both of its ends.
    """

    name: str
    plan: Plan
    scene: Shape
    wild: float
    input_size: int
    back: float = 0.0


STAGES: tuple[Stage, ...] = (
    Stage("head", Plan(12_000, 32, SMALL, encoder_rate=0.0, frozen=7), (168, 224), 0.07, 168),
    Stage("whole", Plan(90_000, 32, SMALL, rate=6e-4, muon=0.012), (168, 224), 0.07, 168),
    Stage("large", Plan(60_000, 32, LARGE, rate=4e-4, muon=0.008, logarithmic=1.0, level=0.1), (240, 320), 0.07, 196),
    Stage(
        "settle",
        Plan(20_000, 32, LARGE, rate=2.5e-4, muon=0.005, encoder_rate=0.0, frozen=7, logarithmic=1.0, level=0.1),
        (240, 320),
        0.07,
        196,
        back=0.25,
    ),
)


def learning_rate(plan: Plan, seen: int) -> float:
    """Share of the peak rate after `seen` pictures: up in a line, down along a cosine."""
    progress = min(seen / plan.pictures, 1.0)
    if progress < plan.warm:
        return (progress + 1e-3) / (plan.warm + 1e-3)
    along = (progress - plan.warm) / (1 - plan.warm)
    return plan.floor + (1 - plan.floor) * 0.5 * (1 + math.cos(math.pi * along))


def _optimisers(network: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the head's convolutions; AdamW for the rest of it and, slowly, for what of the encoder may move.

    The depthwise kernels always keep their ImageNet weights: on a CPU their gradients take a third of the time.
    """
    encoder, kernels, others = [], [], []
    for name, weight in network.named_parameters():
        if name.startswith("encoder."):
            number = int(name.split(".")[2]) if ".stages." in name else -1
            weight.requires_grad_(number >= plan.frozen and "depthwise" not in name)
            encoder.append(weight)
        else:
            (kernels if weight.ndim == 4 and weight.shape[0] > 1 else others).append(weight)
    groups = [{"params": others}]
    moving = [weight for weight in encoder if weight.requires_grad]
    if moving:
        groups.append({"params": moving, "lr": plan.rate * plan.encoder_rate})
    return [
        Muon(kernels, rate=plan.muon, decay=plan.decay),
        torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Trainer:
    """One run: network, its running average, optimisers, and the count of pictures seen."""

    def __init__(self, folder: Path, plan: Plan, network: nn.Module, seed: int = 0) -> None:
        self.folder, self.plan, self.network = folder, plan, network
        self.average = copy.deepcopy(network).eval()
        self.optimisers = _optimisers(network, plan)
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.seen = 0
        self.steps = 0
        self.draw = np.random.default_rng(seed)
        self.mean, self.std = (torch.from_numpy(values).float().view(1, 3, 1, 1) for values in (MEAN, STD))

    @property
    def checkpoint(self) -> Path:
        """Where the run goes on from."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write everything a stopped training needs, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "seen": self.seen,
            "steps": self.steps,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "plan": asdict(self.plan),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def resume(self) -> bool:
        """Go on from the checkpoint of this run, if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(kept)
        self.seen, self.steps = state["seen"], state["steps"]
        self.draw = np.random.default_rng(self.seen + 1)
        return True

    def step(self, pool: Pool) -> float:
        """One batch; returns the part of its loss that is the mean absolute error, 1 for a constant answer."""
        plan = self.plan
        height, width = plan.shapes[int(self.draw.integers(len(plan.shapes)))]
        colour, truth = draw_batch(pool, plan.batch, height, width, plan.turned, self.draw, plan.level)
        colour = ((colour - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        share = learning_rate(plan, self.seen)
        for optimiser, peaks in zip(self.optimisers, self.peaks):
            for group, peak in zip(optimiser.param_groups, peaks):
                group["lr"] = peak * share
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.network(colour)
        error, slopes = affine_invariant_losses(predicted.float(), truth, plan.free)
        loss = error + plan.gradient * slopes
        if plan.logarithmic:
            log_error, log_slopes = logarithmic_losses(predicted.float(), truth)
            loss = loss + plan.logarithmic * (log_error + plan.gradient * log_slopes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.seen += plan.batch
        self.steps += 1
        self._follow()
        return float(error.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the network; faster at the beginning, when there is little to keep."""
        decay = min(self.plan.average, (1 + self.steps) / (10 + self.steps))
        kept, now = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(kept, now, 1 - decay)


def _keep_best(folder: Path, trainer: Trainer, table: dict[str, dict[str, float]]) -> bool:
    """Write the averaged weights and their score if none before was better."""
    kept = folder / "score.json"
    before = json.loads(kept.read_text())["mean"] if kept.exists() else -1.0
    value = mean(table["tiny"])
    if value <= before:
        return False
    save_weights(trainer.average.state_dict(), folder / "tiny.safetensors")
    kept.write_text(json.dumps({"mean": value, "pictures": trainer.seen, **table}, indent=1))
    return True


def evaluate(trainer: Trainer, cases: list[Case], keep: Path, input_size: int) -> str:
    """Score the averaged weights on real pictures, upright and turned; one line for the log."""
    table = {"vertical": baseline(cases), "tiny": score(trainer.average, cases, input_size)}
    turned = {turn: mean(score(trainer.average, cases, input_size, turn)) for turn in (1, 2)}
    better = _keep_best(keep, trainer, table)
    each = " ".join(f"{name} {value:.2f}" for name, value in table["tiny"].items())
    return (
        f"{time.strftime('%H:%M:%S')} score@{input_size} {mean(table['tiny']):.3f} turned 90: {turned[1]:.3f} "
        f"180: {turned[2]:.3f} | {each}{' (best)' if better else ''}"
    )


def run(trainer: Trainer, pool: Pool, cases: Optional[list[Case]], keep: Path, input_size: int, every: float) -> None:
    """Train to the end of the plan; every so many minutes a checkpoint and a score."""
    errors: list[float] = []
    began, first, last = time.time(), trainer.seen, time.time()
    while trainer.seen < trainer.plan.pictures:
        errors.append(trainer.step(pool))
        done = trainer.seen >= trainer.plan.pictures
        if trainer.steps % 50 == 0:
            rate = (trainer.seen - first) / (time.time() - began)
            print(
                f"{time.strftime('%H:%M:%S')} {trainer.seen} pictures, {rate:.1f} a second, error "
                f"{np.mean(errors[-50:]):.4f}",
                flush=True,
            )
        if done or time.time() - last > every * 60:
            trainer.save()
            if cases:
                print(evaluate(trainer, cases, keep, input_size), flush=True)
            last = time.time()


def _wait_for(folder: Path, scenes: int, filling: Callable[[], bool]) -> Pool:
    """The pool of a folder as soon as it holds so many scenes, or is full. filling: whether anyone still fills it."""
    while True:
        if (folder / "pool.json").exists():
            pool = open_pool(folder)
            if pool.filled >= min(scenes, len(pool.colour)):
                return pool
        if not filling():
            raise RuntimeError(f"nobody fills {folder}: the process that makes the scenes has ended")
        time.sleep(1)


def _start(before: Path, first: Optional[Path], back: float) -> dict[str, torch.Tensor]:
    """The averaged weights of a checkpoint, moved back towards those of the first stage by a share."""
    average = torch.load(before, map_location="cpu")["average"]
    if not (first and back):
        return average
    origin = torch.load(first, map_location="cpu")["average"]
    return {name: weight.lerp(origin[name], back) for name, weight in average.items()}


def train(
    folder: Path,
    stage: Stage,
    pool: Path,
    keep: Path,
    realdata: Optional[Path] = None,
    before: Optional[Path] = None,
    first: Optional[Path] = None,
    threads: int = 1,
    every: float = 4.0,
    filling: Callable[[], bool] = lambda: True,
) -> None:
    """Train one stage in a folder, from the averaged weights of the checkpoint `before`, or from ImageNet's.

    first: checkpoint of the first stage, for stages that go back a little;
    pool: folder a generator fills; keep: folder for the best weights; every: minutes between scores and checkpoints;
    filling: whether the generator still runs.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    network = new_network(imagenet_encoder())
    if before:
        network.load_state_dict(_start(before, first, stage.back))
    trainer = Trainer(folder, stage.plan, network.to(memory_format=torch.channels_last).train())
    trainer.resume()
    cases = load_cases(realdata) if realdata else None
    run(trainer, _wait_for(pool, 1000, filling), cases, keep, stage.input_size, every)


def main() -> None:
    """Train one stage."""
    parser = argparse.ArgumentParser(description="Train one stage of the packaged small model on synthetic scenes.")
    parser.add_argument("folder", type=Path, help="folder of the stage")
    parser.add_argument("--stage", choices=[stage.name for stage in STAGES], required=True)
    parser.add_argument("--pool", type=Path, required=True, help="folder a generator fills with scenes")
    parser.add_argument("--pictures", type=int, help="train on so many pictures instead of the stage's number")
    parser.add_argument("--start", type=Path, help="begin with the averaged weights of this checkpoint")
    parser.add_argument("--first", type=Path, help="checkpoint of the first stage, for the stage that goes back to it")
    parser.add_argument("--realdata", type=Path, help="score on these pictures with measured depth")
    parser.add_argument("--keep", type=Path, help="folder for the best weights (default: FOLDER)")
    parser.add_argument("--input-size", type=int, help="shorter side at which the weights are scored")
    parser.add_argument("--every", type=float, default=4.0, help="minutes between scores and checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    stage = next(stage for stage in STAGES if stage.name == options.stage)
    if options.pictures:
        stage = replace(stage, plan=replace(stage.plan, pictures=options.pictures))
    if options.input_size:
        stage = replace(stage, input_size=options.input_size)
    train(
        options.folder,
        stage,
        options.pool,
        options.keep or options.folder,
        options.realdata,
        options.start,
        options.first,
        options.threads,
        options.every,
    )


if __name__ == "__main__":
    main()
