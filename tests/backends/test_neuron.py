"""The engine for AWS Inferentia, against a stand-in of its package: all cores work, and each failure has its words."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli import read_depth
from depthcli.backends import inf1, neuron
from depthcli.backends.neuron import core_count
from depthcli.errors import EngineError
from depthcli.jobs.manifest import Manifest
from tests.conftest import photo
from tests.jobs.test_inf1_compiling import COMPILE
from tests.jobs.test_inf1_compiling import neuron as stand_in  # noqa: F401 - a fixture

RUN = ("-o", "maps", "-f", "npz", "--backend", "neuron", "--artifacts", "nets", "--input-size", 42)
CORES = 2


class Network:
    """A loaded replica that counts its runs, notes its thread, and fails where it is told to."""

    def __init__(self, network, box: Box) -> None:
        self.network, self.box, self.core = network, box, box.loaded
        box.loaded += 1

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.box.runs[self.core] += 1
        self.box.threads.add(threading.get_ident())
        if self.box.fails(batch):
            raise RuntimeError("nrt_execute failed\nstatus 1")
        return self.network(batch)


class Box:
    """An Inf1 machine. fails: asked before each run."""

    def __init__(self) -> None:
        self.loaded, self.runs, self.threads = 0, Counter(), set()
        self.fails = lambda batch: False


@pytest.fixture
def box(depth, stand_in, monkeypatch) -> Box:  # noqa: F811
    stand_in()
    ran = depth(*COMPILE[:-1], "42x56,56x42", "-o", "nets/")
    assert ran.code == 0, ran.err
    box = Box()
    load = neuron.load_network
    monkeypatch.setattr(neuron, "load_network", lambda artifact: Network(load(artifact), box))
    monkeypatch.setattr(inf1, "devices", lambda: ["/dev/neuron0"])
    monkeypatch.setenv("NEURON_RT_NUM_CORES", str(CORES))
    for name in ("NEURON_PROCESS_TAG", "NEURON_RT_LOG_LEVEL", "NEURON_RT_VISIBLE_CORES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return box


def statuses() -> dict[str, str]:
    return {Path(name).name: row["status"] for name, row in Manifest(Path("maps/manifest.jsonl")).rows.items()}


def test_a_folder_gives_what_torch_gives_on_all_cores(depth, box):
    for number in range(9):
        photo(f"in/{number}.png", (80 + number, 60 + number))
    photo("in/tall.png", (60, 80))
    ran = depth("dir", "in", *RUN)
    assert ran.code == 0, ran.err
    weights = ("--encoder", "vits", "--checkpoint", "own.safetensors", "--backend", "torch", "--input-size", 42)
    assert depth("dir", "in", "-o", "eager", "-f", "npz", *weights).code == 0
    for name in ("0", "8", "tall"):
        found, wanted = (read_depth(f"{folder}/{name}_depth.npz") for folder in ("maps", "eager"))
        assert np.abs(found.values - wanted.values).mean() < 0.01 * np.ptp(wanted.values)
        assert found.origin.engine == f"neuron 1.13.1.2.11.13.0 inf1 {CORES} cores"
        assert found.origin.input_size == wanted.origin.input_size and found.origin.sha256 == wanted.origin.sha256
    assert set(box.runs) == set(range(2 * CORES)) and len(box.threads - {threading.get_ident()}) > 1
    assert os.environ["NEURON_PROCESS_TAG"] == "depthcli"


def test_a_hiccup_is_tried_again(depth, box):
    photo("in/a.png")
    failures = iter([False] * CORES + [True])  # the first runs are of the warm-up
    box.fails = lambda batch: next(failures, False)
    ran = depth("dir", "in", *RUN)
    assert ran.code == 0 and statuses() == {"a.png": "done"}


def test_a_picture_that_fails_twice_is_marked_and_the_others_are_done(depth, box):
    for name in "abc":
        photo(f"in/{name}.png")
    from PIL import Image

    Image.new("RGB", (80, 60), "white").save("in/b.png")
    box.fails = lambda batch: bool((batch.std() == 0).item() or batch[:, 0].std() < 1e-3) and bool(batch.any())
    ran = depth("dir", "in", *RUN)
    assert ran.code == 3 and statuses() == {"a.png": "done", "b.png": "failed", "c.png": "done"}
    assert "the Neuron device failed twice: nrt_execute failed" in ran.err


def test_a_device_that_is_gone_ends_the_run_and_nothing_is_lost(depth, box):
    for number in range(12):
        photo(f"in/{number:02}.png")
    state = {"runs": 0}

    def fails(batch: torch.Tensor) -> bool:
        state["runs"] += 1
        return state["runs"] > CORES + 4 and bool(batch.any())  # after the warm-up and the first batch

    box.fails = fails
    ran = depth("dir", "in", *RUN)
    assert ran.code == 5 and "the Neuron device failed 5 times in a row" in ran.err.splitlines()[-1]
    box.fails = lambda batch: False
    assert depth("dir", "in", *RUN).code == 0
    assert len(list(Path("maps").glob("*.npz"))) == 12


def test_what_keeps_it_from_starting_is_said(depth, box, monkeypatch, stand_in):  # noqa: F811
    photo("in/a.png")
    command = ("image", "in/a.png", *RUN)

    def busy(artifact: object) -> None:
        raise RuntimeError("NRT:nrt_allocate_neuron_cores NeuronCore(s) not available - Requested:nc1-nc1 Available:0")

    with monkeypatch.context() as patch:
        patch.setattr(neuron, "load_network", busy)
        ran = depth(*command)
        assert ran.code == 5 and "NeuronCores are held by another process (see neuron-ls)" in ran.error
    with monkeypatch.context() as patch:
        patch.setattr(inf1, "devices", list)
        ran = depth(*command)
        assert ran.code == 5 and "no Neuron device on this host" in ran.error
    for options, message in ((("--precision", "fp32"), "computes as it was compiled"), (("-d", "cpu"), "not on cpu")):
        ran = depth(*command, *options)
        assert ran.code == 5 and message in ran.error
    stand_in.versions["torch-neuron"] = "1.13.1.1.0"
    ran = depth(*command)
    assert ran.code == 5 and "compiled with torch-neuron 1.13.1.2.11.13.0, this is 1.13.1.1.0" in ran.error
    stand_in.versions["torch-neuron"] = "1.13.1.2.12.0"
    ran = depth(*command)
    assert ran.code == 0 and "vits_42x56_inf1.pt was compiled with torch-neuron 1.13.1.2.11" in ran.err
    assert depth("image", "in/a.png", "--backend", "torchscript", "--artifacts", "nets").code == 5  # not its target
    assert not list(Path("maps").glob(".*"))


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 8),
        ({"NEURON_RT_NUM_CORES": "3"}, 3),
        ({"NEURON_RT_VISIBLE_CORES": "4-5", "NEURON_RT_NUM_CORES": "9"}, 2),
        ({"NEURON_RT_VISIBLE_CORES": "0,2-3"}, 3),
    ],
)
def test_the_runtimes_own_variables_say_how_many_cores(variables, cores):
    assert core_count(variables, devices=2) == cores


def test_variables_that_are_no_numbers_are_named():
    with pytest.raises(EngineError, match="NEURON_RT_NUM_CORES='all'"):
        core_count({"NEURON_RT_NUM_CORES": "all"}, devices=1)
