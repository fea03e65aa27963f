"""Print a command's help: usage, text, and a box per section. Rich takes longer to load than this takes in all."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_ARGUMENTS, _OPTIONS, _COMMANDS = "Arguments", "Options", "Commands"
_NARROW = 30  # columns; a sentence with less room stands under its option
_BOX, _PLAIN_BOX = "╭─╮│╰╯", "+-+|++"
_BOLD, _END = "\x1b[1;36m", "\x1b[0m"

Row = Sequence[str]  # cells; the last is a sentence


def print_help(command: Any, ctx: Any, commands: Iterable[Row] = ()) -> None:
    """Print the help of a command on stdout. commands: (name, sentence) of each command of a group."""
    import typer

    width = max(40, shutil.get_terminal_size((80, 24)).columns)
    lines = ["", f" {command.get_usage(ctx)}", "", *_text(command.help or "", width - 2), ""]
    for title, rows in (*_sections(command, ctx).items(), (_COMMANDS, list(commands))):
        lines += _box(title, rows, width) if rows else ()
    typer.echo("\n".join(lines), color=ctx.color)  # which takes the colours away if stdout is no terminal


def _text(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a docstring; what an example does stays in its column."""
    for line in text.splitlines():
        _, gap, after = line.partition("   ")
        column = len(line) - len(after.lstrip()) if gap else 0
        yield from _wrap(line, width, column if column < width - _NARROW else 0) or [""]


def _wrap(line: str, width: int, column: int) -> list[str]:
    return textwrap.wrap(
        line, width + 1, initial_indent=" ", subsequent_indent=" " * (column + 1), break_on_hyphens=False
    )


def _sections(command: Any, ctx: Any) -> dict[str, list[Row]]:
    """Return the rows of each box: arguments first, then the options by section, in their order."""
    sections: dict[str, list[Row]] = {_ARGUMENTS: [], _OPTIONS: []}
    for parameter in command.get_params(ctx):
        if not parameter.hidden:
            is_option = parameter.param_type_name == "option"
            title = getattr(parameter, "rich_help_panel", None) or (_OPTIONS if is_option else _ARGUMENTS)
            sections.setdefault(title, []).append(_option(parameter) if is_option else _argument(parameter))
    return {title: rows for title, rows in sections.items() if rows}


def _argument(parameter: Any) -> Row:
    return parameter.metavar or parameter.name, " ".join([parameter.help or "", *["[required]"] * parameter.required])


def _option(parameter: Any) -> Row:
    long = ",".join(name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
    short = ",".join(name for name in parameter.opts if not name.startswith("--"))
    metavar = "" if parameter.is_flag else parameter.metavar or parameter.name.upper()
    shown = parameter.show_default and not parameter.is_flag and parameter.default is not None
    default = [f"[default: {parameter.default}]"] if shown else []
    return long, short, metavar, " ".join([parameter.help or "", *default])


def _box(title: str, rows: Sequence[Row], width: int) -> Iterator[str]:
    left, line, right, side, low_left, low_right = tuple(_BOX if _prints(_BOX) else _PLAIN_BOX)
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows))]
    room = width - 4 - sum(size + 2 for size in widths if size)
    below = room < _NARROW
    yield f"{left}{line} {title} ".ljust(width - 1, line) + right
    for *cells, sentence in rows:
        padded = [cell.ljust(size) + "  " for cell, size in zip(cells, widths) if size]
        head, start = "".join(padded), " " * len("".join(padded))
        if below:
            yield f"{side} {_bold(head.ljust(width - 4))} {side}"
            head = start = "    "
        for part in textwrap.wrap(sentence, width - 4 - len(start), break_on_hyphens=False) or [""]:
            yield f"{side} {_bold(head)}{part.ljust(width - 4 - len(start))} {side}"
            head = start
    yield f"{low_left}{line * (width - 2)}{low_right}"


def _prints(text: str) -> bool:
    """Return whether stdout can hold a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _bold(text: str) -> str:
    """Return a text with its words in colour, unless the user wants none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not text.strip():
        return text
    return f"{_BOLD}{text.rstrip()}{_END}{text[len(text.rstrip()) :]}"
