"""The motion modules of Video-Depth-Anything: each place of a map attends to itself in the window's other frames.

Parameter names are those of the official checkpoints. Shape letters: T frames, C channels, P places (height x width).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.nets.attention import plain_attention
from depthcli.zoo.rows import WINDOW

HEADS = 8
_GROUPS = 32
# Places are independent, so they run in parts, which keeps the 8 C channels of the feed-forward small. On two cores of
# an EPYC parts of 128 to 512 took half the time of all at once, as they stay in the cache; a GPU needs larger parts.
_PLACES_AT_ONCE = {"cpu": 256}
_PLACES_ON_DEVICES = 4096


def frame_positions(channels: int) -> torch.Tensor:
    """Return the codes (1, 32, C) of a window's frames: alternating sine and cosine, of periods up to 10000."""
    place = torch.arange(WINDOW, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
    return torch.stack([torch.sin(place * frequency), torch.cos(place * frequency)], dim=-1).reshape(1, WINDOW, -1)


class PositionCode(nn.Module):
    """Add to each frame the code of its position in the window: (P, T, C) -> (P, T, C)."""

    pe: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", frame_positions(channels))  # in every checkpoint, though not trained

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class FrameAttention(nn.Module):
    """Self-attention over the frames: (P, T, C) -> (P, T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pos_encoder = PositionCode(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        P, T, _ = x.shape
        C = self.to_q.out_features
        x = self.pos_encoder(x)
        q, k, v = (
            layer(x).reshape(P, T, HEADS, C // HEADS).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        # Over 32 frames the fused kernel is not faster: equal with 24 channels per head, slower with 8.
        x = plain_attention(q, k, v)  # P, heads, T, C / heads
        return self.to_out[0](x.transpose(1, 2).reshape(P, T, C))


class GatedGelu(nn.Module):
    """A linear layer whose first half of outputs is gated by the second."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two layers, the first one gated. The Identity has the place of the official dropout, which has no weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class FrameBlock(nn.Module):
    """Two attentions over the frames and a feed-forward, each with a norm before: (P, T, C) -> (P, T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([FrameAttention(channels), FrameAttention(channels)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels), nn.LayerNorm(channels)])
        self.ff = FeedForward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks):
            x = attention(norm(x)) + x
        return self.ff(self.ff_norm(x)) + x


class FrameTransformer(nn.Module):
    """A block between two linear layers, with a skip connection of the input: (T, C, h, w) -> (T, C, h, w).

    The last layer starts at zero, so that an untrained module is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([FrameBlock(channels)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.norm(x).flatten(2).permute(2, 0, 1)  # P, T, C
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            # A trace takes maps of any size, so the number of parts is not known.
            mixed = self._mix(places)
        else:
            at_once = _PLACES_AT_ONCE.get(x.device.type, _PLACES_ON_DEVICES)
            mixed = torch.cat([self._mix(part) for part in places.split(at_once)])
        return mixed.permute(1, 2, 0).reshape(x.shape) + x

    def _mix(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x)
        return self.proj_out(x)


class MotionModule(nn.Module):
    """The frames of one window in order: (T, C, h, w) -> (T, C, h, w). A level of names in the checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_transformer = FrameTransformer(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.temporal_transformer(x)
