"""The packaged small network: an EfficientNet-Lite encoder and the fusion stages of a DPT head.

After MiDaS v2.1 small (Ranftl et al., 2020): finer edges than a transformer of its size, and only convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import nn
from torch.nn import functional as F

from depthcli.nets.dpt import FusionStage, bilinear, conv3x3, size_of
from depthcli.nets.efficientnet_lite import TAP_CHANNELS, EfficientNetLite
from depthcli.zoo.rows import LiteConfig


class FusionHead(nn.Module):
    """Five maps (sizes) from 1/2 to 1/32 of the input -> (B, 1, h, w) at 1/2, before the last activation."""

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.narrow = nn.ModuleList(
            conv3x3(channels, half if number == 0 else features, bias=False)
            for number, channels in enumerate(TAP_CHANNELS)
        )
        # The finest stage outputs half of the channels, as each is expensive at that size.
        self.fuse = nn.ModuleList(
            [
                FusionStage(features, half),
                FusionStage(features),
                FusionStage(features),
                FusionStage(features, adds=False),
            ]
        )
        self.predict = nn.Sequential(nn.ReLU(), conv3x3(half, half // 2), nn.ReLU(), nn.Conv2d(half // 2, 1, 1))

    def forward(self, maps: list[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        size2, size4, size8, size16, _ = sizes
        m2, m4, m8, m16, m32 = (narrow(x) for narrow, x in zip(self.narrow, maps))
        to2, to4, to8, to16 = self.fuse
        x = to16(m32, None, size16)
        x = to8(x, m16, size8)
        x = to4(x, m8, size4)
        x = to2(x, m4, size2)
        return self.predict(x + m2)


class LiteDepth(nn.Module):
    """Normalised picture (B, 3, H, W) -> (B, H, W). size: (H, W) in a trace.

    Relative: disparity >= 0, large is near. Metric: depth as a fraction 0 to 1 of the row's max_depth, large is far.
    """

    def __init__(self, config: LiteConfig, metric: bool = False) -> None:
        super().__init__()
        self.metric = metric
        self.encoder = EfficientNetLite()
        self.depth_head = FusionHead(config.features)

    def forward(self, x: torch.Tensor, size: Optional[tuple[int, int]] = None) -> torch.Tensor:
        size = size or size_of(x)
        # In half precision the resize would repeat a few hundred values.
        answer = bilinear(self.depth_head(self.encoder(x), _halvings(size)).float(), size)[:, 0]
        if not self.metric:
            return torch.relu(answer)
        # The head answers disparity in both forms: weights of the relative one are a start for the metric one.
        return torch.reciprocal(1 + F.softplus(answer))


def _halvings(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes of the encoder's five maps, halved and rounded up."""
    sizes = []
    for _ in TAP_CHANNELS:
        size = (size[0] + 1) // 2, (size[1] + 1) // 2
        sizes.append(size)
    return sizes
