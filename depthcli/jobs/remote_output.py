"""Results in an object store: made in a folder here, then put whole, one request for each file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from depthcli.errors import OutputError, UsageError
from depthcli.io.remote import NameSet, RemoteFile, RemotePlace
from depthcli.jobs.manifest import MANIFEST_NAME, RUN_NAME, Result
from depthcli.jobs.shards import Shard

_SECONDS = 60.0  # between two copies of the manifest
_SEVERAL_FILES = ("obj",)


@dataclass(frozen=True)
class Publisher:
    """Puts the files that were made in a folder here to the same names in a place. Worker processes have one each."""

    place: RemotePlace
    folder: Path

    @cached_property
    def _there(self) -> NameSet:
        """The names of all results, by one listing."""
        return self.place.names()

    def is_there(self, paths: Sequence[Path]) -> bool:
        """Return whether all files are in the place already."""
        return all(self._name(path) in self._there for path in paths)

    def publish(self, paths: Sequence[Path]) -> None:
        """Move files that are whole to the place; what stands beside one comes before it. Raises OutputError."""
        for path in paths:
            for each in (path.with_name(f"{path.name}.json"), path):
                if each.exists():
                    self.put(each)
                    each.unlink()

    def put(self, path: Path) -> None:
        """Put a file, and keep it here. Raises OutputError."""
        self.place.put(self._name(path), path.read_bytes())

    def file(self, path: Path) -> RemoteFile:
        """Return the object that was made of a file here, without a look at the store."""
        return self.place.file(self._name(path))

    def address(self, path: str) -> str:
        """Return the address of a file that was made here."""
        return self.place.address(self._name(Path(path)))

    def named(self, result: Result) -> Result:
        """Return a result with the addresses of its files."""
        return replace(result, outputs=tuple(map(self.address, result.outputs)))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


class RemoteFolder:
    """A place for results, with its notes. Close it in the end, which puts the manifest.

    folder: here, for files on their way; job and manifest write to it as if it were the place. It begins with the notes
    of earlier runs.
    """

    def __init__(self, place: RemotePlace, shard: Shard) -> None:
        self._made = tempfile.TemporaryDirectory(prefix="depthcli-out-")
        self.folder = Path(self._made.name)
        self.publisher = Publisher(place, self.folder)
        self._manifest = self.folder / shard.manifest_name
        self._put_at = time.monotonic()
        try:
            for name in {MANIFEST_NAME, shard.manifest_name, RUN_NAME}:
                content = place.get(name)
                if content is not None:
                    (self.folder / name).write_bytes(content)
        except BaseException:  # nobody will close what was not opened
            self._made.cleanup()
            raise

    def note(self) -> None:
        """Put the manifest, if a minute has passed. A failure is told at the end."""
        if time.monotonic() - self._put_at >= _SECONDS and self._manifest.exists():
            self._put_at = time.monotonic()
            with suppress(OutputError):
                self.publisher.put(self._manifest)

    def put_run(self) -> None:
        """Put run.json as it is here. Raises OutputError."""
        self.publisher.put(self.folder / RUN_NAME)

    def close(self) -> None:
        """Put the manifest, and remove the folder. Raises OutputError."""
        try:
            if self._manifest.exists():
                self.publisher.put(self._manifest)
        finally:
            self._made.cleanup()


def check_remote_formats(formats: Sequence[str]) -> None:
    """Raise UsageError for a format of several files, which cannot appear at once in a store."""
    several = next((name for name in formats if name in _SEVERAL_FILES), None)
    if several:
        raise UsageError(f"{several} is several files, which a store cannot show at once", "use glb")
