"""The views of a scene as Depth Anything 3's official code computes them, for comparison in `depth bench`.

Arithmetic and cost are those of the official repository (revision 2c21ea8) in float32: positions are resized and the
codes of places made in every pass, rotary angles are looked up for every block, the branch of rays is computed with the
necks of all four levels and thrown away, the 1x1 convolution of a fusion stage runs after the upsampling, on four times
the pixels, eight views go through the head at once, and memory is channels first. Attention is torch's fused one there
too. The depth is that of our network to within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.geometry.reference_views import FEWEST_TO_CHOOSE, REFERENCES
from depthcli.graphs.official_form import fuse_last
from depthcli.nets.attention import attention
from depthcli.nets.cameras import to_matrices
from depthcli.nets.depth_anything_3 import DepthAnything3Views
from depthcli.nets.dpt import bilinear
from depthcli.nets.dual_dpt import DualHead
from depthcli.nets.views import reference_first
from depthcli.nets.vit import Block, interpolate_positions
from depthcli.pixels.codes import PLACE_BASE, PLACE_SHARE, ROTATION_BASE
from depthcli.zoo.rows import PATCH

_AT_ONCE = 8


class OfficialViewsForm(nn.Module):
    """Normalised views (V, 3, H, W) -> depth (V, H, W), as `network` without known cameras."""

    def __init__(self, network: DepthAnything3Views) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        size = int(views.shape[-2]), int(views.shape[-1])
        maps, pose = self._encode(views)
        starts = range(0, len(views), _AT_ONCE)
        depth = [self._head(self.network.head, [x[i : i + _AT_ONCE] for x in maps], size) for i in starts]
        to_matrices(self.network.cam_dec(pose), size)
        return torch.cat(depth)

    def _encode(self, views: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        vit, count = self.network.pretrained, len(views)
        rows, cols = views.shape[-2] // PATCH, views.shape[-1] // PATCH
        x = vit.patch_embed(views)
        x = torch.cat([vit.cls_token.expand(count, -1, -1), x], dim=1) + interpolate_positions(
            vit.pos_embed, rows, cols
        )
        tokens, order, within = x.shape[1], list(range(count)), x
        grid = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)) + 1
        alone = torch.cat([torch.zeros(1, 2, dtype=grid.dtype), grid]).expand(count, -1, -1).clone()
        across = torch.cat([torch.zeros(1, 2, dtype=grid.dtype), torch.ones_like(grid)]).expand(count, -1, -1)
        across = across.reshape(1, count * tokens, 2)
        maps, pose = [], x[:, 0]
        for index, block in enumerate(vit.blocks):
            assert isinstance(block, Block)
            if index == vit.views_from - 1 and count >= FEWEST_TO_CHOOSE:
                order = reference_first(REFERENCES["saddle_balanced"](x[:, 0].numpy()), count)
                x = x[order]
            if index == vit.views_from:
                first = torch.cat([vit.camera_token[:, :1], vit.camera_token[:, 1:].expand(-1, count - 1, -1)], dim=1)
                x[:, 0] = first[0]
            if index >= vit.views_from and index % 2 == 1:
                x = _block(block, x.reshape(1, count * tokens, -1), across).reshape(count, tokens, -1)
            else:
                x = within = _block(block, x, alone if index >= vit.views_from else None)
            if index in vit.taps:
                back = torch.cat([within, x], dim=-1)[[order.index(view) for view in range(count)]]
                half = x.shape[-1]
                maps.append(torch.cat([back[..., :half], vit.norm(back[..., half:])], dim=-1)[:, 1:])
                pose = back[:, 0]
        return maps, pose

    def _head(self, head: DualHead, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        height, width = size
        rows, cols, scratch, aspect = height // PATCH, width // PATCH, head.scratch, width / height
        levels = []
        for number, tokens in enumerate(maps):
            x = head.norm(tokens).permute(0, 2, 1).reshape(len(tokens), -1, rows, cols)
            x = head.resize_layers[number](_with_places(head.projects[number](x), aspect))
            levels.append(getattr(scratch, f"layer{number + 1}_rn")(x))
        sizes = [(int(x.shape[-2]), int(x.shape[-1])) for x in levels[:3]]
        goals = [(2 * sizes[0][0], 2 * sizes[0][1]), *sizes]
        chains = {"": levels[3], "_aux": levels[3]}
        aux = []
        for number in (3, 2, 1, 0):
            for name in chains:
                stage, fine = getattr(scratch, f"refinenet{number + 1}{name}"), None if number == 3 else levels[number]
                chains[name] = fuse_last(stage, chains[name], fine, goals[number])
            aux.append(chains["_aux"])
        x = scratch.output_conv1(chains[""])
        necks, layers = scratch.output_conv1_aux, scratch.output_conv2_aux
        assert isinstance(necks, nn.ModuleList) and isinstance(layers, nn.ModuleList)
        rays = [neck(each) for neck, each in zip(necks, aux)][-1]
        x = scratch.output_conv2(_with_places(bilinear(x, size), aspect))
        depth = torch.exp(x[:, 0])
        torch.exp(x[:, 1]) + 1
        shared, last = list(layers[0].children()), list(layers[-1].children())
        found = last[0](_with_places(rays, aspect))
        found = last[5](torch.relu(shared[2](found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        torch.exp(found[:, -1]) + 1
        return depth


def _block(block: Block, x: torch.Tensor, positions: Optional[torch.Tensor]) -> torch.Tensor:
    layer, y = block.attn, block.norm1(x)
    B, N, D = y.shape
    q, k, v = layer.qkv(y).reshape(B, N, 3, layer.heads, D // layer.heads).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = layer.q_norm(q), layer.k_norm(k)
    if positions is not None:
        q, k = _turned(q, positions), _turned(k, positions)
    x = x + block.ls1(layer.proj(attention(q, k, v).transpose(1, 2).reshape(B, N, D)))
    return x + block.ls2(block.mlp(block.norm2(x)))


def _turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Turn the halves of the channels by rows and by columns; the table of angles is small and cached there."""
    half = x.shape[-1] // 2
    frequencies = 1.0 / ROTATION_BASE ** (torch.arange(0, half, 2).float() / half)
    angles = torch.arange(int(positions.max()) + 1).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    parts = []
    for axis, part in enumerate(x.chunk(2, dim=-1)):
        cos, sin = (F.embedding(positions[..., axis], table)[:, None] for table in (angles.cos(), angles.sin()))
        a, b = part.chunk(2, dim=-1)
        parts.append(part * cos + torch.cat([-b, a], dim=-1) * sin)
    return torch.cat(parts, dim=-1)


def _with_places(x: torch.Tensor, aspect: float) -> torch.Tensor:
    """Add the codes of places, made for every pixel and every channel."""
    channels, height, width = (int(side) for side in x.shape[1:])
    diagonal = (aspect**2 + 1) ** 0.5
    spans = (aspect / diagonal * (width - 1) / width, 1 / diagonal * (height - 1) / height)
    u, v = (torch.linspace(-span, span, count) for span, count in zip(spans, (width, height)))
    across, down = torch.meshgrid(u, v, indexing="xy")
    quarter = channels // 4
    frequencies = 1.0 / PLACE_BASE ** (torch.arange(quarter).float() / quarter)
    codes = []
    for places in (across, down):
        angles = places.reshape(-1)[:, None] * frequencies
        codes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    code = torch.cat(codes, dim=-1).reshape(height, width, channels) * PLACE_SHARE
    return x + code.permute(2, 0, 1)[None].expand(len(x), -1, -1, -1)
