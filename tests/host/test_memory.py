from __future__ import annotations

import builtins
import io
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.errors import PictureError
from depthcli.host import memory
from depthcli.host.memory import (
    check_memory,
    check_scene_memory,
    free_memory,
    most_views,
    predict_bytes,
    scene_bytes,
)
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.zoo.rows import DA3_NETWORKS, NETWORKS, InputPolicy
from tests.conftest import TINY, ended, photo

VITS = NETWORKS["vits"]


def test_plain_attention_grows_with_the_square_of_the_tokens() -> None:
    small, large = (InputPlan((width, 518), (width, 518)) for width in (5180, 10360))
    scores = [predict_bytes(VITS, plan, plain_attention=True) for plan in (small, large)]
    assert 3.8 < scores[1] / scores[0] < 4.01
    fused = [predict_bytes(VITS, plan) for plan in (small, large)]
    assert 1.9 < fused[1] / fused[0] < 2.1


def test_convolutions_grow_with_the_picture_and_no_faster() -> None:
    small, large = plan_input(400, 300, InputPolicy(210)), plan_input(400, 300, InputPolicy(420))
    needs = [predict_bytes(NETWORKS["tiny"], plan, plain_attention=True) for plan in (small, large)]
    assert needs[1] == pytest.approx(4 * needs[0], rel=1e-6)
    # What the widest map of the encoder takes alone: 96 channels at half the input's sides, before and after.
    width, height = large.input_size
    assert needs[1] > 2 * 96 * (width // 2) * (height // 2) * 4


def test_a_batch_needs_its_number_of_times_more() -> None:
    plan = plan_input(100, 100, InputPolicy(140))
    assert predict_bytes(VITS, plan, batch=4) == pytest.approx(4 * predict_bytes(VITS, plan), rel=1e-6)


def test_a_strip_too_large_is_refused_with_a_size_that_fits() -> None:
    plan = plan_input(5000, 100, InputPolicy(518))
    with pytest.raises(PictureError, match=r"2072x518 needs about \d+\.\d GB .*`input_size` \d+ would fit") as error:
        check_memory(VITS, plan, 1, free=10**9, plain_attention=True)
    size = int(error.value.hint.split()[1])
    check_memory(VITS, plan_input(5000, 100, InputPolicy(size)), 1, free=10**9, plain_attention=True)
    with pytest.raises(PictureError):
        check_memory(VITS, plan_input(5000, 100, InputPolicy(size + 14)), 1, free=10**9, plain_attention=True)


def test_where_nothing_fits_no_size_is_promised() -> None:
    with pytest.raises(PictureError, match="more memory"):
        check_memory(VITS, plan_input(100, 100, InputPolicy(28)), 1, free=1000)


def test_an_unknown_amount_of_memory_forbids_nothing() -> None:
    check_memory(VITS, plan_input(5000, 100, InputPolicy(518)), 64, free=None, plain_attention=True)


DA3_BASE = DA3_NETWORKS["da3-base"]
PLAN_3_2 = InputPlan((504, 336), (504, 336))


@pytest.mark.parametrize(
    ("model", "peaks"),
    [("da3-small", {1: 125, 2: 184, 4: 247, 8: 375}), ("da3-base", {1: 225, 2: 292, 4: 378, 8: 768, 16: 1097})],
)
def test_scenes_need_what_was_measured(model: str, peaks: dict[int, float]) -> None:
    """In megabytes, with torch 2.13."""
    for views, peak in peaks.items():
        assert 0.9 * peak < scene_bytes(DA3_NETWORKS[model], PLAN_3_2, views) / 1e6 < 1.5 * peak


def test_the_number_of_views_that_fits_is_told() -> None:
    with pytest.raises(PictureError, match=r"2000 views of 504x336 .* need about \d+\.\d GB and 4\.0 GB") as error:
        check_scene_memory(DA3_BASE, PLAN_3_2, 2000, free=4 * 10**9)
    most = int(error.value.hint.split()[1])
    assert most == most_views(DA3_BASE, PLAN_3_2, 4 * 10**9) > 1
    check_scene_memory(DA3_BASE, PLAN_3_2, most, free=4 * 10**9)
    with pytest.raises(PictureError):
        check_scene_memory(DA3_BASE, PLAN_3_2, most + 1, free=4 * 10**9)
    assert most_views(DA3_BASE, PLAN_3_2, 1000) == 0
    check_scene_memory(DA3_BASE, PLAN_3_2, 2000, free=None)


def test_gaussians_and_rays_of_a_scene_need_more() -> None:
    plain = scene_bytes(DA3_BASE, PLAN_3_2, 1)
    assert scene_bytes(DA3_BASE, PLAN_3_2, 1, further=("rays",)) > plain
    # All numbers of all pixels stay until the end.
    assert scene_bytes(DA3_BASE, PLAN_3_2, 1, further=("gaussians",)) > plain + 38 * 504 * 336 * 4


def test_this_machine_has_some_memory() -> None:
    free = free_memory()
    assert free is None or free > 0


GB = 1 << 30
V2 = "30 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
STEP = "/sys/fs/cgroup/system.slice/job_7/step_0"
MACHINE = {"/proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:   {100 * GB // 1024} kB\n"}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 100 * GB),
        ({"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5"}, 100 * GB),
        ({"/sys/fs/cgroup/memory.max": f"{4 * GB}\n", "/sys/fs/cgroup/memory.current": f"{GB}\n"}, 3 * GB),
        # Over its limit, as a group may be for a while.
        ({"/sys/fs/cgroup/memory.max": f"{GB}", "/sys/fs/cgroup/memory.current": f"{2 * GB}"}, 0),
        # memory.high slows a process down until it stands still.
        (
            {
                "/sys/fs/cgroup/memory.max": "max",
                "/sys/fs/cgroup/memory.high": f"{2 * GB}",
                "/sys/fs/cgroup/memory.current": f"{GB}",
            },
            GB,
        ),
        # Files that are cached go when there is need.
        (
            {
                "/sys/fs/cgroup/memory.max": f"{4 * GB}",
                "/sys/fs/cgroup/memory.current": f"{4 * GB}",
                "/sys/fs/cgroup/memory.stat": f"anon {GB}\nactive_file 9\ninactive_file {3 * GB}\n",
            },
            3 * GB,
        ),
        # The job has a limit, its steps none: the least of all counts.
        (
            {
                "/proc/self/mountinfo": V2,
                "/proc/self/cgroup": "0::/system.slice/job_7/step_0\n",
                f"{STEP}/memory.max": "max",
                f"{STEP}/memory.current": f"{GB}",
                "/sys/fs/cgroup/system.slice/job_7/memory.max": f"{3 * GB}",
                "/sys/fs/cgroup/system.slice/job_7/memory.current": f"{GB}",
                "/sys/fs/cgroup/system.slice/memory.max": f"{9 * GB}",
                "/sys/fs/cgroup/system.slice/memory.current": f"{2 * GB}",
            },
            2 * GB,
        ),
        # Version 1, nested, where no limit is a number near 2^63.
        (
            {
                "/proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
                "/proc/self/cgroup": "4:memory:/slurm/job_7\n0::/\n",
                "/sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": f"{2 * GB}",
                "/sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes": f"{GB}",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}",
            },
            GB,
        ),
        ({"/proc/self/mountinfo": "\n - \nbroken\n", "/proc/self/cgroup": "nonsense\n:::\n"}, 100 * GB),
        ({"/sys/fs/cgroup/memory.max": "many", "/sys/fs/cgroup/memory.current": "few"}, 100 * GB),
    ],
)
def test_the_least_of_all_limits_counts(monkeypatch, files, left) -> None:
    real, given = builtins.open, {**MACHINE, **files}

    def opened(path, *arguments, **options):
        if str(path) in given:
            return io.StringIO(given[str(path)])
        if str(path).startswith(("/sys/fs/cgroup", "/proc/")):
            raise FileNotFoundError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(memory, "_left_in_limits", lambda: iter(()))
    assert free_memory() == left


def test_without_proc_it_is_what_the_machine_has(monkeypatch) -> None:
    def opened(path, *arguments, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr(builtins, "open", opened)
    free = free_memory()
    assert free is None or free > 1 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of the address space is Linux's")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limit_of_the_process_counts(limit) -> None:
    code = (
        "import resource; from depthcli.host.memory import free_memory; "
        f"resource.setrlimit(resource.{limit}, (600_000_000,) * 2); first = free_memory(); "
        "block = bytearray(100_000_000); print(first, first - free_memory())"
    )
    first, taken = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert 0 < first < 600_000_000 and 90_000_000 < taken < 120_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of the address space is Linux's")
@pytest.mark.parametrize("megabytes", [300, 400, 500])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_limit_that_is_too_small_is_one_line(start, megabytes, backend) -> None:
    import resource

    photo("a.png")
    limit = (megabytes << 20,) * 2
    process = start(
        *("image", "a.png", *TINY, "--backend", backend, "-o", "out/"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    ran = ended(process)
    assert ran.code in (0, 1, 3, 5) and (ran.code == 0) == Path("out/a_depth.png").exists()
    assert ran.code == 0 or ran.err.splitlines()[-1].startswith("error: ")


def test_the_size_that_fits_is_found_at_once_however_large_the_input() -> None:
    """One try for each size would take minutes here."""
    tries = []

    def need_of(size: int) -> int:
        tries.append(size)
        return size * size

    plan = plan_input(100, 100, InputPolicy(100_000_000))
    assert (
        memory._largest_fit(plan, 140 * 140, need_of) == 140 and memory._largest_fit(plan, 14 * 14 - 1, need_of) is None
    )
    assert len(tries) < 60
