"""manifest.jsonl: one JSON object a line for each picture or clip, appended as the work is done.

A row has the source, the model and the size of a result, for a later run to compare. Fields missing in older rows are
read from the files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from depthcli.errors import DiskFullError, OutputError
from depthcli.host.atomic import FULL

if TYPE_CHECKING:
    import numpy as np

MANIFEST_NAME = "manifest.jsonl"
RUN_NAME = "run.json"
_NOTES = re.compile(r"manifest(-\d+-of-\d+)?\.jsonl|run\.json")
DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Result:
    """The result of one picture or clip.

    input: its name. outputs: paths of the files. status: DONE, SKIPPED or FAILED. ms: milliseconds of work on it.
    error: one line; code: its exit code. notes: how the picture was read. warnings: what the files cannot hold.
    model, weights: the row and the sha256 of its weights. settings: the options that shaped it. source: facts about its
    file, see PictureFile. files: size in bytes and time of change in ns of each output; digests: their sha256.
    calibration: to metres.
    """

    input: str
    outputs: tuple[str, ...]
    status: str
    ms: float = 0.0
    error: str = ""
    code: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    model: str = ""
    weights: str = ""
    settings: str = ""
    source: Optional[dict[str, Any]] = None
    files: tuple[tuple[int, int], ...] = ()
    digests: tuple[str, ...] = ()
    calibration: Optional[dict[str, Any]] = None

    def to_json(self) -> str:
        """Return one line of JSON."""
        facts = asdict(self)
        for name in ("calibration", "digests"):  # which most lack
            if not facts[name]:
                del facts[name]
        line = json.dumps(facts, ensure_ascii=False)
        # A name that is not UTF-8 holds lone surrogates; spelled out they are JSON that can be written and read back.
        return line.encode("utf-8", "backslashreplace").decode()


def is_note(name: str) -> bool:
    """Return whether a file in a folder of results has a name that only notes about them have."""
    return _NOTES.fullmatch(name) is not None


class Manifest:
    """The manifest of one output folder.

    rows: the last row of each input, by name. outputs: by path, the last row of each file and its place in that row.
    Both are of earlier runs, without what is `add`ed. They are read from the file when they are asked for: a million
    rows take 32 MB.
    also: further manifests to read, such as that of the whole folder beside that of a shard.
    """

    def __init__(self, path: Path, also: Sequence[Path] = ()) -> None:
        self._path = path
        folder = "" if path.parent == Path() else str(path.parent)
        found = _Found([*also, path])
        inputs, outputs = _Index(_input), _Index(partial(_outputs, folder))
        for place, row in found:
            inputs.add(place, row)
            outputs.add(place, row)
        self.rows: Mapping[str, dict[str, Any]] = _Rows(found, inputs)
        self.outputs: Mapping[str, tuple[dict[str, Any], int]] = _Outputs(found, outputs)

    @property
    def folder(self) -> Path:
        """The folder that the outputs of rows are relative to."""
        return self._path.parent

    def add(self, result: Result) -> None:
        """Append one row, its outputs relative to the manifest's folder."""
        outputs = tuple(os.path.relpath(path, self._path.parent) for path in result.outputs)
        line = replace(result, outputs=outputs).to_json()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                # A run that was killed may have left half a line; it must not swallow this one.
                torn = stream.tell() > 0 and not _ends_with_newline(self._path)
                stream.write((b"\n" if torn else b"") + line.encode() + b"\n")
        except OSError as error:
            raise _cannot("write", self._path, error) from error

    def check(self) -> None:
        """Raise OutputError if an existing manifest cannot be written: better before the work than after."""
        try:
            if self._path.exists():
                self._path.open("ab").close()
        except OSError as error:
            raise _cannot("write", self._path, error) from error


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest that can be read, in their order; none if it is missing. Raises OutputError."""
    return (row for _, row in _read(path))


class _Found:
    """Where the rows of some manifests begin."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (place, row), the later row later."""
        for number, path in enumerate(self._paths):
            for offset, row in _read(path):
                yield offset * len(self._paths) + number, row

    def at(self, place: int) -> dict[str, Any]:
        """Return the row at a place. Raises OutputError."""
        offset, number = divmod(place, len(self._paths))
        path = self._paths[number]
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                row = _parsed(stream.readline())
        except OSError as error:
            raise _cannot("read", path, error) from error
        if row is None:
            raise OutputError(f"{path} was changed by another program", "run the same command again")
        return row


class _Index:
    """The place of the last row of each key, by the key's hash: 16 bytes for each."""

    def __init__(self, keys: Callable[[dict[str, Any]], Sequence[str]]) -> None:
        self.keys = keys
        self._hashes, self._places = array("q"), array("q")

    def add(self, place: int, row: dict[str, Any]) -> None:
        """Add the keys of a row."""
        for key in self.keys(row):
            self._hashes.append(hash(key))
            self._places.append(place)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np  # not loaded where commands are completed

        hashes, places = (np.array(numbers, np.int64)[::-1] for numbers in (self._hashes, self._places))
        self._hashes, self._places = array("q"), array("q")
        unique, last = np.unique(hashes, return_index=True)  # the first of each, so the last that was added
        return unique, places[last]

    def __len__(self) -> int:
        return len(self._sorted[0])

    def place(self, key: str) -> Optional[int]:
        """Return the place of the last row with a key."""
        hashes, places = self._sorted
        number = int(hashes.searchsorted(hash(key)))
        there = number < len(hashes) and hashes[number] == hash(key)
        return int(places[number]) if there else None


V = TypeVar("V")


class _ByKey(Mapping[str, V]):
    """The last row of each key, read from the file."""

    def __init__(self, found: _Found, index: _Index) -> None:
        self._found, self._index = found, index

    def _row(self, key: str) -> dict[str, Any]:
        """Return the row of a key. Raises KeyError."""
        place = self._index.place(key)
        row = None if place is None else self._found.at(place)
        if row is None or key not in self._index.keys(row):  # two keys may have one hash
            raise KeyError(key)
        return row

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        for place, row in self._found:
            for key in self._index.keys(row):
                if self._index.place(key) == place:
                    yield key


class _Rows(_ByKey[dict[str, Any]]):
    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._row(key)


class _Outputs(_ByKey[tuple[dict[str, Any], int]]):
    def __getitem__(self, key: str) -> tuple[dict[str, Any], int]:
        row = self._row(key)
        return row, self._index.keys(row).index(key)


def _input(row: dict[str, Any]) -> Sequence[str]:
    return [row["input"]]


def _outputs(folder: str, row: dict[str, Any]) -> Sequence[str]:
    return [os.path.join(folder, name) for name in row["outputs"]]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"\n"


def _cannot(do: str, path: Path, error: OSError) -> OutputError:
    kind = DiskFullError if error.errno in FULL else OutputError
    return kind(f"cannot {do} {path}: {error.strerror}")


def _read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset in the file, row) of the rows that can be read, in their order."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise OutputError(f"cannot read {path}: it is not a file", "move it away, or use another `output`")
        stream = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot("read", path, error) from error
    with stream:
        offset = 0
        while True:
            try:
                line = stream.readline()
            except OSError as error:
                raise _cannot("read", path, error) from error
            if not line:
                return
            row = _parsed(line)
            if row is not None:
                yield offset, row
            offset += len(line)


def _parsed(line: bytes) -> Optional[dict[str, Any]]:
    """Return the row of a line, None for half a line of a killed run, or damage."""
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if isinstance(row, dict) and isinstance(row.get("input"), str) and _are_names(row.setdefault("outputs", [])):
        return row
    return None


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
