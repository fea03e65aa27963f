"""`depth train`: fine-tune a model on pictures with measured depth."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, Union

import typer

from depthcli.cli.groups import ADVANCED, MODEL, TRAINING, flag, grouped, option
from depthcli.cli.options import Device, ModelOptions
from depthcli.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from depthcli.train.run import Event
    from depthcli.train.settings import TrainChoice


@dataclass(frozen=True)
class TrainOptions:
    """How the model is trained."""

    epochs: Annotated[int, option("Passes over the pictures.", panel=TRAINING, metavar="N", show_default=True)] = 20
    batch: Annotated[
        int, option("Pictures per run of the network.", "--batch", "-b", panel=TRAINING, metavar="N", show_default=True)
    ] = 8
    accumulate: Annotated[
        int, option("Runs of the network per step.", panel=TRAINING, metavar="N", show_default=True)
    ] = 1
    lr: Annotated[
        Optional[float], option("Peak rate of the encoder. Default: 5e-6 (tiny: 2e-5).", panel=TRAINING, metavar="RATE")
    ] = None
    head_lr: Annotated[
        Optional[float], option("Peak rate of the head. Default: ten times --lr.", panel=TRAINING, metavar="RATE")
    ] = None
    freeze: Annotated[
        str,
        option(
            "What keeps its weights: none, encoder, or its first N blocks.",
            panel=TRAINING,
            metavar="CHOICE",
            values=("none", "encoder"),
            show_default=True,
        ),
    ] = "none"
    patience: Annotated[
        int,
        option(
            "End after so many validations without progress; 0: never.", panel=TRAINING, metavar="N", show_default=True
        ),
    ] = 5
    limit: Annotated[
        Optional[int], option("Try it out: at most N pictures, one epoch.", panel=TRAINING, metavar="N")
    ] = None
    seed: Annotated[
        int, option("Of the order and the changes of pictures.", panel=TRAINING, metavar="N", show_default=True)
    ] = 0
    input_size: Annotated[
        Optional[int],
        option("Shorter side of the network input. Default: 518 (tiny: 210).", panel=MODEL, metavar="PIXELS"),
    ] = None
    precision: Annotated[
        str,
        option(
            "auto (what the GPU computes fast; fp32 on a CPU), fp32, bf16, fp16.",
            panel=MODEL,
            metavar="NAME",
            values=("auto", "fp32", "bf16", "fp16"),
        ),
    ] = "auto"
    loss: Annotated[
        str,
        option(
            "silog, silog-batch (as official), ssi (relative). Default: by the model.",
            panel=ADVANCED,
            metavar="NAME",
            values=("auto", "silog", "silog-batch", "ssi"),
        ),
    ] = "auto"
    weight_decay: Annotated[
        float, option("Weight decay of AdamW.", panel=ADVANCED, metavar="SHARE", show_default=True)
    ] = 0.01
    warmup: Annotated[
        float, option("Share of the steps in which the rate rises.", panel=ADVANCED, metavar="SHARE", show_default=True)
    ] = 0.05
    schedule: Annotated[
        str,
        option(
            "How the rate falls: poly, cosine, constant.",
            panel=ADVANCED,
            metavar="NAME",
            values=("poly", "cosine", "constant"),
            show_default=True,
        ),
    ] = "poly"
    clip: Annotated[
        float, option("Largest norm of the gradients; 0: any.", panel=ADVANCED, metavar="NORM", show_default=True)
    ] = 1.0
    ema: Annotated[
        float,
        option("Decay of the average of the weights; 0: none.", panel=ADVANCED, metavar="SHARE", show_default=True),
    ] = 0.999
    every: Annotated[int, option("Epochs between validations.", panel=ADVANCED, metavar="N", show_default=True)] = 1
    no_augment: Annotated[
        bool, flag("Train on the pictures as they are: no crop, flip or other colours.", "--no-augment", panel=ADVANCED)
    ] = False

    def choice(self) -> "TrainChoice":
        """Return the choice."""
        from depthcli.train.settings import TrainChoice

        settings = dict(vars(self))
        return TrainChoice(augment=not settings.pop("no_augment"), **settings)


@grouped()
def train(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Lists of `depth eval`, or folders: docs/train.md.")
    ],
    output: Annotated[Path, option("Folder of the run.", "-o", "--output", metavar="RUN")],
    root: Annotated[
        Optional[Path], option("Folder of the paths in lists. Default: the list's own.", metavar="FOLDER")
    ] = None,
    val: Annotated[
        Optional[str],
        option("List or folder to validate on, or a share of DATA. Default: DATA's own, else 0.1.", metavar="DATA"),
    ] = None,
    truth_format: Annotated[
        Optional[str],
        option("Format of the depth files in folders: realsense, mm, tum, kitti, depth, ...", metavar="NAME"),
    ] = None,
    truth_scale: Annotated[
        Optional[float], option("Stored numbers per metre in folders. Default: the format's.", metavar="NUMBER")
    ] = None,
    masks: Annotated[
        Optional[Path], option("Label pictures (STEM_masks.png), for scores by class.", metavar="FOLDER")
    ] = None,
    check: Annotated[bool, flag("Only check the data, and write its contact sheet.", "--check")] = False,
    tensorboard: Annotated[bool, flag("Write events for TensorBoard into RUN.", "--tensorboard")] = False,
    wandb: Annotated[Optional[str], option("Send numbers to Weights & Biases.", metavar="PROJECT")] = None,
    processes: Annotated[
        int, option("Processes on this machine: one for each GPU.", metavar="N", show_default=True)
    ] = 1,
    quiet: Annotated[bool, flag("Print errors and warnings only.", "--quiet", "-q")] = False,
    device: Device = "auto",
    *,
    model: ModelOptions,
    training: TrainOptions,
) -> None:
    """Fine-tune a model on pictures with measured depth.

    depth train list.json -o run --encoder tiny
    depth train sequence -o run --metric indoor --max-depth 10
    depth train rgbd -o run --truth-format realsense --limit 20      try it out first
    depth train list.json -o run --processes 2                       on two GPUs

    The same command again goes on after an interruption. RUN/best.safetensors is the result, for
    --checkpoint of the other commands; it keeps the licence of the weights it started from.
    """
    from depthcli.cli.report import log, stop_signals
    from depthcli.cli.train_table import Progress, print_outcome
    from depthcli.jobs.train import TrainJob
    from depthcli.jobs.train import train as run
    from depthcli.train.data import TruthFormat

    job = TrainJob(
        data=tuple(map(Path, data)),
        output=output,
        model=model.choice(),
        choice=training.choice(),
        root=root,
        val=_validation(val),
        truth_format=TruthFormat(truth_format, truth_scale),
        masks=masks,
        device=device,
        processes=processes,
        check_only=check,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    progress = Progress()

    def note(line: str) -> None:
        if not quiet or line.startswith("warning"):
            log(line)

    def show(event: "Event") -> None:
        if not quiet:
            progress(event)

    with stop_signals(quiet, unit="step") as stop:
        outcome = run(job, note, (show,), lambda: stop.asked)
    if outcome is None or not progress.is_first:
        return
    print_outcome(outcome, quiet)
    raise typer.Exit(INTERRUPTED if outcome.interrupted else 0)


def _validation(text: Optional[str]) -> Union[Path, float, None]:
    """Return the share or the path of --val."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    if not text:
        raise UsageError("--val is empty", "is a variable of your script unset?")
    return Path(text)
