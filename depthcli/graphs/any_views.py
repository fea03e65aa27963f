"""The network for the views of a scene as graphs for every number and size of views.

What depends on the size is an input (graphs/view_tables.py). The reference view is chosen between the first two parts,
by the class tokens. The official code moves it to the front; here only its token differs, which is the same, as
attention across views has no order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from depthcli.graphs.folded import FoldedBlock, TurnedBlock, normed, plain_norm
from depthcli.graphs.view_tables import RAY_SCALE
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.dpt import bilinear
from depthcli.nets.dual_dpt import RAYS, DualHead
from depthcli.nets.views import ViewsTransformer
from depthcli.nets.vit import Block
from depthcli.zoo.rows import PATCH


class BeginViews(nn.Module):
    """Views (V, 3, H, W) and positions (1, D, rows, cols) -> tokens (V, 1 + rows * cols, D), to choose by."""

    first: torch.Tensor

    def __init__(self, vit: ViewsTransformer) -> None:
        super().__init__()
        self.project = vit.patch_embed.proj
        self.register_buffer("first", (vit.cls_token + vit.pos_embed[:, :1]).detach().float())
        self.blocks = nn.ModuleList(PlainBlock(block) for block in _blocks(vit)[: vit.views_from - 1])

    def forward(self, views: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        x = self.project(views) + positions
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x.flatten(2).permute(0, 2, 1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return x


class PlainBlock(nn.Module):
    """A folded block for any number of views and tokens: (V, tokens, D) -> (V, tokens, D)."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.folded, self.heads = FoldedBlock(block, batch=1, tokens=-1, fused=HAS_FUSED), block.attn.heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        folded = self.folded
        y = folded.norm(x)
        split = (y.shape[0], y.shape[1], self.heads, -1)
        q, k, v = (layer(y).reshape(split).permute(0, 2, 1, 3) for layer in (folded.q, folded.k, folded.v))
        x = x + folded.proj(folded.attend(q, k, v).permute(0, 2, 1, 3).reshape(x.shape))
        return x + folded.mlp(folded.norm(x))


class RelateViews(nn.Module):
    """Tokens of BeginViews, cameras' tokens (V, D), angles and codes of ViewTables -> levels and cameras.

    turns: cosines and sines within a view (tokens, d) and across all views (V * tokens, d). codes: (1, rows * cols, C)
    for each level. Returns the four levels (V, rows * cols, C) and the cameras' tokens (V, 2 D).
    """

    def __init__(self, vit: ViewsTransformer, head: DualHead) -> None:
        super().__init__()
        self.taps, self.views_from = vit.taps, vit.views_from
        assert min(vit.taps) >= vit.views_from - 1, "a block of the first part is tapped"
        blocks = _blocks(vit)[: max(vit.taps) + 1]
        self.before = PlainBlock(blocks[vit.views_from - 1])
        self.blocks = nn.ModuleList(TurnedBlock(block) for block in blocks[vit.views_from :])
        self.norm, self.head_norm = vit.norm, plain_norm(head.norm)
        layers = [layer for layer in head.projects if isinstance(layer, nn.Conv2d)]
        self.projects = nn.ModuleList(normed(layer.weight.flatten(1), layer.bias, head.norm) for layer in layers)

    def forward(
        self,
        tokens: torch.Tensor,
        cameras: torch.Tensor,
        alone_cos: torch.Tensor,
        alone_sin: torch.Tensor,
        across_cos: torch.Tensor,
        across_sin: torch.Tensor,
        *codes: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        x = within = self.before(tokens)
        levels: list[torch.Tensor] = []
        self._tap(self.views_from - 1, within, x, codes, levels)
        x = torch.cat([cameras[:, None], x[:, 1:]], dim=1)
        for index, block in enumerate(self.blocks, start=self.views_from):
            if index % 2 == 0:
                x = within = block(x, alone_cos, alone_sin)
            else:
                x = block(x.reshape(1, -1, x.shape[2]), across_cos, across_sin).reshape(within.shape)
            self._tap(index, within, x, codes, levels)
        return (*levels, torch.cat([within[:, 0], x[:, 0]], dim=-1))

    def _tap(
        self,
        index: int,
        within: torch.Tensor,
        x: torch.Tensor,
        codes: Sequence[torch.Tensor],
        levels: list[torch.Tensor],
    ) -> None:
        """Add the level of a tapped block: what the head's first layer makes of its tokens, with their codes."""
        if index in self.taps:
            level, both = len(levels), torch.cat([within[:, 1:], self.norm(x[:, 1:])], dim=-1)
            levels.append(self.projects[level](self.head_norm(both)) + codes[level])


class _Levels(nn.Module):
    """The four levels (V, rows * cols, C) -> maps of the fusion stages' channels."""

    def __init__(self, head: DualHead) -> None:
        super().__init__()
        self.head = head

    def levels(self, levels: tuple[torch.Tensor, ...], rows: int, cols: int) -> list[torch.Tensor]:
        made = []
        for number, x in enumerate(levels):
            x = x.reshape(x.shape[0], rows, cols, x.shape[2]).permute(0, 3, 1, 2)
            made.append(getattr(self.head.scratch, f"layer{number + 1}_rn")(self.head.resize_layers[number](x)))
        return made


class FinishViews(_Levels):
    """Levels, and the codes of columns (1, C, 1, W) and rows (1, C, H, 1) -> depth and confidence (V, H, W)."""

    def forward(self, columns: torch.Tensor, rows: torch.Tensor, *levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grid = rows.shape[2] // PATCH, columns.shape[3] // PATCH
        x = self.head.chain(self.levels(levels, *grid), grid, bilinear, "")
        x = self.head.scratch.output_conv2(self.head.enlarge(x, grid) + columns + rows)
        return torch.exp(x[:, 0]), torch.exp(x[:, 1]) + 1


class FinishRays(_Levels):
    """Levels, and codes as for FinishViews, 8 for a patch -> rays (V, 8 rows, 8 cols, 6) and their confidence."""

    def forward(self, columns: torch.Tensor, rows: torch.Tensor, *levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grid = rows.shape[2] // RAY_SCALE, columns.shape[3] // RAY_SCALE
        found = self.head.rays(self.levels(levels, *grid), grid, add_places=lambda x: x + columns + rows)
        return found[:, :RAYS].permute(0, 2, 3, 1), torch.exp(found[:, RAYS]) + 1


def _blocks(vit: ViewsTransformer) -> list[Block]:
    return [block for block in vit.blocks if isinstance(block, Block)]
