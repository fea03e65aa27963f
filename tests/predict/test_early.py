"""A backend that opens early is the one that would be opened later, or none at all."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import EngineError
from depthcli.host import graph_cache
from depthcli.predict import early
from depthcli.predict.early import EarlyBackend
from depthcli.predict.picture import DepthEstimator

pytest.importorskip("openvino")

TINY, FP32 = ModelChoice(model="tiny"), BackendChoice("openvino", precision="fp32")
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def answer(early_backend: EarlyBackend | None = None, **options) -> np.ndarray:
    with DepthEstimator("tiny", FP32, early=early_backend, **options) as estimator:
        return estimator.estimate(PICTURE).values


@pytest.fixture
def kept():
    """The converted network is in the cache."""
    answer()


def opened(model: ModelChoice = TINY, backend: BackendChoice = FP32, size: int | None = None) -> EarlyBackend:
    return EarlyBackend(model, backend, size, pytest.fail)


def test_it_is_taken_and_answers_the_same(kept, monkeypatch):
    begun = opened()
    monkeypatch.setattr("depthcli.predict.picture.open_backend", None)
    assert np.array_equal(answer(begun), answer(opened()))
    begun.close()


def test_one_of_another_choice_is_not_taken(kept):
    begun = opened(size=126)
    assert answer(begun).shape == (60, 80) and begun.take() is None
    begun.close()
    begun.close()
    assert begun._backend is None


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        (ModelChoice(model="vits"), FP32),  # not on this machine
        (ModelChoice(), FP32),  # vits, else tiny: which is found with a notice
        (ModelChoice(checkpoint="missing.pth"), FP32),
        (ModelChoice(model="vda-vits"), FP32),
        (TINY, BackendChoice("torch")),
        (ModelChoice(model="tiny", metric="indoor"), FP32),
    ],
)
def test_nothing_begins_that_might_download_load_torch_or_fail(kept, model, backend):
    before = threading.active_count()
    assert opened(model, backend)._thread is None and threading.active_count() == before


def test_nothing_begins_if_the_network_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "empty"))
    assert opened()._thread is None


def test_an_error_is_left_to_whoever_opens_it_later(kept, monkeypatch):
    def fails(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(early, "open_backend", fails)
    assert answer(opened()).shape == (60, 80)


def test_nothing_begins_if_the_limits_leave_too_little_room(kept, monkeypatch):
    """The library of a backend aborts the process if it lacks address space."""

    def refused(name: str) -> None:
        raise EngineError(f"{name} lacks room")

    monkeypatch.setattr(early, "check_room", refused)
    monkeypatch.setattr("depthcli.backends.openvino.shared_core", lambda: pytest.fail("it was loaded"))
    assert opened()._thread is None
