from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from depthcli.nets import attention as attentions
from depthcli.nets.build import build_network
from depthcli.nets.dpt import FusionStage, bilinear
from depthcli.nets.vit import interpolate_positions
from depthcli.zoo.rows import NetworkConfig

SMALL = NetworkConfig(32, 4, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), position_grid=4)


def test_fused_and_plain_attention_agree() -> None:
    if not attentions.HAS_FUSED:
        assert attentions.attention is attentions.plain_attention
        return
    assert attentions.attention is attentions.fused_attention
    q, k, v = torch.randn(3, 2, 6, 197, 64, generator=torch.Generator().manual_seed(0)).unbind(0)
    plain, fused = attentions.plain_attention(q, k, v), attentions.fused_attention(q, k, v)
    assert (plain - fused).abs().max() <= 2e-6


def test_plain_attention_is_the_formula() -> None:
    q, k, v = torch.randn(3, 1, 1, 5, 4, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    wanted = torch.zeros(5, 4, dtype=torch.float64)
    for i in range(5):
        weights = torch.exp(torch.tensor([float(q[0, 0, i] @ k[0, 0, j]) / 2 for j in range(5)]).double())
        wanted[i] = sum(w * v[0, 0, j] for j, w in enumerate(weights)) / weights.sum()
    assert torch.allclose(attentions.plain_attention(q, k, v)[0, 0], wanted, atol=1e-7)


def test_the_trained_grid_is_used_as_it_is() -> None:
    positions = torch.randn(1, 17, 8)
    assert interpolate_positions(positions, 4, 4) is positions


def test_other_grids_are_interpolated_at_the_offset_scale() -> None:
    positions = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    found = interpolate_positions(positions, 6, 3)
    assert found.shape == (1, 19, 8)
    assert torch.equal(found[:, :1], positions[:, :1])  # the class token's position has no place in the grid
    grid = positions[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    by_size = F.interpolate(grid, size=(6, 3), mode="bicubic").flatten(2).transpose(1, 2)
    assert not torch.allclose(found[:, 1:], by_size, atol=1e-4)  # the offset of 0.1 is not nothing


def test_positions_are_computed_once_per_shape_and_forgotten_when_weights_may_change() -> None:
    encoder = build_network(SMALL).pretrained.eval()
    first = encoder.positions(3, 5)
    assert encoder.positions(3, 5) is first
    for rows in range(2, 14):
        encoder.positions(rows, 2)
    assert len(encoder._positions) <= 8
    encoder.train().eval()
    with torch.no_grad():
        encoder.pos_embed.add_(1)
    assert torch.allclose(encoder.positions(3, 5), first + 1, atol=1e-5)


def test_positions_learn() -> None:
    network = build_network(SMALL, metric=True).train()
    network(torch.randn(1, 3, 42, 70)).sum().backward()
    assert network.pretrained.pos_embed.grad is not None and network.pretrained.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(14, 14), (28, 70), (56, 56), (98, 14)])
def test_output_has_the_size_of_the_input(size: tuple[int, int]) -> None:
    network = build_network(SMALL).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, *size)).shape == (2, *size)


def test_channels_last_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    picture = torch.randn(1, 3, 56, 42)
    with torch.no_grad():
        plain = network(picture)
        network.depth_head.to(memory_format=torch.channels_last)
        assert torch.allclose(network(picture), plain, atol=1e-5 * float(plain.abs().max()) + 1e-7)


def test_projecting_before_upsampling_is_the_same() -> None:
    torch.manual_seed(0)
    stage = FusionStage(8).eval()
    coarse = torch.randn(1, 8, 5, 7)
    with torch.no_grad():
        after = stage.out_conv(bilinear(stage.resConfUnit2(coarse), (10, 14)))
        assert torch.allclose(stage(coarse, None, (10, 14)), after, atol=1e-5)


def test_relative_answers_are_not_negative_and_metric_ones_are_fractions() -> None:
    torch.manual_seed(0)
    picture = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        assert build_network(SMALL).eval()(picture).min() >= 0
        fraction = build_network(SMALL, metric=True).eval()(picture)
    assert 0 < fraction.min() and fraction.max() < 1
