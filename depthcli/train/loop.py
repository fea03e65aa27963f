"""The loop: samples in, steps of AdamW, a running average of the weights, and a state to go on from."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from depthcli.errors import EngineError, PictureError
from depthcli.host.cores import usable_cores
from depthcli.nets.attention import HAS_FUSED
from depthcli.train.losses import scale_and_shift_invariant, silog
from depthcli.train.parallel import Processes
from depthcli.train.samples import LEAST_KNOWN, Sample, Sampler
from depthcli.train.settings import RELATIVE, SILOG_BATCH, TrainChoice
from depthcli.zoo.rows import ModelRow

_BETAS = (0.9, 0.999)
_POWER = 0.9  # of the poly schedule
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Parameters that official files have and no forward pass reads; see NetworkConfig.unused.
_UNREAD = ("pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.")
_ENCODERS = ("pretrained.", "encoder.")
_BLOCKS = ("pretrained.blocks.", "encoder.stages.")
_LEAST_READERS = 4  # threads that read pictures; decoding and resizing release Python's lock
_AHEAD = 2  # steps


@dataclass(frozen=True)
class Step:
    """What one step did.

    loss: mean over its pictures that count, NaN if none does. norm: of the gradients, unclipped. rate: of the encoder.
    """

    number: int
    loss: float
    norm: float
    rate: float


class Trainer:
    """One training: the network, its running average, the optimiser and the number of steps done.

    network: with the weights to start from, on its device. total: steps of the whole training.
    """

    def __init__(
        self,
        network: nn.Module,
        row: ModelRow,
        choice: TrainChoice,
        total: int,
        processes: Processes = Processes(),
    ) -> None:
        self.row, self.choice, self.total, self.processes = row, choice, total, processes
        weights = next(network.parameters())
        self.device, self._dtype = weights.device, weights.dtype
        self.precision = pick_precision(choice.precision, self.device)
        freeze(network, choice.freeze)
        self.network = network.train()
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self._parallel = processes.wrapped(network)
        self._optimiser = torch.optim.AdamW(
            _groups(network, *choice.rates(row)), betas=_BETAS, weight_decay=choice.weight_decay
        )
        self._peaks = [group["lr"] for group in self._optimiser.param_groups]
        self._scaler = _scaler() if self.precision == "fp16" else None
        self._loss = choice.loss_of(row)
        self.step_number = 0

    def step(self, parts: Sequence[Sequence[Sample]]) -> Step:
        """Do one step. parts: the samples of this process, one sequence for each run of the network.

        Every picture of the step counts alike, on whichever process it is, except those with fewer than LEAST_KNOWN
        known pixels, which do not count; if none does, nothing changes. Raises PictureError with the name of a picture
        whose loss is not finite.
        """
        share = rate_share(self.choice, self.step_number, self.total)
        for group, peak in zip(self._optimiser.param_groups, self._peaks):
            group["lr"] = share * peak
        useful = [[sample for sample in part if sample.known.sum() >= LEAST_KNOWN] for part in parts]
        (count,) = self.processes.total(sum(map(len, useful)))
        if not count:
            self.step_number += 1
            return Step(self.step_number, math.nan, 0.0, self._peaks[0] * share)
        loss = 0.0
        for number, part in enumerate(parts):
            with self._synchronised(number + 1 == len(parts)):
                loss += self._backward(part, count)
        norm = self._update()
        self._follow()
        self.step_number += 1
        (loss,) = self.processes.total(loss)
        return Step(self.step_number, loss, norm, self._peaks[0] * share)

    def _backward(self, samples: Sequence[Sample], count: float) -> float:
        """Add the gradients of a run of the network; return its share of the step's loss. count: pictures of a step."""
        image = self._tensor([sample.image for sample in samples], self._dtype)
        with self._autocast():
            answers = self._parallel(image)
        answers = answers.to(self._dtype)  # logarithms and sums in half precision would be wrong
        losses, weight = self._losses(answers * (self.row.max_depth or 1.0), samples)
        loss = losses * weight / count
        # Processes average their gradients; those that count nothing take part with zeros.
        scaled = loss * self.processes.count + 0 * answers.sum()
        (self._scaler.scale(scaled) if self._scaler else scaled).backward()
        return float(loss.detach())

    def _losses(self, answers: torch.Tensor, samples: Sequence[Sample]) -> tuple[torch.Tensor, float]:
        """Return the mean loss of the samples that count, and how many they are."""
        target = self._tensor([sample.target for sample in samples], self._dtype)
        known = self._tensor([sample.known for sample in samples], torch.bool)
        places = [place for place, sample in enumerate(samples) if sample.known.sum() >= LEAST_KNOWN]
        if not places:
            return answers.new_zeros(()), 0.0
        if self._loss == SILOG_BATCH:
            values = [silog(answers, target, known)]
        else:
            of_one = scale_and_shift_invariant if self._loss == RELATIVE else silog
            values = [of_one(answers[place], target[place], known[place]) for place in places]
        losses = torch.stack(values)
        for place, finite in zip(places, torch.isfinite(losses.detach()).tolist()):
            if not finite:
                names = samples[place].entry.place if len(losses) > 1 else ", ".join(s.entry.place for s in samples)
                hint = "use a smaller `lr`, or `precision` fp32"
                raise PictureError(f"the loss of {names} is not finite at step {self.step_number + 1}", hint)
        return losses.mean(), float(len(places))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, _DTYPES[self.precision])

    def _tensor(self, arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device, dtype)

    def _update(self) -> float:
        """Let the optimiser step; return the norm of the gradients. fp16 skips a step whose gradients overflow."""
        if self._scaler:
            self._scaler.unscale_(self._optimiser)
        most = self.choice.clip or math.inf
        norm = nn.utils.clip_grad_norm_([each for each in self.network.parameters() if each.requires_grad], most)
        if self._scaler:
            self._scaler.step(self._optimiser)
            self._scaler.update()
        else:
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return float(norm)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the network; faster at the beginning, when there is little to keep."""
        done = self.step_number
        decay = min(self.choice.ema, (1 + done) / (10 + done)) if self.choice.ema else 0.0
        for kept, now in zip(self.average.parameters(), self.network.parameters()):
            if now.requires_grad:
                kept.lerp_(now, 1 - decay)
        for held, given in zip(self.average.buffers(), self.network.buffers()):
            held.copy_(given)

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Exchange gradients between processes only in the last run of a step."""
        if last or self.processes.count == 1:
            yield
        else:
            with self._parallel.no_sync():  # type: ignore[operator]
                yield

    def state(self) -> dict[str, Any]:
        """Return all that a stopped training needs: tensors, whole numbers and texts, which torch 1.13 reads safely."""
        return {
            "step": self.step_number,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict()["state"],
            "scaler": json.dumps(self._scaler.state_dict() if self._scaler else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. The settings of the optimiser are those that this was made with."""
        self.step_number = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state["optimiser"], "param_groups": groups})
        if self._scaler:
            self._scaler.load_state_dict(json.loads(state["scaler"]))


def rate_share(choice: TrainChoice, step: int, total: int) -> float:
    """Return the share of the peak rate for a step, from 0: up in a line, then down by the schedule.

    Without a warm-up, poly is (1 - (step - 1) / total)^0.9, and steps 0 and 1 both have the full rate, as in the
    official training, which sets the rate after each step.
    """
    warm = int(choice.warmup * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = max(step - warm - 1, 0) / max(total - warm, 1)
    if choice.schedule == "constant":
        return 1.0
    return (1 - done) ** _POWER if choice.schedule == "poly" else 0.5 * (1 + math.cos(math.pi * done))


def freeze(network: nn.Module, rule: str) -> None:
    """Let parameters keep their values: those that nothing reads, and by rule all of the encoder or its first blocks.

    rule: none, encoder, or the number of blocks (of tiny: stages) of the encoder, from the input on.
    """
    for name, parameter in network.named_parameters():
        kept = name.startswith(_UNREAD) or (rule == "encoder" and name.startswith(_ENCODERS))
        if rule.isdigit() and int(rule) and name.startswith(_ENCODERS):
            block = next((int(name[len(start) :].split(".")[0]) for start in _BLOCKS if name.startswith(start)), None)
            last = name.startswith("pretrained.norm.")  # behind all blocks
            kept |= not last if block is None else block < int(rule)
        parameter.requires_grad_(not kept)


def pick_precision(wanted: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16: auto is what a GPU computes fast, bf16 from compute capability 8.0 on, else fp16.

    Raises EngineError for one that the device lacks.
    """
    if wanted == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if wanted == "fp16" and device.type != "cuda":
        raise EngineError("half precision trains on CUDA only", "use `precision` auto")
    if wanted == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise EngineError("this GPU computes bf16 only slowly", "use `precision` auto or fp16")
    if wanted == "bf16" and device.type != "cuda" and not HAS_FUSED:
        raise EngineError(f"bf16 on the CPU needs torch 2.0, this is {torch.__version__}", "use `precision` fp32")
    return wanted


class Feed:
    """Gives the samples of one step after the other, read ahead in threads. steps: of the whole training."""

    def __init__(self, sampler: Sampler, choice: TrainChoice, steps: int, processes: Processes = Processes()) -> None:
        self._sampler, self._choice, self._steps, self._processes = sampler, choice, steps, processes
        self._pool = ThreadPoolExecutor(max(_LEAST_READERS, usable_cores() // processes.count))
        self._ahead: dict[int, list[Future[Sample]]] = {}

    def samples(self, step: int) -> list[list[Sample]]:
        """Return the samples of a step, from 0, a list for each run of the network. Raises PictureError."""
        for coming in range(step, min(step + 1 + _AHEAD, self._steps)):
            if coming not in self._ahead:
                self._ahead[coming] = self._begin(coming)
        found = [future.result() for future in self._ahead.pop(step)]
        size = self._choice.batch
        return [found[start : start + size] for start in range(0, len(found), size)]

    def _begin(self, step: int) -> list[Future[Sample]]:
        shape = self._sampler.shape_of(step)
        # Runs of neighbours, so that two processes compute what one does with twice the runs, to the last bit.
        pictures = self._choice.pictures
        begin = (step * self._processes.count + self._processes.rank) * pictures
        mine = range(begin, begin + pictures)
        return [self._pool.submit(self._sampler.sample, position, shape) for position in mine]

    def close(self) -> None:
        """End the threads."""
        for future in (each for waiting in self._ahead.values() for each in waiting):
            future.cancel()
        self._pool.shutdown()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _groups(network: nn.Module, rate: float, head_rate: float) -> list[dict[str, Any]]:
    """Return the parameter groups of encoder and head."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    encoder = [p for name, p in named if name.startswith(_ENCODERS)]
    head = [p for name, p in named if not name.startswith(_ENCODERS)]
    return [{"params": params, "lr": lr} for params, lr in ((encoder, rate), (head, head_rate))]


def _scaler() -> Any:
    with contextlib.suppress(AttributeError):
        return torch.amp.GradScaler("cuda")
    return torch.cuda.amp.GradScaler()  # torch before 2.3
