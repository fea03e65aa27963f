"""`depth neuron doctor` says what is missing, and where nothing is, that a network compiles and runs."""

from __future__ import annotations

import sys

import pytest

from depthcli.backends.neuron import common
from tests.backends.neuron.test_export import neuron as stand_in  # noqa: F401 - a fixture


def test_an_ordinary_machine_is_told_what_it_lacks(depth, stand_in, monkeypatch):  # noqa: F811
    stand_in.versions.clear()
    monkeypatch.setitem(sys.modules, "torch_neuron", None)
    ran = depth("neuron", "doctor")
    assert ran.code == 5
    marks = {line[4:].split(":")[0]: line[:2] for line in ran.lines}
    assert marks["devices"] == marks["torch-neuron, to run"] == marks["torch-neuron, to compile"] == "NO"
    assert marks["graph"] == "ok" and "compile" not in marks and common.INDEX in ran.out


@pytest.mark.slow
def test_a_machine_that_has_it_all_compiles_and_runs(depth, stand_in, monkeypatch):  # noqa: F811
    stand_in()
    monkeypatch.setattr(common, "device_files", lambda: ["/dev/neuron0"])
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "2")
    ran = depth("neuron", "doctor")
    assert ran.code == 0, ran.out
    assert "ok  compile: 266x266 in" in ran.out and "ok  parity:" in ran.out
    assert "inf1:2 mixed, the network alone" in ran.out


def test_a_compiler_that_fails_is_part_of_the_report(depth, stand_in):  # noqa: F811
    stand_in("partial")
    ran = depth("neuron", "doctor")
    assert ran.code == 5 and "NO  compile: " in ran.out and "would run on CPU" in ran.out
