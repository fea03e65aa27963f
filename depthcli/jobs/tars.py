"""Which tars are done, and their pictures as tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Optional, Union

from depthcli.errors import DepthError, PictureError, UsageError
from depthcli.host.temporary import TemporaryFile
from depthcli.io.remote import RemotePlace, is_remote, open_place
from depthcli.io.tars import LocalTar, TarMember, read_samples
from depthcli.jobs.find import Input, LeftOut
from depthcli.jobs.folder_tasks import FolderTasks
from depthcli.jobs.shards import WHOLE
from depthcli.jobs.targets import Task, plan_names
from depthcli.jobs.walk import WALKED, walk

SUFFIX = ".tar"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
_MAGIC = re.compile(r"[*?\[{]")


def are_tars(name: str) -> bool:
    """Return whether a name is that of a tar, or a pattern of tars such as in-{000..127}.tar."""
    return name.lower().endswith(SUFFIX) and not os.path.isdir(name)


def expand_braces(text: str) -> Iterator[str]:
    """Yield what a text with {000..127} or {train,val} stands for; numbers keep their leading zeros."""
    parts = _BRACES.split(text)  # every second one was in braces
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    return map("".join, product(*choices))


def _choices(inside: str) -> Sequence[str]:
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = int(found[1]), int(found[2])
    width = len(found[1]) if found[1].startswith("0") or found[2].startswith("0") else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


@dataclass(frozen=True)
class TarSet:
    """The tars of a folder or a place in a store.

    base: that all are below. pattern: of their names below it, with braces and wildcards; empty for all.
    """

    base: Union[Path, RemotePlace]
    pattern: str = ""

    @classmethod
    def of(cls, name: str) -> TarSet:
        """Return the tars of a name: a folder, a tar, or a pattern. Raises UsageError."""
        protocol, mark, path = name.partition("://") if is_remote(name) else ("", "", name)
        parts = path.split("/")
        if not are_tars(name):
            return cls(open_place(name) if mark else Path(name))
        fixed = next((number for number, part in enumerate(parts[:-1]) if _MAGIC.search(part)), len(parts) - 1)
        base, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
        if mark:
            return cls(open_place(f"{protocol}://{base}"), pattern)
        return cls(Path(base or ("/" if fixed and path.startswith("/") else "")), pattern)

    @property
    def where(self) -> str:
        """The tars, as they were named."""
        base = self.base.url if isinstance(self.base, RemotePlace) else str(self.base)
        if not self.pattern:
            return base
        return self.pattern if base == os.curdir else f"{base}/{self.pattern}"

    def names(self, skip: Optional[Path] = None) -> Iterator[str]:
        """Yield the names below `base`, each once, sorted folder by folder; of a pattern of braces, in its order.

        skip: a folder not to enter. Raises UsageError if a store cannot be listed.
        """
        patterns = list(expand_braces(self.pattern)) if self.pattern else []
        if patterns and not any(map(_has_wildcard, patterns)):
            yield from dict.fromkeys(patterns)
            return
        for name in self._below(skip):
            if name.lower().endswith(SUFFIX) and (not patterns or any(_fits(name, each) for each in patterns)):
                yield name

    def _below(self, skip: Optional[Path]) -> Iterator[str]:
        if isinstance(self.base, RemotePlace):
            for _, files in self.base.folders():
                yield from (file.name for file in files)
            return
        for kind, folder, names in walk(self.base, skip):
            if kind == WALKED:
                below = folder.relative_to(self.base)
                yield from ((below / name).as_posix() for name in sorted(names) if not name.startswith("."))

    def open(self, name: str) -> LocalTar:
        """Return a tar on a disk here: itself, or a copy of one in a store. Raises PictureError."""
        if not isinstance(self.base, RemotePlace):
            path = self.base / name
            try:
                return LocalTar(name, path, path.stat().st_mtime_ns)
            except FileNotFoundError:
                raise PictureError(f"{path} does not exist") from None
            except OSError as error:
                raise PictureError(f"{path} cannot be read: {error.strerror}") from error
        copy = TemporaryFile("depthcli-tar-", SUFFIX)
        self.base.fetch(name, copy.path)
        return LocalTar(name, copy.path, 0, copy)


def _has_wildcard(pattern: str) -> bool:
    return bool(re.search(r"[*?\[]", pattern))


def _fits(name: str, pattern: str) -> bool:
    """Return whether a pattern fits, folder by folder: * does not stand for a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


@dataclass
class TarTasks(FolderTasks):
    """As FolderTasks, for pictures in tars. A shard, patterns and a list choose tars, by their names.

    Results lie in a folder of their tar's name. tars: to read; `search.folder` is what they are called.
    """

    tars: TarSet = TarSet(Path())

    @property
    def where(self) -> str:
        """The tars, as they were named."""
        return self.tars.where

    @property
    def place(self) -> Optional[RemotePlace]:
        """The store that has the tars."""
        return self.tars.base if isinstance(self.tars.base, RemotePlace) else None

    def chosen(self) -> Iterator[str]:
        """Yield the names of the tars to do."""
        if self.search.listed is None:
            names = self.tars.names(self.search.target)
        else:
            names = (self._relative(name).as_posix() for name in self.search.listed)
        return (name for name in names if self.search.takes(Path(name)))

    def _walked(self, left: LeftOut) -> Iterator[Task]:
        for name in self.chosen():
            try:
                tar = self.tars.open(name)
                tasks = self._tasks_of(tar, read_samples(tar))
            except DepthError as error:  # reading it fails with the same
                broken = TarMember(LocalTar(name, Path(name)), "", problem=str(error))
                tasks = [Task(broken, name, self.search.target / name)]
            yield from tasks

    def _tasks_of(self, tar: LocalTar, samples: Sequence[tuple[str, TarMember]]) -> list[Task]:
        """Return the tasks of one tar; their results are named as those of a folder's pictures."""
        folder = self.search.target / Path(tar.name).with_suffix("")
        inputs = [Input(member.name, Path(_inside(member.name))) for _, member in samples]
        stems = plan_names(inputs, folder, self.search.template)
        return [Task(member, f"{tar.name}/{member.name}", stem) for (_, member), stem in zip(samples, stems)]

    def _listed(self, names: object) -> Iterator[Task]:
        return self._walked(LeftOut())

    def check(self) -> None:
        """Raise UsageError if there is no tar to do, or a result would replace one."""
        if self.place is None:
            base = Path(self.tars.base)  # type: ignore[arg-type]
            if os.path.realpath(base) == os.path.realpath(self.search.target):
                raise UsageError(f"{self.search.target} is the folder of the tars", "use another `output`")
        if next(self.chosen(), None) is None:
            every = replace(self, search=replace(self.search, include=(), exclude=(), shard=WHOLE, listed=None))
            if self.search.is_part and next(every.chosen(), None) is not None:
                return  # a part may be empty
            raise UsageError(f"there is no tar in {self.where}{' that matches' if next(every.chosen(), None) else ''}")

    def count(self) -> Optional[int]:  # type: ignore[override]
        """Return the number of pictures, None for tars in a store, which would all be fetched for that."""
        if self.place is not None:
            return None
        total = 0
        for name in self.chosen():
            try:
                total += len(read_samples(self.tars.open(name)))
            except PictureError:
                total += 1
        return total


def _inside(name: str) -> str:
    """Return a member's name as a path that stays inside a folder."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"
