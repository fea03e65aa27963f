"""A network's forward pass for one batch and one size of input, as compilers and exporters want it.

The same numbers as the readable network, to within rounding: blocks are folded, positions are computed once and become
constants, and every size is a number, so that a trace holds no arithmetic on shapes. All of it follows from weights
that no longer change. Engines that take any size have any_size.py instead.
"""

from __future__ import annotations

import torch
from torch import nn

from depthcli.errors import UsageError
from depthcli.graphs.folded import FoldedBlock
from depthcli.graphs.jit import quiet_jit, quiet_trace
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.dpt import Resize, bilinear
from depthcli.nets.vit import Block, VisionTransformer
from depthcli.zoo.rows import PATCH


def static_network(
    network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED, resize: Resize = bilinear
) -> nn.Module:
    """Return a module that maps (batch, 3, height, width) to (batch, height, width) as `network` does.

    It raises ValueError for a picture of any other size. Weights that need no change are shared with `network`.
    fused: leave attention to torch's fused operation, which some exporters know; otherwise it is two products and a
    softmax. resize: how the head's maps get larger. Raises UsageError for a size that is no multiple of 14.
    """
    if batch < 1 or height < PATCH or width < PATCH or height % PATCH or width % PATCH:
        raise UsageError(f"a network input of {batch}x{height}x{width} cannot be", f"sides are multiples of {PATCH}")
    if isinstance(network, DepthAnythingV2):
        network = _StaticDepthAnything(network, batch, height, width, fused, resize)
    # In a network of convolutions there is nothing to fold.
    return _OneSize(network, (batch, 3, height, width))


def trace(
    network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED, resize: Resize = bilinear
) -> torch.jit.ScriptModule:
    """Return `static_network` as a traced graph without arithmetic on shapes. Errors as there.

    A trace checks no sizes, and one for a landscape takes a portrait of as many patches and gives a wrong answer: who
    runs it has to compare the sizes first.
    """
    module = static_network(network, batch, height, width, fused, resize)
    device = next(module.parameters()).device
    with torch.no_grad(), quiet_trace():
        picture = torch.zeros(batch, 3, height, width, device=device)
        if resize is not bilinear:
            module(picture)  # what it makes for each size is made by then and is a constant of the trace
        traced: torch.jit.ScriptModule = torch.jit.trace(module, picture, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def guarded(traced: torch.jit.ScriptModule, batch: int, height: int, width: int) -> torch.jit.ScriptModule:
    """Return a trace behind a comparison of sizes, as part of the graph: ValueError for any other picture."""
    with quiet_jit():
        script: torch.jit.ScriptModule = torch.jit.script(_Guard(traced, [batch, 3, height, width]))
    return script


class _Guard(nn.Module):
    def __init__(self, traced: torch.jit.ScriptModule, size: list[int]) -> None:
        super().__init__()
        self.traced, self.size = traced, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if list(x.shape) != self.size:
            raise ValueError("this network was compiled for an input of " + str(self.size) + ", not " + str(x.shape))
        depth: torch.Tensor = self.traced(x)
        return depth


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
    def __init__(
        self, network: DepthAnythingV2, batch: int, height: int, width: int, fused: bool, resize: Resize
    ) -> None:
        super().__init__()
        self.resize = resize
        self.encoder = _StaticEncoder(network.pretrained, batch, height // PATCH, width // PATCH, fused)
        self.depth_head = network.depth_head
        self.metric = network.metric

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth_head(self.encoder(x), resize=self.resize)
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
