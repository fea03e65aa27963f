"""Fine-tune a model: find it, look at the data, train in a folder, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional, Union

from depthcli.backends.torch_eager import pick_device, torch_errors
from depthcli.choices import ModelChoice
from depthcli.errors import Log, OutputError, UsageError
from depthcli.nets.build import channels_last, read_network
from depthcli.predict.model import Model, resolve_model
from depthcli.train import track
from depthcli.train.check import DataFacts, check_data, write_contact_sheet
from depthcli.train.data import DataSet, TruthFormat, read_data
from depthcli.train.masks import open_masks
from depthcli.train.parallel import Processes, joined
from depthcli.train.run import CONTACT_SHEET, SETTINGS, Event, Outcome, Run
from depthcli.train.settings import TrainChoice, check_model
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.trained import Trained, read_trained

Callback = Callable[[Event], None]
_UNKNOWN = "unknown, that of the weights it started from"


@dataclass(frozen=True)
class TrainJob:
    """What is trained, on what, and where the result goes.

    data: lists of `depth eval` (.json, .csv) and folders, see docs/train.md. output: folder of the run. root: folder of
    the paths in lists. val: a list or folder to validate on, or a share of the data; None for the data's own part, or a
    tenth. truth_format: of the depth in folders. masks: folder of label pictures, for scores by class. device: auto,
    cpu, cuda, cuda:N or mps. wandb: name of a project.
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
    data = read_data(job.data, job.truth_format, job.root, job.val, job.choice.limit)
    masks = open_masks(job.masks) if job.masks else None
    with ExitStack() as stack:
        device = pick_device(job.device)
        processes = stack.enter_context(joined(device))
        tell = log if processes.is_first else _silent
        model = _model(job, tell)
        job.choice.loss_of(model.row)
        for line in data.notes:
            tell(f"note: {line}")
        facts = _look_at(job, data, model, processes, tell)
        if job.check_only:
            return None
        trained = _trained(job, model, data)
        tell(f"licence of the result: {trained.licence}, as that of {trained.origin}")
        with torch_errors():
            network = channels_last(read_network(model.row, model.weights, model.trust)).to(processes.device(device))
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()  # it may lie in the mapped file
        run = Run(job.output, network, model.row, job.choice, data, facts.sizes, trained, masks, processes)
        if run.trainer.step_number:
            tell(f"going on after step {run.trainer.step_number} of {run.steps}")
        every = [*callbacks, *_trackers(job, stack)] if processes.is_first else []

        def tell_all(event: Event) -> None:
            for callback in every:
                callback(event)

        with torch_errors():
            return run.go(stop, tell_all)


def _model(job: TrainJob, log: Log) -> Model:
    model = resolve_model(job.model, log)
    model = replace(model, row=model.row.with_input_size(job.choice.input_size))
    check_model(model.row)
    return model


def _look_at(job: TrainJob, data: DataSet, model: Model, processes: Processes, log: Log) -> DataFacts:
    """Check the data and write the contact sheet. Raises UsageError for data that no training can use."""
    facts = check_data((*data.train, *data.val), model.row)
    log(f"data: {facts.line}; {len(data.train)} to train, {len(data.val)} to validate")
    for line in facts.warnings:
        log(f"warning: {line}")
    if processes.is_first:
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


def _trained(job: TrainJob, model: Model, data: DataSet) -> Trained:
    row, weights = model.row, model.weights
    before, made = read_trained(weights.path), provenance_of(row, weights)
    return Trained(
        model=row.name,
        licence=made.licence or _UNKNOWN,
        origin=before.origin if before else made.model_title,
        origin_sha256=weights.sha256,
        input_size=row.input_size,
        max_depth=row.max_depth,
        facts={"data_sha256": data.digest, "pictures": len(data.train), "settings": job.choice.facts()},
    )


def _trackers(job: TrainJob, stack: ExitStack) -> list[Callback]:
    found = []
    if job.tensorboard:
        found.append(stack.enter_context(track.tensorboard(job.output / "tensorboard")))
    if job.wandb:
        found.append(stack.enter_context(track.wandb(job.wandb, job.output, job.choice.facts())))
    return found


def _silent(line: str) -> None:
    pass
