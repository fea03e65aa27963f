"""Fine-tune a model: find it, look at the data, train in a folder, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Optional, Union

from depthcli.backends.torch_eager import pick_device, torch_errors
from depthcli.choices.model import ModelChoice
from depthcli.errors import Log, OutputError, UsageError
from depthcli.predict.model import named_row, resolve_model
from depthcli.train import track
from depthcli.train.check import DataFacts, check_data, write_contact_sheet
from depthcli.train.data import DataSet, TruthFormat, read_data
from depthcli.train.masks import open_masks
from depthcli.train.parallel import Member, check_processes, joined, started
from depthcli.train.run import CONTACT_SHEET, LAST, SETTINGS, Event, Outcome, Run
from depthcli.train.settings import TrainChoice, check_model
from depthcli.train.start import Start, network_of
from depthcli.zoo.locate import find
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import Channel
from depthcli.zoo.trained import Trained, read_trained

Callback = Callable[[Event], None]
_UNKNOWN = "unknown, that of the weights it started from"


@dataclass(frozen=True)
class TrainJob:
    """What is trained, on what, and where the result goes.

    data: lists of `depth eval` (.json, .csv) and folders, see docs/train.md. output: folder of the run. root: folder of
    the paths in lists. val: a list or folder to validate on, or a share of the data; None for the data's own part, or a
    tenth. truth_format: of the depth in folders. masks: folder of label pictures, for scores by class. device: auto,
    cpu, cuda, cuda:N or mps. processes: on this machine, one for each GPU, or sharing the cores. wandb: name of a
    project.
    """

    data: Sequence[Path]
    output: Path
    model: ModelChoice = field(default_factory=ModelChoice)
    choice: TrainChoice = field(default_factory=TrainChoice)
    root: Optional[Path] = None
    val: Union[Path, float, None] = None
    truth_format: TruthFormat = field(default_factory=TruthFormat)
    masks: Optional[Path] = None
    device: str = "auto"
    processes: int = 1
    check_only: bool = False
    tensorboard: bool = False
    wandb: Optional[str] = None


def train(
    job: TrainJob,
    log: Log = lambda line: None,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Optional[Outcome]:
    """Train, or go on with a training in the same folder; return how it ended, None if only the data was checked.

    log: takes lines for the user. callbacks: called with each Event, in the first process only. stop: asked after each
    step. Raises UsageError for data or settings that make no sense, ModelError for the weights, PictureError for a loss
    that is not finite, EngineError for the device.
    """
    device = pick_device(job.device)
    check_processes(job.processes, device)
    data = read_data(job.data, job.truth_format, job.root, job.val, job.choice.limit)
    if job.processes == 1 or job.check_only:
        return _train(job, data, None, log, callbacks, stop)
    with started(job.processes, device, partial(_take_part, job, data)) as member:
        return _train(job, data, member, log, callbacks, stop)


def _take_part(job: TrainJob, data: DataSet, member: Member) -> None:
    """Train as a process that is not the first: it writes and tells nothing."""
    _train(job, data, member, _silent, (), lambda: False)


def _train(
    job: TrainJob,
    data: DataSet,
    member: Optional[Member],
    log: Log,
    callbacks: Sequence[Callback],
    stop: Callable[[], bool],
) -> Optional[Outcome]:
    masks = open_masks(job.masks) if job.masks else None
    device = pick_device(job.device)
    with ExitStack() as stack, torch_errors():
        processes = stack.enter_context(joined(device, member))
        tell = log if processes.is_first else _silent
        model = _model(job, tell)
        job.choice.loss_of(model.row)
        for line in data.notes:
            tell(f"note: {line}")
        facts = processes.of_first(lambda: _look_at(job, data, model, tell))
        if job.check_only:
            return None
        trained = _trained(job, model, data)
        tell(f"licence of the result: {trained.licence}, as that of {trained.origin}")
        fresh = not (job.output / LAST).exists()
        network = network_of(model, data.train, facts.sizes, job.choice.seed, fresh, tell).to(processes.device(device))
        run = Run(job.output, network, model.row, job.choice, data, facts.sizes, trained, masks, processes)
        if run.trainer.step_number:
            tell(f"going on after step {run.trainer.step_number} of {run.steps}")
        every = [*callbacks, *_trackers(job, run, stack, tell)] if processes.is_first else []

        def tell_all(event: Event) -> None:
            for callback in every:
                callback(event)

        return run.go(stop, tell_all)


def _model(job: TrainJob, log: Log) -> Start:
    row = named_row(job.model)
    if row and row.weights.channel is Channel.TRAINED and job.model.checkpoint is None and find(row) is None:
        origin = resolve_model(ModelChoice(encoder=row.encoder, offline=job.model.offline), log)
    else:
        origin = resolve_model(job.model, log)
        row = origin.row
    row = row.with_input_size(job.choice.input_size)
    check_model(row)
    return Start(row, origin)


def _look_at(job: TrainJob, data: DataSet, model: Start, log: Log) -> DataFacts:
    """Check the data and write the contact sheet. Raises UsageError for data that no training can use."""
    facts = check_data((*data.train, *data.val), model.row)
    log(f"data: {facts.line}; {len(data.train)} to train, {len(data.val)} to validate")
    for line in facts.warnings:
        log(f"warning: {line}")
    if job.output.exists() and not job.output.is_dir():
        raise UsageError(f"{job.output} is a file, not a folder", "use another `output`")
    if not (job.output / SETTINGS).exists() and any(job.output.glob("*.safetensors")):
        raise UsageError(f"{job.output} holds weights and no training", "use another `output`")
    try:
        job.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {job.output}: {error.strerror}", "use another `output`") from error
    write_contact_sheet((*data.train, *data.val), job.output / CONTACT_SHEET)
    log(f"look at {job.output / CONTACT_SHEET}: pictures above their depth, red is near")
    return facts


def _trained(job: TrainJob, model: Start, data: DataSet) -> Trained:
    row, weights = model.row, model.origin.weights
    before, made = read_trained(weights.path), provenance_of(model.origin.row, weights)
    return Trained(
        model=row.name,
        licence=made.licence or _UNKNOWN,
        origin=before.origin if before else made.model_title,
        origin_sha256=weights.sha256,
        input_size=row.input_size,
        max_depth=row.max_depth,
        facts={"data_sha256": data.digest, "pictures": len(data.train), "settings": job.choice.facts()},
    )


def _trackers(job: TrainJob, run: Run, stack: ExitStack, log: Log) -> list[Callback]:
    found = []
    if job.tensorboard:
        found.append(stack.enter_context(track.tensorboard(job.output / "tensorboard", run.trainer.step_number)))
    if job.wandb:
        found.append(stack.enter_context(track.wandb(job.wandb, job.output, job.choice.facts(), log)))
    return found


def _silent(line: str) -> None:
    pass
