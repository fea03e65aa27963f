"""What is asked of a Ray cluster. Imports nothing heavy, so that help is quick."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from depthcli.errors import UsageError


@dataclass(frozen=True)
class RayChoice:
    """A Ray cluster and what is asked of it.

    address: of its head, "auto" for the one that runs here, "local" to start one on this machine. least, most: actors;
    the former are asked for at once, more as long as chunks wait. most is None for all that the cluster has room for
    now. cpus, gpus: of each actor. chunk: pictures that are handed out together. Raises UsageError.
    """

    address: str = "auto"
    least: int = 1
    most: Optional[int] = None
    cpus: int = 1
    gpus: float = 0.0
    chunk: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.least <= (self.most or self.least):
            raise UsageError(f"`workers` are {self.least} to {self.most}", "give a number, or MIN:MAX such as 2:16")
        if not 1 <= self.chunk <= 10_000:
            raise UsageError(f"`chunk` is {self.chunk}", "it may be 1 to 10000 pictures")
        if self.cpus < 1:
            raise UsageError(f"`cpus_per_worker` is {self.cpus}", "it is at least 1")
        if not (0 <= self.gpus < 1 or self.gpus == int(self.gpus)) or self.gpus < 0:
            raise UsageError(f"`gpus_per_worker` is {self.gpus:g}", "give a whole number, or a part such as 0.5")


def parse_workers(text: str) -> tuple[int, Optional[int]]:
    """Return (least, most) of "4" or "2:16"; (1, None) of "auto", as many as there is room for. Raises UsageError."""
    if text == "auto":
        return 1, None
    match = re.fullmatch(r"(?:(\d{1,5}):)?(\d{1,5})", text)
    if match is None:
        raise UsageError(f"`workers` is {text!r}", "give a number, MIN:MAX such as 2:16, or auto")
    return int(match[1] or match[2]), int(match[2])
