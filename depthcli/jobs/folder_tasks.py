"""The pictures of a folder as tasks, folder by folder: a million names are never held at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Callable, Optional

from depthcli.errors import UsageError
from depthcli.jobs.find import PICTURE, Input, LeftOut, find_by_folder, is_chosen
from depthcli.jobs.shards import WHOLE, Shard
from depthcli.jobs.targets import NameTemplate, Task, plan_pictures, refuse_replacing


@dataclass(frozen=True)
class FolderSearch:
    """Which pictures of a folder are done, and where their results go.

    folder: of the pictures. target: of the results, with the same tree. include, exclude: patterns, see `is_chosen`.
    shard: the part of all pictures. template: names the results.
    """

    folder: Path
    target: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    template: Optional[NameTemplate] = None
    shard: Shard = WHOLE

    @property
    def is_part(self) -> bool:
        """Whether other processes do other parts of the same folder."""
        return self.shard.count > 1

    def takes(self, relative: Path) -> bool:
        """Return whether a picture is one of those to do."""
        chosen = is_chosen(relative, self.include, self.exclude)
        return chosen and self.shard.has(relative.as_posix())


@dataclass
class FolderTasks:
    """The tasks of a folder. Each iteration walks it anew, and names are decided folder by folder.

    A picture's results have the same name in every shard, and whatever is included.
    rows: of the manifest, see `plan_pictures`. paths: of the results with a stem.
    left, shortened, total: of the last iteration that came to its end: what was not taken, the number of results whose
    names were too long, and the number of tasks; total is None before.
    """

    search: FolderSearch
    rows: Mapping[str, Mapping[str, object]]
    paths: Callable[[Path], Sequence[Path]]
    left: LeftOut = field(default_factory=LeftOut)
    shortened: int = 0
    total: Optional[int] = None

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks. Raises UsageError if two would have the same result, or one would replace a picture."""
        search, left = self.search, LeftOut()
        total = shortened = 0
        for relatives in find_by_folder(search.folder, left=left, skip=search.target):
            for task in self._planned(relatives):
                total += 1
                shortened += sum(not path.name.startswith(task.stem.name) for path in self.paths(task.stem))
                yield task
        self.left, self.shortened, self.total = left, shortened, total

    def _planned(self, relatives: Sequence[Path]) -> list[Task]:
        """Return the tasks of one folder."""
        search = self.search
        # Without a template all pictures get names, so that each keeps its own whatever is chosen.
        named = [path for path in relatives if search.takes(path)] if search.template else relatives
        inputs = [Input(search.folder / relative, relative) for relative in named]
        planned = plan_pictures(inputs, search.target, self.rows, search.template)
        tasks = [task for task, relative in zip(planned, named) if search.takes(relative)]
        results = [(task.name, self.paths(task.stem)) for task in tasks]
        places = {path.parent for _, paths in results for path in paths}
        pictures = [search.folder / relative for relative in relatives]
        if self._inside:
            pictures += [path for place in places for path in _pictures_in(place)]
        refuse_replacing("picture", results, pictures)
        return tasks

    @cached_property
    def _inside(self) -> bool:
        """Whether results are written among the pictures."""
        folder, target = map(os.path.realpath, (self.search.folder, self.search.target))
        return os.path.join(target, "").startswith(os.path.join(folder, ""))

    def check(self) -> None:
        """Raise UsageError if there is no picture, or if two would have the same result.

        A template, and results among the pictures, may lead to the latter; only then all names are looked at.
        """
        for _ in self:
            if self.search.template is None and not self._inside:
                return
        if self.total or (self.search.is_part and self._any(replace(self.search, shard=WHOLE))):
            return  # a part may be empty
        every = replace(self.search, include=(), exclude=(), shard=WHOLE)
        if self._any(every):
            raise UsageError(f"there is no picture in {self.search.folder} that matches")
        raise UsageError(f"there is no picture in {self.search.folder}", str(self.left))

    def _any(self, search: FolderSearch) -> bool:
        return next(iter(replace(self, search=search)), None) is not None

    def count(self) -> int:
        """Return how many tasks there are, by names alone: quick, and too many if results lie among the pictures."""
        found = find_by_folder(self.search.folder, _BY_NAME, skip=self.search.target)
        return sum(self.search.takes(relative) for relatives in found for relative in relatives)


_BY_NAME = replace(PICTURE, is_result=lambda path: False)


def _pictures_in(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, without results of ours."""
    try:
        names = os.listdir(folder)
    except OSError:  # not made yet
        return []
    paths = [folder / name for name in names]
    return [path for path in paths if PICTURE.takes(path) and not PICTURE.is_result(path)]
