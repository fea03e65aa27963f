"""Send the numbers of a training to TensorBoard or Weights & Biases. Both are optional packages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import Log, UsageError, first_line
from depthcli.train.run import Event

Numbers = dict[str, float]


def numbers_of(event: Event) -> Numbers:
    """Return the numbers of an event by name."""
    numbers: dict[str, Optional[float]] = {}
    if event.done is not None:
        done = event.done
        numbers.update({"train/loss": done.loss, "train/rate": done.rate, "train/gradient_norm": done.norm})
    if event.validation is not None:
        found = event.validation
        numbers.update({f"val/{name}": value for name, value in asdict(found.figures).items()})
        for group in (*found.ranges, *found.classes):
            numbers[f"val abs_rel/{group.name}"] = group.abs_rel
    return {name: float(value) for name, value in numbers.items() if value is not None}


@contextmanager
def tensorboard(folder: Path, step: int = 0) -> Iterator[Callable[[Event], None]]:
    """Give a callback that writes events for TensorBoard into a folder. Raises UsageError without the package.

    step: after which the training goes on; what an interrupted run wrote after it is hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"`tensorboard` needs its package: {error}", 'pip install "depthcli[train]"') from None
    writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def tell(event: Event) -> None:
        for name, value in numbers_of(event).items():
            writer.add_scalar(name, value, event.step)

    try:
        yield tell
    finally:
        writer.close()


@contextmanager
def wandb(
    project: str, folder: Path, settings: dict[str, Any], log: Log = lambda line: None
) -> Iterator[Callable[[Event], None]]:
    """Give a callback that sends events to a project of Weights & Biases. Raises UsageError without the package.

    Without an account on this machine, and with WANDB_MODE=offline, the numbers are kept in the folder, to be sent
    later.
    """
    try:
        import wandb as library
    except ImportError as error:
        raise UsageError(f"`wandb` needs its package: {error}", "pip install wandb") from None
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_account(library) else "offline")
    try:
        run: Any = library.init(project=project, dir=str(folder), config=settings, mode=mode)
    except Exception as error:  # its own classes differ between versions
        reason = f"Weights & Biases does not start: {first_line(error)}"
        raise UsageError(reason, "set WANDB_MODE=offline, or leave out `wandb`") from error
    if mode == "offline":
        log(f"note: Weights & Biases is offline; later: wandb sync {folder}/wandb/offline-run-*")

    def tell(event: Event) -> None:
        run.log(numbers_of(event), step=event.step)

    try:
        yield tell
    finally:
        run.finish()


def _has_account(library: Any) -> bool:
    """Return whether a key for Weights & Biases is on this machine; without one it would ask, also a script."""
    return bool(os.environ.get("WANDB_API_KEY") or getattr(getattr(library, "api", None), "api_key", None))
