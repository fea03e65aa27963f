"""The encoder of Depth Anything 3 over the views of a scene: DINOv2 whose later blocks also attend across the views.

Shape letters as in nets/vit.py, with V views instead of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
from torch import nn

from depthcli.errors import UsageError
from depthcli.geometry.reference_views import FEWEST_TO_CHOOSE, REFERENCES
from depthcli.nets.vit import Block, Rotation, SizeCache, VisionTransformer
from depthcli.pixels.codes import rotary_angles
from depthcli.zoo.rows import PATCH, NetworkConfig, ViewsConfig


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder gives, in the order of the views.

    maps: four (V, 2 D, rows, cols). pose: (V, 2 D), the cameras' tokens. reference: index of the reference view.
    features: (V, rows, cols, D) behind blocks, by their numbers, as far as they were asked for.
    """

    maps: Sequence[torch.Tensor]
    pose: torch.Tensor
    reference: int
    features: Mapping[int, torch.Tensor] = field(default_factory=dict)


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
        self,
        x: torch.Tensor,
        cameras: Optional[torch.Tensor] = None,
        reference: str = "saddle_balanced",
        features: Sequence[int] = (),
    ) -> Encoded:
        """See the class. cameras: (V, D) tokens of known cameras. reference: one of REFERENCES, if they are unknown.

        features: numbers of blocks, from 0, whose tokens of patches are kept, after the norm behind the last block.
        Raises UsageError for a number without a block.
        """
        self._check_blocks(features)
        views, rows, cols = len(x), x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x = self.embed(x)
        tokens = x.shape[1]
        alone, across = self.rotations(rows, cols, views, x.device)
        order = list(range(views))
        within, maps, pose = x, [], x[:, 0]
        kept: dict[int, torch.Tensor] = {}
        for index, block in enumerate(self.blocks):
            if index == self.views_from - 1 and cameras is None and views >= FEWEST_TO_CHOOSE:
                order = reference_first(REFERENCES[reference](x[:, 0].float().cpu().numpy()), views)
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
            back = [order.index(view) for view in range(views)]
            if index in features:
                kept[index] = self.norm(x)[back][:, 1:].reshape(views, rows, cols, -1)
            if index in self.taps:
                both = torch.cat([within, self.norm(x)], dim=-1)[back]
                pose = torch.cat([within[:, 0], x[:, 0]], dim=-1)[back]
                maps.append(both[:, 1:].transpose(1, 2).reshape(views, -1, rows, cols))
        return Encoded(maps, pose, order[0], kept)

    def _check_blocks(self, numbers: Sequence[int]) -> None:
        last = len(self.blocks) - 1
        strange = next((number for number in numbers if not 0 <= number <= last), None)
        if strange is not None:
            raise UsageError(f"the network has the blocks 0 to {last}, and none is {strange}")

    def _first_tokens(self, views: int) -> torch.Tensor:
        reference, other = self.camera_token[:, :1], self.camera_token[:, 1:]
        return torch.cat([reference, other.expand(-1, views - 1, -1)], dim=1)[0]

    def rotations(self, rows: int, cols: int, views: int, device: torch.device) -> tuple[Rotation, Rotation]:
        """Return the rotary positions within a view, and across views, where all patches have the same position."""

        def compute() -> tuple[Rotation, Rotation]:
            alone, across = (rotary_angles(rows, cols, self._head_dim, across) for across in (False, True))
            return rotation_of(alone, device), rotation_of(np.tile(across, (views, 1)), device)

        return self._rotations.get((rows, cols, views), device, compute)


def rotation_of(angles: np.ndarray, device: torch.device) -> Rotation:
    """Return the rotation by the angles (N, channels of a head)."""
    turns = torch.from_numpy(angles)
    return Rotation(turns.cos().to(device), turns.sin().to(device))


def reference_first(reference: int, views: int) -> list[int]:
    """Return the order of the views with the reference in front and the others as they were."""
    return [reference, *(view for view in range(views) if view != reference)]
