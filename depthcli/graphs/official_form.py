"""Depth Anything V2 as its official code computes it, for comparison in `depth bench`.

Arithmetic and cost are those of the official repository (revision a561b849) without xformers: attention holds the whole
table of scores, positions are resized in every pass, the 1x1 convolution of a fusion stage runs after the upsampling,
on four times the pixels, and memory is channels first. The depth is that of our network to within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import nn

from depthcli.nets.attention import fused_attention, plain_attention
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.dpt import DPTHead, FusionStage, bilinear, size_of
from depthcli.nets.vit import Attention, Block, VisionTransformer, interpolate_positions
from depthcli.zoo.rows import PATCH


class OfficialForm(nn.Module):
    """Normalised picture (B, 3, H, W) -> depth (B, H, W), as `network`. fused: a frequent change by users."""

    def __init__(self, network: DepthAnythingV2, fused: bool = False) -> None:
        super().__init__()
        self.network = network
        self.attention = fused_attention if fused else plain_attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._head(self.network.depth_head, self._maps(self.network.pretrained, x))
        return torch.sigmoid(x) if self.network.metric else torch.relu(x)

    def _maps(self, vit: VisionTransformer, x: torch.Tensor) -> list[torch.Tensor]:
        B, _, H, W = x.shape
        rows, cols = H // PATCH, W // PATCH
        x = vit.patch_embed(x)
        x = torch.cat([vit.cls_token.expand(B, -1, -1), x], dim=1)
        x = x + interpolate_positions(vit.pos_embed, rows, cols)
        tapped = []
        for index, block in enumerate(vit.blocks):
            x = self._block(block, x)  # type: ignore[arg-type]
            if index in vit.taps:
                tapped.append(x)
        return [vit.norm(x)[:, 1:].permute(0, 2, 1).reshape(B, -1, rows, cols) for x in tapped]

    def _block(self, block: Block, x: torch.Tensor) -> torch.Tensor:
        x = x + block.ls1(self._attend(block.attn, block.norm1(x)))
        return x + block.ls2(block.mlp(block.norm2(x)))

    def _attend(self, layer: Attention, x: torch.Tensor) -> torch.Tensor:
        B, N, D = x.shape
        q, k, v = layer.qkv(x).reshape(B, N, 3, layer.heads, D // layer.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return layer.proj(self.attention(q, k, v).transpose(1, 2).reshape(B, N, D))

    def _head(self, head: DPTHead, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        rows, cols = size_of(maps[0])
        scratch = head.scratch
        l1, l2, l3, l4 = (up(project(x)) for x, project, up in zip(maps, head.projects, head.resize_layers))
        l1, l2, l3, l4 = scratch.layer1_rn(l1), scratch.layer2_rn(l2), scratch.layer3_rn(l3), scratch.layer4_rn(l4)
        x = fuse_last(scratch.refinenet4, l4, None, (rows, cols))
        x = fuse_last(scratch.refinenet3, x, l3, (2 * rows, 2 * cols))
        x = fuse_last(scratch.refinenet2, x, l2, (4 * rows, 4 * cols))
        x = fuse_last(scratch.refinenet1, x, l1, (8 * rows, 8 * cols))
        x = bilinear(scratch.output_conv1(x), (PATCH * rows, PATCH * cols))
        return scratch.output_conv2(x).squeeze(1)


def fuse_last(
    stage: FusionStage, coarse: torch.Tensor, fine: Optional[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    """Run a fusion stage whose 1x1 convolution comes last."""
    x = coarse if fine is None else coarse + stage.resConfUnit1(fine)
    return stage.out_conv(bilinear(stage.resConfUnit2(x), size))
