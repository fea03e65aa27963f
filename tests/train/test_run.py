"""A training in a folder: it learns, it goes on to the same end, and its result is a model of the other commands."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depthcli.choices.model import ModelChoice
from depthcli.errors import CheckpointError, EngineError, PictureError, UsageError
from depthcli.eval.lists import read_list
from depthcli.jobs.train import TrainJob, train
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import build_network
from depthcli.train.loop import Trainer, freeze, rate_share
from depthcli.train.run import Event, Outcome
from depthcli.train.samples import Sampler
from depthcli.train.settings import TrainChoice
from depthcli.zoo.rows import find_row
from depthcli.zoo.trained import read_trained
from tests.conftest import environment
from tests.train.rgbd import depth_of, network, write_list
from tests.train.two_processes import weights

CHOICE = TrainChoice(epochs=3, batch=4, input_size=56, lr=1e-4, patience=0)
RESULTS = ("best.safetensors", "log.csv", "scores.csv", "groups.csv", "validation.png", "curve.png", "settings.json")

pytestmark = pytest.mark.usefixtures("tiny_weights", "one_thread")


def job(output: str = "run", choice: TrainChoice = CHOICE, **facts) -> TrainJob:
    model = facts.pop("model", ModelChoice(encoder="tiny"))
    return TrainJob(
        **{"data": [Path("list.json")], "device": "cpu", "output": Path(output), **facts}, model=model, choice=choice
    )


def run(*arguments, **facts) -> Outcome:
    options = {name: facts.pop(name) for name in ("callbacks", "stop") if name in facts}
    outcome = train(job(*arguments, **facts), **options)
    assert outcome is not None
    return outcome


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def results(folder: str) -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in RESULTS}


class TestLearning:
    def test_few_pictures_can_be_learnt(self):
        """Thirty steps, as whether gradients reach the weights shows only if they are followed for a while."""
        write_list(4)
        run(choice=replace(CHOICE, epochs=30, augment=False, lr=1e-3, clip=5, input_size=28), val=0.0)
        losses = [float(row["loss"]) for row in rows("run/log.csv")]
        assert len(losses) == 30 and np.mean(losses[-5:]) < 0.6 * losses[0]

    def test_scores_before_and_after_are_those_of_depth_eval(self, depth):
        write_list(10)
        write_list(3, "val.json", first=20)
        outcome = run(choice=replace(CHOICE, epochs=4), val=Path("val.json"))
        assert outcome.best.abs_rel < outcome.before.abs_rel
        scores = rows("run/scores.csv")
        assert [row["step"] for row in scores] == ["0", "3", "5", "8", "10"]
        ran = depth("eval", "val.json", "--checkpoint", outcome.path, "--json", "-", "--precision", "exact")
        found = json.loads(ran.out)["mean"]
        assert found["abs_rel"] == pytest.approx(outcome.best.abs_rel, rel=1e-4)
        assert sum(group.share for group in outcome.best.ranges) == pytest.approx(1)
        assert [group.name for group in outcome.best.ranges] == ["0-2 m", "2-5 m", "5-10 m"]

    def test_errors_by_class_are_counted_where_masks_are_given(self):
        from PIL import Image

        write_list(4)
        Path("masks").mkdir()
        labels = np.zeros((56, 84), np.uint8)
        labels[:, :21], labels[:, 21:42] = 1, 7
        for number in range(4):
            Image.fromarray(labels).save(f"masks/{number}_masks.png")
        Path("masks/labels.json").write_text('{"1": "person"}')
        outcome = run(choice=replace(CHOICE, epochs=1), masks=Path("masks"))
        shares = {group.name: group.share for group in outcome.best.classes}
        assert shares == {"class 7": 0.25, "no class": 0.5, "person": 0.25}

    def test_what_is_frozen_keeps_its_weights(self):
        write_list(4)
        outcome = run(choice=replace(CHOICE, epochs=1, freeze="encoder"))
        start, end = load_file("checkpoints/tiny.safetensors"), load_file(str(outcome.path))
        moved = {name for name in start if not torch.equal(start[name].float(), end[name])}
        assert moved and not any(name.startswith("encoder.") for name in moved)

    def test_a_picture_without_known_pixels_stops_nothing_and_changes_nothing(self):
        from PIL import Image

        write_list(3)
        Image.fromarray(np.zeros((56, 84), np.uint16)).save("depth/1.png")
        run(choice=replace(CHOICE, epochs=2, batch=1), val=0.0)
        losses = [row["loss"] for row in rows("run/log.csv")]
        assert len(losses) == 6 and losses.count("nan") == 2

    def test_without_progress_it_ends_early(self):
        write_list(6)
        outcome = run(choice=replace(CHOICE, epochs=9, patience=2, lr=0.0, head_lr=0.0))
        assert outcome.early and len(rows("run/scores.csv")) == 4 and outcome.epoch < 2

    def test_a_loss_that_is_not_finite_names_the_picture(self):
        write_list(4)
        with pytest.raises(PictureError, match=r"the loss of entry \d \(\d\) is not finite at step"):
            run(choice=replace(CHOICE, epochs=30, lr=1e18, clip=0, warmup=0), val=0.0)


class TestGoingOn:
    def test_stopped_again_and_again_it_ends_as_if_it_had_not(self):
        write_list(9)
        run("whole")
        stops = 0
        while run("parts", stop=lambda: True).interrupted:  # after each step
            stops += 1
        assert stops == 5
        assert results("parts") == results("whole")

    def test_killed_at_any_time_it_goes_on_to_the_same_end(self, start):
        """It starts processes, as only a kill shows what lies in the folder then."""
        write_list(9)
        run("whole")
        command = ["train", "list.json", "-o", "parts", "--encoder", "tiny", "--epochs", "3", "--batch", "4"]
        command += ["--input-size", "56", "--lr", "1e-4", "--patience", "0", "--device", "cpu"]
        process = start(*command)
        while process.poll() is None and (not Path("parts/log.csv").exists() or len(rows("parts/log.csv")) < 3):
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert 3 <= len(rows("parts/log.csv")) < 6
        process = start(*command)
        assert process.wait(timeout=100) == 0
        assert results("parts") == results("whole")

    def test_a_damaged_state_is_refused(self):
        write_list(4)
        run(choice=replace(CHOICE, epochs=1))
        Path("run/last.pt").write_bytes(Path("run/last.pt").read_bytes()[:5000])
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be read"):
            run(choice=replace(CHOICE, epochs=1))

    def test_a_finished_training_is_only_reported(self):
        write_list(4)
        first = run()
        before = results("run")
        again = run()
        assert results("run") == before
        assert again.best.figures == first.best.figures and again.before.ranges == first.before.ranges

    def test_other_settings_in_the_same_folder_are_refused_with_the_difference(self):
        write_list(4)
        run(choice=replace(CHOICE, epochs=1))
        with pytest.raises(UsageError, match="holds a training with epochs 1 and not 3"):
            run()
        write_list(5)
        with pytest.raises(UsageError, match="holds a training with data"):
            run(choice=replace(CHOICE, epochs=1))


class TestProcesses:
    def test_accumulated_pictures_are_one_batch(self):
        write_holed_list()
        at_once = weights(4, steps=4)
        assert apart(at_once, weights(1, accumulate=4, steps=4)) <= 1e-6
        assert apart(at_once, weights(4, steps=1)) > 1e-4  # they do move

    def test_two_processes_give_the_weights_of_one(self):
        """Two processes of torchrun with gloo, as nothing less shows that they see the pictures that one sees."""
        write_holed_list()
        torchrun("-m", "tests.train.two_processes", "two.safetensors", "2")
        assert apart(weights(4), load_file("double-two.safetensors")) <= 1e-12
        # In float32 a batch of four adds its numbers in another order than two of two, in one process or in two.
        assert apart(weights(2, accumulate=2, dtype=torch.float32), load_file("single-two.safetensors")) == 0

    def test_under_torchrun_the_command_prints_and_writes_once(self):
        """It starts two processes, which a test in one cannot show."""
        write_list(6)
        options = "--epochs 1 --batch 2 --input-size 28 --device cpu --val 0.34"
        ran = torchrun("-m", "depthcli", "train", "list.json", "-o", "two", "--encoder", "tiny", *options.split())
        assert ran.stdout.count("best.safetensors") == 1 and ran.stderr.count("data: 6 pictures") == 1
        run("one", choice=TrainChoice(epochs=1, batch=4, input_size=28), val=0.34)
        for one, two in zip(rows("one/scores.csv"), rows("two/scores.csv")):
            assert one["step"] == two["step"] and one["pictures"] == two["pictures"] == "2"
            assert float(one["abs_rel"]) == pytest.approx(float(two["abs_rel"]), rel=1e-3)

    def test_processes_started_here_give_the_numbers_of_one(self, depth):
        write_list(8)
        run("one", choice=replace(CHOICE, batch=2, accumulate=2, epochs=2))
        command = (
            "train",
            "list.json",
            "-o",
            "two",
            "--encoder",
            "tiny",
            "--epochs",
            2,
            "--batch",
            2,
            "--processes",
            2,
        )
        ran = depth(*command, "--input-size", 56, "--lr", 1e-4, "--patience", 0, "--device", "cpu")
        assert ran.code == 0 and ran.err.count("data: 8 pictures") == 1, ran.err
        for name in ("log.csv", "scores.csv", "groups.csv", "validation.png", "curve.png"):
            assert Path("two", name).read_bytes() == Path("one", name).read_bytes()
        assert apart(load_file("one/best.safetensors"), load_file("two/best.safetensors")) == 0

    def test_a_process_that_dies_ends_the_training_with_one_error_and_it_goes_on(self):
        write_list(6)
        choice = replace(CHOICE, epochs=4, batch=1, input_size=28)

        def kill(event: Event) -> None:
            if event.step == 2:
                for other in multiprocessing.active_children():
                    other.kill()

        with pytest.raises(EngineError, match="process 1 of 2 ended with code -9"):
            run(choice=choice, processes=2, callbacks=[kill])
        assert not multiprocessing.active_children()
        assert run(choice=choice, processes=2).steps == len(rows("run/log.csv")) == 10

    def test_the_error_of_another_process_is_that_of_the_training(self):
        write_list(4)
        with pytest.raises(PictureError, match=r"the loss of entry \d \(\d\) is not finite at step"):
            run(choice=replace(CHOICE, batch=1, epochs=30, lr=1e18, clip=0, warmup=0), val=0.0, processes=2)

    def test_processes_that_cannot_be_started_are_refused(self, monkeypatch):
        write_list(4)
        with pytest.raises(UsageError, match="`processes` must be at least 1"):
            run(processes=0)
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(UsageError, match="torchrun starts the processes itself"):
            run(processes=2)


def write_holed_list() -> None:
    """Six pictures; one has almost no known pixels, so that processes have unequal shares."""
    from PIL import Image

    write_list(6)
    Image.fromarray(np.pad(np.full((1, 4), 2000, np.uint16), ((0, 55), (0, 80)))).save("depth/2.png")


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    port = f"--master_port={29000 + os.getpid() % 900}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", port, *arguments]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return ran


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class TestRules:
    def test_rates_rise_then_fall_as_the_schedule_says(self):
        official = TrainChoice(warmup=0)
        assert [rate_share(official, step, 4) for step in range(4)] == pytest.approx([1, 1, 0.75**0.9, 0.5**0.9])
        warm = [rate_share(TrainChoice(warmup=0.2, schedule="cosine"), step, 20) for step in range(20)]
        assert warm[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8]) and warm[4] == 1
        assert warm[4:] == sorted(warm[4:], reverse=True) and warm[-1] < 0.05

    @pytest.mark.parametrize(
        ("rule", "moving", "kept"),
        [
            ("none", "pretrained.pos_embed", "pretrained.mask_token"),
            ("3", "pretrained.blocks.3.norm1.weight", "pretrained.blocks.2.norm1.weight"),
            ("3", "pretrained.norm.weight", "pretrained.pos_embed"),
            ("encoder", "depth_head.projects.0.weight", "pretrained.norm.weight"),
            (
                "none",
                "depth_head.scratch.refinenet3.resConfUnit1.conv1.weight",
                "depth_head.scratch.refinenet4.resConfUnit1.conv1.weight",
            ),
        ],
    )
    def test_freezing(self, rule, moving, kept):
        vits = build_network(find_row("vits").network)
        freeze(vits, rule)
        found = {name: parameter.requires_grad for name, parameter in vits.named_parameters()}
        assert found[moving] and not found[kept]

    @pytest.mark.skipif(not HAS_FUSED, reason="autocast of torch 1.13 on the CPU leaves layer norms with two types")
    def test_half_precision_gives_the_loss_of_float32_roughly(self):
        row = find_row("tiny").with_input_size(56)
        sampler = Sampler(read_list(write_list(2)), row, (56, 84), False, 0)
        samples = [sampler.sample(position, (56, 84)) for position in range(2)]
        losses = []
        for precision in ("fp32", "bf16"):
            trainer = Trainer(network(row), row, replace(CHOICE, precision=precision), 2)
            losses.append(trainer.step([samples]).loss)
            assert all(parameter.dtype is torch.float32 for parameter in trainer.network.parameters())
        assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)

    def test_the_average_follows_the_weights(self):
        row = find_row("tiny").with_input_size(56)
        choice = replace(CHOICE, ema=0.5, batch=2)
        trainer = Trainer(network(row), row, choice, 2)
        kept = [parameter.clone() for parameter in trainer.average.parameters()]
        sampler = Sampler(read_list(write_list(2)), row, (56, 84), False, 0)
        trainer.step([[sampler.sample(position, (56, 84)) for position in range(2)]])
        decay = 1 / 10  # (1 + n) / (10 + n) after no step
        moved = [(a - b).abs().max().item() for a, b in zip(kept, trainer.network.parameters())]
        assert np.mean(np.array(moved) > 0) > 0.9
        for before, average, now in zip(kept, trainer.average.parameters(), trainer.network.parameters()):
            assert torch.allclose(average, decay * before + (1 - decay) * now, atol=1e-7)

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"epochs": 0}, "`epochs` must be at least 1"),
            ({"ema": 1.0}, "`ema` is a share"),
            ({"freeze": "head"}, "`freeze` is 'head'"),
            ({"limit": 1}, "`limit` must be at least 2"),
            ({"lr": float("nan")}, "`lr` must be at least 0"),
            ({"loss": "l2"}, "loss"),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, facts, reason):
        with pytest.raises(UsageError, match=reason):
            TrainChoice(**facts)

    def test_models_and_losses_that_do_not_fit_are_refused(self):
        write_list(4)
        with pytest.raises(UsageError, match="does not fit relative_disparity"):
            run(choice=replace(CHOICE, loss="silog"))
        with pytest.raises(UsageError, match="multiple of 14"):
            run(choice=replace(CHOICE, input_size=60))


class TestResult:
    def test_the_other_commands_take_it_as_it_is(self, depth):
        write_list(4)
        outcome = run(choice=replace(CHOICE, epochs=1))
        trained = read_trained(outcome.path)
        assert (trained.model, trained.input_size, trained.max_depth) == ("tiny", 56, None)
        assert trained.origin == "depthcli tiny" and trained.facts["pictures"] == 3
        ran = depth("image", "rgb/0.png", "--checkpoint", outcome.path, "-f", "npz", "-o", "out.npz")
        assert (ran.code, ran.err) == (0, "")
        facts = json.loads(str(np.load("out.npz")["meta"]))
        assert "best.safetensors, fine-tuned from depthcli tiny" in json.dumps(facts)
        assert os.stat(outcome.path).st_mode & 0o444 == 0o444 & ~_umask()

    def test_tiny_learns_metres_from_its_relative_weights(self, depth):
        write_list(6)
        choice = replace(CHOICE, epochs=20, every=5, batch=6, augment=False, lr=3e-4)
        outcome = run(choice=choice, model=ModelChoice(encoder="tiny", metric="indoor", max_depth=6), val=0.3)
        assert float(rows("run/log.csv")[0]["loss"]) < 0.4  # it starts with metres; without the fit this is 0.6
        assert outcome.best.abs_rel < 0.85 * outcome.before.abs_rel
        trained = read_trained(outcome.path)
        assert (trained.model, trained.max_depth, trained.origin) == ("metric-tiny", 6, "depthcli tiny")
        ran = depth("image", "rgb/0.png", "--checkpoint", outcome.path, "-f", "npz", "-o", "out.npz")
        assert (ran.code, ran.err) == (0, "")
        facts = json.loads(str(np.load("out.npz")["meta"]))
        assert (facts["kind"], facts["max_depth"]) == ("metric_depth", 6)
        values, truth = np.load("out.npz")["depth"], depth_of(0)
        assert values.max() < 6 and np.mean(np.abs(values / truth - 1)) < 0.5
        again = run("more", choice=replace(choice, epochs=1), model=ModelChoice(checkpoint=outcome.path), val=0.3)
        assert again.before.abs_rel == pytest.approx(outcome.best.abs_rel, rel=1e-5)
        ran = depth("image", "rgb/0.png", "--encoder", "tiny", "--metric", "indoor")
        assert ran.code == 4 and "depth train, with --model metric-tiny" in ran.error

    def test_a_metric_result_has_its_range(self, depth):
        """A network of 25 million weights, as the small one is not metric."""
        from safetensors.torch import save_file

        torch.manual_seed(0)
        save_file(build_network(find_row("vits").network, metric=True).state_dict(), "own.safetensors")
        write_list(2)
        model = ModelChoice(metric="indoor", checkpoint=Path("own.safetensors"), max_depth=6)
        outcome = run(choice=replace(CHOICE, epochs=1, batch=1, input_size=28), model=model)
        assert "unknown" in read_trained(outcome.path).licence
        ran = depth(
            "image", "rgb/0.png", "--checkpoint", outcome.path, "-f", "npz", "-o", "out.npz", "--backend", "torch"
        )
        assert (ran.code, ran.err) == (0, "")
        values = np.load("out.npz")["depth"]
        assert 0 < values.min() <= values.max() < 6 and outcome.best.figures.rmse < 6
        ran = depth("image", "rgb/0.png", "--metric", "outdoor", "--checkpoint", outcome.path)
        assert ran.code == 4 and "holds metric-indoor-vits" in ran.error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
