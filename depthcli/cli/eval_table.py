"""Print the scores of `depth eval` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from depthcli.cli.tables import empty_table, print_table

if TYPE_CHECKING:
    from depthcli.eval.evaluate import Score
    from depthcli.eval.metrics import Figures

# Field of Figures, heading, digits behind the point.
_COLUMNS = (
    ("abs_rel", "AbsRel", 3),
    ("sq_rel", "SqRel", 3),
    ("rmse", "RMSE", 3),
    ("rmse_log", "RMSElog", 3),
    ("log10", "log10", 3),
    ("silog", "SILog", 1),
    ("delta1", "delta1", 3),
    ("delta2", "delta2", 3),
    ("delta3", "delta3", 3),
    ("spearman", "Spearman", 3),
    ("prior", "prior", 3),
    ("pairs", "pairs", 3),
    ("boundary_f1", "edgeF1", 3),
)


def print_scores(scores: Sequence[Score], total: int) -> None:
    """Print the figures of all pictures that have some, their mean, and the protocol. total: entries of the list."""
    from depthcli.eval.alignment import protocol
    from depthcli.eval.evaluate import better_than_prior, mean, pictures_in_mean

    scored = [score for score in scores if not score.error]
    if not scored:
        return
    means = mean(scored)
    columns = [column for column in _COLUMNS if getattr(means, column[0]) is not None]
    turned = False
    table = empty_table()
    table.add_column("picture", no_wrap=True)
    table.add_column("known", justify="right", no_wrap=True)
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for score in scored:
        over = bool(score.alignment and score.alignment.turned_over)
        known = f"{score.known / score.elements:.0%}" if score.elements else "-"
        turned |= over
        cells = _cells(score.figures, columns)
        table.add_row(score.entry.name + " !" * over, known, *cells, style="red" if over else None)
    table.add_section()
    table.add_row(f"mean of {len(scored)}", "", *_cells(means, columns), style="bold")
    counts = [pictures_in_mean(scored)[field] for field, _, _ in columns]
    if set(counts) != {len(scored)}:
        table.add_row("over", "", *map(str, counts))
    print_table(table)
    if turned:
        print("! negative scale: the prediction runs against the truth, and its errors are those of its negative")
    if len(scores) < total:
        print(interrupted_line(scores, total))
    better, compared = better_than_prior(scored)
    if compared:
        print(f'Spearman is above that of "lower in the picture is nearer" (prior) on {better} of {compared} pictures')
    print(f"protocol: {protocol(score.alignment for score in scored if score.alignment)}")


def interrupted_line(scores: Sequence[Score], total: int) -> str:
    """Return how far an interrupted evaluation came."""
    return f"interrupted: {len(scores)} of {total} pictures"


def _cells(figures: Figures, columns: Sequence[tuple[str, str, int]]) -> list[str]:
    values = [(getattr(figures, field), digits) for field, _, digits in columns]
    return ["-" if value is None else f"{value:.{digits}f}" for value, digits in values]
