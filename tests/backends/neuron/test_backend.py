"""The engine for AWS Inferentia, against a stand-in of its package: all cores work, and each failure has its words."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli import read_depth
from depthcli.backends.neuron import backend as neuron
from depthcli.backends.neuron import common
from depthcli.backends.neuron.backend import core_count
from depthcli.bench.own_process import Ended
from depthcli.errors import EngineError
from depthcli.jobs.manifest import Manifest
from tests.backends.neuron.test_export import COMPILE
from tests.backends.neuron.test_export import neuron as stand_in  # noqa: F401 - a fixture
from tests.conftest import photo
from tests.fake_torch_neuron import make_x

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


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """What was compiled once, for all tests: a compilation takes two seconds."""
    return tmp_path_factory.mktemp("compiled")


def compiled_into(folder: str, kept: Path, depth, *arguments: object) -> None:
    """Run `depth compile` into a folder, or copy what an earlier test has compiled so."""
    if not (kept / folder).exists():
        ran = depth(*arguments, "-o", f"{folder}/")
        assert ran.code == 0, ran.err
        shutil.copytree(folder, kept / folder)
        return
    shutil.copytree(kept / folder, folder)


@pytest.fixture
def box(depth, stand_in, kept, monkeypatch) -> Box:  # noqa: F811
    stand_in()
    compiled_into("nets", kept, depth, *COMPILE[:-1], "42x56,56x42")
    box = Box()
    load = neuron.load_network
    monkeypatch.setattr(neuron, "load_network", lambda content: Network(load(content), box))
    monkeypatch.setattr(common, "device_files", lambda: ["/dev/neuron0"])
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
        assert found.provenance.backend == f"neuron 1.13.1.2.11.13.0 inf1:{CORES} mixed"
        assert (
            found.provenance.input_size == wanted.provenance.input_size
            and found.provenance.sha256 == wanted.provenance.sha256
        )
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
        patch.setattr(common, "device_files", list)
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


def test_pictures_of_different_sizes_share_the_cores(depth, box, monkeypatch):
    for number in range(8):
        photo(f"in/{number}.png", (80, 60) if number % 2 else (60, 80))
    shared, run_on_all = [], neuron.Neuron._run_on_all

    def watched(self, images):
        shared.append([image.shape for image in images])
        return run_on_all(self, images)

    monkeypatch.setattr(neuron.Neuron, "_run_on_all", watched)
    assert depth("dir", "in", *RUN).code == 0
    assert sum(map(len, shared)) == 8 and max(len(set(shapes)) for shapes in shared) == 2
    for number in range(8):
        assert read_depth(f"maps/{number}_depth.npz").size == ((80, 60) if number % 2 else (60, 80))


def test_a_damaged_file_is_refused_before_the_device_is_touched(depth, box):
    photo("in/a.png", (80, 60))
    path = Path("nets/vits_42x56_inf1.pt")
    whole, facts = path.read_bytes(), json.loads(Path(f"{path}.json").read_text())
    loaded = box.loaded

    def refused(message: str) -> None:
        ran = depth("dir", "in", *RUN)
        assert ran.code == 4 and message in ran.err and box.loaded == loaded
        assert not list(Path("maps").rglob("*.npz"))

    path.write_bytes(whole[: len(whole) // 2])
    refused("vits_42x56_inf1.pt is not a whole compiled network (copy it again, or compile it again)")
    path.write_bytes(whole.replace(b"depthcli.json", b"depthcli.jsox"))
    refused("has no description")
    path.write_bytes(whole)
    Path(f"{path}.json").write_text(json.dumps({**facts, "contents_sha256": "0" * 64}))
    refused("does not match its .json")
    Path(f"{path}.json").unlink()  # a convenience: without it the file stands for itself
    assert depth("dir", "in", *RUN).code == 0


def test_a_machine_runs_what_was_compiled_for_its_chip(depth, box, monkeypatch, stand_in):  # noqa: F811
    photo("in/a.png", (80, 60))
    command = ("image", "in/a.png", *RUN[:-4], "--artifacts", "nets/vits_42x56_inf1.pt", "--input-size", 42)
    monkeypatch.setattr(common, "instance_type", lambda: "inf2.xlarge")
    ran = depth(*command)
    assert ran.code == 5 and "was compiled for inf1, this runs inf2 (recompile it with --target inf2)" in ran.error
    monkeypatch.setattr(common, "instance_type", lambda: "inf1.xlarge")
    assert depth(*command).code == 0


def test_inf2_goes_the_same_way_through_its_own_package(depth, box, monkeypatch, stand_in):  # noqa: F811
    fake = make_x()
    monkeypatch.setitem(sys.modules, "torch_neuronx", fake)
    monkeypatch.setattr(common, "device_files", list)
    stand_in.versions.clear()
    photo("in/a.png", (80, 60))
    command = (*COMPILE[:2], "inf2", *COMPILE[3:], "-o", "new/")
    ran = depth(*command)
    assert ran.code == 5 and "neuronx-cc, the compiler, is not installed" in ran.error
    stand_in.versions.update({"torch-neuronx": "2.9.0.2.15", "neuronx-cc": "2.31"})
    assert depth(*command, "--fast-math", "fp32-cast-matmult").code == 2  # a word of the other compiler
    ran = depth(*command)
    assert ran.code == 0, ran.err
    casting = ["--auto-cast", "matmult", "--auto-cast-type", "bf16"]
    assert fake.calls == [{"args": [*casting, "--target", "inf2"], "cpu_backend": True}]
    monkeypatch.setattr(common, "device_files", lambda: ["/dev/neuron0"])
    ran = depth("image", "in/a.png", "-o", "x/", "-f", "npz", "--backend", "neuron", "--artifacts", "new", *RUN[-2:])
    assert ran.code == 0, ran.err
    assert read_depth("x/a_depth.npz").provenance.backend == "neuron 2.9.0.2.15 inf2:2 mixed"


class TestStandIn:
    """A network that only pretends to be for a chip runs where it is asked for, and says so everywhere."""

    @pytest.fixture
    def standin(self, depth, kept):
        photo("a.png", (80, 60))
        compiled_into("sim", kept, depth, "compile", "--target", "cpu-standin", "--encoder", "tiny", "--size", "42x56")
        return ("--backend", "neuron", "--artifacts", "sim/tiny_42x56_cpu-standin.pt")

    def test_it_is_refused_unless_it_is_asked_for(self, depth, standin):
        ran = depth("image", "a.png", *standin, "--input-size", 42)
        assert ran.code == 5
        assert "is a CPU stand-in (no Neuron code) (set --allow-standin for tests)" in ran.error
        ran = depth("image", "a.png", "--encoder", "tiny", "--allow-standin")
        assert ran.code == 2 and "--allow-standin needs --backend neuron" in ran.error

    def test_what_it_makes_is_right_and_says_what_made_it(self, depth, standin):
        ran = depth("image", "a.png", *standin, "--allow-standin", "--input-size", 42, "-f", "npz")
        assert ran.code == 0 and "CPU stand-in, not Neuron" in ran.err
        found = read_depth("a_depth.npz")
        assert "(CPU stand-in, not Neuron)" in found.provenance.backend
        depth("image", "a.png", "-o", "e/", "--encoder", "tiny", "--backend", "torch", "--input-size", 42, "-f", "npz")
        assert np.abs(found.values - read_depth("e/a_depth.npz").values).max() <= 1e-5 * found.values.max()

    @pytest.mark.slow
    def test_its_figures_are_marked(self, depth, standin, monkeypatch):
        monkeypatch.setattr("depthcli.bench.sample.run_alone", lambda arguments: Ended(1.0, None))
        monkeypatch.setattr("depthcli.bench.limits.SIDES", (16,))
        options = ("--allow-standin", "--runs", 1, "--warmup", 0, "--duration", 0.2, "--cost-per-hour", 0.36)
        ran = depth("bench", *standin, *options, "--json")
        assert ran.code == 0, ran.err
        rows = [row for row in map(json.loads, ran.lines) if row["row"] == "throughput"]
        loads = [(row["scope"], row["n_models"], row["workers_per_model"]) for row in rows]
        assert loads == [("model", 1, 1), ("model", 2, 2), ("end_to_end", 2, 2)]
        for row in rows:
            assert row["simulated"] is True and row["target"] == "cpu-standin" and not row["error"]
            assert row["model_filename"] == "tiny_42x56_cpu-standin.pt" and len(row["model_sha256"]) == 64
            assert (row["batch_size"], row["pipeline_size"]) == (1, 1)
            assert 0 < row["latency_ms_p50"] <= row["latency_ms_p90"] <= row["latency_ms_p95"] <= row["latency_ms_p99"]
            assert 0 < row["throughput_avg"] <= row["throughput_peak"]
            assert row["cost_per_1m"] == pytest.approx(1e6 / row["throughput_avg"] * 0.36 / 3600)
        ran = depth("bench", *standin, *options)
        assert "simulated: CPU stand-in, not Neuron" in ran.out and "per million" in ran.out


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
    assert core_count(variables, 8) == cores


def test_variables_that_are_no_numbers_are_named():
    for value in ("all", "0", "-1"):
        with pytest.raises(EngineError, match=f"NEURON_RT_NUM_CORES='{value}'"):
            core_count({"NEURON_RT_NUM_CORES": value}, 4)
