"""What a run does once, counted: one model, one backend, one reading, one plan, one check, one run of the network."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import depthcli
from depthcli.backends.torch_eager import TorchEager
from depthcli.predict import picture as module
from depthcli.predict.picture import DepthEstimator
from tests.conftest import photo

pytestmark = pytest.mark.usefixtures("tiny_weights")
ONCE = {"resolve_model": 1, "open_backend": 1, "open": 1, "plan_input": 1, "check_picture": 1, "check": 1, "run": 1}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Numbers of calls by name; `open` counts openings of photo.png."""
    counts: Counter[str] = Counter()

    def counted(home: object, name: str) -> None:
        wanted = getattr(home, name)

        def call(*arguments: object, **options: object) -> object:
            counts[name] += 1
            return wanted(*arguments, **options)

        monkeypatch.setattr(home, name, call)

    for name in ("resolve_model", "open_backend", "plan_input", "check_picture"):
        counted(module, name)
    for name in ("check", "run"):
        counted(TorchEager, name)
    watching = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).endswith("photo.png"):
            counts["open"] += 1

    sys.addaudithook(hear)  # which cannot be removed
    yield counts
    watching = False


def test_a_photo_is_resolved_opened_planned_checked_and_run_once(calls: Counter[str]) -> None:
    path = photo("photo.png")
    calls.clear()
    with DepthEstimator("tiny", "torch", input_size=56) as estimator:
        depth = estimator.estimate(path)
    assert depth.size == (80, 60) and dict(calls) == ONCE


def test_the_command_does_the_same_for_a_photo(calls: Counter[str], depth) -> None:
    photo("photo.png")
    calls.clear()
    assert depth("image", "photo.png", "--encoder", "tiny", "--input-size", "56", "--backend", "torch").code == 0
    assert Path("photo_depth.png").exists() and dict(calls) == ONCE


def test_a_batch_is_checked_as_a_whole_too(calls: Counter[str]) -> None:
    pictures = [module.open_picture(photo(f"{number}.png")) for number in range(3)]
    with DepthEstimator("tiny", "torch", input_size=56) as estimator:
        assert len(estimator.estimate_batch(pictures)) == 3
    assert (calls["plan_input"], calls["check"], calls["run"]) == (3, 4, 1)


def test_a_model_that_was_resolved_is_not_resolved_again(calls: Counter[str]) -> None:
    model = module.resolve_model(depthcli.ModelChoice(model="tiny"))
    with DepthEstimator(model, "torch") as estimator:
        assert (estimator.row, estimator.weights) == (model.row, model.weights)
    assert calls["resolve_model"] == 1
