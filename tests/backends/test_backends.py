"""Every engine gives the answer of eager torch, for every kind of network and every size, and closes."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from depthcli.backends import BACKENDS, Backend, open_backend, pick_backend
from depthcli.bench.flops import network_flops
from depthcli.choices.model import COMPILED_BACKENDS, BackendChoice
from depthcli.errors import CheckpointError, EngineError, PictureError, UsageError
from depthcli.host import graph_cache
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import build_network
from depthcli.pixels.preprocess import plan_input
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import InputPolicy, LiteConfig, ModelRow, NetworkConfig, find_row
from depthcli.zoo.verify import digest
from tests.conftest import environment
from tests.reference import reference_state

VIT = NetworkConfig(32, 5, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), position_grid=4)
ROWS = {
    "vit": dataclasses.replace(find_row("vits"), network=VIT),
    "gated": dataclasses.replace(find_row("vitg"), network=dataclasses.replace(VIT, swiglu=True)),
    "metric": dataclasses.replace(find_row("metric-indoor-vits"), network=VIT),
    "lite": dataclasses.replace(find_row("tiny"), network=LiteConfig(16)),
    "lite in metres": dataclasses.replace(find_row("metric-tiny"), network=LiteConfig(16)),
}
# (height, width): the trained grid of positions itself, landscape, portrait of as many patches, a strip
SIZES = ((56, 56), (42, 70), (70, 42), (28, 126))
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
OTHERS = [name for name, package in PACKAGES.items() if find_spec(package)]


def test_every_engine_is_compared_here() -> None:
    assert set(PACKAGES) | {"torch"} | set(COMPILED_BACKENDS) == set(BACKENDS)  # the compiled: cli/test_compile.py


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, WeightsFile]:
    files = {}
    for name, row in ROWS.items():
        shapes = {
            key: value.shape for key, value in build_network(row.network, row.kind.is_metric).state_dict().items()
        }
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_file(
            {key: torch.from_numpy(value) for key, value in reference_state(shapes).items()}, str(path), {"name": name}
        )
        files[name] = WeightsFile(path, digest(path), "test")
    return files


def opened(name: str, checkpoints: dict[str, WeightsFile], *choice: str) -> Backend:
    return open_backend(ROWS[name], checkpoints[name], BackendChoice(*choice))


def picture(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(height).standard_normal((batch, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", ROWS)
def test_float32_is_that_of_eager_torch_at_every_size(name: str, engine: str, checkpoints) -> None:
    eager, other = opened(name, checkpoints, "torch"), opened(name, checkpoints, engine, "auto", "fp32")
    assert "fp32" in other.traits.description
    for height, width in (*SIZES, SIZES[0]):
        image = picture(height, width)
        wanted, found = (backend.run({"image": image})["depth"] for backend in (eager, other))
        assert found.shape == (1, height, width) and found.dtype == np.float32 and wanted.std() > 0
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), (height, width)


@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_a_batch_is_its_pictures_one_by_one(engine: str, checkpoints) -> None:
    backend = opened("vit", checkpoints, engine, "cpu", "fp32")
    images = picture(42, 56, batch=3)
    together = backend.run({"image": images})["depth"]
    for image, depth in zip(images, together):
        assert np.abs(backend.run({"image": image[None]})["depth"][0] - depth).max() <= 1e-5 * depth.max()
    assert np.ptp(together, axis=0).max() > 0


@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_an_answer_is_not_overwritten_by_the_next(engine: str, checkpoints) -> None:
    backend = opened("lite", checkpoints, engine)
    first = backend.run({"image": picture(42, 56)})["depth"]
    kept = first.copy()
    backend.run({"image": -picture(42, 56)})
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_a_closed_engine_says_so(engine: str, checkpoints) -> None:
    backend = opened("lite", checkpoints, engine)
    backend.close()
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        backend.run({"image": picture(56, 56)})


@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_a_picture_that_would_not_fit_is_refused(engine: str, checkpoints, monkeypatch) -> None:
    module = BACKENDS[engine].partition(":")[0]
    monkeypatch.setattr(f"{module}.free_memory", lambda: 1_000_000)
    backend = opened("vit", checkpoints, engine, "cpu")
    with pytest.raises(PictureError, match="`input_size`"):
        backend.check(plan_input(640, 480, InputPolicy(518)), 1)


@pytest.mark.parametrize("engine", OTHERS)
def test_what_an_engine_cannot_do_is_an_error_and_no_other_engine(engine: str, checkpoints) -> None:
    for choice in ((engine, "cuda"), (engine, "auto", "exact")):
        with pytest.raises(EngineError, match="`backend`"):
            opened("lite", checkpoints, *choice)


@pytest.mark.parametrize("engine", OTHERS)
def test_a_network_is_converted_once(engine: str, checkpoints, monkeypatch) -> None:
    image = picture(42, 56)
    maker = opened("vit", checkpoints, engine)
    first = maker.run({"image": image})["depth"]
    maker.close()  # by when it is kept

    def fails(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr("depthcli.backends.converted._trace", fails)
    assert np.array_equal(opened("vit", checkpoints, engine).run({"image": image})["depth"], first)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.slow
def test_a_flipped_bit_in_what_is_kept_changes_no_answer(engine: str, checkpoints, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "kept"))
    image, seeded = picture(42, 56), random.Random(0)
    maker = opened("vit", checkpoints, engine)
    first = maker.run({"image": image})["depth"]
    maker.close()
    (entry,) = (tmp_path / "kept").iterdir()
    for path in sorted(entry.iterdir()):
        for _ in range(2):
            content = bytearray(path.read_bytes())
            content[seeded.randrange(len(content))] ^= 1 << seeded.randrange(8)
            path.write_bytes(content)
            other = opened("vit", checkpoints, engine)
            assert np.array_equal(other.run({"image": image})["depth"], first)
            other.close()
            assert graph_cache.find(entry.name) is not None  # it was made anew


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_weights_that_are_no_numbers_are_refused_by_every_engine(engine, number, checkpoints, tmp_path) -> None:
    state = load_file(checkpoints["lite"].path)
    state["encoder.stem.weight"][0, 0, 0, 0] = number
    path = tmp_path / "weights.safetensors"
    save_file(state, str(path))
    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in encoder\.stem\.weight"):
        open_backend(ROWS["lite"], WeightsFile(path, digest(path), "test"), BackendChoice(engine))


@pytest.mark.parametrize("engine", OTHERS)
def test_an_entry_that_is_gone_when_it_is_opened_is_made_anew(engine, checkpoints, monkeypatch, tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.setattr(graph_cache, "find", lambda name: tmp_path / "gone")
    assert opened("lite", checkpoints, engine).run({"image": picture(42, 56)})["depth"].std() > 0


@pytest.mark.skipif("openvino" not in OTHERS, reason="openvino has no wheel for this Python")
def test_ctrl_c_waits_for_the_end_of_a_conversion() -> None:
    from depthcli.backends.converted import uninterrupted

    steps = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("converted")
        steps.append("went on")
    assert steps == ["converted"]


@pytest.mark.parametrize("engine", OTHERS)
def test_where_nothing_can_be_kept_it_runs_all_the_same_and_says_so(engine, checkpoints, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "file"))
    said: list[str] = []
    backend = open_backend(ROWS["lite"], checkpoints["lite"], BackendChoice(engine), log=said.append)
    assert backend.run({"image": picture(42, 56)})["depth"].std() > 0
    backend.close()
    backend.close()
    (line,) = said
    assert "was not kept" in line and str(tmp_path / "file") in line


@pytest.mark.parametrize("engine", OTHERS)
def test_weights_of_another_network_are_refused_and_nothing_is_kept(engine, checkpoints, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(CheckpointError):
        open_backend(ROWS["lite"], checkpoints["vit"], BackendChoice(engine))
    assert not graph_cache.entries()


def test_relative_and_metric_graphs_of_one_file_are_two(checkpoints) -> None:
    if not OTHERS:
        return
    image, weights = picture(42, 56), checkpoints["vit"]
    rows: tuple[ModelRow, ...] = ROWS["vit"], ROWS["metric"]
    answers = [open_backend(row, weights, BackendChoice(OTHERS[0])).run({"image": image})["depth"] for row in rows]
    assert answers[0].max() > 1 >= answers[1].max()


@pytest.mark.skipif("openvino" not in OTHERS, reason="openvino has no wheel for this Python")
@pytest.mark.parametrize("name", ["vit", "gated", "metric"])
def test_bf16_of_openvino_is_near_and_is_not_float32(name: str, checkpoints) -> None:
    try:
        rough = opened(name, checkpoints, "openvino", "cpu", "bf16")
    except EngineError as error:
        assert "does not compute in bf16" in str(error)  # an older CPU
        assert opened(name, checkpoints, "openvino").traits.description.endswith("fp32")
        return
    assert opened(name, checkpoints, "openvino").traits.description.endswith("bf16")
    assert opened("lite", checkpoints, "openvino").traits.description.endswith("fp32")
    eager = opened(name, checkpoints, "torch")
    image = picture(42, 70)
    wanted, found = (backend.run({"image": image})["depth"] for backend in (eager, rough))
    difference = np.abs(found - wanted)
    assert 0 < difference.mean() <= 0.01 * np.ptp(wanted)


def test_auto_takes_the_cpus_engine_and_torch_for_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("depthcli.backends._has_gpu", lambda: False)
    best = OTHERS[0] if OTHERS else "torch"
    assert pick_backend(BackendChoice()) == pick_backend(BackendChoice(device="cpu", precision="fp32")) == best
    assert pick_backend(BackendChoice(precision="exact")) == pick_backend(BackendChoice(device="cuda:1")) == "torch"
    assert pick_backend(BackendChoice(precision="fp16")) == "torch"
    monkeypatch.setattr("depthcli.backends._has_gpu", lambda: True)
    assert pick_backend(BackendChoice()) == "torch" and pick_backend(BackendChoice(device="cpu")) == best
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    assert pick_backend(BackendChoice(device="cpu")) == "torch"


def test_an_engine_that_is_not_installed_says_how_to_get_it(checkpoints, monkeypatch) -> None:

    for engine, package in PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EngineError, match="pip install"):
            opened("lite", checkpoints, engine)


def test_half_precision_is_close_or_refused_by_torch(checkpoints) -> None:
    if not HAS_FUSED:  # torch before 2.0
        with pytest.raises(EngineError, match="bf16 on the CPU needs torch 2"):
            opened("vit", checkpoints, "torch", "cpu", "bf16")
        return
    image = picture(42, 70)
    exact, rough = (
        opened("vit", checkpoints, "torch", "cpu", precision).run({"image": image})["depth"]
        for precision in ("exact", "bf16")
    )
    assert 0 < np.abs(exact - rough).max() < 0.1 * exact.max()
    with pytest.raises(EngineError, match="half precision does not run on the CPU"):
        opened("vit", checkpoints, "torch", "cpu", "fp16")


def test_names_that_mean_nothing_are_refused() -> None:
    for choice in (("magic",), ("auto", "tpu"), ("auto", "auto", "fp8")):
        with pytest.raises(UsageError, match="choose"):
            BackendChoice(*choice)


@pytest.mark.skipif("openvino" not in OTHERS, reason="openvino has no wheel for this Python")
def test_a_network_that_is_kept_runs_without_torch(checkpoints) -> None:
    opened("vit", checkpoints, "openvino").close()
    code = (
        "import sys, pickle; from depthcli.backends import BackendChoice, open_backend\n"
        "row, weights = pickle.load(sys.stdin.buffer)\n"
        "import numpy as np\n"
        "backend = open_backend(row, weights, BackendChoice('openvino'))\n"
        "print(backend.run({'image': np.zeros((1, 3, 42, 56), np.float32)})['depth'].shape, 'torch' in sys.modules)"
    )
    given = pickle.dumps((ROWS["vit"], checkpoints["vit"]))
    ran = subprocess.run(
        [sys.executable, "-c", code], input=given, stdout=subprocess.PIPE, env=environment(), check=True
    )
    assert ran.stdout.decode().split("\n")[0] == "(1, 42, 56) False"


@pytest.mark.parametrize("engine", ["torch", *OTHERS])
def test_ctrl_c_is_an_interruption_after_engines_were_closed(engine: str, checkpoints) -> None:
    code = (
        "import os, pickle, signal, sys; from depthcli.backends import BackendChoice, open_backend\n"
        "row, weights, engine = pickle.load(sys.stdin.buffer)\n"
        "backends = [open_backend(row, weights, BackendChoice(engine)) for _ in range(2)]\n"
        "while backends: backends.pop(0).close()\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    given = pickle.dumps((ROWS["vit"], checkpoints["vit"], engine))
    ran = subprocess.run([sys.executable, "-c", code], input=given, stdout=subprocess.PIPE, env=environment())
    assert (ran.returncode, ran.stdout.decode().strip()) == (0, "interrupted")


@pytest.mark.skipif("openvino" not in OTHERS, reason="openvino has no wheel for this Python")
def test_openvino_starts_without_its_converter_and_gives_it_to_who_asks() -> None:
    code = (
        "import sys; from depthcli.backends.openvino import _import_openvino as load; ov = load()\n"
        "print(any('telemetry' in name for name in sys.modules), 'openvino.tools.ovc' in sys.modules)\n"
        "try: ov.convert_model('none.onnx')\n"
        "except Exception as error: print(type(error).__name__, 'openvino.tools.ovc' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment(), check=True).stdout
    first, second = out.decode().splitlines()[:2]
    assert first == "False False" and second.endswith("True") and "AttributeError" not in second


@pytest.mark.skipif("openvino" not in OTHERS, reason="openvino has no wheel for this Python")
@pytest.mark.parametrize("name", ["vit", "lite"])
def test_openvino_counts_the_nodes_of_a_run(name: str, checkpoints) -> None:
    from depthcli.backends.openvino import OpenVino, profile

    row = ROWS[name]
    backend = OpenVino(row, checkpoints[name], BackendChoice("openvino", precision="fp32"), False, print, count=True)
    nodes = profile(backend, {"image": picture(56, 84)}, runs=2)
    backend.close()
    assert {node.part for node in nodes} == {"depth"} and len({node.name for node in nodes}) == len(nodes)
    assert all(node.kernel and node.milliseconds >= 0 and node.bytes > 0 for node in nodes)
    assert nodes[-1].outputs[0][-2:] == (56, 84)
    config = row.network
    if isinstance(config, NetworkConfig):
        config = dataclasses.replace(config, depth=max(config.taps) + 1)  # later blocks are not run
    assert sum(node.flops for node in nodes) == pytest.approx(network_flops(config, 84, 56), rel=0.01)
