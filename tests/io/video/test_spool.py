"""What is in a spool is whole, goes on where it was left whatever ended it, and belongs to one job and one process."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import DiskFullError, OutputError
from depthcli.io.video import spool as module
from depthcli.io.video.spool import Spool, bytes_per_frame, check_disk
from tests.conftest import environment

JOB = {"clip": "a.mp4"}
PERIOD = Fraction(1001, 24000)


def maps(count: int, first: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(number).normal(3, 2, (6, 9)).astype(np.float32) for number in range(first, count)]


def fill(spool: Spool, count: int, first: int = 0) -> None:
    for number, values in enumerate(maps(count, first), first):
        spool.add(values, number * PERIOD, PERIOD)


def state(number: int) -> dict[str, np.ndarray]:
    return {"fed": np.array(number), "image": np.full((2, 3), number)}


@pytest.mark.parametrize(("exact", "bound"), [(True, 0.0), (False, 0.5 / 65535 + 1e-6)])
def test_what_was_kept_comes_back(exact, bound):
    with Spool(Path("s"), JOB, exact) as spool:
        fill(spool, 3)
        spool.keep(state(3))
        fill(spool, 5, 3)
        spool.end({"frames": 5})
    with Spool(Path("s"), JOB, exact) as spool:
        assert spool.ended == {"frames": 5} and not spool.differs
        found = list(spool.read())
    assert len(found) == 5
    for number, (frame, values) in enumerate(zip(found, maps(5))):
        assert (frame.time, frame.duration) == (number * PERIOD, PERIOD)
        assert np.abs(frame.values - values).max() <= bound * np.ptp(values)


def test_a_flat_map_comes_back():
    with Spool(Path("s"), JOB, exact=False) as spool:
        spool.add(np.full((2, 2), 1.5, np.float32), Fraction(0), PERIOD)
        spool.end({})
        assert [frame.values.tolist() for frame in spool.read()] == [[[1.5, 1.5], [1.5, 1.5]]]


def test_it_goes_on_behind_the_last_shard_and_what_was_not_kept_is_gone():
    with Spool(Path("s"), JOB, exact=True) as spool:
        assert spool.state() is None
        fill(spool, 3)
        spool.keep(state(3))
        fill(spool, 5, 3)  # and killed
    with Spool(Path("s"), JOB, exact=True) as spool:
        assert spool.frames == 3
        assert int(spool.state()["fed"]) == 3


@pytest.mark.parametrize("lost", ["state_000001.npz", "shard_000001.npz"])
def test_a_shard_counts_only_with_its_state(lost):
    with Spool(Path("s"), JOB, exact=True) as spool:
        fill(spool, 3)
        spool.keep(state(3))
        older = Path("s/state_000000.npz").read_bytes()
        fill(spool, 5, 3)
        spool.keep(state(5))
    # As it is when the power goes between two files: the new ones are not all there, the old ones still are.
    Path("s/state_000000.npz").write_bytes(older)
    Path("s", lost).unlink()
    with Spool(Path("s"), JOB, exact=True) as spool:
        assert int(spool.state()["fed"]) == 3 and spool.frames == 3
        fill(spool, 5, 3)
        spool.end({})
        assert len(list(spool.read())) == 5


def test_an_end_that_was_not_noted_is_made_again():
    with Spool(Path("s"), JOB, exact=True) as spool:
        fill(spool, 3)
        spool.keep(state(3))
        fill(spool, 5, 3)
        spool.end({})
    Path("s/end.json").unlink()  # killed just before it was written
    with Spool(Path("s"), JOB, exact=True) as spool:
        assert spool.ended is None and int(spool.state()["fed"]) == 3 and spool.frames == 3


def test_another_job_begins_anew():
    with Spool(Path("s"), JOB, exact=True) as spool:
        fill(spool, 3)
        spool.keep(state(3))
    with Spool(Path("s"), {"clip": "b.mp4"}, exact=True) as spool:
        assert spool.differs and spool.frames == 0 and spool.state() is None


def test_one_process_at_a_time_and_a_dead_one_holds_nothing():
    code = (
        "import pathlib; from depthcli.io.video.spool import Spool\n"
        "s = Spool(pathlib.Path('s'), {}, True); print(); input()"
    )
    command = [sys.executable, "-c", code]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert other.stdout.readline()
    with pytest.raises(OutputError, match="another process is at work on this clip"):
        Spool(Path("s"), JOB, exact=True)
    other.kill()
    other.communicate()
    Spool(Path("s"), JOB, exact=True).close()


def test_a_damaged_shard_is_named():
    with Spool(Path("s"), JOB, exact=True) as spool:
        fill(spool, 3)
        spool.end({})
        path = Path("s/shard_000000.npz")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
        with pytest.raises(OutputError, match=r"shard_000000\.npz is damaged"):
            list(spool.read())


def test_too_little_room_is_said_before_the_work(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(100, 60, 40))
    assert check_disk(Path("not/there/yet"), 40) == 40
    with pytest.raises(DiskFullError, match="making the depth takes about"):
        check_disk(Path("not/there/yet"), 41)
    assert bytes_per_frame((10, 20), exact=False) * 2 == bytes_per_frame((10, 20), exact=True) == 800


def test_a_full_disk_ends_it_and_what_was_kept_stays(monkeypatch):
    with Spool(Path("s"), JOB, exact=True) as spool:
        fill(spool, 3)
        spool.keep(state(3))

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module.np, "savez", full)
            fill(spool, 5, 3)
            with pytest.raises(DiskFullError, match="No space left on device"):
                spool.keep(state(5))
    with Spool(Path("s"), JOB, exact=True) as spool:
        assert spool.frames == 3 and int(spool.state()["fed"]) == 3
