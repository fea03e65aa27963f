"""The backend that was measured as the fastest: kept, found where it counts, and forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import depthcli.backends as backends
from depthcli.backends import CPU_BACKENDS, remembered_backend
from depthcli.choices.model import BackendChoice
from depthcli.errors import OutputError
from depthcli.host import fastest
from depthcli.host.fastest import FILE, Fastest
from depthcli.zoo.rows import find_row

TINY = find_row("tiny")
AUTO = BackendChoice()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(backends, "_has_gpu", lambda: False)
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FILE


def measurement(network: str = "tiny", backend: str = "torch", precision: str = "auto") -> Fastest:
    times = {name: 40.0 for name in CPU_BACKENDS} | {backend: 20.0}
    return Fastest(network, precision, backend, times, *fastest.here(), "2026-11-29T12:00:00+00:00")


def test_it_is_found_for_its_network_and_precision_alone():
    assert remembered_backend(AUTO, TINY) == ""
    fastest.remember(measurement())
    fastest.remember(measurement("vits", "onnx"))
    assert fastest.find("tiny", "auto") == measurement()
    assert remembered_backend(AUTO, TINY) == "torch" and remembered_backend(AUTO, find_row("vits")) == "onnx"
    assert remembered_backend(BackendChoice(device="cpu"), TINY) == "torch"
    assert remembered_backend(BackendChoice(precision="fp32"), TINY) == ""
    assert remembered_backend(AUTO, find_row("vitb")) == "" and remembered_backend(AUTO, find_row("vda-vits")) == ""


def test_a_choice_that_names_a_backend_or_a_gpu_is_kept(monkeypatch):
    fastest.remember(measurement())
    assert remembered_backend(BackendChoice("openvino"), TINY) is None
    assert remembered_backend(BackendChoice(device="cuda"), TINY) == ""
    monkeypatch.setattr(backends, "_has_gpu", lambda: True)
    assert remembered_backend(AUTO, TINY) == "" and remembered_backend(BackendChoice(device="cpu"), TINY) == "torch"


def test_a_new_one_replaces_the_earlier_and_can_be_forgotten(cache):
    fastest.remember(measurement(backend="onnx"))
    fastest.remember(measurement("vits", "onnx"))
    fastest.remember(measurement())
    assert fastest.every() == [measurement(), measurement("vits", "onnx")]
    fastest.forget([measurement()])
    assert remembered_backend(AUTO, TINY) == "" and fastest.every() == [measurement("vits", "onnx")]


def test_forgetting_nothing_writes_nothing(cache):
    fastest.forget([])
    assert not cache.exists()


@pytest.mark.parametrize("here", [("another CPU, 2 threads", None), (None, "torch 9.9.9")], ids=["cpu", "versions"])
def test_it_does_not_count_on_another_cpu_or_with_other_packages(monkeypatch, here):
    item = measurement()
    fastest.remember(item)
    monkeypatch.setattr(fastest, "here", lambda: (here[0] or item.machine, here[1] or item.versions))
    assert remembered_backend(AUTO, TINY) == "" and not item.counts and fastest.every() == [item]


def test_the_number_of_threads_and_the_packages_are_part_of_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    machine, versions = fastest.here()
    assert ", 3 threads" in machine and "torch " in versions


def test_measurements_of_two_machines_that_share_a_folder_stay():
    other = replace(measurement(backend="onnx"), machine="another CPU, 64 threads")
    fastest.remember(other)
    fastest.remember(measurement())
    assert fastest.every() == [measurement(), other] and remembered_backend(AUTO, TINY) == "torch"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"3", b"[3, null]", b'{"network": 1}', b"[" * 100_000, b'[{"network": "tiny"}]'],
    ids=["empty", "torn", "no text", "number", "rows", "object", "deep", "fields"],
)
def test_a_damaged_file_leaves_the_fixed_order_and_is_replaced(cache, content):
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert remembered_backend(AUTO, TINY) == "" and fastest.every() == []
    fastest.remember(measurement())
    assert remembered_backend(AUTO, TINY) == "torch"


@pytest.mark.parametrize(
    "change",
    [
        {"backend": 3},
        {"backend": "onnx", "milliseconds": {"torch": 1.0}},
        {"milliseconds": [1]},
        {"milliseconds": {"torch": "fast"}},
        {"milliseconds": {"torch": float("nan")}},
        {"date": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_row_is_left_out(cache, change):
    fastest.remember(measurement())
    (row,) = json.loads(cache.read_text())
    cache.write_text(json.dumps([{**row, **change}, {**row, "network": "vits"}]))
    assert [item.network for item in fastest.every()] == ["vits"]


@pytest.mark.parametrize("name", ["neuron", "torchscript", "../x"])
def test_what_cannot_be_taken_on_a_cpu_is_not(name):
    fastest.remember(measurement(backend=name))
    assert remembered_backend(AUTO, TINY) == ""


def test_without_a_folder_there_is_nothing_and_nothing_can_be_kept(monkeypatch):
    monkeypatch.setattr(fastest, "cache_folder", lambda: None)
    assert remembered_backend(AUTO, TINY) == ""
    with pytest.raises(OutputError, match="no home directory"):
        fastest.remember(measurement())
