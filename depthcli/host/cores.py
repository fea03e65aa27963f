"""How many cores this process may use: what its affinity and its control group leave, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from depthcli.host.control_groups import group_folders, read_number

# The convention of everything numeric; a user who sets it wants this many threads and no more.
_WANTED = "OMP_NUM_THREADS"


def usable_cores() -> int:
    """Return the number of cores, at least 1: the affinity's, cut to the least quota of the control groups around."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS, Windows; a sandbox may forbid to ask
        cores = os.cpu_count() or 1
    return max(1, min(cores, *map(math.ceil, _group_quotas()), cores))


def compute_threads() -> int:
    """Return how many threads a network may take: $OMP_NUM_THREADS where it is set, else every usable core."""
    wanted = os.environ.get(_WANTED, "").partition(",")[0]
    return max(1, int(wanted)) if wanted.isdigit() else usable_cores()


def _group_quotas() -> Iterator[float]:
    """Yield the cores' worth of time that each control group around the process allows, if it sets a limit."""
    for folder in group_folders("cpu"):
        try:
            with open(f"{folder}/cpu.max", encoding="ascii") as stream:
                quota, period = map(int, stream.read().split())  # "max" is no limit
        except (OSError, ValueError):
            quota = read_number(f"{folder}/cpu.cfs_quota_us") or 0
            period = read_number(f"{folder}/cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            yield quota / period
