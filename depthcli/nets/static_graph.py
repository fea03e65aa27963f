"""A network's forward pass for one batch and one size of input, as compilers and exporters want it.

The same numbers as the readable network, to within rounding: blocks are folded, positions are computed once and become
constants, and every size is a number, so that a trace holds no arithmetic on shapes. All of it follows from weights
that no longer change. Engines that take any size have any_size.py instead.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from depthcli.errors import UsageError
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.folded import FoldedBlock
from depthcli.nets.vit import Block, VisionTransformer
from depthcli.zoo import PATCH


def static_network(network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED) -> nn.Module:
    """Return a module that maps (batch, 3, height, width) to (batch, height, width) as `network` does.

    It raises ValueError for a picture of any other size. Weights that need no change are shared with `network`.
    fused: leave attention to torch's fused operation, which some exporters know; otherwise it is two products and a
    softmax. Raises UsageError for a size that is no multiple of 14.
    """
    if batch < 1 or height < PATCH or width < PATCH or height % PATCH or width % PATCH:
        raise UsageError(f"a network input of {batch}x{height}x{width} cannot be", f"sides are multiples of {PATCH}")
    if isinstance(network, DepthAnythingV2):
        network = _StaticDepthAnything(network, batch, height, width, fused)
    # In a network of convolutions there is nothing to fold.
    return _OneSize(network, (batch, 3, height, width))


def trace(network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED) -> torch.jit.ScriptModule:
    """Return `static_network` as a traced graph without arithmetic on shapes. Errors as there.

    A trace checks no sizes, and one for a landscape takes a portrait of as many patches and gives a wrong answer: who
    runs it has to compare the sizes first.
    """
    module = static_network(network, batch, height, width, fused)
    device = next(module.parameters()).device
    with torch.no_grad(), warnings.catch_warnings():
        # The heads read their sizes as plain numbers, which is what we want; torch 2.13 would have us export, which
        # torch 1.13 cannot.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", r".*torch\.jit\.trace.* is deprecated", DeprecationWarning)
        picture = torch.zeros(batch, 3, height, width, device=device)
        traced: torch.jit.ScriptModule = torch.jit.trace(module, picture, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


class _OneSize(nn.Module):
    def __init__(self, network: nn.Module, size: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if tuple(map(int, x.shape)) != self.size:
            raise ValueError(f"an input of {tuple(x.shape)} for a network of {self.size}")
        depth: torch.Tensor = self.network(x)
        return depth


class _StaticDepthAnything(nn.Module):
    def __init__(self, network: DepthAnythingV2, batch: int, height: int, width: int, fused: bool) -> None:
        super().__init__()
        self.encoder = _StaticEncoder(network.pretrained, batch, height // PATCH, width // PATCH, fused)
        self.depth_head = network.depth_head
        self.metric = network.metric

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth_head(self.encoder(x))
        return torch.sigmoid(x) if self.metric else torch.relu(x)


class _StaticEncoder(nn.Module):
    first: torch.Tensor
    positions: torch.Tensor

    def __init__(self, vit: VisionTransformer, batch: int, rows: int, cols: int, fused: bool) -> None:
        super().__init__()
        dim = vit.cls_token.shape[-1]
        tokens = 1 + rows * cols
        positions = vit.positions(rows, cols).detach()
        self.grid = (batch, dim, rows, cols)
        self.patches = (batch, dim, rows * cols)
        self.taps = vit.taps
        self.project = vit.patch_embed.proj
        self.register_buffer("first", (vit.cls_token.detach() + positions[:, :1]).expand(batch, -1, -1).clone())
        self.register_buffer("positions", positions[:, 1:].clone())
        # What follows the last tapped block is never read.
        blocks = [block for block in vit.blocks if isinstance(block, Block)][: max(vit.taps) + 1]
        self.blocks = nn.ModuleList(FoldedBlock(block, batch, tokens, fused) for block in blocks)
        self.norm = vit.norm

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.project(x).reshape(self.patches).permute(0, 2, 1) + self.positions
        x = torch.cat([self.first, x], dim=1)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(self.norm(x)[:, 1:].permute(0, 2, 1).reshape(self.grid))
        return maps
