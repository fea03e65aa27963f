"""manifest.jsonl: one JSON object a line for each picture or clip, appended as the work is done.

A row has the source, the model and the size of a result, for a later run to compare. Fields missing in older rows are
read from the files.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import DiskFullError, OutputError
from depthcli.host.atomic import FULL

MANIFEST_NAME = "manifest.jsonl"
DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Result:
    """The result of one picture or clip.

    input: its name. outputs: paths of the files. status: DONE, SKIPPED or FAILED. ms: milliseconds of work on it.
    error: one line; code: its exit code. notes: how the picture was read. warnings: what the files cannot hold.
    model, weights: the row and the sha256 of its weights. settings: the options that shaped it. source: facts about its
    file, see PictureFile. files: size in bytes and time of change in ns of each output. calibration: to metres.
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
    calibration: Optional[dict[str, Any]] = None

    def to_json(self) -> str:
        """Return one line of JSON."""
        facts = asdict(self)
        if self.calibration is None:  # as most are
            del facts["calibration"]
        line = json.dumps(facts, ensure_ascii=False)
        # A name that is not UTF-8 holds lone surrogates; spelled out they are JSON that can be written and read back.
        return line.encode("utf-8", "backslashreplace").decode()


class Manifest:
    """The manifest of one output folder.

    rows: the last row of each input, by name. outputs: by path, the last row of each file and its place in that row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = "" if path.parent == Path() else str(path.parent)
        self.rows: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, tuple[dict[str, Any], int]] = {}
        for row in _read(path):
            self._take(row)

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
        self._take(json.loads(line))

    def check(self) -> None:
        """Raise OutputError if an existing manifest cannot be written: better before the work than after."""
        try:
            if self._path.exists():
                self._path.open("ab").close()
        except OSError as error:
            raise _cannot("write", self._path, error) from error

    def _take(self, row: dict[str, Any]) -> None:
        self.rows[row["input"]] = row
        for place, name in enumerate(row["outputs"]):
            self.outputs[os.path.join(self._folder, name)] = row, place


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"\n"


def _cannot(do: str, path: Path, error: OSError) -> OutputError:
    kind = DiskFullError if error.errno in FULL else OutputError
    return kind(f"cannot {do} {path}: {error.strerror}")


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rows that can be read, in their order."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise OutputError(f"cannot read {path}: it is not a file", "move it away, or use another `output`")
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _cannot("read", path, error) from error
    rows = []
    for line in text.split("\n"):  # splitlines would also split a name that holds U+2028
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # half a line of a killed run, or damage
            continue
        if isinstance(row, dict) and isinstance(row.get("input"), str) and _are_names(row.setdefault("outputs", [])):
            rows.append(row)
    return rows


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
