"""Operations counted from a network's sizes are those that torch counts while the network runs."""

from __future__ import annotations

import pytest
import torch

from depthcli.bench.flops import encoder_flops, head_flops, network_flops
from depthcli.nets import vit
from depthcli.nets.attention import plain_attention
from depthcli.nets.build import build_network
from depthcli.zoo.rows import NETWORKS, AnyConfig, LiteConfig, NetworkConfig, find_row

CONFIGS: dict[str, AnyConfig] = {
    "vit": NetworkConfig(32, 5, 2, 16, (8, 12, 16, 20), (0, 1, 2, 4), position_grid=4),
    "giant": NetworkConfig(48, 4, 3, 24, (8, 12, 16, 20), (0, 1, 2, 3), swiglu=True, position_grid=4),
    "lite": LiteConfig(16),
    "tiny": find_row("tiny").network,
}


@pytest.mark.parametrize("size", [(56, 56), (42, 70), (14, 14)])
@pytest.mark.parametrize("name", CONFIGS)
def test_they_are_those_that_torch_counts(monkeypatch, name, size):
    counter = pytest.importorskip("torch.utils.flop_counter")
    monkeypatch.setattr(vit, "attention", plain_attention)  # the fused one is not counted on a CPU
    network = build_network(CONFIGS[name]).eval()
    width, height = size
    with torch.no_grad(), counter.FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, 3, height, width))
    assert network_flops(CONFIGS[name], width, height) == counted.get_total_flops()


def test_the_parts_are_the_whole_and_the_small_model_is_what_is_known_of_it():
    config = NETWORKS["vits"]
    assert isinstance(config, NetworkConfig)
    encoder, head = encoder_flops(config, 518, 518), head_flops(config, 518, 518)
    assert encoder + head == network_flops(config, 518, 518)
    # By hand: 1370 tokens, 12 blocks of 12 D^2 weights, attention, and the patches.
    assert encoder == 2 * 1370 * 12 * 12 * 384**2 + 12 * 4 * 1370**2 * 384 + 2 * 1369 * 384 * 588
