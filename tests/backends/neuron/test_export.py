"""Compiling for AWS Inf1, against a stand-in of its package: three gates, each with its own words, and nothing kept."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from depthcli.backends.artifact import read_artifact
from depthcli.backends.neuron import common
from depthcli.graphs import operators
from depthcli.nets.build import build_network
from depthcli.zoo import rows as zoo
from depthcli.zoo.rows import NetworkConfig, find_row
from tests.fake_torch_neuron import make
from tests.reference import reference_state

LISTED = operators.inf1_operators() if "torch_neuron" not in sys.modules else frozenset()
COMPILE = ("compile", "--target", "inf1", "--encoder", "vits", "--checkpoint", "own.safetensors", "--size", "42x56")


@pytest.fixture
def neuron(monkeypatch):
    """Return a function that installs the stand-in with a way to fail, and gives it back."""
    network = NetworkConfig(32, 5, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3))
    monkeypatch.setitem(zoo._BY_NAME, "vits", dataclasses.replace(find_row("vits"), network=network))
    shapes = {key: value.shape for key, value in build_network(network).state_dict().items()}
    save_file({key: torch.from_numpy(value) for key, value in reference_state(shapes).items()}, "own.safetensors")
    numbers = {"torch-neuron": "1.13.1.2.11.13.0", "neuron-cc": "1.24.0.0"}
    real = common.installed_version
    monkeypatch.setattr(common, "installed_version", lambda name: numbers.get(name) if "neuron" in name else real(name))
    monkeypatch.setattr(common, "device_files", list)

    def install(failure: str = "", known: frozenset[str] = LISTED):
        module = make(failure)
        module.get_supported_operations = lambda: sorted(known)
        monkeypatch.setitem(sys.modules, "torch_neuron", module)
        return module

    install.versions = numbers
    return install


def test_what_was_compiled_says_how_and_that_it_was_not_run(depth, neuron):
    fake = neuron()
    ran = depth(*COMPILE, "--fast-math", "none", "--timeout", 60, "-o", "nets/")
    assert ran.code == 0, ran.err
    path = Path("nets/vits_42x56_inf1.pt")
    assert ran.lines == [str(path), f"{path}.json"] and "not run: there is no Neuron device" in ran.err
    assert fake.calls == [{"args": ["--fast-math", "none"], "timeout": 60, "fallback": False}]
    artifact = read_artifact(path)
    assert (artifact.target, artifact.model, artifact.height, artifact.width) == ("inf1", "vits", 42, 56)
    facts = json.loads(Path(f"{path}.json").read_text())
    assert facts["verified_on_device"] is False and facts["check"] is None
    assert facts["graph"]["operators"]["neuron::forward_v2"] == 1 and facts["graph"]["cpu_operators"] == []
    assert facts["versions"]["neuron-cc"] == "1.24.0.0" and facts["analysis"]["difference"] <= 1e-5


def test_where_there_is_a_device_it_is_run_and_compared(depth, neuron, monkeypatch):
    neuron()
    monkeypatch.setattr(common, "device_files", lambda: ["/dev/neuron0"])
    ran = depth(*COMPILE, "-o", "nets/")
    facts = json.loads(Path("nets/vits_42x56_inf1.pt.json").read_text())
    assert ran.code == 0 and facts["verified_on_device"] is True and 0 < facts["check"] < 0.01


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("timeout", "neuron-cc did not end within 14400 s"),
        ("compiler", "neuron-cc failed: neuron-cc failed with the following command line call"),
        ("operator", "torch-neuron lacks an operator"),
        ("nothing", "torch-neuron failed: No operations were successfully partitioned"),
        ("partial", "operators would run on CPU: aten::mul, aten::softmax, refusing"),
        ("all on the CPU", "nothing of the network was compiled for Inferentia"),
    ],
)
def test_each_way_to_fail_has_its_words_and_leaves_nothing(depth, neuron, failure, message):
    neuron(failure)
    ran = depth(*COMPILE, "-o", "nets/")
    assert (ran.code, ran.out) == (5, "") and message in ran.err.splitlines()[-1]
    assert not Path("nets").exists()


def test_operators_on_the_cpu_can_be_asked_for(depth, neuron):
    fake = neuron("partial")
    ran = depth(*COMPILE, "-o", "nets/", "--allow-cpu-ops")
    facts = json.loads(Path("nets/vits_42x56_inf1.pt.json").read_text())
    assert ran.code == 0 and fake.calls[0]["fallback"] is True
    assert facts["graph"]["cpu_operators"] == ["aten::mul", "aten::softmax"]


def test_an_operator_the_installed_converter_does_not_list_stops_it_before_the_compiler(depth, neuron):
    fake = neuron("", LISTED - {"aten::gelu"})
    ran = depth(*COMPILE, "-o", "nets/")
    assert ran.code == 5 and "torch-neuron does not know aten::gelu" in ran.err and fake.calls == []


def test_what_is_not_installed_is_named_with_the_way_to_get_it(depth, neuron, monkeypatch):
    neuron()
    neuron.versions.pop("neuron-cc")
    assert "neuron-cc, the compiler, is not installed" in depth(*COMPILE).error
    neuron.versions["torch-neuron"] = "1.0.1"
    ran = depth(*COMPILE)
    assert ran.code == 5 and "empty torch-neuron 1.0.1 placeholder from PyPI" in ran.error and common.INDEX in ran.error
    neuron.versions.clear()
    monkeypatch.setitem(sys.modules, "torch_neuron", None)
    assert "torch-neuron is not installed" in depth(*COMPILE).error
    assert depth(*COMPILE, "--fast-math", "fast").code == 2 and depth(*COMPILE, "--timeout", 0).code == 2
