"""manifest.jsonl: what a folder job did, one JSON object a line, appended as the work is done.

The files themselves say what is done; the manifest says how, and is what a later run is compared with.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from depthcli.errors import OutputError

MANIFEST_NAME = "manifest.jsonl"
DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Result:
    """What became of one picture.

    input: its name; outputs: the files, as written in reports; status: done, skipped or failed; ms: milliseconds from
    opening the picture to the last rename; error: one line; code: that error's exit code; notes: what was done to the
    picture on reading; warnings: what the files cannot hold; model, weights: the row that made it and the sha256 of
    its weights; settings: the options that shaped the result.
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

    def to_json(self) -> str:
        """Return one line of JSON."""
        line = json.dumps(asdict(self), ensure_ascii=False)
        # A name that is not UTF-8 holds lone surrogates; spelled out they are JSON that can be written and read back.
        return line.encode("utf-8", "backslashreplace").decode()


class Manifest:
    """The manifest of one output folder: the last row of every input, and a line added for each new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, dict[str, Any]] = _read(path)

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
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error
        self.rows[result.input] = json.loads(line)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"\n"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return rows
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error
    for line in text.split("\n"):  # splitlines would also part a name that holds U+2028
        try:
            row = json.loads(line)
            rows[row["input"]] = row
        except (ValueError, KeyError, TypeError):
            continue  # half a line of a killed run
    return rows
