"""Which pictures are meant, and where the result of each goes."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from depthcli.errors import UsageError
from depthcli.io.depth_files import read_facts
from depthcli.io.images import is_picture
from depthcli.io.writers import ENDINGS


@dataclass(frozen=True)
class Task:
    """One picture to do. source: where it is; name: how it is called in reports; stem: output path without ending."""

    source: Path
    name: str
    stem: Path


def find_pictures(
    folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), leave_out: Path | None = None
) -> list[Path]:
    """Return the pictures below a folder, as paths relative to it, sorted.

    include, exclude: patterns such as "*.jpg", "raw" or "raw/*", matched without case against the relative path, the
    bare name and the folders on the way.
    leave_out: a folder not to enter (where the results go). Hidden files, links to folders, and depth pictures that
    depthcli wrote are not taken up.
    """
    found = []
    for root, folders, names in os.walk(folder, onerror=_raise_unreadable):
        here = Path(root)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not _same(here / n, leave_out))
        for name in names:
            path = here / name
            relative = path.relative_to(folder)
            if include and not _matches(relative, include):
                continue
            if _matches(relative, exclude) or not is_picture(path) or _is_our_output(path):
                continue
            found.append(relative)
    return sorted(found)


def expand(arguments: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return (path, path below the output folder) for files, folders, globs and .txt lists, in the order given.

    A picture that is named twice is done once. Raises UsageError for an argument that stands for nothing.
    """
    pairs: dict[Path, tuple[Path, Path]] = {}
    for argument in arguments:
        for path, relative in _expand_one(argument):
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
                f"{tasks[stem].source} and {path} would both be written to {stem}{ENDINGS[0]}",
                "give each its own -o, or give their common folder to `depth dir`",
            )
        tasks[stem] = Task(path, relative.as_posix() if output is not None else str(path), stem)
    return list(tasks.values())


def _expand_one(argument: str) -> Iterator[tuple[Path, Path]]:
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
    """Return whether a pattern fits the path, its name, or a folder on the way; case does not count (IMG_1.JPG)."""
    names = [name.lower() for name in (relative.as_posix(), *relative.parts)]
    names += [parent.as_posix().lower() for parent in relative.parents]
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _is_our_output(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and path.is_file() and bool(read_facts(path))  # a pipe would wait for ever


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _raise_unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}") from error
