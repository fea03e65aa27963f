"""Video-Depth-Anything: the encoder and the head of Depth Anything V2, and four modules between that look over time.

Parameter names are those of the official checkpoints. The network works on a window of up to 32 frames; what is done
to each frame alone (`encode`) and to all together (`decode`) are two calls, so that a frame of two windows is encoded
once. T is the number of frames of a window.
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
    """The DPT head with motion modules where the maps are coarse: on its two coarsest levels and first two stages.

    Four maps (D, rows, cols) for each of T frames -> (T, 14 rows, 14 cols), before the last activation.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        _, _, c2, c3 = config.out_channels
        self.motion_modules = nn.ModuleList(MotionModule(c) for c in (c2, c3, config.features, config.features))

    def forward(self, frames: Sequence[Taps]) -> torch.Tensor:  # type: ignore[override]
        grid = size_of(frames[0][0])
        x = self.mix(_level(frames, 2), _level(frames, 3), grid)
        # From here on every frame is by itself: a few at a time change the memory and no bit.
        depth = []
        for start in range(0, len(frames), FINE_FRAMES):
            part = slice(start, start + FINE_FRAMES)
            depth.append(self.finish(x[part], _level(frames[part], 1), _level(frames[part], 0), grid))
        return torch.cat(depth)

    def mix(self, m3: torch.Tensor, m4: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The coarse half, over time: the last two maps (T, D, rows, cols) of all frames -> (T, F, 2 rows, 2 cols)."""
        rows, cols = grid
        scratch = self.scratch
        over_time = self.motion_modules
        l3 = over_time[0](self.reassemble(2, m3))
        l4 = over_time[1](self.reassemble(3, m4))
        x = over_time[2](scratch.refinenet4(scratch.layer4_rn(l4), None, (rows, cols)))
        return over_time[3](scratch.refinenet3(x, scratch.layer3_rn(l3), (2 * rows, 2 * cols)))

    def finish(self, x: torch.Tensor, m2: torch.Tensor, m1: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The fine half: what `mix` made, and the first two maps, of any number of frames -> (B, 14 rows, 14 cols)."""
        return self.predict(self.refine(x, self.reassemble(1, m2), self.reassemble(0, m1), grid), grid)

    def predict(self, x: torch.Tensor, grid: tuple[int, int], resize: Resize = bilinear) -> torch.Tensor:
        """The last two convolutions run in float32 whatever the rest does, as in the official code."""
        rows, cols = grid
        coarse = self.scratch.output_conv1(x)
        fine = resize(coarse, (PATCH * rows, PATCH * cols))
        if coarse.dtype == torch.float32:
            return self.scratch.output_conv2(fine).squeeze(1)
        with torch.autocast(fine.device.type, enabled=False):
            return self.scratch.output_conv2(fine.float()).squeeze(1)


class VideoDepthAnything(nn.Module):
    """A window's normalised frames (T, 3, H, W), H and W multiples of 14, T at most 32 -> (T, H, W).

    Relative: disparity >= 0, large is near. Metric: metres >= 0, large is far; which of them, the weights say alone.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.pretrained = VisionTransformer(config)
        self.head = TemporalDPTHead(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))

    def encode(self, x: torch.Tensor) -> list[Taps]:
        """Return for each frame its four maps (D, rows, cols)."""
        return list(zip(*self.pretrained(x)))

    def decode(self, frames: Sequence[Taps]) -> torch.Tensor:
        """Return the answer (T, H, W) for the maps of a window's frames."""
        return torch.relu(self.head(frames))


def _level(frames: Sequence[Taps], level: int) -> torch.Tensor:
    return torch.stack([taps[level] for taps in frames])
