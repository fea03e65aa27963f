"""Depth Anything V2 (Yang et al., 2024): a DINOv2 encoder, a DPT head, and a last activation."""

from __future__ import annotations

import torch
from torch import nn

from depthcli.nets.dpt import DPTHead
from depthcli.nets.vit import VisionTransformer
from depthcli.zoo.rows import NetworkConfig


class DepthAnythingV2(nn.Module):
    """Normalised picture (B, 3, H, W), H and W multiples of 14 -> (B, H, W).

    Relative: disparity >= 0, large is near. Metric: depth as a fraction 0 to 1 of the row's max_depth, large is far.
    """

    def __init__(self, config: NetworkConfig, metric: bool) -> None:
        super().__init__()
        self.metric = metric
        self.pretrained = VisionTransformer(config)
        self.depth_head = DPTHead(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activate(self.depth_head(self.pretrained(x)))

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the answer for what the head gives."""
        return torch.sigmoid(x) if self.metric else torch.relu(x)
