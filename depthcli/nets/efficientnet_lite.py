"""EfficientNet-Lite0 (Liu, 2020): a convolutional encoder, with its batch norms folded into the convolutions.

The stages of EfficientNet (Tan & Le, 2019, table 1) without squeeze-and-excite, with ReLU6. A stride of two pads all
sides, unlike TensorFlow's right and below: samples lie an element further up and left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first has the stride, the others a skip connection.

    expand: inner width over input width. channels: output width. tap: the head reads the output.
    """

    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int
    tap: bool = False


STEM = 32
STAGES: tuple[Stage, ...] = (
    Stage(1, 16, 1, 1, 3, tap=True),
    Stage(6, 24, 2, 2, 3, tap=True),
    Stage(6, 40, 2, 2, 5, tap=True),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5, tap=True),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3, tap=True),
)
TAP_CHANNELS = tuple(stage.channels for stage in STAGES if stage.tap)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups)


class InvertedResidual(nn.Module):
    """Expand, filter each channel alone, project; with a skip connection if the sizes allow."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = inputs * stage.expand
        self.expand = _conv(inputs, inside) if stage.expand > 1 else nn.Identity()
        self.depthwise = _conv(inside, inside, stage.kernel, stride, groups=inside)
        self.project = _conv(inside, stage.channels)
        self.activation = nn.ReLU6(inplace=True)
        self.widens = stage.expand > 1
        self.adds = stride == 1 and inputs == stage.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.activation(self.expand(x)) if self.widens else x
        out = self.project(self.activation(self.depthwise(inside)))
        return x + out if self.adds else out


class EfficientNetLite(nn.Module):
    """Normalised picture (B, 3, H, W) -> five maps (B, C, h, w) of 1/2, 1/4, 1/8, 1/16, 1/32 its size, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, STEM, 3, 2)
        self.activation = nn.ReLU6(inplace=True)
        self.stages = nn.ModuleList()
        channels = STEM
        for stage in STAGES:
            blocks = []
            for number in range(stage.blocks):
                blocks.append(InvertedResidual(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.activation(self.stem(x))
        maps = []
        for stage, blocks in zip(STAGES, self.stages):
            x = blocks(x)
            if stage.tap:
                maps.append(x)
        return maps
