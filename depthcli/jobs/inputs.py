"""Which pictures are meant, and where the result of each goes."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Union

from depthcli.errors import UsageError
from depthcli.io.depth_files import read_facts
from depthcli.io.images import is_picture, may_be_listed
from depthcli.io.writers import ENDINGS


@dataclass(frozen=True)
class Task:
    """One picture to do.

    source: where it is, or the bytes of its file; name: how it is called in reports; stem: output path without ending.
    """

    source: Union[Path, bytes]
    name: str
    stem: Path


def find_pictures(folder: Path, leave_out: Path | None = None) -> list[Path]:
    """Return the pictures below a folder, as paths relative to it, sorted.

    leave_out: a folder not to enter (where the results go). Hidden files, links to folders, and depth pictures that
    depthcli wrote are not taken up. A folder below that may not be read stands in the list itself, to fail by name.
    Raises UsageError where the folder itself may not be read.
    """
    if not may_be_listed(folder):
        raise UsageError(f"cannot read the folder {folder}: permission denied")
    found = []

    def enter(path: Path) -> bool:
        if path.name.startswith(".") or _same(path, leave_out):
            return False
        readable = may_be_listed(path)
        if not readable:
            found.append(path.relative_to(folder))
        return readable

    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if enter(here / name)]
        for name in names:
            path = here / name
            if is_picture(path) and not _is_our_output(path):
                found.append(path.relative_to(folder))
    return sorted(found)


def is_chosen(relative: Path, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a picture is wanted by patterns such as "*.jpg", "raw" or "raw/*".

    A pattern fits a relative path, a bare name, or a folder on the way; case does not count (IMG_1.JPG).
    """
    return (not include or _matches(relative, include)) and not _matches(relative, exclude)


def expand(arguments: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return (path, path below the output folder) for files, folders, globs and .txt lists, in the order given.

    A picture that is named twice is done once. Depth pictures that depthcli wrote are left out where several arguments
    are given, as `*.png` names them too. Raises UsageError for an argument that stands for nothing.
    """
    pairs: dict[Path, tuple[Path, Path]] = {}
    for argument in arguments:
        for path, relative in _expand_one(argument):
            if len(arguments) > 1 and _is_our_output(path):
                continue
            pairs.setdefault(Path(os.path.abspath(path)), (path, relative))
    return list(pairs.values())


def plan_tasks(pairs: Iterable[tuple[Path, Path]], output: Path | None) -> list[Task]:
    """Return one task per (path, relative path). output: the folder for results; beside each picture where None.

    Pictures that differ only in their suffix keep it in the result's name, so `a.jpg` and `a.png` never collide.
    Raises UsageError where two pictures would still be written to one place.
    """
    pairs = list(pairs)
    targets = [path if output is None else output / relative for path, relative in pairs]
    stems = [target.with_suffix("") for target in targets]
    shared: set[Path] = set()
    # More than once, as a name that keeps its suffix can meet another: `a.jpg`, `a.png` and `a.jpg.bmp`.
    while again := {stem for stem, count in Counter(stems).items() if count > 1} - shared:
        shared |= again
        stems = [target if stem in shared else stem for target, stem in zip(targets, stems)]
    tasks: dict[Path, Task] = {}
    for (path, relative), stem in zip(pairs, stems):
        if stem in tasks:
            raise UsageError(
                f"{tasks[stem].source!s} and {path} would both be written to {stem}{ENDINGS[0]}",
                "give each its own -o, or give their common folder to `depth dir`",
            )
        tasks[stem] = Task(path, relative.as_posix() if output is not None else str(path), stem)
    return list(tasks.values())


def _expand_one(argument: str) -> Iterator[tuple[Path, Path]]:
    if not argument:
        raise UsageError("an empty argument names no picture", "is a variable of your script unset?")
    path = Path(argument)
    if path.is_dir():
        found = find_pictures(path)
        if not found:
            raise UsageError(f"there is no picture in {path}")
        yield from ((path / relative, relative) for relative in found)
    elif path.suffix.lower() == ".txt" and path.is_file():
        listed = _read_list(path)
        if not listed:
            raise UsageError(f"the list {path} names no picture", "write one path on each line")
        yield from ((picture, Path(picture.name)) for picture in listed)
    elif not path.exists() and glob.has_magic(argument):
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        matches = [match for match in matches if is_picture(match) and not _is_our_output(match)]
        if not matches:
            raise UsageError(f"no picture matches {argument}")
        yield from ((match, Path(match.name)) for match in matches)
    else:
        yield path, Path(path.name)


def _read_list(path: Path) -> list[Path]:
    """Return the paths in a .txt list, one on each line; relative ones start where the command runs, ~ is the home."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {error.strerror}") from error
    return [Path(os.path.expanduser(line.strip())) for line in text.split("\n") if line.strip()]


def _matches(relative: Path, patterns: Sequence[str]) -> bool:
    paths = [relative, *list(relative.parents)[:-1]]  # the last parent is the folder we started from
    names = {name.lower() for path in paths for name in (path.as_posix(), path.name)}
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _is_our_output(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file() and bool(read_facts(path))  # a pipe would wait for ever


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)
