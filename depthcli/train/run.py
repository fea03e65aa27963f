"""One training from its data to its files: validate, step, keep the best, go on after an interruption.

A folder RUN holds settings.json, data.png, log.csv (a line per step), scores.csv and groups.csv (lines per validation),
validation.png, curve.png, last.pt (what an interrupted training needs) and best.safetensors (the result).
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Optional

import torch
from torch import nn

from depthcli.errors import CheckpointError, UsageError, first_line
from depthcli.eval.metrics import Figures
from depthcli.host.atomic import atomic_path, remove_partials
from depthcli.train.curve import Line, write_curve
from depthcli.train.data import DataSet
from depthcli.train.loop import Feed, Step, Trainer
from depthcli.train.masks import Masks
from depthcli.train.parallel import Processes
from depthcli.train.samples import Sampler, common_shape
from depthcli.train.settings import TrainChoice
from depthcli.train.validate import Group, Validation, validate
from depthcli.zoo.rows import ModelRow
from depthcli.zoo.trained import Trained

BEST, LAST, SETTINGS, LOG, SCORES, GROUPS = (
    "best.safetensors",
    "last.pt",
    "settings.json",
    "log.csv",
    "scores.csv",
    "groups.csv",
)
SHEET, CONTACT_SHEET, CURVE = "validation.png", "data.png", "curve.png"
_SAVE_SECONDS = 600.0


@dataclass(frozen=True)
class Event:
    """Something a training tells: a step, or a validation after an epoch (0: before the first step).

    best: whether no validation before was as good.
    """

    epoch: float
    step: int
    steps: int
    done: Optional[Step] = None
    validation: Optional[Validation] = None
    best: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a training ended. before, best: validations of the first and of the kept weights, None without pictures.

    path: of the kept weights. epoch: theirs. interrupted: the same call goes on. early: it stopped by `patience`.
    """

    path: Path
    before: Optional[Validation]
    best: Optional[Validation]
    epoch: float
    steps: int
    interrupted: bool = False
    early: bool = False


@dataclass
class _Progress:
    """What a run knows beside its weights."""

    before: Optional[Validation] = None
    best: Optional[Validation] = None
    best_epoch: float = 0.0
    without: int = 0  # validations since the best one
    ended: bool = False
    early: bool = False


class Run:
    """A training in a folder. Started again with the same settings, it goes on where it was.

    network: with the weights to start from, on its device. trained: the facts of the result. Raises UsageError if the
    folder holds another training.
    """

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        row: ModelRow,
        choice: TrainChoice,
        data: DataSet,
        sizes: Sequence[tuple[int, int]],
        trained: Trained,
        masks: Optional[Masks] = None,
        processes: Processes = Processes(),
    ) -> None:
        self.folder, self.row, self.choice, self.data = folder, row, choice, data
        self.trained, self.masks, self.processes = trained, masks, processes
        sampler = Sampler(data.train, row, common_shape(sizes, row), choice.augment, choice.seed)
        self.pictures = choice.pictures * processes.count
        self.steps = math.ceil((1 if choice.limit else choice.epochs) * len(data.train) / self.pictures)
        self.feed = Feed(sampler, choice, self.steps, processes)
        self.trainer = Trainer(network, row, choice, self.steps, processes)
        self.progress = _Progress()
        self._settings()
        self._resume()

    @property
    def epoch(self) -> float:
        """Passes over the training pictures so far."""
        return self.trainer.step_number * self.pictures / len(self.data.train)

    def go(self, stop: Callable[[], bool], tell: Callable[[Event], None]) -> Outcome:
        """Train to the end, or until `stop`; tell each step and each validation."""
        trainer, progress = self.trainer, self.progress
        if trainer.step_number == 0 and progress.before is None and self.data.val:
            progress.before = self._validate()
            self._write_scores(progress.before, 0.0)
            tell(Event(0.0, 0, self.steps, validation=progress.before))
        saved, interrupted = time.monotonic(), False
        with self.feed:
            while not progress.ended:
                began, number = time.monotonic(), trainer.step_number
                step = trainer.step(self.feed.samples(number))
                self._write_step(step)
                tell(Event(self.epoch, step.number, self.steps, done=step, seconds=time.monotonic() - began))
                due = self._is_due(number)
                if due:
                    self._after_epoch(tell)
                (stopping,) = self.processes.total(float(stop() and not progress.ended))
                late = time.monotonic() - saved > _SAVE_SECONDS
                if due or late or stopping:
                    self._save()
                    saved = time.monotonic()
                if stopping:
                    interrupted = not progress.ended
                    break
        return Outcome(
            self.folder / BEST,
            progress.before,
            progress.best,
            progress.best_epoch,
            trainer.step_number,
            interrupted,
            progress.early,
        )

    def _is_due(self, before: int) -> bool:
        """Return whether a validation follows the step after `before` steps: an epoch, or several, ended in it."""
        pictures, each = self.pictures, len(self.data.train) * self.choice.every
        done = before + 1
        return done == self.steps or done * pictures // each > before * pictures // each

    def _after_epoch(self, tell: Callable[[Event], None]) -> None:
        progress, found = self.progress, None
        last = self.trainer.step_number == self.steps
        better = True
        if self.data.val:
            found = self._validate()
            better = progress.best is None or found.abs_rel < progress.best.abs_rel
            self._write_scores(found, self.epoch)
        if better:
            progress.best, progress.best_epoch, progress.without = found, self.epoch, 0
            self._write_best(found)
        else:
            progress.without += 1
        self._write_curve()
        progress.early = bool(self.choice.patience and progress.without >= self.choice.patience and not last)
        progress.ended = last or progress.early
        if found is not None:
            tell(Event(self.epoch, self.trainer.step_number, self.steps, validation=found, best=better))

    def _validate(self) -> Validation:
        sheet = self.folder / SHEET
        return validate(self.trainer.average, self.row, self.data.val, self.masks, self.processes, sheet)

    # --- Files --------------------------------------------------------------------------------------------------------

    def _settings(self) -> None:
        """Write the settings, or compare them with those of the folder. Raises UsageError if they differ."""
        facts = {
            **self.choice.facts(),
            **{name: value for name, value in asdict(self.trained).items() if name != "facts"},
            "processes": self.processes.count,
            "data": self.data.digest,
            "masks": str(self.masks.folder) if self.masks else None,
        }
        path = self.folder / SETTINGS
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UsageError(f"{path} is broken: {error}", "use another `output`") from error
            differing = [name for name in facts if found.get(name) != facts[name]]
            if differing:
                shown = ", ".join(f"{name} {found.get(name)} and not {facts[name]}" for name in differing[:3])
                raise UsageError(f"{self.folder} holds a training with {shown}", "use another `output`")
        elif self.processes.is_first:
            with atomic_path(path) as partial:
                partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _resume(self) -> None:
        """Go on from the last state, and forget what was logged after it."""
        path = self.folder / LAST
        if self.processes.is_first:
            remove_partials(self.folder)
        if path.exists():
            try:
                state = torch.load(str(path), map_location="cpu", weights_only=True)
                self.trainer.restore(state["trainer"])
                self.progress = _progress_of(json.loads(state["progress"]))
            except Exception as error:  # a damaged file can raise anything in the unpickler
                raise CheckpointError(f"{path} cannot be read: {first_line(error)}", "use another `output`") from error
        if self.processes.is_first:
            for name, column in ((LOG, "step"), (SCORES, "step"), (GROUPS, "step")):
                _cut(self.folder / name, column, self.trainer.step_number, path.exists())

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        state = {"trainer": self.trainer.state(), "progress": json.dumps(_plain(self.progress))}
        with atomic_path(self.folder / LAST) as partial:
            torch.save(state, str(partial))

    def _write_best(self, found: Optional[Validation]) -> None:
        if not self.processes.is_first:
            return
        from safetensors.torch import save

        facts = {
            **self.trained.facts,
            "epoch": self.epoch,
            "step": self.trainer.step_number,
            "figures": found and asdict(found.figures),
        }
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.trainer.average.state_dict().items()
        }
        with atomic_path(self.folder / BEST) as partial:
            partial.write_bytes(save(tensors, metadata=replace(self.trained, facts=facts).metadata()))

    def _write_step(self, step: Step) -> None:
        if self.processes.is_first:
            row = {"step": step.number, "epoch": f"{self.epoch:.6g}", "loss": repr(step.loss), "rate": repr(step.rate)}
            _append(self.folder / LOG, [{**row, "gradient_norm": repr(step.norm)}])

    def _write_scores(self, found: Validation, epoch: float) -> None:
        if not self.processes.is_first:
            return
        place = {"step": self.trainer.step_number, "epoch": f"{epoch:.6g}"}
        figures = {name: value for name, value in asdict(found.figures).items() if name != "pairs"}
        _append(self.folder / SCORES, [{**place, "pictures": found.pictures, **figures}])
        groups = [("range", group) for group in found.ranges] + [("class", group) for group in found.classes]
        _append(self.folder / GROUPS, [{**place, "of": of, **asdict(group)} for of, group in groups])

    def _write_curve(self) -> None:
        """Draw the curve of all that the folder's tables hold."""
        if not self.processes.is_first:
            return
        scores = _columns(self.folder / SCORES)
        shown = (("abs_rel", "AbsRel"), ("delta1", "delta1"))
        lines = [Line(heading, scores["step"], scores[name]) for name, heading in shown if name in scores]
        losses = _columns(self.folder / LOG)
        write_curve(Line("loss", losses["step"], losses["loss"]), lines, self.folder / CURVE)


def _columns(path: Path) -> dict[str, list[float]]:
    """Return the columns of a table of numbers by name, NaN where a cell is empty; nothing if there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        names, *rows = csv.reader(stream)
    return {name: [float(row[place] or "nan") for row in rows] for place, name in enumerate(names)}


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _cut(path: Path, column: str, last: int, going_on: bool) -> None:
    """Remove the lines behind a step, and a line that a killed process did not finish."""
    if not path.exists():
        return
    if not going_on:
        os.remove(path)
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = lines[0].rstrip("\n").split(",").index(column)
    kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[at]) <= last]
    with atomic_path(path) as partial:
        partial.write_text("".join([lines[0], *kept]), encoding="utf-8")


def _plain(progress: _Progress) -> dict[str, Any]:
    """Return a progress, JSON-ready."""
    facts = dict(vars(progress))
    for name in ("before", "best"):
        found = facts[name]
        if found is not None:
            groups = {kind: [asdict(group) for group in getattr(found, kind)] for kind in ("ranges", "classes")}
            facts[name] = {"figures": asdict(found.figures), "pictures": found.pictures, **groups}
    return facts


def _progress_of(facts: dict[str, Any]) -> _Progress:
    def validation(found: Any) -> Optional[Validation]:
        if found is None:
            return None
        ranges, classes = (tuple(Group(**group) for group in found[kind]) for kind in ("ranges", "classes"))
        return Validation(Figures(**found["figures"]), found["pictures"], ranges, classes)

    return _Progress(**{**facts, "before": validation(facts["before"]), "best": validation(facts["best"])})
