"""The folder job in two processes: the same results in the same order, and an end like that of one process."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, ModelError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.find import Input, find_in_folder
from depthcli.jobs.folder import run_folder
from depthcli.jobs.manifest import Manifest
from depthcli.jobs.picture_job import FolderJob
from depthcli.jobs.targets import plan_pictures
from depthcli.jobs.workers import run_in_workers
from depthcli.predict.picture import DepthEstimator
from tests.conftest import photo

COUNT = 6


@pytest.fixture
def job(tmp_path):
    """Six small pictures, the third of which is broken, as a job of their folder."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    for n in range(COUNT):
        if n == 2:
            (pictures / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        else:
            photo(pictures / f"{n}.png")
    return _job(pictures, tmp_path / "out")


def _job(pictures: Path, out: Path) -> FolderJob:
    inputs = [Input(pictures / name, name) for name in find_in_folder(pictures)]
    manifest = Manifest(out / "manifest.jsonl")
    return FolderJob(plan_pictures(inputs, out), OutputSpec(("gray",)), manifest=manifest)


def _opened() -> DepthEstimator:
    return DepthEstimator("tiny", BackendChoice("torch", precision="fp32", device="cpu"), input_size=56)


class _Dying(DepthEstimator):
    """Ends its process like the kernel when memory is short."""

    def run(self, batch, recheck=False):
        os.kill(os.getpid(), signal.SIGKILL)


def _dying() -> DepthEstimator:
    return _Dying("tiny", BackendChoice("torch", precision="fp32", device="cpu"), input_size=56)


def _missing() -> DepthEstimator:
    raise ModelError("the weights are gone", "put them back")


def _done(results) -> list[tuple[str, str]]:
    return [(result.input, result.status) for result in results]


@pytest.mark.slow
def test_results_files_and_manifest_are_those_of_one_process(job, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = list(run_in_workers(job, 2, lambda: [_opened] * 2))
    alone = _job(tmp_path / "in", tmp_path / "alone")
    assert _done(found) == _done(run_folder(alone, _opened))
    for path in sorted((tmp_path / "alone").glob("*.png")):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    rows = Manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert [Path(name).name for name in rows] == [f"{n}.png" for n in range(COUNT)]


@pytest.mark.slow
def test_what_is_done_is_skipped_and_starts_no_process(job, tmp_path):
    (tmp_path / "in" / "2.png").unlink()
    job = _job(tmp_path / "in", tmp_path / "out")
    list(run_folder(job, _opened))
    again = _job(tmp_path / "in", tmp_path / "out")
    found = list(run_in_workers(again, 2, lambda: pytest.fail("a model is loaded")))
    assert {result.status for result in found} == {"skipped"}


@pytest.mark.slow
def test_stop_keeps_what_is_done_and_the_next_run_goes_on(job, tmp_path):
    seen = []
    with closing(run_in_workers(job, 2, lambda: [_opened] * 2, lambda: bool(seen))) as results:
        for result in results:
            seen.append(result.input)
    assert seen
    for result in run_in_workers(_job(tmp_path / "in", tmp_path / "out"), 2, lambda: [_opened] * 2):
        broken = Path(result.input).name == "2.png"
        assert result.status == ("failed" if broken else "skipped" if result.input in seen else "done")
    assert len(list((tmp_path / "out").glob("*.png"))) == COUNT - 1


@pytest.mark.slow
@pytest.mark.parametrize(("load", "error"), [(_dying, EngineError), (_missing, ModelError)])
def test_a_worker_that_ends_early_ends_the_job_with_its_reason(job, tmp_path, load, error):
    with pytest.raises(error):
        list(run_in_workers(job, 2, lambda: [load] * 2))
    assert not list((tmp_path / "out").glob(".depthcli-*"))


def test_an_error_of_the_first_load_starts_no_process(job):
    with pytest.raises(ModelError):
        list(run_in_workers(job, 2, _missing))
