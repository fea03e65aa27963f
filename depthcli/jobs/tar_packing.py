"""Results of tars as tars: one for each, with the same keys, that appears when it is whole."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import DepthError, OutputError, PictureError, UsageError
from depthcli.host.atomic import atomic_path, remove_partials, temporary_folder
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.tars import LocalTar, TarWriter, read_samples, tar_members
from depthcli.jobs.manifest import DONE, SKIPPED, Manifest, Result
from depthcli.jobs.picture_file import file_digest
from depthcli.jobs.picture_job import failure
from depthcli.jobs.picture_results import file_facts
from depthcli.jobs.remote_output import Publisher
from depthcli.jobs.targets import Task
from depthcli.jobs.tars import TarTasks

_ROW = ".json"  # ending of a sample's row of the manifest
_SEVERAL_FILES = ("obj",)


def pack_outputs(outputs: OutputSpec) -> OutputSpec:
    """Return outputs whose endings make them members of a sample, such as .depth.png. Raises UsageError."""
    several = next((name for name in outputs.formats if name in _SEVERAL_FILES), None)
    if several:
        raise UsageError(f"{several} is several files that name each other, which no sample holds", "use glb")
    if outputs.endings:
        raise UsageError("with `pack` the keys in the tars name the results", "leave `template` out")
    return replace(outputs, endings=tuple(f".{STILLS[name].still.lstrip('_')}" for name in outputs.formats))


@dataclass(frozen=True)
class _Sample:
    """A task on its way: of the picture of a key, in the tar of a name."""

    tar: str
    key: str
    is_last: bool


class TarPacking:
    """The tasks of a folder job over tars, and what becomes of its results.

    A tar is done when its tar of results is there. Iterate it for the tasks, and `packed` for the results, each once.
    The job writes to a folder that is removed at the end.

    tasks: the tars. outputs: from `pack_outputs`. settings: the options that shape a result, as one line. manifest:
    takes the rows of a tar when that is whole. publisher: the store that takes the tars.
    """

    def __init__(
        self,
        tasks: TarTasks,
        outputs: OutputSpec,
        if_exists: str,
        settings: str,
        manifest: Manifest,
        publisher: Optional[Publisher] = None,
    ) -> None:
        self.outputs, self.place = outputs, tasks.place  # the latter is what FolderJob looks for
        self._tasks, self._if_exists, self._settings = tasks, if_exists, settings
        self._manifest, self._publisher = manifest, publisher
        self._folder = tasks.search.target
        self.total: Optional[int] = None  # of results, once it is known
        # In the order of the tars: samples whose results are awaited, and results of tars without work.
        self._planned: deque[Union[_Sample, Result]] = deque()
        self._stack = ExitStack()
        self._made: Optional[Path] = None

    def __enter__(self) -> TarPacking:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def actions(self) -> Iterator[tuple[str, Path, str]]:
        """Yield (name, tar of results, what will become of it: write, overwrite, skip or error) of each tar."""
        for name in self._tasks.chosen():
            path = self._folder / name
            try:
                known = self._known(name, path)
                if known is None:
                    self._tasks.tars.open(name)
            except DepthError:
                yield name, path, "error"
                continue
            yield name, path, "skip" if known else "overwrite" if os.path.lexists(path) else "write"

    # --- Tasks --------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks. Raises OutputError, DiskFullError if there is no place for their files."""
        numbers, total = count(), 0
        for name in self._tasks.chosen():
            try:
                known = self._known(name, self._folder / name)
                samples = [] if known else self._samples(name)
            except DepthError as error:
                known, samples = failure(Task(b"", name, Path()), error, self._settings), []
            if known is not None:
                self._planned.append(known)
            total += len(samples) or 1
            for number, (key, member) in enumerate(samples, start=1):
                self._planned.append(_Sample(name, key, number == len(samples)))
                yield Task(member, f"{name}/{member.name}", self._place() / str(next(numbers)))
        self.total = total

    def _samples(self, name: str) -> list[Any]:
        samples = read_samples(self._tasks.tars.open(name))
        if not samples:
            raise PictureError(f"{name} has no pictures")
        return samples

    def _known(self, name: str, path: Path) -> Optional[Result]:
        """Return the result of a tar that is done, None if it has to be done. Raises OutputError."""
        if self._if_exists == "overwrite":
            return None
        is_there = self._publisher.is_there([path]) if self._publisher else os.path.lexists(path)
        if not is_there:
            return None
        shown = self._publisher.address(str(path)) if self._publisher else str(path)
        if self._if_exists == "error":
            raise OutputError(f"{shown} is there already")
        if not self._publisher:
            _check_ours(path)
        return Result(name, (str(path),), SKIPPED)

    def _place(self) -> Path:
        """Return the folder for files that are not packed yet."""
        if self._made is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                remove_partials(self._folder)
                self._made = self._stack.enter_context(temporary_folder(self._folder))
            except OSError as error:
                raise OutputError(f"cannot write {self._folder}: {error.strerror}") from error
        return self._made

    # --- Results ------------------------------------------------------------------------------------------------------

    def packed(self, results: Iterable[Result]) -> Generator[Result, None, None]:
        """Yield the results of pictures, and of tars without work; write the tars.

        The last picture that was done in a tar comes when the tar is whole, and names it. Raises OutputError.
        """
        stream = iter(results)
        for result in stream:
            yield from self._without_work()
            try:
                yield from self._pack(result, stream)
            except _StoppedError:
                return
        yield from self._without_work()

    def _without_work(self) -> Iterator[Result]:
        while self._planned and isinstance(self._planned[0], Result):
            yield self._planned.popleft()  # type: ignore[misc]

    def _pack(self, first: Result, others: Iterator[Result]) -> Iterator[Result]:
        """Write one tar. Raises _StoppedError if there are no results for all of it, which leaves nothing."""
        rows: list[Result] = []
        last: Optional[Result] = None
        name = self._planned[0].tar  # type: ignore[union-attr]
        path = self._folder / name
        remove_partials(path.parent)
        with atomic_path(path) as partial, closing(TarWriter(partial)) as tar:
            for result in chain([first], others):
                sample = self._planned.popleft()
                assert isinstance(sample, _Sample)
                names = self._add(tar, sample.key, result)
                tar.add(sample.key + _ROW, _row(result, names))
                rows.append(result)
                if result.status == DONE:
                    result, last = last, replace(result, outputs=(str(path),))  # type: ignore[assignment]
                if result is not None:
                    yield replace(result, outputs=())
                if sample.is_last:
                    break
            else:
                raise _StoppedError
        yield from self._whole(name, path, rows, last)

    def _add(self, tar: TarWriter, key: str, result: Result) -> list[str]:
        """Move the files of a picture into a tar; return their names in it."""
        names = []
        for made, ending in zip(map(Path, result.outputs), self.outputs.endings):
            for file, suffix in ((made, ""), (made.with_name(f"{made.name}.json"), ".json")):
                if file.exists():
                    names.append(f"{key}{ending}{suffix}")
                    tar.add(names[-1], file.read_bytes())
                    file.unlink()
        return names

    def _whole(self, name: str, path: Path, rows: Sequence[Result], last: Optional[Result]) -> Iterator[Result]:
        """Put a tar where it belongs, and note its rows."""
        facts, digest = file_facts(os.stat(path)), file_digest(path)
        if self._publisher:
            try:
                self._publisher.publish([path])
            except OutputError as error:
                yield failure(Task(b"", name, Path()), error, self._settings)
                last = last and replace(last, outputs=())
                rows = ()
        for row in rows:
            if row.status == DONE:
                row = replace(row, outputs=(str(path),), files=(facts,), digests=(digest,))
            self._manifest.add(row)
        if last is not None:
            yield last


class _StoppedError(Exception):
    """The results ended before the tar did."""


def _row(result: Result, names: Sequence[str]) -> bytes:
    """Return a result as JSON without what differs from run to run."""
    facts = json.loads(replace(result, outputs=tuple(names)).to_json())
    for name in ("ms", "files"):
        del facts[name]
    if facts["source"]:
        facts["source"].pop("times", None)
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _check_ours(path: Path) -> None:
    """Raise OutputError for a file that is not a tar of results."""
    hint = "`if_exists` overwrite replaces it"
    try:
        rows = count_rows(path)
    except PictureError as error:
        raise OutputError(error.message, hint) from error
    if not rows:
        raise OutputError(f"{path} is there and is not a tar of results", hint)


def count_rows(path: Path) -> int:
    """Return the number of rows in a tar of results, 0 if it is none. Raises PictureError if it is not whole."""
    return sum(info.name.endswith(_ROW) for info in tar_members(LocalTar(str(path), path)))
