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


def share_cores(parts: int) -> list[list[int]]:
    """Return the cores of each of several processes; empty lists on systems that bind no process to cores.

    Neighbours stay together: first those of a NUMA node, then the threads of one core.
    """
    try:
        cores = sorted(os.sched_getaffinity(0), key=_place)
    except (AttributeError, OSError):
        return [[] for _ in range(parts)]
    if len(cores) < parts:
        return [cores for _ in range(parts)]
    return [cores[len(cores) * n // parts : len(cores) * (n + 1) // parts] for n in range(parts)]


def numa_nodes() -> int:
    """Return how many NUMA nodes hold the usable cores, at least 1."""
    try:
        cores = os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return 1
    return max(1, min(len({_place(core)[0] for core in cores}), usable_cores()))


def _place(core: int) -> tuple[int, int, int, int]:
    """Return where Linux has a core: its node, socket, physical core, and its own number."""
    folder = f"/sys/devices/system/cpu/cpu{core}"
    try:
        node = next((int(name[4:]) for name in os.listdir(folder) if name.startswith("node") and name[4:].isdigit()), 0)
    except OSError:
        node = 0
    socket = read_number(f"{folder}/topology/physical_package_id") or 0
    return node, int(socket), int(read_number(f"{folder}/topology/core_id") or 0), core


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
