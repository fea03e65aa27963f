"""Names of pictures from a list, a line for each: text, or JSON lines as a manifest has them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from depthcli.errors import UsageError
from depthcli.host.temporary import TemporaryFile
from depthcli.io.names import STDIN


@dataclass(frozen=True, eq=False)
class NameList:
    """A list that can be read more than once, line by line.

    name: for messages. path: of the file. temporary: a copy of stdin.
    """

    name: str
    path: Path
    temporary: Optional[TemporaryFile] = None

    def __iter__(self) -> Iterator[str]:
        """Yield the names: a line of text, or `input` of a JSON object. Raises UsageError for a damaged line."""
        try:
            with self.path.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    found = _name(line, number, self.name)
                    if found:
                        yield found
        except OSError as error:
            raise UsageError(f"cannot read the list {self.name}: {error.strerror}") from error


def open_list(name: str) -> NameList:
    """Return the list in a file, or on stdin, which is copied to a file. Raises UsageError."""
    if name != STDIN:
        if not Path(name).is_file():
            raise UsageError(f"the list {name} is not a file", "check the path of `files_from`, or give - for stdin")
        return NameList(name, Path(name))
    spooled = TemporaryFile("depthcli-names-")
    with spooled.path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return NameList("stdin", spooled.path, spooled)


def _name(line: bytes, number: int, list_name: str) -> Optional[str]:
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").rstrip("\r\n")
    if "\0" in text:
        raise UsageError(f"line {number} of the list {list_name} is not text", "save it as UTF-8")
    if not text.lstrip().startswith("{"):
        return text.strip() or None
    try:
        found = json.loads(text)["input"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, str) or not found:
        raise UsageError(f"line {number} of the list {list_name} names no input", 'write {"input": "name.jpg"}')
    return found
