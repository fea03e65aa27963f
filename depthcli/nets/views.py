"""The encoder of Depth Anything 3 over the views of a scene: DINOv2 whose later blocks also attend across the views.

Shape letters as in nets/vit.py, with V views instead of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import nn

from depthcli.nets.vit import Block, Rotation, SizeCache, VisionTransformer
from depthcli.zoo.rows import PATCH, NetworkConfig, ViewsConfig

ROTATION_BASE = 100.0
FEWEST_TO_CHOOSE = 3  # of two views the first is the reference
_SMALL = 1e-8


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder gives, in the order of the views.

    maps: four (V, 2 D, rows, cols). pose: (V, 2 D), the cameras' tokens. reference: index of the reference view.
    descriptors: (V, D), the class tokens before the views meet: each depends on its own view alone.
    """

    maps: Sequence[torch.Tensor]
    pose: torch.Tensor
    reference: int
    descriptors: torch.Tensor


class ViewsTransformer(VisionTransformer):
    """Views of a scene (V, 3, H, W) -> Encoded.

    From block `views_from` on, queries and keys are normed and turned by their positions, the class token is replaced
    by that of the view's camera, and odd blocks attend across all views. In front of it a reference view is chosen,
    which carries another token than the rest.
    """

    def __init__(self, config: ViewsConfig) -> None:
        super().__init__(config)
        self.views_from = config.views_from
        self.camera_token = nn.Parameter(torch.zeros(1, 2, config.embed_dim))
        self._head_dim = config.embed_dim // config.heads
        self._rotations = SizeCache()

    def make_block(self, config: NetworkConfig, index: int) -> Block:
        """Return a block with initial weights. index: from 0."""
        assert isinstance(config, ViewsConfig)
        return Block(config.embed_dim, config.heads, config.swiglu, normed=index >= config.views_from)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, cameras: Optional[torch.Tensor] = None, reference: str = "saddle_balanced"
    ) -> Encoded:
        """See the class. cameras: (V, D) tokens of known cameras. reference: one of REFERENCES, if they are unknown."""
        views, rows, cols = len(x), x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x = self.embed(x)
        tokens = x.shape[1]
        alone, across = self.rotations(rows, cols, views, x.device)
        order = list(range(views))
        within, maps, pose, descriptors = x, [], x[:, 0], x[:, 0]
        for index, block in enumerate(self.blocks):
            if index == self.views_from - 1:
                descriptors = x[:, 0]
            if index == self.views_from - 1 and cameras is None and views >= FEWEST_TO_CHOOSE:
                order = reference_first(REFERENCES[reference](x[:, 0]), views)
                x = x[order]
            if index == self.views_from:
                first = self._first_tokens(views) if cameras is None else cameras
                x = torch.cat([first[:, None].to(x.dtype), x[:, 1:]], dim=1)
            if index < self.views_from:
                x = within = block(x)
            elif index % 2 == 0:
                x = within = block(x, alone)
            else:
                x = block(x.reshape(1, views * tokens, -1), across).reshape(views, tokens, -1)
            if index in self.taps:
                back = [order.index(view) for view in range(views)]
                both = torch.cat([within, self.norm(x)], dim=-1)[back]
                pose = torch.cat([within[:, 0], x[:, 0]], dim=-1)[back]
                maps.append(both[:, 1:].transpose(1, 2).reshape(views, -1, rows, cols))
        return Encoded(maps, pose, order[0], descriptors)

    def _first_tokens(self, views: int) -> torch.Tensor:
        reference, other = self.camera_token[:, :1], self.camera_token[:, 1:]
        return torch.cat([reference, other.expand(-1, views - 1, -1)], dim=1)[0]

    def rotations(self, rows: int, cols: int, views: int, device: torch.device) -> tuple[Rotation, Rotation]:
        """Return the rotary positions within a view, and across views, where all patches have the same position."""

        def compute() -> tuple[Rotation, Rotation]:
            row, col = torch.meshgrid(torch.arange(1, rows + 1), torch.arange(1, cols + 1), indexing="ij")
            patches = torch.stack([row.flatten(), col.flatten()], dim=1)
            camera = torch.zeros(1, 2, dtype=patches.dtype)
            alone = torch.cat([camera, patches])
            across = torch.cat([camera, torch.ones_like(patches)]).repeat(views, 1)
            return rotation_of(alone, self._head_dim, device), rotation_of(across, self._head_dim, device)

        return self._rotations.get((rows, cols, views), device, compute)


def rotation_of(positions: torch.Tensor, dim: int, device: torch.device) -> Rotation:
    """Return the rotation of tokens at (row, column). positions: (N, 2). dim: channels of a head.

    Channel k of the dim / 4 pairs of an axis turns by position * 100^(-4 k / dim).
    """
    pairs = dim // 4
    frequencies = 1.0 / ROTATION_BASE ** (torch.arange(pairs).float() / pairs)
    angles = positions.float()[:, :, None] * frequencies  # N, axis, pair
    angles = torch.cat([angles, angles], dim=-1).flatten(1)
    return Rotation(angles.cos().to(device), angles.sin().to(device))


def reference_first(reference: int, views: int) -> list[int]:
    """Return the order of the views with the reference in front and the others as they were."""
    return [reference, *(view for view in range(views) if view != reference)]


# --- Which view is the reference --------------------------------------------------------------------------------------


def _similarities(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return class tokens (V, D) at length 1, and their cosine similarities (V, V) with 0 for each with itself."""
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    others = 1 - torch.eye(len(unit), device=unit.device, dtype=unit.dtype)
    return unit, (unit @ unit.T) * others


def most_varied(tokens: torch.Tensor) -> int:
    """Return the view whose similarities to the others have the largest range.

    If all views are alike, the two that are most alike have one range: the first is taken. In the official code
    rounding decides between them.
    """
    similar = _similarities(tokens)[1]
    return int((similar.max(dim=-1).values - similar.min(dim=-1).values).argmax())


def most_average(tokens: torch.Tensor) -> int:
    """Return the view in the middle of three ranges: similarity to the others, length and variance of the token."""
    unit, similar = _similarities(tokens)
    features = (similar.sum(dim=-1) / (len(unit) - 1), tokens.norm(dim=-1), unit.var(dim=-1))
    scaled = (((value - value.min()) / (value.max() - value.min() + _SMALL) - 0.5).abs() for value in features)
    return int(torch.stack(list(scaled)).sum(dim=0).argmin())


# name -> the index of the reference view, from the views' class tokens (V, D)
REFERENCES: dict[str, Callable[[torch.Tensor], int]] = {
    "saddle_balanced": most_average,
    "saddle_sim_range": most_varied,
    "first": lambda tokens: 0,
    "middle": lambda tokens: len(tokens) // 2,
}
