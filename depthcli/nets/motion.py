"""The motion modules of Video-Depth-Anything: each place of a map looks at itself in the other frames of the window.

Parameter names are those of the official checkpoints. Shape letters: T frames of one window, C channels, P places of
the map (height times width).
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
# Places are independent of each other, so they are worked on in turns: what is made on the way, eight times the
# channels in the feed-forward, stays small. On two cores of an EPYC turns of 128 to 512 took half the time of all at
# once, as that then stays in the cache; a GPU wants more at a time.
_PLACES_AT_ONCE = {"cpu": 256}
_PLACES_ON_DEVICES = 4096


def frame_positions(channels: int) -> torch.Tensor:
    """Return the codes (1, 32, C) of a frame's place in its window: sine and cosine in turns, of periods to 10000."""
    place = torch.arange(WINDOW, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
    return torch.stack([torch.sin(place * frequency), torch.cos(place * frequency)], dim=-1).reshape(1, WINDOW, -1)


class PositionCode(nn.Module):
    """Add to each frame the code of its place in the window: (P, T, C) -> the same."""

    pe: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", frame_positions(channels))  # in every checkpoint, although it is no weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class FrameAttention(nn.Module):
    """Self-attention over the frames: (P, T, C) -> the same."""

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
        # Over 32 frames the fused kernel has nothing to save: it took as long with 24 channels a head, longer with 8.
        x = plain_attention(q, k, v)  # P, heads, T, C / heads
        return self.to_out[0](x.transpose(1, 2).reshape(P, T, C))


class GatedGelu(nn.Module):
    """One layer of which the second half of the outputs opens the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two layers, the first of them gated. Its `net` has a dropout between them, of which nothing is stored."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class FrameBlock(nn.Module):
    """Two attentions over the frames and a feed-forward, each normed before: (P, T, C) -> the same."""

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
    """The block between two linear layers, around a skip of the raw input: (T, C, h, w) -> the same.

    The last layer begins as zero, so that an untrained module changes nothing.
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
            # A trace is for maps of any size, which take no certain number of turns.
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
    """(T, C, h, w), the frames of one window in order -> the same; one level of names, as the checkpoints have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_transformer = FrameTransformer(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.temporal_transformer(x)
