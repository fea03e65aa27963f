"""Video-Depth-Anything (Chen et al., 2025): encoder and head of Depth Anything V2, with four motion modules between.

Parameter names are those of the official checkpoints. The input is a window of T frames, at most 32. `encode` treats
each frame alone and `decode` all together, so that a frame of two windows is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from depthcli.host.memory import FINE_FRAMES
from depthcli.nets.dpt import DPTHead, Resize, bilinear, size_of
from depthcli.nets.motion import MotionModule
from depthcli.nets.vit import VisionTransformer
from depthcli.zoo.rows import PATCH, NetworkConfig

Taps = Sequence[torch.Tensor]


class TemporalDPTHead(DPTHead):
    """The DPT head with motion modules on its two coarsest levels and its first two stages.

    Four maps (D, rows, cols) for each of T frames -> (T, 14 rows, 14 cols), before the last activation.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        _, _, c2, c3 = config.out_channels
        self.motion_modules = nn.ModuleList(MotionModule(c) for c in (c2, c3, config.features, config.features))

    def forward(self, frames: Sequence[Taps]) -> torch.Tensor:  # type: ignore[override]
        grid = size_of(frames[0][0])
        x = self.mix(_level(frames, 2), _level(frames, 3), grid)
        # From here on the frames are independent; a few at a time save memory and change no bit.
        depth = []
        for start in range(0, len(frames), FINE_FRAMES):
            part = slice(start, start + FINE_FRAMES)
            depth.append(self.finish(x[part], _level(frames[part], 1), _level(frames[part], 0), grid))
        return torch.cat(depth)

    def mix(self, m3: torch.Tensor, m4: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Run the coarse half, over time: the last two maps (T, D, rows, cols) -> (T, F, 2 rows, 2 cols)."""
        rows, cols = grid
        scratch = self.scratch
        over_time = self.motion_modules
        l3 = over_time[0](self.reassemble(2, m3))
        l4 = over_time[1](self.reassemble(3, m4))
        x = over_time[2](scratch.refinenet4(scratch.layer4_rn(l4), None, (rows, cols)))
        return over_time[3](scratch.refinenet3(x, scratch.layer3_rn(l3), (2 * rows, 2 * cols)))

    def finish(self, x: torch.Tensor, m2: torch.Tensor, m1: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Run the fine half on any frames: output of `mix` and the first two maps -> (B, 14 rows, 14 cols)."""
        return self.predict(self.refine(x, self.reassemble(1, m2), self.reassemble(0, m1), grid), grid)

    def predict(self, x: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear) -> torch.Tensor:
        """As in DPTHead; the last two convolutions always run in float32, as in the official code."""
        rows, cols = grid
        coarse = self.scratch.output_conv1(x)
        fine = resize(coarse, (PATCH * rows, PATCH * cols))
        if coarse.dtype == torch.float32:
            return self.scratch.output_conv2(fine).squeeze(1)
        with torch.autocast(fine.device.type, enabled=False):
            return self.scratch.output_conv2(fine.float()).squeeze(1)


class VideoDepthAnything(nn.Module):
    """A window's normalised frames (T, 3, H, W), H and W multiples of 14 -> (T, H, W).

    Relative: disparity >= 0, large is near. Metric: metres >= 0, large is far. Only the weights differ.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.pretrained = VisionTransformer(config)
        self.head = TemporalDPTHead(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))

    def encode(self, x: torch.Tensor) -> list[Taps]:
        """Return four maps (D, rows, cols) for each frame."""
        return list(zip(*self.pretrained(x)))

    def decode(self, frames: Sequence[Taps]) -> torch.Tensor:
        """Return the depth (T, H, W) for the maps of a window's frames."""
        return torch.relu(self.head(frames))


def _level(frames: Sequence[Taps], level: int) -> torch.Tensor:
    return torch.stack([taps[level] for taps in frames])
