"""Print how a training goes, and its scores before and after."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from depthcli.cli.report import log
from depthcli.cli.tables import empty_table, print_table

if TYPE_CHECKING:
    from depthcli.train.run import Event, Outcome
    from depthcli.train.validate import Group, Validation

_SECONDS = 10.0  # between two lines of progress
# Field of Figures, heading, digits behind the point.
_FIGURES = (
    ("abs_rel", "AbsRel", 3),
    ("rmse", "RMSE", 3),
    ("silog", "SILog", 1),
    ("delta1", "delta1", 3),
    ("spearman", "Spearman", 3),
)


class Progress:
    """Prints a line per validation, and one every few seconds between."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints."""
        return os.environ.get("RANK", "0") == "0"

    def __call__(self, event: Event) -> None:
        """Show an event."""
        where = f"step {event.step}/{event.steps}, epoch {event.epoch:.3g}"
        if event.validation is not None:
            figures = event.validation.figures
            shown = [(heading, getattr(figures, name), digits) for name, heading, digits in _FIGURES]
            scores = ", ".join(f"{heading} {value:.{digits}f}" for heading, value, digits in shown if value is not None)
            log(f"{where}: {scores}{' (best)' if event.best else ''}")
            self._shown = time.monotonic()
        elif event.done is not None and time.monotonic() - self._shown >= _SECONDS:
            log(f"{where}: loss {event.done.loss:.4f}, rate {event.done.rate:.2e}, {event.seconds:.2f} s a step")
            self._shown = time.monotonic()


def print_outcome(outcome: Outcome, quiet: bool) -> None:
    """Print the scores before and after, by range and by class, and what to do with the result."""
    if outcome.interrupted:
        log(f"interrupted after step {outcome.steps}: run the same command again to continue")
        return
    if outcome.before is not None and outcome.best is not None:
        _print_figures(outcome.before, outcome.best)
        for heading, before, after in (
            ("range", outcome.before.ranges, outcome.best.ranges),
            ("class", outcome.before.classes, outcome.best.classes),
        ):
            if after:
                _print_groups(heading, before, after)
        if outcome.best.abs_rel > outcome.before.abs_rel:
            log(f"warning: the weights it started from are better, by AbsRel over {outcome.best.pictures} pictures")
    print(outcome.path)
    if quiet:
        return
    if outcome.early:
        log("ended early: `patience` validations brought no progress")
    log(f"use it: depth image photo.jpg --checkpoint {outcome.path}")
    log(f"        depth compile --target onnx --checkpoint {outcome.path}")


def _print_figures(before: Validation, after: Validation) -> None:
    table = empty_table()
    table.add_column(f"mean of {after.pictures}", no_wrap=True)
    columns = [column for column in _FIGURES if getattr(after.figures, column[0]) is not None]
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in (("before", before), ("after", after)):
        values = ((getattr(found.figures, field), digits) for field, _, digits in columns)
        table.add_row(name, *("-" if value is None else f"{value:.{digits}f}" for value, digits in values))
    print_table(table)


@dataclass(frozen=True)
class _Pair:
    before: Optional[Group]
    after: Group


def _print_groups(heading: str, before: Sequence[Group], after: Sequence[Group]) -> None:
    known = {group.name: group for group in before}
    pairs = [_Pair(known.get(group.name), group) for group in after]
    in_metres = all(group.mae is not None for group in after)
    table = empty_table()
    table.add_column(heading, no_wrap=True)
    for name in (
        "pixels",
        "AbsRel before",
        "after",
        *(("MAE before", "after") if in_metres else ()),
        "delta1 before",
        "after",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs:
        fields = ("abs_rel", *(("mae",) if in_metres else ()), "delta1")
        cells = [
            "-" if group is None else f"{getattr(group, field):.3f}"
            for field in fields
            for group in (pair.before, pair.after)
        ]
        table.add_row(pair.after.name, f"{pair.after.share:.1%}", *cells)
    print_table(table)
