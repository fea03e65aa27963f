"""Options for a folder that is done in parts: by machines, by processes of one machine, or from a list."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from dataclasses import dataclass
from typing import Annotated, Optional

from depthcli.choices.model import BackendChoice
from depthcli.cli.groups import ADVANCED, option
from depthcli.errors import UsageError
from depthcli.jobs.failures import FailureLimit, parse_failures
from depthcli.jobs.parsing import parse_list
from depthcli.jobs.shards import WHOLE, Shard, parse_shard


@dataclass(frozen=True)
class PartOptions:
    """Which part of a folder is done, and by how many processes."""

    workers: Annotated[
        Optional[str],
        option(
            "Processes that share the CPU's cores: a number, or auto (one per NUMA node). Default: 1.",
            panel=ADVANCED,
            metavar="N",
        ),
    ] = None
    devices: Annotated[
        Optional[str],
        option("A process on each of these devices, such as cuda:0,cuda:1.", panel=ADVANCED, metavar="A,B"),
    ] = None
    files_from: Annotated[
        Optional[str],
        option(
            "Only what a list names, by paths below the folder: text, .jsonl, or - for stdin.",
            panel=ADVANCED,
            metavar="FILE",
        ),
    ] = None
    shard: Annotated[
        Optional[str],
        option(
            "Only part I of N, told by the names: for N machines that share the work. auto: as a scheduler says.",
            panel=ADVANCED,
            metavar="I/N",
        ),
    ] = None
    shard_offset: Annotated[
        int, option("With --shard auto: add this to the scheduler's number.", panel=ADVANCED, metavar="N")
    ] = 0
    shard_count: Annotated[
        Optional[int], option("With --shard auto: the number of all parts.", panel=ADVANCED, metavar="N")
    ] = None
    max_failures: Annotated[
        Optional[str],
        option("End the run when more than this fail: a number, or a share such as 5%.", panel=ADVANCED, metavar="N"),
    ] = None

    def part(self) -> Shard:
        """Return the part. Raises UsageError."""
        if self.shard is not None:
            return parse_shard(self.shard, os.environ, self.shard_offset, self.shard_count)
        if self.shard_offset or self.shard_count is not None:
            raise UsageError("`shard_offset` and `shard_count` belong to `shard` auto", "add it")
        return WHOLE

    def failures(self) -> FailureLimit:
        """Return how many may fail. Raises UsageError."""
        return parse_failures(self.max_failures)

    def processes(self) -> int:
        """Return how many processes there are; more than the cores only make each other wait. Raises UsageError."""
        from depthcli.host.cores import numa_nodes, usable_cores

        workers = self.workers or "1"
        if workers == "auto":
            return numa_nodes()
        if not workers.isdecimal() or not 1 <= int(workers) <= usable_cores():
            raise UsageError(f"`workers` must be 1 to {usable_cores()} (the usable cores) or auto, got {workers}")
        return int(workers)

    def places(self, device: str, engine: Optional[str] = None) -> tuple[str, ...]:
        """Return the devices that have a process each. device, engine: as they were given. Raises UsageError."""
        if self.devices is None:
            return ()
        if (self.workers or engine) not in (None, "1") or device != "auto":
            hint = "leave out `workers`, `engine` and `device`" if engine else "leave out `workers` and `device`"
            raise UsageError("`devices` says how many processes there are, and where", hint)
        names = parse_list([self.devices])
        for name in names:
            BackendChoice(device=name)  # an unknown one is an error now
            if name == "auto":
                raise UsageError("`devices` names the devices themselves", "such as cuda:0,cuda:1")
        return names
