"""Print tables as wide as they are: a figure that is cut off is a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

_STYLES = {"x": "{:.2f}x", "%": "{:.0%}", "%%": "{:.2%}", "0": "{:.0f}", "0%": "{:.0f}%", "0.0000": "{:.4f}"}


class Column(NamedTuple):
    """A column of a table of rows. style: how numbers are printed, empty for three digits. left: aligned left."""

    heading: str
    field: str
    style: str = ""
    left: bool = False

    def cell(self, row: Any) -> str:
        """Return the text of a row's value: a size (w, h) as WxH, None as -."""
        value = getattr(row, self.field)
        if isinstance(value, tuple):
            return by(value)
        return format_number(value, self.style)


def format_number(value: Any, style: str = "") -> str:
    """Return a number to three digits or in a style, a text as it is, None as -."""
    if value is None or isinstance(value, str):
        return value or "-" if value is None else value
    if style:
        return _STYLES[style].format(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def by(size: tuple[int, int]) -> str:
    """Return 640x480."""
    return f"{size[0]}x{size[1]}"


def count(number: int, what: str) -> str:
    """Return `1 turn` or `2 turns`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def print_rows(rows: Sequence[Any], columns: Sequence[Column]) -> None:
    """Print one line per row."""
    table = empty_table()
    for column in columns:
        table.add_column(column.heading, justify="left" if column.left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(column.cell(row) for column in columns))
    print_table(table)


def empty_table() -> Table:
    """Return a table without columns."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def print_table(table: Table) -> None:
    """Print a table to stdout."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)
