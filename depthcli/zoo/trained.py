"""What a checkpoint of `depth train` says about itself: its model, range, licence and origin. Imports no torch.

It is JSON under the key "depthcli" in the metadata of a safetensors file. `depth image` and the other commands take the
model, the range and the input size from it.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Optional

from depthcli.choices.settings import MIN_INPUT_SIZE
from depthcli.zoo.rows import ROWS, ModelRow

KEY = "depthcli"
SCHEMA = "depthcli-checkpoint/1"
_BY_NAME = {row.name: row for row in ROWS}
_MOST_HEADER = 1 << 24  # bytes; that of vitg has 0.1 MB


@dataclass(frozen=True)
class Trained:
    """The facts of a fine-tuned checkpoint.

    model: name of the row that it was trained from. licence: of the weights it started from, which it keeps.
    origin: title of these weights; origin_sha256: of their file. input_size: bounded side of the network input in
    pixels. max_depth: metres at the top of the range, None for a relative model. facts: further ones for people: the
    data, the settings and the scores.
    """

    model: str
    licence: str
    origin: str
    origin_sha256: str
    input_size: int
    max_depth: Optional[float] = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def row(self) -> ModelRow | None:
        """The row of the model with this range and size, None if this version has no such model."""
        row = _BY_NAME.get(self.model)
        if row is None:
            return None
        return replace(row, max_depth=self.max_depth, licence=self.licence).with_input_size(self.input_size)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a safetensors file: one key, as their order would differ from run to run."""
        return {KEY: json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)}


def read_trained(path: Path) -> Trained | None:
    """Return what a file says; None if it is no checkpoint of `depth train`, missing or broken."""
    try:
        stat = path.stat()
        return _read(path.absolute(), stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@cache
def _read(path: Path, size: int, mtime_ns: int) -> Trained | None:
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MOST_HEADER, size - 8):
            return None
        header = stream.read(length)
    try:
        facts = json.loads(json.loads(header)["__metadata__"][KEY])
        if facts.pop("schema") != SCHEMA:
            return None
        found = Trained(**facts)
        row = _BY_NAME[found.model]
        right = all(isinstance(text, str) for text in (found.licence, found.origin, found.origin_sha256))
        right &= isinstance(found.input_size, int) and found.input_size >= MIN_INPUT_SIZE
        right &= (found.max_depth is None) == (row.max_depth is None)
        right &= found.max_depth is None or 0 < found.max_depth < math.inf
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return found if right else None
