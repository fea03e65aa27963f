"""The networks of a diffusion model, measured alone."""

from __future__ import annotations

import json

import pytest

from depthcli.bench.denoising import DenoisingBenchJob, run_denoising_benchmark
from depthcli.bench.rows import Denoising, Load, Machine, Roofline
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import UsageError
from depthcli.zoo.licences import check_licence
from depthcli.zoo.rows import DEPTHCRAFTER, find_row
from tests.reference_diffusion import write_weights

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers", reason="the extra `diffusion` is optional")
pytest.importorskip("accelerate", reason="the extra `diffusion` is optional")
TERA = 1e12


def test_the_published_networks_have_as_many_operations_as_others_counted():
    from torch._subclasses.fake_tensor import FakeTensorMode

    from depthcli.nets.depthcrafter import PARAMETERS, count_operations, random_networks

    with FakeTensorMode(), torch.no_grad():
        networks = random_networks(torch.float32)
        assert sum(p.numel() for module in networks.modules for p in module.parameters()) == PARAMETERS
        found = count_operations(networks, (1024, 576), 25, torch.float32, torch.device("cpu"))
    # Traced from the official code: 2.57 for a step of the UNet, 26 in all for a frame, as windows of 110 share 25.
    assert found["denoise"] == pytest.approx(2.57 * TERA, rel=0.01)
    whole = found["encode"] + 5 * 110 / 85 * found["denoise"] + found["decode"]
    assert whole == pytest.approx(26 * TERA, rel=0.02)


@pytest.fixture
def small(tmp_path, monkeypatch) -> ModelChoice:
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "cache"))
    return ModelChoice(DEPTHCRAFTER, checkpoint=write_weights(tmp_path / "hub"), accept_licence=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_network_is_a_row(small, precision):
    job = DenoisingBenchJob(small, BackendChoice(device="cpu", precision=precision), 64, frames=3, runs=1, warmup=0)
    rows = list(run_denoising_benchmark(job))
    machine, load = rows[0], rows[-1]
    assert isinstance(machine, Machine) and isinstance(load, Load) and machine.input_size == (64, 64)
    assert {row.precision for row in rows if isinstance(row, Roofline)} == {precision, "fp32"}
    networks = [row for row in rows if isinstance(row, Denoising)]
    assert [row.network for row in networks] == ["encode", "denoise", "decode"]
    assert [row.passes for row in networks] == [1, pytest.approx(5 * 110 / 85), 1]
    for row in networks:
        assert row.gflop_s == pytest.approx(1000 * row.tflop / row.seconds) and 0 < row.roofline < 2
        assert not row.random_weights and json.loads(row.to_json())["engine"].endswith(precision)


@pytest.mark.parametrize("wrong", [{"max_res": 0}, {"max_res": 63}, {"max_res": 8193}, {"frames": 0}, {"runs": 0}])
def test_what_measures_nothing_is_refused(wrong):
    with pytest.raises(UsageError):
        DenoisingBenchJob(**wrong)


def test_the_command_prints_a_table(small, depth):
    check_licence(find_row(DEPTHCRAFTER), accept=True)
    what = ("--video", "-m", DEPTHCRAFTER, "--checkpoint", small.checkpoint, "-d", "cpu")
    ran = depth("bench", *what, "--runs", 1, "--warmup", 0, "--input-size", 64, "--frames", 2)
    assert ran.code == 0, ran.err
    assert "of best product" in ran.out and "a frame of a long clip: " in ran.out
    ran = depth("bench", *what, "--backend", "onnx")
    assert ran.code == 2 and "onnx does not run depthcrafter" in ran.error
