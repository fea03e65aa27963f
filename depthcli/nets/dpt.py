"""The DPT head: reassembles four maps of tokens at four scales and fuses them from coarse to fine to one depth map.

Parameter names are those of the official checkpoints. The 1x1 `out_conv` of a fusion stage runs before the upsampling,
on a quarter of the pixels: both are linear and interpolation weights sum to one, so the two commute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.zoo.rows import PATCH, NetworkConfig

Resize = Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]


def bilinear(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return x at (height, width): bilinear with aligned corners, as everywhere in this head."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def size_of(x: torch.Tensor) -> tuple[int, int]:
    """Return a map's height and width as plain numbers, which become constants of a trace."""
    return int(x.shape[-2]), int(x.shape[-1])


def conv3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a padded 3x3 convolution."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=bias)


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, with a skip connection of the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, features)
        self.conv2 = conv3x3(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x)))) + x


class FusionStage(nn.Module):
    """Add a finer map to the coarse one, refine the sum, and resize it.

    outputs: channels of the result, by default those of the input. adds: whether there is a finer map.
    """

    def __init__(self, features: int, outputs: Optional[int] = None, adds: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, outputs or features, kernel_size=1)
        if adds:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(
        self, coarse: torch.Tensor, fine: Optional[torch.Tensor], size: tuple[int, int], resize: Resize = bilinear
    ) -> torch.Tensor:
        x = coarse if fine is None else coarse + self.resConfUnit1(fine)
        return resize(self.out_conv(self.resConfUnit2(x)), size)


def last_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Return the layers that predict from the finest map."""
    return nn.Sequential(conv3x3(inputs, 32), nn.ReLU(), nn.Conv2d(32, outputs, kernel_size=1))


class Scratch(nn.Module):
    """The part of the head that was not pretrained; the name is that of the checkpoints. outputs: of the last layer."""

    def __init__(self, config: NetworkConfig, outputs: int = 1) -> None:
        super().__init__()
        features = config.features
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            conv3x3(channels, features, bias=False) for channels in config.out_channels
        )
        self.refinenet1 = FusionStage(features)
        self.refinenet2 = FusionStage(features)
        self.refinenet3 = FusionStage(features)
        # The coarsest stage adds nothing, but checkpoints of Depth Anything V2 have its unused resConfUnit1.
        self.refinenet4 = FusionStage(features, adds=config.unused)
        self.output_conv1 = conv3x3(features, features // 2)
        self.output_conv2 = last_layers(features // 2, outputs)


class DPTHead(nn.Module):
    """Four maps (B, D, rows, cols) -> (B, 14 rows, 14 cols), before the last activation.

    outputs: of the last layer. grid: (rows, cols) as tensors, for a trace of any size. resize: for compilers without a
    bilinear resize.
    """

    def __init__(self, config: NetworkConfig, outputs: int = 1) -> None:
        super().__init__()
        c0, c1, _, c3 = config.out_channels
        self.projects = nn.ModuleList(nn.Conv2d(config.map_channels, c, kernel_size=1) for c in config.out_channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(c0, c0, kernel_size=4, stride=4),
                nn.ConvTranspose2d(c1, c1, kernel_size=2, stride=2),
                nn.Identity(),
                conv3x3(c3, c3, stride=2),
            ]
        )
        self.scratch = Scratch(config, outputs)

    def forward(
        self, maps: Sequence[torch.Tensor], grid: Optional[tuple[int, int]] = None, resize: Resize = bilinear
    ) -> torch.Tensor:
        levels = [self.reassemble(level, x) for level, x in enumerate(maps)]
        return self.fuse(levels, grid or size_of(maps[0]), resize)

    def fuse(self, levels: Sequence[torch.Tensor], grid: tuple[int, int], resize: Resize = bilinear) -> torch.Tensor:
        """Return (B, 14 rows, 14 cols) from the four reassembled maps."""
        rows, cols = grid
        scratch = self.scratch
        l1, l2, l3, l4 = levels
        x = scratch.refinenet4(scratch.layer4_rn(l4), None, (rows, cols), resize)
        x = scratch.refinenet3(x, scratch.layer3_rn(l3), (2 * rows, 2 * cols), resize)
        return self.predict(self.refine(x, l2, l1, (rows, cols), resize), (rows, cols), resize)

    def reassemble(self, level: int, x: torch.Tensor) -> torch.Tensor:
        """Return a map of tokens as one of pixels; levels 0 to 3 have 4, 2, 1 and 1/2 times the side of the grid."""
        return self.resize_layers[level](self.projects[level](x))

    def refine(
        self, x: torch.Tensor, l2: torch.Tensor, l1: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear
    ) -> torch.Tensor:
        """Run the two finest fusion stages: from twice to eight times the side of the patch grid."""
        rows, cols = grid
        scratch = self.scratch
        x = scratch.refinenet2(x, scratch.layer2_rn(l2), (4 * rows, 4 * cols), resize)
        return scratch.refinenet1(x, scratch.layer1_rn(l1), (8 * rows, 8 * cols), resize)

    def predict(self, x: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear) -> torch.Tensor:
        """Return (B, 14 rows, 14 cols) from the finest map."""
        return self.scratch.output_conv2(self.enlarge(x, grid, resize)).squeeze(1)

    def enlarge(self, x: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear) -> torch.Tensor:
        """Return the finest map (B, features / 2, 14 rows, 14 cols), from which the last layers predict."""
        rows, cols = grid
        return resize(self.scratch.output_conv1(x), (PATCH * rows, PATCH * cols))


class SkyHead(DPTHead):
    """The head of Depth Anything 3 for one picture: two maps (B, 14 rows, 14 cols), of depth and of sky.

    Both are before the last activation: exp for depth, ReLU for sky, which is at least 0.3 where there is sky.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.scratch.sky_output_conv2 = last_layers(config.features // 2, 1)

    def predict(  # type: ignore[override]
        self, x: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth and sky from the finest map."""
        x = self.enlarge(x, grid, resize)
        sky = self.scratch.sky_output_conv2
        assert isinstance(sky, nn.Module)
        return self.scratch.output_conv2(x).squeeze(1), sky(x).squeeze(1)
