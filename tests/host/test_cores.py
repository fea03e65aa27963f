"""The cores that may be used are those that affinity, quota and the user leave."""

from __future__ import annotations

import builtins
import io

import pytest

from depthcli.host import cores


@pytest.fixture
def group(monkeypatch):
    """Pretend to be in a control group: group({"/sys/fs/cgroup/cpu.max": "150000 100000"})."""
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    real = builtins.open

    def pretend(files: dict[str, str]) -> None:
        def opened(path, *arguments, **options):
            if str(path) in files:
                return io.StringIO(files[str(path)])
            if str(path).startswith(("/sys/fs/cgroup", "/proc/self/")):
                raise FileNotFoundError(path)
            return real(path, *arguments, **options)

        monkeypatch.setattr(builtins, "open", opened)

    return pretend


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"/sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "0"}, 8),
        # As SLURM makes them: the job's group has the quota, the step's none.
        (
            {
                "/proc/self/mountinfo": "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                "/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
                "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/cpu.max": "300000 100000\n",
                "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/cpu.max": "max 100000\n",
                "/sys/fs/cgroup/system.slice/cpu.max": "500000 100000\n",
            },
            3,
        ),
        # A container of version 1 that sees the host's name of its group.
        (
            {
                "/proc/self/mountinfo": "36 31 0:32 /docker/ab /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
                "/proc/self/cgroup": "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab/inner\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        # Another namespace: where the group lies is not known, so the root counts.
        (
            {
                "/proc/self/mountinfo": "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                "/proc/self/cgroup": "0::/../../elsewhere\n",
                "/sys/fs/cgroup/cpu.max": "200000 100000\n",
            },
            2,
        ),
    ],
)
def test_the_quota_of_a_container_counts(group, files, count) -> None:
    group(files)
    assert cores.usable_cores() == cores.compute_threads() == count


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("4,2", 4), ("0", 1), ("many", 8), ("", 8)])
def test_a_user_who_names_a_number_of_threads_gets_it(group, monkeypatch, value, threads) -> None:
    group({})
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.compute_threads() == threads
