"""A network's forward pass as one graph for every size of input, as engines that compile for themselves want it.

One graph per checkpoint is traced, converted and kept; a picture of a new shape then costs nothing but its first run.
What depends on the size and cannot be said in operations that every engine runs well, the bicubic resize of the
positions, stays outside: positions are the second input of a transformer's graph (see backends/positions.py).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch
from torch import nn

from depthcli.graphs.folded import FoldedBlock
from depthcli.graphs.jit import quiet_jit
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.lite_depth import LiteDepth
from depthcli.nets.video_depth_anything import VideoDepthAnything
from depthcli.nets.vit import Block, VisionTransformer
from depthcli.zoo.rows import PATCH, WINDOW

if TYPE_CHECKING:
    TracedFunction = torch.jit.ScriptFunction[Any, Any]


@dataclass(frozen=True, eq=False)
class AnySizeGraph:
    """A traced network for one picture of any size.

    trace: image (1, 3, H, W), and for a transformer positions (1, D, rows, cols) -> depth (1, H, W), all float32.
    examples: inputs by name, in order, of a size that goes together.
    positions: the trained grid (D, side, side) float32, or None for a network of convolutions.
    """

    trace: TracedFunction
    examples: dict[str, torch.Tensor]
    positions: Optional[np.ndarray]


@dataclass(frozen=True, eq=False)
class AnySizeClipGraphs:
    """The three traced parts of a network for clips, for frames of any size; all float32.

    encode: image (1, 3, H, W) and positions (1, D, rows, cols) -> four maps (1, D, rows, cols).
    mix: the last two maps of a window's 32 frames -> (32, F, 2 rows, 2 cols).
    finish: one frame of that, its second and its first map -> the answer (1, H, W).
    positions: the trained grid (D, side, side).
    """

    encode: AnySizeGraph
    mix: AnySizeGraph
    finish: AnySizeGraph
    positions: np.ndarray


def trace_any_size(network: nn.Module) -> AnySizeGraph:
    """Return the graph of a network for pictures, whose weights no longer change."""
    # Small, as tracing runs the network, and with sides, and counts of tokens, that nothing else here is equal to.
    rows, cols = 3, 5
    image = torch.zeros(1, 3, rows * PATCH, cols * PATCH)
    if isinstance(network, DepthAnythingV2):
        positions = _trained_positions(network.pretrained)
        examples = {"image": image, "positions": torch.zeros(1, len(positions), rows, cols)}
        return AnySizeGraph(_trace(_AnySizeDepthAnything(network), examples), examples, positions)
    assert isinstance(network, LiteDepth), type(network)
    return AnySizeGraph(_trace(_AnySizeLite(network), {"image": image}), {"image": image}, None)


def trace_clip_graphs(network: VideoDepthAnything) -> AnySizeClipGraphs:
    """Return the graphs of a network for clips, whose weights no longer change."""
    rows, cols = 3, 5
    positions = _trained_positions(network.pretrained)
    width, features = len(positions), network.head.scratch.output_conv1.in_channels
    coarse = {name: torch.zeros(WINDOW, width, rows, cols) for name in ("map3", "map4")}
    fine = {name: torch.zeros(1, width, rows, cols) for name in ("map2", "map1")}
    parts: tuple[tuple[nn.Module, dict[str, torch.Tensor]], ...] = (
        (
            _AnySizeEncoder(network.pretrained),
            {
                "image": torch.zeros(1, 3, rows * PATCH, cols * PATCH),
                "positions": torch.zeros(1, width, rows, cols),
            },
        ),
        (_AnySizeMix(network), coarse),
        (_AnySizeFinish(network), {"mixed": torch.zeros(1, features, 2 * rows, 2 * cols), **fine}),
    )
    encode, mix, finish = (AnySizeGraph(_trace(module, examples), examples, None) for module, examples in parts)
    return AnySizeClipGraphs(encode, mix, finish, positions)


def _trained_positions(vit: VisionTransformer) -> np.ndarray:
    """Return the trained grid (D, side, side) float32."""
    grid = vit.pos_embed.detach().float()[0, 1:].T
    side = round(grid.shape[1] ** 0.5)
    return np.ascontiguousarray(grid.numpy().reshape(len(grid), side, side))


def _trace(module: nn.Module, examples: dict[str, torch.Tensor]) -> TracedFunction:
    module.eval().requires_grad_(False)

    # A function, not the module: its weights are constants from the start, in a third of the time that it takes to
    # trace a module and to freeze it.
    def forward(*inputs: torch.Tensor) -> Any:
        return module(*inputs)

    with torch.no_grad(), quiet_jit():
        # A group norm compares its sizes in Python, which is no part of the trace.
        tracer_warning = torch.jit.TracerWarning  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=tracer_warning, module=r"torch\.nn\.functional")
        traced: TracedFunction = torch.jit.trace(  # type: ignore[no-untyped-call]
            forward, tuple(examples.values()), check_trace=False
        )
    # One node per constant, which halves the time of a conversion. Freezing a module ends with the same two.
    passes: Any = torch._C
    passes._jit_pass_constant_pooling(traced.graph)
    passes._jit_pass_cse(traced.graph)
    return traced


class _AnySizeLite(nn.Module):
    def __init__(self, network: LiteDepth) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        depth: torch.Tensor = self.network(image, (image.shape[2], image.shape[3]))
        return depth


class _AnySizeMix(nn.Module):
    def __init__(self, network: VideoDepthAnything) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, m3: torch.Tensor, m4: torch.Tensor) -> torch.Tensor:
        return self.head.mix(m3, m4, (m3.shape[2], m3.shape[3]))


class _AnySizeFinish(nn.Module):
    def __init__(self, network: VideoDepthAnything) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, x: torch.Tensor, m2: torch.Tensor, m1: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.head.finish(x, m2, m1, (m1.shape[2], m1.shape[3])))


class _AnySizeEncoder(nn.Module):
    first: torch.Tensor

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.taps = vit.taps
        self.project = vit.patch_embed.proj
        self.register_buffer("first", (vit.cls_token + vit.pos_embed[:, :1]).detach().float())
        # What follows the last tapped block is never read.
        blocks = [block for block in vit.blocks if isinstance(block, Block)][: max(vit.taps) + 1]
        self.blocks = nn.ModuleList(FoldedBlock(block, batch=1, tokens=-1, fused=HAS_FUSED) for block in blocks)
        self.norm = vit.norm

    def forward(self, image: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.project(image) + positions
        grid = x.shape
        x = torch.cat([self.first, x.flatten(2).permute(0, 2, 1)], dim=1)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(self.norm(x)[:, 1:].permute(0, 2, 1).reshape(grid))
        return tuple(maps)


class _AnySizeDepthAnything(nn.Module):
    def __init__(self, network: DepthAnythingV2) -> None:
        super().__init__()
        self.encoder = _AnySizeEncoder(network.pretrained)
        self.depth_head = network.depth_head
        self.metric = network.metric

    def forward(self, image: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        maps = self.encoder(image, positions)
        x = self.depth_head(maps, (maps[0].shape[2], maps[0].shape[3]))
        return torch.sigmoid(x) if self.metric else torch.relu(x)
