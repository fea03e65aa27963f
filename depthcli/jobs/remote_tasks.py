"""The pictures of a place in an object store as tasks, folder by folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from depthcli.errors import UsageError
from depthcli.io.pictures.images import is_picture
from depthcli.io.remote import RemoteFile, RemotePlace
from depthcli.jobs.find import Input, LeftOut
from depthcli.jobs.folder_tasks import FolderTasks
from depthcli.jobs.targets import Task, plan_names


@dataclass
class RemoteTasks(FolderTasks):
    """As FolderTasks, for pictures in a store. A picture is told by its suffix; nothing is read.

    place: of the pictures. `search.folder` is its address. skip: name of the folder below it that takes the results.
    """

    place: Optional[RemotePlace] = None
    skip: str = ""

    @property
    def where(self) -> str:
        """The address of the pictures."""
        assert self.place is not None
        return self.place.url

    def _relative(self, name: str) -> Path:
        start = f"{self.where}/"
        return super()._relative(name[len(start) :] if name.startswith(start) else name)

    def _walked(self, left: LeftOut) -> Iterator[Task]:
        assert self.place is not None
        for _, files in self.place.folders(self.skip):
            pictures = [file for file in files if is_picture(Path(file.name))]
            left.add_names(file.name for file in files if file not in pictures)
            yield from self._tasks_of(pictures)

    def _tasks_in(self, below: Path) -> dict[str, Task]:
        assert self.place is not None
        files = self.place.files_in("" if below == Path() else below.as_posix())
        return {task.name: task for task in self._tasks_of([file for file in files if is_picture(Path(file.name))])}

    def _planned(self, relatives: Sequence[Path]) -> list[Task]:
        """Return the tasks of listed pictures that are not in their folder: they fail by name."""
        assert self.place is not None
        return self._tasks_of([self.place.file(relative.as_posix()) for relative in relatives])

    def _tasks_of(self, files: Sequence[RemoteFile]) -> list[Task]:
        """Return the tasks of the pictures of one folder."""
        search = self.search
        inputs = [Input(file.name, Path(file.name)) for file in files]
        taken = [search.takes(item.relative) for item in inputs]
        if search.template:
            inputs = [item for item, wanted in zip(inputs, taken) if wanted]
            files = [file for file, wanted in zip(files, taken) if wanted]
            taken = [True] * len(files)
        stems = plan_names(inputs, search.target, search.template)
        found = zip(files, inputs, stems, taken)
        return [Task(file, item.relative.as_posix(), stem) for file, item, stem, wanted in found if wanted]

    def _is_among_pictures(self, place: Path) -> bool:
        return False

    def count(self) -> int:
        """Return how many tasks there are; the place is listed once more."""
        if self.search.listed is not None:
            return super().count()
        return sum(1 for _ in self._walked(LeftOut()))


def folder_below(place: RemotePlace, other: RemotePlace) -> str:
    """Return the name of a folder below a place; "" if it is elsewhere. Raises UsageError if both are the same."""
    if type(place.store) is not type(other.store) or not f"{other.root}/".startswith(f"{place.root}/"):
        return ""
    name = other.root[len(place.root) + 1 :]
    if not name:
        raise UsageError(f"{other.url} is the folder of the pictures", "use another `output`, which may be below it")
    return name
