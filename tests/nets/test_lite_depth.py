"""The packaged small network: sizes as published, any size of picture, every weight in use."""

from __future__ import annotations

import pytest
import torch

from depthcli.nets.build import build_network
from depthcli.nets.efficientnet_lite import STAGES, EfficientNetLite
from depthcli.zoo.rows import LiteConfig
from tests.reference import reference_state


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    network = build_network(LiteConfig(16)).eval()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict({name: torch.from_numpy(value) for name, value in reference_state(shapes).items()})
    return network


def test_the_encoder_has_the_published_size() -> None:
    """EfficientNet-Lite0 has 4,652,008 parameters, with head, classifier, and two for each batch-normed channel."""
    classifier, head = 1280 * 1000 + 1000, 320 * 1280 + 2 * 1280
    encoder = EfficientNetLite()
    normed = sum(module.out_channels for module in encoder.modules() if isinstance(module, torch.nn.Conv2d))
    assert sum(p.numel() for p in encoder.parameters()) == 4_652_008 - classifier - head - normed
    assert sum(stage.blocks for stage in STAGES) == 16


@pytest.mark.parametrize("size", [(126, 168), (98, 70), (14, 14), (112, 266)])
def test_the_answer_has_the_size_of_the_picture(network: torch.nn.Module, size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size) * 4 - 2
    with torch.no_grad():
        maps = network.encoder(picture)
        depth = network(picture)
    for halvings, found in enumerate(maps, start=1):
        assert tuple(found.shape[-2:]) == tuple(-(-side // 2**halvings) for side in size)
    assert depth.shape == (1, *size) and depth.min() >= 0 and depth.std() > 0


def test_a_picture_gets_the_same_answer_alone_and_in_a_batch(network: torch.nn.Module) -> None:
    torch.manual_seed(1)
    pictures = torch.randn(3, 3, 56, 84)
    with torch.no_grad():
        together = network(pictures)
        alone = torch.cat([network(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


def test_every_weight_takes_part() -> None:
    torch.manual_seed(2)
    network = build_network(LiteConfig(16))
    torch.nn.init.constant_(network.depth_head.predict[-1].bias, 3.0)
    network(torch.randn(2, 3, 70, 70)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle
