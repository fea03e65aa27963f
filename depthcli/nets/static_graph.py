"""A network's forward pass for one batch and one size of input, as compilers and exporters want it.

The same numbers as the readable network, to within rounding: positions are computed once and become constants, q, k and
v are three layers with the attention's scale in q, LayerScale disappears into the layers before it, and every size is a
number, so that a trace holds no arithmetic on shapes. All of it follows from weights that no longer change.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.errors import UsageError
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.vit import Block, Mlp, SwiGlu, VisionTransformer
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
        self.blocks = nn.ModuleList(_StaticBlock(block, batch, tokens, fused) for block in blocks)
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


class _StaticBlock(nn.Module):
    def __init__(self, block: Block, batch: int, tokens: int, fused: bool) -> None:
        super().__init__()
        dim, heads = block.attn.proj.out_features, block.attn.heads
        self.split = (batch, tokens, heads, dim // heads)
        self.joined = (batch, tokens, dim)
        self.fused = fused
        q, k, v = zip(block.attn.qkv.weight.detach().chunk(3), block.attn.qkv.bias.detach().chunk(3))
        # The fused operation scales by itself.
        scale = 1.0 if fused else (dim // heads) ** -0.5
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.q, self.k, self.v = _linear(q[0] * scale, q[1] * scale), _linear(*k), _linear(*v)
        self.proj = _scaled(block.attn.proj, block.ls1.gamma)
        gamma = block.ls2.gamma
        self.mlp = _StaticMlp(block.mlp, gamma) if isinstance(block.mlp, Mlp) else _StaticSwiGlu(block.mlp, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).reshape(self.split).permute(0, 2, 1, 3) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        x = x + self.proj(y.permute(0, 2, 1, 3).reshape(self.joined))
        return x + self.mlp(self.norm2(x))


class _StaticMlp(nn.Module):
    def __init__(self, mlp: Mlp, gamma: torch.Tensor) -> None:
        super().__init__()
        self.fc1, self.fc2 = mlp.fc1, _scaled(mlp.fc2, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _StaticSwiGlu(nn.Module):
    def __init__(self, mlp: SwiGlu, gamma: torch.Tensor) -> None:
        super().__init__()
        weights, biases = mlp.w12.weight.detach().chunk(2), mlp.w12.bias.detach().chunk(2)
        self.gate, self.value = (_linear(weight, bias) for weight, bias in zip(weights, biases))
        self.w3 = _scaled(mlp.w3, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w3(F.silu(self.gate(x)) * self.value(x))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    with torch.no_grad():
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer


def _scaled(layer: nn.Linear, gamma: torch.Tensor) -> nn.Linear:
    """The layer with a factor on each of its outputs."""
    return _linear(layer.weight.detach() * gamma.detach()[:, None], layer.bias.detach() * gamma.detach())
