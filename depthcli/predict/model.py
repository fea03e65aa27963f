"""From a choice to a model: its row and its weights on this machine, found once for pictures, clips and exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from depthcli.backends import targets_of
from depthcli.backends.artifact import find_artifacts, select_artifacts, weights_of
from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import CheckpointError, Log, ModelError, UsageError
from depthcli.zoo.diffusion import check_diffusion
from depthcli.zoo.download import obtain, obtain_auto
from depthcli.zoo.identify import as_trained, row_for_checkpoint
from depthcli.zoo.locate import WeightsFile, find
from depthcli.zoo.rows import ROWS, ModelRow, ModelTask, find_row, is_row, select_row, with_max_depth
from depthcli.zoo.verify import digest

_VIDEO_ENCODERS = ("vits", "vitb", "vitl")  # sizes that have a video model


@dataclass(frozen=True)
class Model:
    """A model on this machine. trust: its weights may be a pickle that this torch cannot read safely."""

    row: ModelRow
    weights: WeightsFile
    trust: bool = False


def resolve_model(
    choice: ModelChoice,
    log: Log = lambda line: None,
    *,
    backend: BackendChoice = BackendChoice(),
    tasks: Sequence[ModelTask] = (ModelTask.PICTURE,),
) -> Model:
    """Return the model of a choice; may download.

    The automatic choice is vits if its weights are here or can be downloaded, else tiny, with a line to `log`.
    backend: one that runs compiled networks needs no checkpoint. tasks: allowed tasks of the model.
    Raises UsageError for a contradictory choice or another task, ModelError if the weights cannot be had, EngineError
    if there is no compiled network.
    """
    row, checkpoint = _named(choice)
    if backend.runs_compiled:
        _check_task(row, checkpoint, tasks)
        sha256 = None if checkpoint is None else digest(checkpoint)
        found = find_artifacts(backend.artifacts, targets_of(backend))
        first = select_artifacts(found, row.name if row else None, sha256)[0]
        row, weights = first.row, weights_of(first)
    else:
        if row is None and checkpoint is not None:
            row = row_for_checkpoint(checkpoint) or _row_by_tensors(checkpoint, choice.trust, log)
        _check_task(row, checkpoint, tasks)
        if row is None:
            row, weights, notice = obtain_auto(offline=choice.offline, log=log)
            if notice:
                log(notice)
        else:
            weights = obtain(
                row,
                checkpoint=checkpoint,
                offline=choice.offline,
                log=log,
                accept_licence=choice.accept_licence,
            )
        row = as_trained(row, weights.path)
    return Model(row if choice.max_depth is None else with_max_depth(row, choice.max_depth), weights, choice.trust)


def resolve_clip_model(choice: ModelChoice, clip: ClipChoice, log: Log = lambda line: None) -> Model:
    """Return the model for a clip; may download.

    If the choice names at most a size, it is the video model of that size, or a picture model if those weights cannot
    be had. Raises as `resolve_model`, and UsageError for a video model behind the filter.
    """
    check_diffusion(choice, clip)
    if clip.backend.runs_compiled:
        return resolve_model(choice, log, backend=clip.backend)
    if choice.checkpoint is not None and choice.model is None and choice.metric is None:
        row = row_for_checkpoint(choice.checkpoint)
        if row is not None and row.task is ModelTask.CLIP and choice.encoder in ("auto", row.encoder):
            choice = replace(choice, model=row.name, encoder="auto")
    if choice.model is not None and is_row(choice.model):
        check_clip_row(find_row(choice.model), clip)  # before a download
    free = choice.model is None and choice.metric is None and choice.checkpoint is None
    encoder = "vits" if choice.encoder == "auto" else choice.encoder
    if clip.steady == "auto" and free and encoder in _VIDEO_ENCODERS:
        row = find_row(f"vda-{encoder}")
        try:
            return Model(row, obtain(row, offline=choice.offline, log=log), choice.trust)
        except ModelError as error:
            log(f"no weights of {row.name}: {error.message}; using a picture model and the filter instead")
    model = resolve_model(choice, log, tasks=(ModelTask.PICTURE, ModelTask.CLIP, ModelTask.SCENE))
    check_clip_row(model.row, clip)
    return model


def known_model(choice: ModelChoice) -> tuple[str, str]:
    """Return the row's name and the sha256 of the weights that a choice names, each "" if it does not."""
    row, checkpoint = _named(choice)
    # The row does not matter for a file that was named.
    file = None if checkpoint is None else find(row or find_row("vits"), checkpoint)
    return row.name if row else "", file.sha256 if file else ""


def named_row(choice: ModelChoice) -> ModelRow | None:
    """Return the row that a choice names, with its range; None if it names none, or a file."""
    row, _ = _named(choice)
    return row if row is None or choice.max_depth is None else with_max_depth(row, choice.max_depth)


def _named(choice: ModelChoice) -> tuple[ModelRow | None, Path | None]:
    """Return the row and the file that a choice names, None for what it leaves open."""
    checkpoint = choice.checkpoint
    encoder = None if choice.encoder == "auto" else choice.encoder
    if choice.model is not None:
        if is_row(choice.model):
            if encoder or choice.metric:
                raise UsageError("`model` names the whole model", "leave out `encoder` and `metric`")
            return find_row(choice.model), checkpoint
        if not (Path(choice.model).suffix or Path(choice.model).exists()):
            find_row(choice.model)  # raises, with near names
        if checkpoint is not None:
            raise UsageError("`model` and `checkpoint` name two files", "leave out one")
        checkpoint = Path(choice.model)
    if encoder or choice.metric:
        return select_row(encoder or "vits", choice.metric), checkpoint
    return None, checkpoint


def _row_by_tensors(checkpoint: Path, trust: bool, log: Log) -> ModelRow:
    """Return the relative row that a checkpoint of unknown name fits; metric checkpoints have the same tensors."""
    from depthcli.nets.build import infer_encoder, is_da3, is_temporal
    from depthcli.nets.checkpoint import read_state

    state = read_state(checkpoint, digest(checkpoint), trust)
    encoder = infer_encoder(state)
    if is_da3(state):
        raise CheckpointError(f"{checkpoint} is of Depth Anything 3", "name it too: `model` da3-mono or da3-metric")
    if encoder is None:
        raise CheckpointError(f"{checkpoint} is not a Depth Anything V2 checkpoint")
    if is_temporal(state):
        row, otherwise = find_row(f"vda-{encoder}"), f"set `model` to vda-metric-{encoder}"
    else:
        row, otherwise = find_row(encoder), "set `metric`"
    log(f"{checkpoint.name} fits {row.name} and is taken for a relative model; if it is metric, {otherwise}")
    return row


def _check_task(row: ModelRow | None, checkpoint: Path | None, tasks: Sequence[ModelTask]) -> None:
    if row is not None and row.task not in tasks:
        name = row.name if checkpoint is None else f"{checkpoint}, {row.title},"
        if ModelTask.PICTURE not in tasks:
            scenes = ", ".join(row.name for row in ROWS if row.task is ModelTask.SCENE)
            raise UsageError(f"{name} is no model for the views of a scene", f"choose from: {scenes}")
        if row.task is ModelTask.SCENE:
            raise UsageError(
                f"{name} is a model for the views of a scene",
                "use depth scene or depth video, or set `model` to da3-mono or da3-metric",
            )
        raise UsageError(f"{name} is a video model", "use: depth video")


def check_clip_row(row: ModelRow, clip: ClipChoice) -> None:
    """Raise UsageError for a steady model behind the filter, and for another than a video model to be `exact`."""
    if clip.exact and row.task is not ModelTask.CLIP:
        raise UsageError("`exact` needs a video model", "leave it out with another model")
    if row.task is not ModelTask.PICTURE and clip.steady != "auto":
        raise UsageError(f"{row.name} is steady without a filter", "leave out `steady`, or choose a picture model")
