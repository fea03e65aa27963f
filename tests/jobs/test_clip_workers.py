"""Clips in several processes: what ends a process ends the run with its reason, and a stop is heard."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from depthcli.errors import EngineError, ModelError
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.clip_workers import run_clips
from tests.io.video.clips import make_clip

pytestmark = pytest.mark.slow


def _gone():
    raise ModelError("the weights are gone", "put them back")


def _dying():
    os._exit(9)


@pytest.fixture
def jobs() -> list[ClipJob]:
    return [
        ClipJob(make_clip(Path(f"{number}.mp4"), frames=2), [("mp4", Path(f"out/{number}.mp4"))]) for number in range(3)
    ]


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [(_gone, ModelError, "the weights are gone"), (_dying, EngineError, "a worker process ended with code 9")],
)
def test_what_ends_a_process_ends_the_run_with_its_reason(jobs, load, error, message):
    with pytest.raises(error, match=message):
        list(run_clips(jobs, [load, load]))
    assert not list(Path().glob("out/*.mp4"))


def test_a_stop_before_the_first_clip_does_none(jobs):
    assert list(run_clips(jobs, [_dying], lambda: True)) == []
