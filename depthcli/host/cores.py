"""Count the cores this process may use, by its affinity and its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from depthcli.host.control_groups import group_folders, read_number


def usable_cores() -> int:
    """Return the number of cores, at least 1: those of the affinity, limited by the quotas of control groups."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS, Windows, or a sandbox that forbids it
        cores = os.cpu_count() or 1
    return max(1, min(cores, *map(math.ceil, _group_quotas()), cores))


def compute_threads() -> int:
    """Return how many threads a network may use: $OMP_NUM_THREADS if it is set, else the usable cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(wanted)) if wanted.isdigit() else usable_cores()


def _group_quotas() -> Iterator[float]:
    for folder in group_folders("cpu"):
        try:
            with open(f"{folder}/cpu.max", encoding="ascii") as stream:
                quota, period = map(int, stream.read().split())  # "max" means no limit
        except (OSError, ValueError):
            quota = read_number(f"{folder}/cpu.cfs_quota_us") or 0
            period = read_number(f"{folder}/cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            yield quota / period
