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
from depthcli.jobs.name_list import NameList
from depthcli.jobs.shards import WHOLE, Shard
from depthcli.jobs.targets import NameTemplate, Task, plan_pictures, refuse_replacing


@dataclass(frozen=True)
class FolderSearch:
    """Which pictures of a folder are done, and where their results go.

    folder: of the pictures. target: of the results, with the same tree. include, exclude: patterns, see `is_chosen`.
    shard: the part of all pictures. template: names the results. listed: the pictures to do, by their paths below the
    folder; None for all.
    """

    folder: Path
    target: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    template: Optional[NameTemplate] = None
    shard: Shard = WHOLE
    listed: Optional[NameList] = None

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

    @property
    def where(self) -> str:
        """The pictures' folder, as it was named."""
        return str(self.search.folder)

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks. Raises UsageError if two would have the same result, or one would replace a picture."""
        search, left = self.search, LeftOut()
        total = shortened = 0
        for task in self._walked(left) if search.listed is None else self._listed(search.listed):
            total += 1
            shortened += sum(not path.name.startswith(task.stem.name) for path in self.paths(task.stem))
            yield task
        self.left, self.shortened, self.total = left, shortened, total

    def _walked(self, left: LeftOut) -> Iterator[Task]:
        for relatives in find_by_folder(self.search.folder, left=left, skip=self.search.target):
            yield from self._planned(relatives)

    def _listed(self, names: NameList) -> Iterator[Task]:
        """Yield the tasks of a list, in its order, with the names that the whole folder gives them."""
        folders: dict[Path, dict[str, Task]] = {}
        for name in names:
            relative = self._relative(name)
            if not self.search.takes(relative):
                continue
            if relative.parent not in folders:
                if len(folders) >= _MOST_FOLDERS:
                    del folders[next(iter(folders))]
                folders[relative.parent] = self._tasks_in(relative.parent)
            known = folders[relative.parent].get(relative.as_posix())
            yield from [known] if known else self._planned([relative])

    def _tasks_in(self, below: Path) -> dict[str, Task]:
        """Return the tasks of the pictures directly in one folder, by name."""
        place = self.search.folder / below
        relatives = sorted(below / path.name for path in _pictures_in(place) if not path.name.startswith("."))
        return {task.name: task for task in self._planned(relatives)}

    def _planned(self, relatives: Sequence[Path]) -> list[Task]:
        """Return the tasks of one folder."""
        search = self.search
        # Without a template all pictures get names, so that each keeps its own whatever is chosen.
        named = [path for path in relatives if search.takes(path)] if search.template else relatives
        inputs = [Input(search.folder / relative, relative) for relative in named]
        planned = plan_pictures(inputs, search.target, self.rows, search.template)
        tasks = [task for task, relative in zip(planned, named) if search.takes(relative)]
        results: list[tuple[str, Sequence[Path]]] = [(task.name, self.paths(task.stem)) for task in tasks]
        places = {path.parent for _, paths in results for path in paths}
        among = [place for place in places if self._is_among_pictures(place)]
        if not among:  # nearly always; a link to a picture would still be followed
            results = [(name, [path for path in paths if os.path.islink(path)]) for name, paths in results]
        if any(paths for _, paths in results):
            pictures = [search.folder / relative for relative in relatives]
            pictures += [path for place in among for path in _pictures_in(place)]
            refuse_replacing("picture", results, pictures)
        return tasks

    def _is_among_pictures(self, place: Path) -> bool:
        return os.path.join(os.path.realpath(place), "").startswith(self._real_folder)

    @cached_property
    def _real_folder(self) -> str:
        return os.path.join(os.path.realpath(self.search.folder), "")

    def check(self) -> None:
        """Raise UsageError if there is no picture, or if two would have the same result.

        A template, and results among the pictures, may lead to the latter; only then all names are looked at.
        """
        for _ in self:
            if self.search.template is None and not self._is_among_pictures(self.search.target):
                return
        if self.total or (self.search.is_part and self._any(replace(self.search, shard=WHOLE))):
            return  # a part may be empty
        if self.search.listed is not None:
            raise UsageError(f"the list {self.search.listed.name} names no picture to do", "write a path on each line")
        every = replace(self.search, include=(), exclude=(), shard=WHOLE)
        if self._any(every):
            raise UsageError(f"there is no picture in {self.where} that matches")
        raise UsageError(f"there is no picture in {self.where}", str(self.left))

    def _relative(self, name: str) -> Path:
        """Return the path of a listed picture below the folder. Raises UsageError if it is elsewhere."""
        path = Path(os.path.normpath(name))
        if path.is_absolute():
            path = Path(os.path.relpath(path, os.path.abspath(self.search.folder)))
        if ".." in path.parts:
            raise UsageError(f"{name} of the list is not in {self.where}", "name the folder that all are below")
        return path

    def _any(self, search: FolderSearch) -> bool:
        return next(iter(replace(self, search=search)), None) is not None

    def count(self) -> int:
        """Return how many tasks there are, by names alone: quick, and too many if results lie among the pictures."""
        if self.search.listed is not None:
            return sum(self.search.takes(self._relative(name)) for name in self.search.listed)
        found = find_by_folder(self.search.folder, _BY_NAME, skip=self.search.target)
        return sum(self.search.takes(relative) for relatives in found for relative in relatives)


_MOST_FOLDERS = 64  # whose names are held, for a list that goes back and forth
_BY_NAME = replace(PICTURE, is_result=lambda path: False)


def _pictures_in(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, without results of ours."""
    try:
        names = os.listdir(folder)
    except OSError:  # not made yet
        return []
    paths = [folder / name for name in names]
    return [path for path in paths if PICTURE.takes(path) and not PICTURE.is_result(path)]
