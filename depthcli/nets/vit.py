"""The DINOv2 vision transformer of Depth Anything V2 and 3: a picture in, four maps of tokens out.

nets/views.py adds the attention across the views of a scene. Parameter names are those of the official checkpoints.
Shape letters: B batch, N tokens with the class token, D width of a token, H and W pixels, rows and cols patches.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.nets.attention import attention
from depthcli.zoo.rows import PATCH, NetworkConfig

NORM_EPS = 1e-6  # DINOv2's epsilon, not PyTorch's 1e-5; the difference shows in the sixth digit of the depth
# DINOv2 adds this to the number of patches before it divides by the grid's side, and interpolates by that scale, not by
# the size. The checkpoints were trained with it, so it stays.
POSITION_OFFSET = 0.1
_CACHED_SHAPES = 8

T = TypeVar("T")


class PatchEmbed(nn.Module):
    """Cut the picture into patches and project each: (B, 3, H, W) -> (B, rows * cols, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary positions of tokens: cosines and sines (N, D / heads) of the angles that turn pairs of channels.

    The channels fall into two halves, one turned by the row and one by the column; in a half, channel k is paired with
    the one a quarter of all channels further on.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries or keys (B, heads, N, D / heads), turned."""
        a, b, c, d = x.chunk(4, dim=-1)
        return x * self.cos + torch.cat([-b, a, -d, c], dim=-1) * self.sin


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N, D). normed: queries and keys pass a norm per head first."""

    def __init__(self, dim: int, heads: int, normed: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if normed else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if normed else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, rotation: Optional[Rotation] = None) -> torch.Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            # Inside an autocast, norms and angles give float32, and attention takes one type.
            q, k = rotation.turned(q).to(v.dtype), rotation.turned(k).to(v.dtype)
        x = attention(q, k, v)  # B, heads, N, D / heads
        return self.proj(x.transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """The gated feed-forward of vitg: w3(silu(a) * b), with the halves a and b of w12(x)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(a) * b)


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    """A transformer block: attention, then feed-forward, each with a norm before and LayerScale after.

    eps: of these norms. normed: see Attention.
    """

    def __init__(self, dim: int, heads: int, swiglu: bool, eps: float = NORM_EPS, normed: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, normed)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = SwiGlu(dim) if swiglu else Mlp(dim)
        self.ls2 = LayerScale(dim)

    def forward(self, x: torch.Tensor, rotation: Optional[Rotation] = None) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


def interpolate_positions(pos_embed: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Return positions (1, 1 + rows * cols, D), interpolated from the trained square grid (1, 1 + side^2, D).

    Bicubic by the scale (n + 0.1) / side on both axes, in float32, as in DINOv2; unchanged for the trained grid.
    """
    class_position, grid = pos_embed[:, :1], pos_embed[:, 1:]
    side = math.isqrt(int(grid.shape[1]))
    if (rows, cols) == (side, side):
        return pos_embed
    grid = grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    rows, cols = int(rows), int(cols)  # tensors in a trace
    scale = ((rows + POSITION_OFFSET) / side, (cols + POSITION_OFFSET) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert grid.shape[-2:] == (rows, cols), (grid.shape, rows, cols)
    return torch.cat([class_position.float(), grid.flatten(2).transpose(1, 2)], dim=1)


class SizeCache:
    """Values that depend on the size of the input: computed once per size and device, the last few kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, torch.device], Any] = {}

    def get(self, key: Hashable, device: torch.device, compute: Callable[[], T]) -> T:
        """Return the value of a key, computed if it is not kept."""
        if (key, device) not in self._kept:
            if len(self._kept) >= _CACHED_SHAPES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key, device] = compute()
        found: T = self._kept[key, device]
        return found

    def clear(self) -> None:
        """Forget all values."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class VisionTransformer(nn.Module):
    """The encoder: (B, 3, H, W) -> four maps (B, D, rows, cols), one per tapped block, without the class token."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.taps = config.taps
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_grid**2, dim))
        if config.unused:
            self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.blocks = nn.ModuleList(self.make_block(config, index) for index in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self._positions = SizeCache()

    def make_block(self, config: NetworkConfig, index: int) -> Block:
        """Return a block with initial weights. index: from 0."""
        return Block(config.embed_dim, config.heads, config.swiglu)

    def forward(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        rows, cols = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x = self.embed(x)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                tokens = self.norm(x)[:, 1:]
                maps.append(tokens.transpose(1, 2).unflatten(2, (rows, cols)))
        return maps

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tokens (B, 1 + rows * cols, D) of pictures (B, 3, H, W) before the first block."""
        rows, cols = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        return x + self.positions(rows, cols).to(x.dtype)

    def positions(self, rows: int, cols: int) -> torch.Tensor:
        """Return positions (1, 1 + rows * cols, D); outside training, computed once per shape and on the CPU.

        Some devices lack the bicubic kernel, and others differ in its last bits.
        """
        if self.training:
            return interpolate_positions(self.pos_embed, rows, cols)
        device = self.pos_embed.device

        def compute() -> torch.Tensor:
            return interpolate_positions(self.pos_embed.detach().cpu(), rows, cols).to(device)

        return self._positions.get((rows, cols), device, compute)

    def train(self, mode: bool = True) -> VisionTransformer:
        """Switch between training and inference, and forget cached positions, as the weights may have changed."""
        self._positions.clear()
        return super().train(mode)
