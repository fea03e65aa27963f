"""The heads of Depth Anything 3 over views: depth with confidence and, if asked for, rays; and Gaussians.

Both tell each place where it lies in the picture, by sines and cosines of its coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import torch
from torch import nn

from depthcli.nets.dpt import DPTHead, FusionStage, Resize, bilinear, conv3x3, size_of
from depthcli.nets.vit import SizeCache
from depthcli.pixels.codes import place_codes
from depthcli.zoo.rows import NetworkConfig

RAYS = 6  # direction and origin
GAUSSIAN = 38  # raw numbers of a Gaussian: 37, and its opacity
_LEVELS = 4
_FIRST, _NORM, _LAST = 0, 2, 5  # places in the layers of rays
Depth = tuple[torch.Tensor, torch.Tensor]


class Places(nn.Module):
    """Adds to a map (B, C, H, W), in place, the codes of its places, kept per size."""

    def __init__(self) -> None:
        super().__init__()
        self._codes = SizeCache()

    def forward(self, x: torch.Tensor, aspect: float) -> torch.Tensor:
        """Return x with the codes. aspect: width over height of the picture."""
        channels, height, width = (int(side) for side in x.shape[1:])

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            columns, rows = map(torch.from_numpy, place_codes(channels, height, width, aspect))
            # Half the channels tell the column and half the row. With 1 in the others the code is their product.
            columns, rows = columns[:, None, :], rows[:, :, None]
            whole = torch.cat([columns, torch.ones_like(columns)]), torch.cat([torch.ones_like(rows), rows])
            last = [each.permute(1, 2, 0).contiguous().permute(2, 0, 1).to(x.device) for each in whole]
            return last[0], last[1]

        columns, rows = self._codes.get((channels, height, width, aspect), x.device, compute)
        # The whole code, as large as the map, is never made. Nothing else holds x.
        return x.addcmul_(columns.to(x.dtype), rows.to(x.dtype))


class DualHead(DPTHead):
    """Four maps (V, C, rows, cols) -> depth and confidence (V, 14 rows, 14 cols), before the last activations.

    A second chain of fusion stages predicts rays (V, 7, 8 rows, 8 cols); it only runs if they are asked for.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, outputs=2)
        features, scratch = config.features, self.scratch
        self.norm = nn.LayerNorm(config.map_channels)
        for level in range(1, _LEVELS):
            scratch.add_module(f"refinenet{level}_aux", FusionStage(features))
        scratch.add_module(f"refinenet{_LEVELS}_aux", FusionStage(features, adds=False))
        # Only the last of the four levels is read, but the files hold all. They share one norm, stored in the first.
        scratch.output_conv1_aux = nn.ModuleList(_ray_neck(features) for _ in range(_LEVELS))
        scratch.output_conv2_aux = nn.ModuleList(_ray_layers(features // 2, level == 0) for level in range(_LEVELS))
        self.places = Places()

    def forward(  # type: ignore[override]
        self, maps: Sequence[torch.Tensor], grid: Optional[tuple[int, int]] = None, resize: Resize = bilinear
    ) -> Depth:
        return self.depth(self.levels(maps), grid or size_of(maps[0]), resize)

    def levels(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the four reassembled maps after their first convolution, which depth and rays share."""
        found = []
        for level, x in enumerate(maps):
            rows, cols = size_of(x)
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = self.resize_layers[level](self.places(self.projects[level](x), cols / rows))
            found.append(getattr(self.scratch, f"layer{level + 1}_rn")(x))
        return found

    def depth(self, levels: Sequence[torch.Tensor], grid: tuple[int, int], resize: Resize = bilinear) -> Depth:
        """Return the logits of depth and confidence."""
        x = self.chain(levels, grid, resize, "")
        x = self.places(self.enlarge(x, grid, resize), grid[1] / grid[0])
        depth, confidence = self.scratch.output_conv2(x).unbind(1)
        return depth, confidence

    def rays(
        self,
        levels: Sequence[torch.Tensor],
        grid: tuple[int, int],
        resize: Resize = bilinear,
        add_places: Optional[Callable[[torch.Tensor], torch.Tensor]] = None,
    ) -> torch.Tensor:
        """Return (V, 7, 8 rows, 8 cols): direction, origin, and the logit of the confidence.

        add_places: adds the codes of places, for a trace of any size.
        """
        x = self.chain(levels, grid, resize, "_aux")
        necks, layers = self.scratch.output_conv1_aux, self.scratch.output_conv2_aux
        assert isinstance(necks, nn.ModuleList) and isinstance(layers, nn.ModuleList)
        shared, last = list(layers[0].children()), list(layers[-1].children())
        x = necks[-1](x)
        x = last[_FIRST](add_places(x) if add_places else self.places(x, grid[1] / grid[0]))
        x = shared[_NORM](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        rays: torch.Tensor = last[_LAST](torch.relu(x))
        return rays

    def chain(self, levels: Sequence[torch.Tensor], grid: tuple[int, int], resize: Resize, name: str) -> torch.Tensor:
        """Run a chain of fusion stages: that of depth, or "_aux", that of rays."""
        rows, cols = grid
        stages = [getattr(self.scratch, f"refinenet{level}{name}") for level in range(1, _LEVELS + 1)]
        x = stages[3](levels[3], None, (rows, cols), resize)
        for level, factor in ((2, 2), (1, 4), (0, 8)):
            x = stages[level](x, levels[level], (factor * rows, factor * cols), resize)
        return x


def _ray_neck(features: int) -> nn.Sequential:
    half = features // 2
    sides = [(features, half), (half, features)] * 2 + [(features, half)]
    return nn.Sequential(*(conv3x3(*pair) for pair in sides))


def _ray_layers(inputs: int, with_norm: bool) -> nn.Sequential:
    # Only the places of layers with weights count, for their names.
    layers: list[nn.Module] = [nn.Identity() for _ in range(6)]
    layers[_FIRST], layers[_LAST] = conv3x3(inputs, 32), nn.Conv2d(32, RAYS + 1, kernel_size=1)
    if with_norm:
        layers[_NORM] = nn.LayerNorm(32)
    return nn.Sequential(*layers)


class GaussianHead(DPTHead):
    """Four maps (V, C, rows, cols) and the views (V, 3, H, W) -> raw Gaussians (V, 38, H, W), before activations."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, outputs=GAUSSIAN)
        widths = (3, 32, 64, config.features // 2)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [conv3x3(inputs, outputs), nn.GELU()]
        self.images_merger = nn.Sequential(*layers)
        self.places = Places()

    def forward(  # type: ignore[override]
        self, maps: Sequence[torch.Tensor], views: torch.Tensor, resize: Resize = bilinear
    ) -> torch.Tensor:
        grid = rows, cols = size_of(maps[0])
        levels = [
            self.resize_layers[level](self.places(self.projects[level](x), cols / rows)) for level, x in enumerate(maps)
        ]
        scratch = self.scratch
        x = scratch.refinenet4(scratch.layer4_rn(levels[3]), None, grid, resize)
        x = scratch.refinenet3(x, scratch.layer3_rn(levels[2]), (2 * rows, 2 * cols), resize)
        x = self.enlarge(self.refine(x, levels[1], levels[0], grid, resize), grid, resize)
        x = self.places(x + self.images_merger(views), cols / rows)
        raw: torch.Tensor = scratch.output_conv2(x)
        return raw
