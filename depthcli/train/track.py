"""Send the numbers of a training to TensorBoard or Weights & Biases. Both are optional packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import UsageError
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
def tensorboard(folder: Path) -> Iterator[Callable[[Event], None]]:
    """Give a callback that writes events for TensorBoard into a folder. Raises UsageError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"`tensorboard` needs its package: {error}", 'pip install "depthcli[train]"') from None
    writer: Any = SummaryWriter(str(folder))

    def tell(event: Event) -> None:
        for name, value in numbers_of(event).items():
            writer.add_scalar(name, value, event.step)

    try:
        yield tell
    finally:
        writer.close()


@contextmanager
def wandb(project: str, folder: Path, settings: dict[str, Any]) -> Iterator[Callable[[Event], None]]:
    """Give a callback that sends events to a project of Weights & Biases. Raises UsageError without the package."""
    try:
        import wandb as library
    except ImportError as error:
        raise UsageError(f"`wandb` needs its package: {error}", "pip install wandb") from None
    run: Any = library.init(project=project, dir=str(folder), config=settings)

    def tell(event: Event) -> None:
        run.log(numbers_of(event), step=event.step)

    try:
        yield tell
    finally:
        run.finish()
