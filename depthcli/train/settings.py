"""What a user can choose for a training, checked when it is made. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Optional

from depthcli.choices.settings import check_input_size, require
from depthcli.errors import UsageError
from depthcli.zoo.rows import DEPTH_ANYTHING_V2, PATCH, TINY, ModelRow, ModelTask

SILOG, SILOG_BATCH, RELATIVE = "silog", "silog-batch", "ssi"
LOSSES = ("auto", SILOG, SILOG_BATCH, RELATIVE)
SCHEDULES = ("poly", "cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Rate of the encoder by family: the official one, and a larger one for the small convolutional network.
_RATES = {DEPTH_ANYTHING_V2: 5e-6, TINY: 2e-5}
_HEAD_FACTOR = 10.0


@dataclass(frozen=True)
class TrainChoice:
    """How a model is trained. Raises UsageError.

    epochs: passes over the training pictures. batch: pictures per run of the network; accumulate: runs per step; a step
    has batch * accumulate * processes pictures. lr, head_lr: peak rates of encoder and head; None: the family's own,
    and ten times that of the encoder. warmup: share of the steps in which the rate rises. schedule: how it falls then.
    clip: largest norm of the gradients, 0 for any. ema: decay of the running average of the weights, 0 for none.
    patience: validations without improvement before the end, 0 for all epochs. every: epochs between validations.
    loss: one of LOSSES. freeze: none, encoder, or how many of its first blocks. augment: change pictures at random.
    input_size: bounded side of the network input, None for the model's own. limit: most pictures, in one epoch.
    """

    epochs: int = 20
    batch: int = 8
    accumulate: int = 1
    lr: Optional[float] = None
    head_lr: Optional[float] = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    schedule: str = "poly"
    clip: float = 1.0
    ema: float = 0.999
    patience: int = 5
    every: int = 1
    loss: str = "auto"
    freeze: str = "none"
    augment: bool = True
    input_size: Optional[int] = None
    precision: str = "auto"
    seed: int = 0
    limit: Optional[int] = None

    def __post_init__(self) -> None:
        require("loss", self.loss, LOSSES)
        require("schedule", self.schedule, SCHEDULES)
        require("precision", self.precision, PRECISIONS)
        check_input_size(self.input_size)
        for name in ("epochs", "batch", "accumulate", "every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("weight_decay", "clip", "patience", "seed"):
            _at_least(name, getattr(self, name), 0)
        for name in ("lr", "head_lr"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 0)
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"`{name}` is a share from 0 to below 1, not {getattr(self, name)}")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"`limit` must be at least 2, got {self.limit}", "one picture is kept to validate")
        if not re.fullmatch(r"none|encoder|\d{1,3}", self.freeze):
            raise UsageError(f"`freeze` is {self.freeze!r}", "give none, encoder, or a number of blocks")

    @property
    def pictures(self) -> int:
        """Pictures of a step in one process."""
        return self.batch * self.accumulate

    def rates(self, row: ModelRow) -> tuple[float, float]:
        """Return the peak rates of encoder and head for a model."""
        encoder = _RATES[row.family] if self.lr is None else self.lr
        return encoder, _HEAD_FACTOR * encoder if self.head_lr is None else self.head_lr

    def loss_of(self, row: ModelRow) -> str:
        """Return the name of the loss for a model. Raises UsageError for one that does not fit its kind of depth."""
        fitting = (SILOG, SILOG_BATCH) if row.kind.is_metric else (RELATIVE,)
        if self.loss == "auto":
            return fitting[0]
        if self.loss not in fitting:
            raise UsageError(f"`loss` {self.loss} does not fit {row.kind.value}", f"use {' or '.join(fitting)}")
        return self.loss

    def facts(self) -> dict[str, Any]:
        """Return all settings, JSON-ready."""
        return asdict(self)


def check_model(row: ModelRow) -> None:
    """Raise UsageError for a model that cannot be trained here."""
    if row.family not in _RATES or row.task is not ModelTask.PICTURE:
        raise UsageError(f"{row.name} cannot be trained", "choose tiny or a picture model of Depth Anything V2")
    if row.input.size % PATCH:
        hint = f"use {row.input.size // PATCH * PATCH} or {(row.input.size // PATCH + 1) * PATCH}"
        raise UsageError(f"`input_size` must be a multiple of {PATCH} to train, got {row.input.size}", hint)


def _at_least(name: str, value: float, least: float) -> None:
    if not math.isfinite(value) or value < least:
        raise UsageError(f"`{name}` must be at least {least}, got {value}")
