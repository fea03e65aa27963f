"""A transformer block with constant weights folded: fewer operations, equal to within rounding.

q, k and v become three layers, with the attention's scale in q. LayerScale becomes part of the layer before it, and the
gain and shift of a norm part of the layers behind it.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.graphs.view_tables import pairs_apart
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.vit import Block, Mlp, SwiGlu


class FoldedBlock(nn.Module):
    """One block: (batch, tokens, D) -> (batch, tokens, D).

    tokens: their number, or -1 for any. fused: use torch's fused attention; else two products and a softmax.
    """

    def __init__(self, block: Block, batch: int, tokens: int, fused: bool) -> None:
        super().__init__()
        dim, heads = block.attn.proj.out_features, block.attn.heads
        self.split = (batch, tokens, heads, dim // heads)
        self.joined = (batch, tokens, dim)
        self.fused = fused
        q, k, v = zip(block.attn.qkv.weight.detach().chunk(3), block.attn.qkv.bias.detach().chunk(3))
        # The fused operation scales itself.
        scale = 1.0 if fused else (dim // heads) ** -0.5
        self.norm = plain_norm(block.norm1)  # both norms have one epsilon
        self.q = normed(q[0] * scale, q[1] * scale, block.norm1)
        self.k, self.v = normed(*k, block.norm1), normed(*v, block.norm1)
        self.proj = _scaled(block.attn.proj, block.ls1.gamma)
        mlp, norm, gamma = block.mlp, block.norm2, block.ls2.gamma
        self.mlp = _FoldedMlp(mlp, norm, gamma) if isinstance(mlp, Mlp) else _FoldedSwiGlu(mlp, norm, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        q, k, v = (layer(y).reshape(self.split).permute(0, 2, 1, 3) for layer in (self.q, self.k, self.v))
        x = x + self.proj(self.attend(q, k, v).permute(0, 2, 1, 3).reshape(self.joined))
        return x + self.mlp(self.norm(x))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the attention of queries, keys and values of all heads (batch, heads, tokens, d)."""
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v)
        return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


class TurnedBlock(nn.Module):
    """A block whose queries and keys are normed and turned: (V, tokens, D), and angles (tokens, d) -> (V, tokens, D).

    Both numbers are open. The angles are in the order of `pairs_apart`, so that the partner of a channel lies half a
    head away: as runtimes know this step from language models.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.folded = FoldedBlock(block, batch=1, tokens=-1, fused=HAS_FUSED)
        self.heads = block.attn.heads
        order = pairs_apart(block.attn.proj.out_features // self.heads)
        self.q, self.k = (_reordered(layer, self.heads, order) for layer in (self.folded.q, self.folded.k))
        # The fused operation scales itself. The norm undoes a scale of the layer.
        scale = 1.0 if HAS_FUSED else len(order) ** -0.5
        self.q_norm = _reordered_norm(block.attn.q_norm, order, scale)
        self.k_norm = _reordered_norm(block.attn.k_norm, order)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        folded, y = self.folded, self.folded.norm(x)
        split = (y.shape[0], y.shape[1], self.heads, -1)
        q, k, v = (layer(y).reshape(split) for layer in (self.q, self.k, folded.v))
        q, k = (_turned(part.permute(0, 2, 1, 3), cos, sin) for part in (self.q_norm(q), self.k_norm(k)))
        y = folded.attend(q, k, v.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        x = x + folded.proj(y.reshape(x.shape))
        return x + folded.mlp(folded.norm(x))


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _reordered(layer: nn.Linear, heads: int, order: list[int]) -> nn.Linear:
    """Return a layer with the outputs of each head in this order."""
    rows = torch.arange(layer.out_features).reshape(heads, -1)[:, order].flatten()
    return _linear(layer.weight[rows], layer.bias[rows])


def _reordered_norm(norm: nn.Module, order: list[int], scale: float = 1.0) -> nn.LayerNorm:
    assert isinstance(norm, nn.LayerNorm)
    made = plain_norm(norm)
    with torch.no_grad():
        made.weight.copy_(norm.weight[order] * scale)
        made.bias.copy_(norm.bias[order] * scale)
    return made


def plain_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Return a norm without gain and shift: mean 0 and variance 1 along the last axis.

    It has a gain of 1 and a shift of 0, since torch before 2.2 writes no ONNX of a norm without them.
    """
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps).requires_grad_(False)


class _FoldedMlp(nn.Module):
    def __init__(self, mlp: Mlp, norm: nn.LayerNorm, gamma: torch.Tensor) -> None:
        super().__init__()
        self.fc1, self.fc2 = normed(mlp.fc1.weight, mlp.fc1.bias, norm), _scaled(mlp.fc2, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _FoldedSwiGlu(nn.Module):
    def __init__(self, mlp: SwiGlu, norm: nn.LayerNorm, gamma: torch.Tensor) -> None:
        super().__init__()
        weights, biases = mlp.w12.weight.detach().chunk(2), mlp.w12.bias.detach().chunk(2)
        self.gate, self.value = (normed(weight, bias, norm) for weight, bias in zip(weights, biases))
        self.w3 = _scaled(mlp.w3, gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w3(F.silu(self.gate(x)) * self.value(x))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    with torch.no_grad():
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer


def normed(weight: torch.Tensor, bias: Optional[torch.Tensor], norm: nn.LayerNorm) -> nn.Linear:
    """Return the layer that does behind `plain_norm` what the given one does behind a norm with gain and shift."""
    assert bias is not None
    weight, gain, shift = weight.detach(), norm.weight.detach(), norm.bias.detach()
    return _linear(weight * gain, bias.detach() + weight @ shift)


def _scaled(layer: nn.Linear, gamma: torch.Tensor) -> nn.Linear:
    """Return the layer with a factor on each output."""
    return _linear(layer.weight.detach() * gamma.detach()[:, None], layer.bias.detach() * gamma.detach())
