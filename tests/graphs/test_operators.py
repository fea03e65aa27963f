"""The graph for AWS Inf1 holds nothing that its converter does not list; the readable network does, and is caught."""

from __future__ import annotations

import sys
import types
import warnings

import pytest
import torch

from depthcli.graphs.jit import quiet_jit
from depthcli.graphs.operators import inf1_operators, operators_of
from depthcli.graphs.resize_matrices import MatrixResize, resize_matrix
from depthcli.graphs.static import static_network, trace
from depthcli.nets.build import build_network
from depthcli.zoo.rows import find_row
from tests.graphs.test_static import network

# All that a transformer for Inf1 may be made of: far less than the converter lists.
FEW = {
    f"aten::{name}"
    for name in "_convolution reshape permute add cat layer_norm linear transpose matmul softmax gelu slice relu "
    "squeeze silu mul sigmoid".split()
}


@pytest.mark.parametrize("name", ["vit", "giant"])
@pytest.mark.parametrize("size", [(1, 56, 56), (2, 70, 42), (1, 42, 98)])
def test_every_operator_is_listed_and_one_of_the_few(name: str, size: tuple[int, int, int]) -> None:
    found = set(operators_of(trace(network(name), *size, False, MatrixResize(snap=True))))
    assert found <= inf1_operators()
    assert {operator for operator in found if not operator.startswith("prim::")} <= FEW


def test_the_readable_network_is_caught_by_its_bicubic_resize() -> None:
    readable = build_network(find_row("vits").network).eval()
    with torch.no_grad(), quiet_jit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that become constants
        traced = torch.jit.trace(readable, torch.zeros(1, 3, 140, 196), check_trace=False)
    assert "aten::upsample_bicubic2d" in set(operators_of(traced)) - inf1_operators()


@pytest.mark.parametrize("size", [(1, 56, 56), (2, 70, 42)])
def test_resizes_by_matrices_are_the_resizes(size: tuple[int, int, int]) -> None:
    source = network("vit")
    image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = source(image)
        exact, snapped = (static_network(source, *size, False, MatrixResize(snap))(image) for snap in (False, True))
    assert (exact - wanted).abs().max() <= 1e-5 * wanted.max()
    assert 0 < (snapped - wanted).abs().mean() < 0.01 * wanted.std()


@pytest.mark.parametrize(("few", "many"), [(1, 5), (19, 37), (37, 74), (74, 148), (148, 296), (296, 518), (528, 924)])
def test_snapped_weights_are_exact_in_bfloat16_and_sum_to_one(few: int, many: int) -> None:
    snapped, plain = (resize_matrix(few, many, snap) for snap in (True, False))
    assert torch.equal(snapped, snapped.bfloat16().float()) and torch.equal(snapped.sum(dim=1), torch.ones(many))
    assert (snapped - plain).abs().max() <= 1 / 512 + 1e-6


def test_the_installed_converter_has_the_last_word(monkeypatch) -> None:
    fake = types.ModuleType("torch_neuron")
    fake.get_supported_operations = lambda: ["aten::add"]
    monkeypatch.setitem(sys.modules, "torch_neuron", fake)
    assert inf1_operators() == {"aten::add"}
