"""Video-Depth-Anything: the encoder and the head of Depth Anything V2, and four modules between that look over time.

Parameter names are those of the official checkpoints. The network works on a window of up to 32 frames; what is done
to each frame alone (`encode`) and to all together (`decode`) are two calls, so that a frame of two windows is encoded
once. T is the number of frames of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from depthcli.memory import FINE_FRAMES
from depthcli.nets.dpt import DPTHead, Resize, bilinear, size_of
from depthcli.nets.motion import MotionModule
from depthcli.nets.vit import VisionTransformer
from depthcli.zoo import PATCH, NetworkConfig

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
        rows, cols = grid = size_of(frames[0][0])
        scratch = self.scratch
        over_time = self.motion_modules
        l3 = over_time[0](self.reassemble(2, _level(frames, 2)))
        l4 = over_time[1](self.reassemble(3, _level(frames, 3)))
        x = over_time[2](scratch.refinenet4(scratch.layer4_rn(l4), None, (rows, cols)))
        x = over_time[3](scratch.refinenet3(x, scratch.layer3_rn(l3), (2 * rows, 2 * cols)))

        # From here on every frame is by itself: a few at a time change the memory and no bit.
        depth = []
        for start in range(0, len(frames), FINE_FRAMES):
            part = slice(start, start + FINE_FRAMES)
            l1, l2 = (self.reassemble(level, _level(frames[part], level)) for level in (0, 1))
            depth.append(self.predict(self.refine(x[part], l2, l1, grid), grid))
        return torch.cat(depth)

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
