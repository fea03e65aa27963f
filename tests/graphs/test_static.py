"""The static graph gives the readable network's numbers, and its trace holds nothing that an exporter trips over."""

from __future__ import annotations

import pytest
import torch

from depthcli.errors import UsageError
from depthcli.graphs.operators import inf1_operators, operators_of
from depthcli.graphs.resize_matrices import MatrixResize
from depthcli.graphs.static import static_network, trace
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import build_network
from depthcli.nets.dpt import Resize, bilinear
from depthcli.zoo.rows import AnyConfig, LiteConfig, NetworkConfig
from tests.nets import da3
from tests.reference import reference_state

NETWORKS: dict[str, AnyConfig] = {
    "vit": NetworkConfig(32, 5, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), position_grid=4),
    "giant": NetworkConfig(32, 4, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), swiglu=True, position_grid=4),
    "lite": LiteConfig(16),
}
# What every exporter knows. Nothing that asks for a size, and no bicubic resize.
KNOWN = set(
    "_convolution reshape permute add cat layer_norm linear transpose matmul softmax gelu silu mul slice relu"
    " relu_ squeeze select hardtanh hardtanh_ relu6 relu6_ sigmoid to upsample_bilinear2d"
    " scaled_dot_product_attention".split()
)
ATTENTIONS = (True, False) if HAS_FUSED else (False,)


def network(name: str, metric: bool = False) -> torch.nn.Module:
    network = build_network(NETWORKS[name], metric).eval()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    network.load_state_dict({key: torch.from_numpy(value) for key, value in reference_state(shapes).items()})
    return network


@pytest.mark.parametrize("fused", ATTENTIONS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 56, 56), (2, 70, 42)])
def test_it_says_what_the_readable_network_says(name: str, size: tuple[int, int, int], fused: bool) -> None:
    source = network(name)
    picture = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad():
        wanted = source(picture)
        for module in (static_network(source, *size, fused=fused), trace(source, *size, fused=fused)):
            assert (module(picture) - wanted).abs().max() <= 1e-5 * wanted.max()
    assert wanted.std() > 0


def test_a_metric_network_keeps_its_range() -> None:
    source = network("vit", metric=True)
    picture = torch.randn(1, 3, 56, 70)
    with torch.no_grad():
        assert torch.allclose(static_network(source, 1, 56, 70)(picture), source(picture), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trace_holds_no_arithmetic_on_shapes(name: str) -> None:
    graph = trace(network(name), 1, 70, 42).inlined_graph
    operations = {node.kind().split("::")[1] for node in graph.nodes() if node.kind().startswith("aten::")}
    assert operations <= KNOWN, operations - KNOWN


@pytest.mark.parametrize("name", NETWORKS)
def test_another_size_fails_and_gives_no_wrong_picture(name: str) -> None:
    module = static_network(network(name), 1, 56, 70)
    for size in ((1, 3, 70, 56), (1, 3, 70, 70), (2, 3, 56, 70)):
        with pytest.raises(ValueError, match=r"for a network of \(1, 3, 56, 70\)"):
            module(torch.zeros(size))


def test_sizes_that_are_no_multiples_of_a_patch_are_refused() -> None:
    for size in ((1, 50, 70), (1, 56, 0), (0, 56, 70)):
        with pytest.raises(UsageError, match="multiples of 14"):
            static_network(network("vit"), *size)


def test_the_readable_network_is_left_as_it_was() -> None:
    source = network("vit")
    before = {key: value.clone() for key, value in source.state_dict().items()}
    static_network(source, 1, 56, 56)
    assert all(torch.equal(before[key], value) for key, value in source.state_dict().items())


def test_networks_for_scenes_are_refused() -> None:
    with pytest.raises(UsageError, match="networks for scenes cannot be compiled"):
        static_network(da3.network("views"), 1, 28, 42)


@pytest.mark.parametrize("fused", ATTENTIONS)
@pytest.mark.parametrize("resize", [bilinear, MatrixResize(snap=False)])
def test_a_network_with_two_outputs_gives_both_in_one_tensor(resize: Resize, fused: bool) -> None:
    source, picture = da3.network("mono"), da3.views(2)
    with torch.no_grad():
        depth, sky = source(picture)
        traced = trace(source, 2, 28, 42, fused=fused, resize=resize)
        found = traced(picture)
    assert found.shape == (2, 2, 28, 42) and sky.std() > 0
    assert (found[:, 0] - depth).abs().max() <= 1e-5 * depth.max()
    assert (found[:, 1] - sky).abs().max() <= 1e-5 * sky.max()
    if not fused:
        assert set(operators_of(traced)) - inf1_operators() <= {"aten::upsample_bilinear2d"}
