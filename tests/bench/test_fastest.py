"""Which of the measured backends is remembered: one that clearly beats the fixed order and computes as precisely."""

from __future__ import annotations

import pytest

from depthcli.bench import fastest as module
from depthcli.bench.contenders import Contender
from depthcli.bench.fastest import check_rememberable, fastest_of, keep_fastest
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, UsageError
from depthcli.host import fastest
from depthcli.zoo.rows import find_row

TINY = find_row("tiny")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "pick_backend", lambda choice: "openvino")


def contender(
    backend: str, times: list[float], precision: str = "fp32", device: str = "cpu", error: str = ""
) -> Contender:
    made = Contender(backend, BackendChoice(backend), precision, device=device, error=error)
    made.times = {(70, 56): times}
    return made


USUAL = contender("openvino", [20.0, 22.0, 24.0])


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([("torch", [10.0, 11.0, 12.0])], "torch"),
        ([("torch", [10.0, 11.0, 12.0]), ("onnx", [9.0, 10.0, 11.0])], "onnx"),
        ([("torch", [19.0, 21.0, 23.0])], "openvino"),  # by less than the margin
        ([("torch", [40.0, 40.0, 40.0])], "openvino"),
        ([("torch", [1.0, 1.0, 1.0], "bf16")], "openvino"),  # less precise
        ([("torch", [1.0, 1.0, 1.0], "fp32", "cuda:0")], "openvino"),
        ([("torch", [1.0], "fp32", "cpu", "it broke")], "openvino"),
    ],
)
def test_the_fastest_is_taken_if_it_clearly_is_and_computes_as_precisely(others, best):
    found = fastest_of(TINY, "auto", [USUAL, *(contender(*other) for other in others)])
    assert (found.backend, found.network, found.precision) == (best, "tiny", "auto") and found.counts
    assert found.milliseconds["openvino"] == 22.0


def test_a_more_precise_one_may_replace_a_coarse_one():
    coarse = contender("openvino", [20.0, 22.0, 24.0], "bf16")
    assert fastest_of(TINY, "auto", [coarse, contender("torch", [10.0, 11.0, 12.0])]).backend == "torch"


def test_without_the_one_of_the_fixed_order_nothing_is_remembered():
    with pytest.raises(EngineError, match="openvino was not measured"):
        fastest_of(TINY, "auto", [contender("openvino", [1.0], error="it broke"), contender("torch", [2.0])])


def test_it_is_kept_or_the_earlier_one_forgotten():
    lines: list[str] = []
    keep_fastest(fastest_of(TINY, "auto", [USUAL, contender("torch", [1.0, 1.0, 1.0])]), lines.append)
    assert [item.backend for item in fastest.every()] == ["torch"]
    assert lines[0] == "remembered: auto takes torch for tiny here (openvino 22.0 ms, torch 1.0 ms)"
    keep_fastest(fastest_of(TINY, "auto", [USUAL, contender("torch", [30.0, 30.0, 30.0])]), lines.append)
    assert fastest.every() == [] and lines[-1].startswith("nothing to remember: ")


@pytest.mark.parametrize(
    "choices",
    [
        [BackendChoice("openvino")],
        [BackendChoice("torch"), BackendChoice("onnx")],
        [BackendChoice("openvino"), BackendChoice("auto")],
        [BackendChoice("openvino"), BackendChoice("torchscript")],
        [BackendChoice("openvino", "cuda"), BackendChoice("torch", "cuda")],
        [BackendChoice("openvino", precision="exact"), BackendChoice("torch", precision="exact")],
    ],
)
def test_what_compares_nothing_that_auto_could_take_is_refused(choices):
    with pytest.raises(UsageError, match=r"`remember`|exact"):
        check_rememberable(choices)
    check_rememberable([BackendChoice("openvino"), BackendChoice("torch")])
