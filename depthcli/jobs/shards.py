"""Parts of a folder for machines that share the work: each picture belongs to one, by a hash of its name.

A name keeps its shard when pictures are added, and the number of shards may change between runs: what is done is told
by the results.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from depthcli.errors import UsageError

# Variables by which schedulers number the processes of one job: number, first number, count. The first of a job that
# has both is its array: srun inside a task of an array also sets the second line.
_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "", "SLURM_NTASKS"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "", "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("CLOUD_RUN_TASK_INDEX", "", "CLOUD_RUN_TASK_COUNT"),
    ("JOB_COMPLETION_INDEX", "", ""),  # an Indexed Job of Kubernetes, which does not tell the count
    ("RANK", "", "WORLD_SIZE"),
)
_MOST = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def manifest_name(self) -> str:
        """Name of the manifest, which only this shard writes."""
        if self.count == 1:
            return "manifest.jsonl"
        return f"manifest-{self.number:05d}-of-{self.count:05d}.jsonl"

    def has(self, name: str) -> bool:
        """Return whether a picture belongs to this part. name: its path below the folder, with slashes."""
        return self.count == 1 or name_hash(name) % self.count == self.number - 1


def name_hash(name: str) -> int:
    """Return a 64-bit number of a name, the same on every machine; of é as one character or as two too."""
    text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def parse_shard(text: str, environ: Mapping[str, str], offset: int = 0, count: Optional[int] = None) -> Shard:
    """Return the shard that "3/16" names, or "auto" by the variables of a scheduler.

    offset: added to the scheduler's number, and count: of all shards, for schedulers that cut a long array in several.
    Raises UsageError for a shard that is not there.
    """
    if text != "auto":
        if offset or count is not None:
            raise UsageError("`shard_offset` and `shard_count` belong to `shard` auto", f"leave them out, or {text}")
        match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
        if match is None:
            raise UsageError(f"`shard` is {text!r}", "give a part and the number of parts, such as 3/16, or auto")
        return _checked(int(match[1]), int(match[2]), "`shard`")
    found = _scheduled(environ)
    if found is None:
        names = ", ".join(name for name, *_ in _SCHEDULERS)
        raise UsageError(f"`shard` auto finds none of {names}", "name the part yourself, such as 3/16")
    name, number, counted = found
    total = count if count is not None else counted
    if total is None:
        raise UsageError(f"{name} tells the part and not the number of parts", "give it with `shard_count`")
    return _checked(number + offset + 1, total, name)


def _scheduled(environ: Mapping[str, str]) -> Optional[tuple[str, int, Optional[int]]]:
    """Return (variable, number from 0, count if it is told) of the scheduler that started this process."""
    for name, first, count in _SCHEDULERS:
        if environ.get(name, "").isdecimal():
            start = environ.get(first, "")
            told = environ.get(count, "")
            number = int(environ[name]) - (int(start) if start.isdecimal() else 0)
            return name, number, int(told) if told.isdecimal() else None
    return None


WHOLE = Shard()


def _checked(number: int, count: int, name: str) -> Shard:
    if not 1 <= count <= _MOST:
        raise UsageError(f"{name} asks for {count} parts", f"there may be 1 to {_MOST}")
    if not 1 <= number <= count:
        raise UsageError(f"{name} is part {number} of {count}, which is not there", f"parts are 1 to {count}")
    return Shard(number, count)
