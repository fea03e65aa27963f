"""A frozen network's forward pass for one batch and input size, for compilers and exporters.

Blocks are folded and positions and sizes are constants, so that a trace has no arithmetic on shapes. Equal to the
network within rounding. For backends that take any size see any_size.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import nn

from depthcli.errors import UsageError
from depthcli.graphs.folded import FoldedBlock
from depthcli.graphs.jit import quiet_jit, quiet_trace
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.depth_anything_3 import DepthAnything3, DepthAnything3Nested, DepthAnything3Views
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.dpt import Resize, bilinear
from depthcli.nets.vit import Block, VisionTransformer
from depthcli.zoo.rows import PATCH


def static_network(
    network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED, resize: Resize = bilinear
) -> nn.Module:
    """Return a module that maps (batch, 3, height, width) to `joined` answers of `network`: one tensor.

    It raises ValueError for an input of any other size, and shares unchanged weights with `network`. fused: use torch's
    fused attention, which some exporters know; else two products and a softmax. resize: how the head enlarges its maps.
    Raises UsageError for a size that is not a multiple of 14, and for networks for scenes.
    """
    if isinstance(network, (DepthAnything3Views, DepthAnything3Nested)):
        raise UsageError("networks for scenes cannot be compiled ahead", "use `backend` openvino or torch")
    if batch < 1 or height < PATCH or width < PATCH or height % PATCH or width % PATCH:
        raise UsageError(f"the input must have sides of multiples of {PATCH}, got {batch}x{height}x{width}")
    if isinstance(network, (DepthAnythingV2, DepthAnything3)):
        network = _StaticDepthAnything(network, batch, height, width, fused, resize)
    # A convolutional network has nothing to fold.
    return _OneSize(network, (batch, 3, height, width))


def trace(
    network: nn.Module, batch: int, height: int, width: int, fused: bool = HAS_FUSED, resize: Resize = bilinear
) -> torch.jit.ScriptModule:
    """Return `static_network` as a traced graph. Errors as there.

    A trace checks no sizes: one for a landscape takes a portrait of as many patches and returns nonsense. Compare the
    sizes first, or use `guarded`.
    """
    module = static_network(network, batch, height, width, fused, resize)
    device = next(module.parameters()).device
    with torch.no_grad(), quiet_trace():
        picture = torch.zeros(batch, 3, height, width, device=device)
        if resize is not bilinear:
            module(picture)  # makes what depends on the sizes, which are constants of the trace
        traced: torch.jit.ScriptModule = torch.jit.trace(module, picture, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def guarded(traced: torch.jit.ScriptModule, batch: int, height: int, width: int) -> torch.jit.ScriptModule:
    """Return a trace whose graph compares the input's size first and raises an error for any other."""
    with quiet_jit():
        script: torch.jit.ScriptModule = torch.jit.script(_Guard(traced, [batch, 3, height, width]))
    return script


def joined(answer: Union[torch.Tensor, Sequence[torch.Tensor]]) -> torch.Tensor:
    """Return a network's answer as one tensor: (B, H, W), or (B, outputs, H, W) if it has several outputs."""
    if isinstance(answer, torch.Tensor):
        return answer
    return torch.cat([each.unsqueeze(1) for each in answer], dim=1)


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
        self,
        network: Union[DepthAnythingV2, DepthAnything3],
        batch: int,
        height: int,
        width: int,
        fused: bool,
        resize: Resize,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.encoder = _StaticEncoder(network.pretrained, batch, height // PATCH, width // PATCH, fused)
        self.head = network.head if isinstance(network, DepthAnything3) else network.depth_head
        self.activate: Any = network.activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return joined(self.activate(self.head(self.encoder(x), resize=self.resize)))


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
        # Blocks after the last tapped one are never read.
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
