"""Four steps of the official metric training: the same losses, rates, gradients and weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli.eval.lists import Entry
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.train.loop import Trainer
from depthcli.train.samples import MIN_DEPTH, Sample
from depthcli.train.settings import TrainChoice
from depthcli.zoo.rows import find_row
from tests import reference
from tests.train.rgbd import network

GOLDEN = np.load(Path(__file__).parents[1] / "data/train_dav2_metric_vits_s98.npz")
CONFIG = json.loads(str(GOLDEN["config"]))
ROW = find_row("metric-indoor-vits").with_input_size(CONFIG["size"])
OLD = not hasattr(torch.nn.functional, "scaled_dot_product_attention")  # other kernels, other last bits


def picture(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> np.ndarray:
    monkeypatch.setattr(reference, "SALT", f"dev:{kind}{number}")
    return reference.reference_image(98, 98)


def sample(monkeypatch: pytest.MonkeyPatch, number: int, flipped: bool) -> Sample:
    image = to_network_input(picture(monkeypatch, "train", number), plan_input(98, 98, ROW.input))
    target = (0.5 + 14 * picture(monkeypatch, "depth", number).mean(-1) / 255).astype(np.float32)
    target[:19, :24] = 0
    target[-3:] = 25
    known = (target >= MIN_DEPTH) & (target <= ROW.max_depth)
    parts = (image, target, known)
    return Sample(Entry(number, "", "", Path()), *(part[..., ::-1].copy() if flipped else part for part in parts))


def test_four_steps_are_the_official_ones(monkeypatch, one_thread):
    choice = TrainChoice(
        batch=2,
        lr=CONFIG["lr"],
        head_lr=CONFIG["lr"] * CONFIG["head_lr_factor"],
        weight_decay=CONFIG["weight_decay"],
        warmup=0,
        clip=0,
        ema=0,
        loss="silog-batch",
    )
    trainer = Trainer(network(ROW), ROW, choice, CONFIG["steps"])
    unread = [name for name, parameter in trainer.network.named_parameters() if not parameter.requires_grad]
    assert sorted(unread) == sorted(GOLDEN["no_gradient"])
    for number, flipped in enumerate(CONFIG["flips"]):
        samples = [sample(monkeypatch, 2 * number + place, flipped) for place in range(2)]
        monkeypatch.undo()
        step = trainer.step([samples])
        assert step.loss == pytest.approx(GOLDEN["losses"][number], rel=1e-5)
        assert step.rate == pytest.approx(GOLDEN["lrs"][number], rel=1e-6)
        assert step.norm == pytest.approx(GOLDEN["grad_norm"][number], rel=1e-3)
        state = trainer.network.state_dict()
        watched = [state[name].flatten()[:8].numpy() for name in CONFIG["watch"]]
        wanted = GOLDEN["watched_after"][number].reshape(len(watched), 8)
        for found, right in zip(watched, wanted):
            assert np.abs(found - right[: len(found)]).max() <= (1e-5 if OLD else 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(trainer.average.parameters(), trainer.network.parameters()))
