"""A folder of results that is looked at: on a disk, or in an object store, whose notes are fetched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from depthcli.errors import UsageError
from depthcli.io.remote import is_remote, open_place
from depthcli.jobs.manifest import is_note
from depthcli.jobs.remote_output import Publisher


@dataclass(frozen=True)
class ResultFolder:
    """name: as it was named. folder: of the notes; on a disk of the results too. publisher: of the store, or None."""

    name: str
    folder: Path
    publisher: Optional[Publisher] = None

    def has(self, paths: Sequence[Path]) -> bool:
        """Return whether all files are there and not empty. paths: below `folder`. A store is listed once."""
        if self.publisher is not None:
            return self.publisher.is_there(paths)
        return all(path.is_file() and path.stat().st_size > 0 for path in paths)

    def named(self, path: Path) -> str:
        """Return what a user calls a result."""
        return str(path) if self.publisher is None else self.publisher.address(str(path))


@contextmanager
def open_results(name: str) -> Iterator[ResultFolder]:
    """Within this context the notes of a store lie on the disk. Raises UsageError if there is no such folder."""
    if not is_remote(name):
        if not os.path.isdir(name):
            raise UsageError(f"{Path(name)} is not a folder", "name the folder of the results")
        yield ResultFolder(name, Path(name))
        return
    place = open_place(name)
    with tempfile.TemporaryDirectory(prefix="depthcli-notes-") as made:
        folder = Path(made)
        for file in place.files_in(""):
            if is_note(file.name):
                place.fetch(file.name, folder / file.name)
                os.utime(folder / file.name, ns=(file.changed, file.changed))  # the latest row counts
        yield ResultFolder(place.url, folder, Publisher(place, folder))
