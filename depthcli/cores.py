"""How many cores this process may use: what its affinity and its control group leave, not what the machine has."""

from __future__ import annotations

import math
import os

# The convention of everything numeric; a user who sets it wants this many threads and no more.
_WANTED = "OMP_NUM_THREADS"


def usable_cores() -> int:
    """Return the number of cores, at least 1: the affinity's, cut to the control group's quota (containers)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    quota = _group_quota()
    return max(1, min(cores, math.ceil(quota) if quota else cores))


def compute_threads() -> int:
    """Return how many threads a network may take: $OMP_NUM_THREADS where it is set, else every usable core."""
    wanted = os.environ.get(_WANTED, "").partition(",")[0]
    return max(1, int(wanted)) if wanted.isdigit() else usable_cores()


def _group_quota() -> float | None:
    """Return the cores' worth of time that the control group allows, or None where it sets no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as stream:
            quota, period = stream.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", encoding="ascii") as top:
            with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us", encoding="ascii") as every:
                quota_us = int(top.read())
                return quota_us / int(every.read()) if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
