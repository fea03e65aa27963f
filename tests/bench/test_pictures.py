"""The benchmark's figures are right where they can be known, and an engine that fails takes no other with it."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthcli.backends import BACKENDS, Traits, open_backend
from depthcli.backends.executed import ExecutedNode
from depthcli.bench import limits, peers, statistics
from depthcli.bench import sample as sample_module
from depthcli.bench.commands import OFFICIAL_LOOP
from depthcli.bench.contenders import MeasuredModel
from depthcli.bench.operators import dearest
from depthcli.bench.own_process import Ended, run_alone
from depthcli.bench.pictures import (
    OFFICIAL,
    OFFICIAL_FUSED,
    PLAIN_ONNX,
    PLAIN_OPENVINO,
    TRANSFORMERS,
    BenchJob,
    model_of,
    run_benchmark,
)
from depthcli.bench.rows import (
    Bandwidth,
    Folder,
    Limit,
    Load,
    Machine,
    Network,
    Operator,
    Process,
    Quality,
    Roofline,
    Stages,
)
from depthcli.bench.synthetic_clips import photograph
from depthcli.choices.model import COMPILED_BACKENDS, BackendChoice, ModelChoice
from depthcli.errors import CheckpointError, EngineError, UsageError
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.random_weights import random_weights
from depthcli.zoo.rows import find_row
from tests.conftest import photo

TINY = ModelChoice(encoder="tiny")
SLOW = Ended(4.0, 300_000_000)
MISSING = "no engine of that name is to be had"
NAMES = {"Missing": "onnx", "Broken": "broken"}  # one that opens gives its own name


class Missing:
    def __init__(self, *_: object) -> None:
        raise EngineError(MISSING)


class Broken:
    """An engine that fails when it runs, in a way that nobody has thought of."""

    traits = Traits("broken", "1.0", "cpu", "fp32")

    def __init__(self, *_: object) -> None: ...

    def check(self, plan: object, batch: int, further: object = ()) -> None: ...

    def run(self, inputs: object, graph: str = "depth", replica: object = None) -> dict:
        raise KeyError("no such thing")

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small products, and one thread."""
    monkeypatch.setattr(limits, "SIDES", (16, 32))
    monkeypatch.setattr(limits, "_COPIED_BYTES", 2**20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The commands that would have been started; each takes 4 seconds and 300 MB, the first 2 more seconds."""
    started: list[list[str]] = []

    def run_alone(arguments):
        started.append(list(arguments))
        return Ended(6.0, 400_000_000) if len(started) == 1 else SLOW

    monkeypatch.setattr(sample_module, "run_alone", run_alone)
    return started


def measured(**options) -> dict[type, list]:
    """The rows of a small benchmark, by kind."""
    settings = {"model": TINY, "backends": ("torch",), "input_size": 56, "runs": 2, "warmup": 1, **options}
    rows: dict[type, list] = {}
    for row in run_benchmark(BenchJob(**settings)):
        rows.setdefault(type(row), []).append(row)
    return rows


class TestStatistics:
    TIMES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0)

    def test_known_numbers(self):
        assert statistics.median(self.TIMES) == 6
        assert statistics.p90(self.TIMES) == 10
        assert statistics.spread(self.TIMES) == pytest.approx((8.5 - 3.5) / 6)
        assert statistics.spread((3.0, 3.0, 3.0)) == 0
        assert statistics.median((2.0,)) == statistics.p90((2.0,)) == 2

    def test_a_ratio_is_taken_turn_by_turn(self):
        # The machine was three times as slow in the last turn, for both.
        assert statistics.times_faster((2.0, 2.0, 6.0), (1.0, 1.0, 3.0)) == 2
        assert statistics.times_faster((1.0, 8.0, 1.0), (2.0, 2.0, 2.0)) == 0.5


class TestJob:
    @pytest.mark.parametrize(
        "options",
        [
            {"backends": ("nonsense",)},
            {"precision": "fp99"},
            {"device": "abacus"},
            {"runs": 0},
            {"warmup": -1},
            {"input_size": 3},
            {"images": Path("nowhere")},
            {"images": Path(), "picture": (64, 48)},
            {"picture": (0, 48)},
            {"quality": True},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused_before_anything_is_loaded(self, options):
        with pytest.raises(UsageError):
            BenchJob(**options)

    def test_all_names_each_engine_and_none_comes_twice(self):
        names = [choice.backend for choice in BenchJob(backends=("torch", "all", "torch")).choices()]
        assert sorted(names) == sorted(set(BACKENDS) - set(COMPILED_BACKENDS)) and names[0] == "torch"

    def test_with_peers_there_is_the_exact_engine_to_compare_with(self):
        job = BenchJob(backends=("auto",), peers=True)
        assert job.choices() == [BackendChoice("torch", "auto", "exact"), BackendChoice()]


class TestWeights:
    def test_those_that_are_here_are_taken(self, tmp_path):
        model = model_of(BenchJob(TINY), tmp_path, lambda line: None)
        assert (model.row.name, model.random) == ("tiny", False) and model.weights.path.is_file()

    def test_random_ones_else_and_nothing_is_downloaded(self, tmp_path):
        said = []
        model = model_of(BenchJob(), tmp_path, said.append)
        assert (model.row.name, model.random, model.weights.path.parent) == ("vits", True, tmp_path)
        assert len(said) == 1 and "not on this machine" in said[0]

    def test_they_give_a_map_that_can_be_painted_and_are_always_the_same(self, tmp_path):
        from depthcli.backends import open_backend

        row = find_row("vits")
        files = []
        for name in "ab":
            (tmp_path / name).mkdir()
            files.append(random_weights(row, tmp_path / name))
        assert files[0].sha256 == files[1].sha256
        engine = open_backend(row, files[0], BackendChoice("torch"))
        depth = engine.run({"image": np.random.default_rng(0).normal(size=(1, 3, 140, 112)).astype(np.float32)})[
            "depth"
        ]
        assert depth.shape == (1, 140, 112) and 0 <= depth.min() < 1 and 0.2 < np.ptp(depth) < 5
        # Smooth: one pixel differs from the next by little.
        assert np.abs(np.diff(depth)).mean() < 0.03 * np.ptp(depth)

    def test_a_file_that_was_named_has_to_be_there(self, tmp_path):
        with pytest.raises(CheckpointError):
            model_of(BenchJob(ModelChoice(encoder="vits", checkpoint=Path("none.pth"))), tmp_path, lambda line: None)
        with pytest.raises(UsageError):
            model_of(BenchJob(ModelChoice(model="vits", encoder="vits")), tmp_path, lambda line: None)


class TestRows:
    def test_one_engine_and_a_synthetic_picture(self, commands):
        rows = measured(picture=(80, 60))
        (machine,), (network,), (stages,), (process,), (load,) = (
            rows[kind] for kind in (Machine, Network, Stages, Process, Load)
        )
        assert (machine.model, machine.random_weights, machine.pictures) == ("tiny", False, 1)
        assert (machine.picture_size, machine.input_size) == ((80, 60), (70, 56))
        assert torch.__version__.startswith(machine.versions["torch"])
        assert machine.cores >= 1 and load.before == machine.load
        assert (network.name, network.faster, network.error) == ("torch", 1, "")
        assert network.engine.startswith("torch ") and network.precision == network.engine.split()[-1]
        assert network.min_ms <= network.median_ms <= network.p90_ms and network.spread >= 0
        assert network.gflop_s == pytest.approx(machine.gflop / network.median_ms * 1000)
        line = next(line for line in rows[Roofline] if line.precision == network.precision)
        assert line.gflop_s > 0 and line.shape in ((16, 16, 16), (32, 32, 32))
        assert network.roofline == pytest.approx(network.gflop_s / line.gflop_s)
        (limit,), (memory,) = rows[Limit], rows[Bandwidth]
        assert limit.operations_ms == pytest.approx(1000 * machine.gflop / line.gflop_s)
        assert limit.megabytes == pytest.approx((4 * 3_765_617 + 4 * 4 * 70 * 56) / 1e6, rel=1e-3)
        assert limit.bytes_ms == pytest.approx(limit.megabytes / memory.gigabytes_s)
        assert limit.share == pytest.approx(max(limit.operations_ms, limit.bytes_ms) / network.median_ms)
        assert Operator not in rows
        assert stages.run_ms == network.median_ms and stages.total_ms > stages.run_ms > 0
        assert min(stages.read_ms, stages.prepare_ms, stages.finish_ms, stages.write_ms) > 0
        assert (process.first_s, process.again_s, process.peak_mb, process.faster) == (6, 4, 300, 1)
        assert Folder not in rows and [command[0] for command in commands] == 3 * ["image"]

    def test_the_commands_are_told_what_was_asked(self, commands):
        measured(model=ModelChoice(encoder="tiny", trust=True), precision="fp32", device="cpu", runs=1)
        for command in commands:
            said = " ".join(command)
            assert "--model tiny --checkpoint " in said and "--offline" in said and "--trust-checkpoint" in said
            assert "--backend torch --device cpu --precision fp32 --input-size 56" in said

    def test_a_folder(self, commands):
        for number, size in enumerate([(80, 60), (60, 80), (80, 60)]):
            photo(f"in/{number}.jpg", size)
        Path("in/broken.jpg").write_bytes(b"no picture")
        (folder,) = measured(images=Path("in"))[Folder]
        assert (folder.pictures, folder.seconds, folder.format, folder.faster) == (3, 4, "color", 1)
        assert folder.seconds_per_picture == pytest.approx(4 / 3) and folder.pictures_per_second == pytest.approx(3 / 4)
        assert folder.over_network == pytest.approx(4 / folder.network_s) and folder.peak_mb == 300
        assert [command[0] for command in commands] == 3 * ["image"] + 2 * ["dir"]

    def test_a_folder_without_a_picture(self):
        Path("empty").mkdir()
        with pytest.raises(UsageError, match="no picture in empty"):
            measured(images=Path("empty"))

    def test_every_row_is_one_line_of_json_with_all_its_fields(self, commands):
        photo("in/a.jpg")
        for kind, rows in measured(images=Path("in"), runs=1).items():
            for row in rows:
                line = row.to_json()
                facts = json.loads(line)
                assert "\n" not in line and facts.pop("row") == kind.__name__.lower()
                assert set(facts) == {item.name for item in fields(kind)}

    def test_the_users_cache_is_left_alone(self, commands, monkeypatch):
        monkeypatch.setenv("DEPTHCLI_CACHE", "mine")
        seen = []
        for row in run_benchmark(BenchJob(model=TINY, backends=("torch",), input_size=56, runs=1)):
            seen.append(os.environ["DEPTHCLI_CACHE"])
            assert row.row
        assert "mine" not in seen[:-1] and os.environ["DEPTHCLI_CACHE"] == "mine"


class TestEnginesThatFail:
    @pytest.mark.parametrize(("broken", "reason"), [("Missing", MISSING), ("Broken", "KeyError: 'no such thing'")])
    def test_one_becomes_a_row_that_says_why(self, commands, monkeypatch, broken, reason):
        monkeypatch.setitem(BACKENDS, "onnx", f"{__name__}:{broken}")
        rows = measured(backends=("onnx", "torch"), runs=1)
        failed, network = rows[Network]
        assert (
            (failed.name, failed.error) == (NAMES[broken], reason)
            and failed.median_ms is None
            and failed.faster is None
        )
        assert (network.error, network.faster, network.reference) == ("", 1, f"torch {network.precision}")
        assert [row.name for row in rows[Stages]] == ["torch"]
        json.loads(failed.to_json())

    @pytest.mark.parametrize(("broken", "reason"), [("Missing", MISSING), ("Broken", "no such thing")])
    def test_when_none_runs_that_is_an_error(self, commands, monkeypatch, broken, reason):
        monkeypatch.setitem(BACKENDS, "onnx", f"{__name__}:{broken}")
        with pytest.raises(EngineError, match=reason):
            measured(backends=("onnx",))

    def test_a_command_that_fails_is_a_row_too(self, monkeypatch):
        monkeypatch.setattr(sample_module, "run_alone", lambda arguments: Ended(0, None, "no room"))
        (process,) = measured(runs=1)[Process]
        assert (process.error, process.again_s) == ("no room", None)


class TestPeers:
    def test_a_network_that_is_not_of_the_official_code_has_none(self, commands):
        said = []
        job = BenchJob(model=TINY, backends=("torch",), input_size=56, runs=1, peers=True)
        names = [row.name for row in run_benchmark(job, said.append) if isinstance(row, Network)]
        assert names == ["torch"] and any("no official code for tiny" in line for line in said)

    @pytest.mark.skipif(not HAS_FUSED, reason="torch 2.0 brought fused attention")
    def test_every_row_is_compared_with_the_official_form(self, commands):
        photo("in/a.png")
        photo("in/b.png", (60, 80))
        rows = measured(model=ModelChoice(encoder="vits"), images=Path("in"), peers=True, runs=1)
        assert rows[Machine][0].random_weights
        others = [TRANSFORMERS, TRANSFORMERS, PLAIN_ONNX, PLAIN_ONNX, PLAIN_OPENVINO, PLAIN_OPENVINO]
        assert [row.name for row in rows[Network]] == [OFFICIAL, OFFICIAL_FUSED, *others, "torch"]
        ran = [row for row in rows[Network] if not row.error]
        assert {OFFICIAL, OFFICIAL_FUSED, "torch"} <= {row.name for row in ran}
        assert {row.reference for row in ran} == {f"{OFFICIAL} fp32"}
        for row in rows[Network]:  # what is not installed, or this CPU cannot do, is named
            assert not row.error or re.search("cannot be loaded|needs the package onnx|not installed|bf16", row.error)
        assert [row.name for row in rows[Stages]] == ["torch"]
        loop, ours = rows[Folder]
        assert (loop.name, loop.pictures, loop.format, loop.faster) == (OFFICIAL_LOOP, 2, "side", 1)
        assert ours.faster == pytest.approx(loop.seconds / 4) and commands[-1][-2:] == ["-f", "side"]

    def test_the_loop_writes_the_picture_that_we_write(self, tmp_path):
        from depthcli import DepthEstimator
        from depthcli.io.codecs.files import write_still
        from depthcli.io.codecs.formats import STILLS
        from depthcli.io.pictures.images import read_picture

        row = find_row("vits")
        weights = random_weights(row, tmp_path)
        paths = [photo("a.png"), Path("none.png")]
        seconds, done = peers.official_loop(peers.OfficialNetwork(row, weights), paths, tmp_path, 56)
        assert seconds > 0 and done == 1
        choice = ModelChoice(encoder="vits", checkpoint=weights.path)
        with DepthEstimator(choice, BackendChoice("torch", precision="exact"), input_size=56) as estimator:
            depth = estimator.estimate("a.png")
        ours = io.BytesIO()
        write_still(STILLS["side"], depth, ours, rgb=read_picture(Path("a.png")).rgb)
        official, mine = (np.asarray(Image.open(file), np.int64) for file in (tmp_path / "0.png", ours))
        assert official.shape == mine.shape == (60, 80 + 50 + 80, 3)
        # A code may fall to the other side of its edge.
        assert (np.abs(official - mine).max(axis=2) > 0).mean() < 0.01

    def test_products_that_this_torch_cannot_do(self):
        assert limits.best_product("int3", "cpu", 1, [(8, 8, 8)]) is None
        speed, shape = limits.best_product("fp32", "cpu", 1, [(16, 32, 64)])
        assert speed > 0 and shape == (16, 32, 64)


@pytest.mark.skipif(not HAS_FUSED, reason="ONNX of torch 1.13 is another one")
class TestOtherForms:
    """Other people's forms compute the same depth, so that their times are those of the same work."""

    def test_the_plain_export_gives_our_depth(self, tmp_path):
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        from depthcli.bench.other_forms import export_plainly, plain_onnxruntime
        from depthcli.pixels.preprocess import plan_input

        row = find_row("vits")
        model = MeasuredModel(row, random_weights(row, tmp_path))
        export_plainly(model, plan_input(70, 56, row.input.with_size(56)), tmp_path / "plain.onnx", False)
        image = np.random.default_rng(0).standard_normal((1, 3, 56, 70)).astype(np.float32)
        wanted = open_backend(row, model.weights, BackendChoice("torch", precision="exact")).run({"image": image})
        for precision, bound in (("fp32", 1e-4), ("int8", 0.3)):
            form = plain_onnxruntime(row, tmp_path / "plain.onnx", precision)
            depth = form.run({"image": image})["depth"]
            assert form.traits.precision == precision
            assert np.abs(depth - wanted["depth"]).max() < bound * np.abs(wanted["depth"]).max()
            form.close()
            with pytest.raises(EngineError, match="closed"):
                form.run({"image": image})

    def test_transformers_has_a_network_of_the_same_size(self):
        transformers = pytest.importorskip("transformers")
        from depthcli.bench.other_forms import transformers_network

        assert transformers
        form = transformers_network(find_row("vits"), "fp32")
        assert form.run({"image": np.zeros((1, 3, 56, 70), np.float32)})["depth"].shape == (1, 56, 70)


class TestOperators:
    def test_equal_nodes_are_one_row_and_the_dear_ones_come_first(self):
        def node(kind: str, milliseconds: float, **facts) -> ExecutedNode:
            standard = {"inputs": ((1, 5, 8), (16, 8)), "outputs": ((1, 5, 16),), "flops": 1280, "bytes": 1000}
            return ExecutedNode("depth", "", kind, "jit", ("aten::gelu/Gelu",), milliseconds, **{**standard, **facts})

        conv = {"inputs": ((1, 3, 8, 8), (4, 3, 3, 3)), "outputs": ((1, 4, 8, 8),)}
        nodes = [node("FullyConnected", 2), node("Convolution", 5, **conv), node("FullyConnected", 4), node("Odd", 1)]
        first, second, rest = dearest("openvino", "bf16", nodes, count=2)
        assert (first.operator, first.output, first.count, first.ms) == ("linear 8 to 16, gelu", "1x5x16", 2, 6)
        assert first.share == pytest.approx(0.5)
        assert first.gflop_s == pytest.approx(2 * 1280 / 6e-3 / 1e9) and first.megabytes == pytest.approx(0.002)
        assert (second.operator, second.count) == ("convolution 3x3, 3 to 4, gelu", 1)
        assert (rest.operator, rest.count, rest.ms) == ("all others", 1, 1)

    @pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
    def test_the_operations_of_every_backend_are_those_of_the_network(self, commands, backend):
        if backend != "torch":
            pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[backend])
            pytest.importorskip("onnx")
        rows = measured(backends=(backend,), profile=True, runs=1, precision="fp32")
        operators = rows[Operator]
        assert not any(row.error for row in operators)
        assert sum(row.share for row in operators) == pytest.approx(1)
        flops = sum(row.gflop_s * row.ms / 1000 for row in operators if row.gflop_s)
        # ONNX Runtime pads channels; a share of the products is shared with the rest of a row.
        assert flops == pytest.approx(rows[Machine][0].gflop, rel=0.1)
        assert any("convolution" in row.operator for row in operators)

    def test_a_backend_that_does_not_tell_is_a_row_with_the_reason(self, commands, monkeypatch):
        class Silent(Broken):
            traits = Traits("silent", "1.0", "cpu", "fp32")

            def run(self, inputs: dict, graph: str = "depth", replica: object = None) -> dict:
                return {"depth": inputs["image"][:, 0]}

        monkeypatch.setattr(f"{__name__}.Broken", Silent)
        monkeypatch.setitem(BACKENDS, "onnx", f"{__name__}:Broken")
        (row,) = measured(backends=("onnx",), profile=True, runs=1)[Operator]
        assert row.name == "silent" and "does not tell the times" in row.error


class TestQuality:
    def test_every_precision_of_openvino_is_compared_with_exact(self):
        choices = BenchJob(quality=True, images=Path()).choices()
        assert [(choice.backend, choice.precision) for choice in choices] == [
            ("torch", "exact"),
            *(("openvino", precision) for precision in ("fp32", "bf16", "int8")),
        ]
        assert [choice.calibration for choice in choices] == [None, None, None, Path()]
        named = BenchJob(quality=True, images=Path(), backends=("onnx",)).choices()
        assert [choice.backend for choice in named] == ["torch", "onnx"]

    def test_a_difference_is_measured_on_pictures_that_no_calibration_saw(self, monkeypatch):
        class Brighter(Broken):
            """Gives the exact map and 1 % of its range more."""

            traits = Traits("brighter", "1.0", "cpu", "fp32")
            exact = None

            def __init__(self, row: object, weights: object, choice: object, *_: object) -> None:
                Brighter.exact = Brighter.exact or open_backend(row, weights, BackendChoice("torch", "cpu", "exact"))

            def run(self, inputs: dict, graph: str = "depth", replica: object = None) -> dict:
                depth = self.exact.run(inputs)["depth"]
                return {"depth": depth + 0.01 * np.ptp(depth)}

        monkeypatch.setattr(f"{__name__}.Broken", Brighter)
        monkeypatch.setitem(BACKENDS, "onnx", f"{__name__}:Broken")
        for number in range(9):
            photo(f"photos/{number}.png", (70, 56))
        (row,) = measured(backends=("onnx",), quality=True, images=Path("photos"), runs=1)[Quality]
        assert (row.name, row.pictures, row.error) == ("brighter", 2, "")
        assert row.mean == pytest.approx(0.01, rel=1e-3) and row.greatest == pytest.approx(0.01, rel=1e-2)
        assert row.rank > 0.999


class TestProcesses:
    def test_one_is_timed_and_its_memory_is_its_own(self, tiny_weights):
        held = np.ones(60_000_000)  # 480 MB that must not be counted
        ended = run_alone(["--version"])
        assert ended.error == "" and ended.seconds > 0 and held.all()
        if sys.platform == "linux":
            assert 5_000_000 < ended.peak < 200_000_000

    def test_the_reason_of_one_that_fails_is_its_last_word(self):
        ended = run_alone(["image", "nowhere.jpg", "--encoder", "tiny", "--quiet"])
        assert "nowhere.jpg" in ended.error and not ended.error.startswith("error")


def test_the_synthetic_picture_has_the_size_that_was_asked():
    assert Image.open(io.BytesIO(photograph(70, 50))).size == (70, 50)
    assert photograph(70, 50) == photograph(70, 50)
