"""A network's forward pass as one graph for every input size, for backends that convert it themselves.

One graph per checkpoint is traced, converted and cached. The bicubic resize of the positions depends on the size and
does not run well everywhere, so positions are the second input of a transformer's graph (graphs/positions.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
import torch
from torch import nn

from depthcli.graphs.any_views import BeginViews, FinishRays, FinishViews, RelateViews
from depthcli.graphs.folded import FoldedBlock, normed, plain_norm
from depthcli.graphs.jit import quiet_jit
from depthcli.graphs.view_tables import RAY_SCALE
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.cameras import NUMBERS
from depthcli.nets.depth_anything_3 import DepthAnything3, DepthAnything3Views
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.lite_depth import LiteDepth
from depthcli.nets.video_depth_anything import VideoDepthAnything
from depthcli.nets.vit import Block, VisionTransformer
from depthcli.zoo.rows import PATCH, WINDOW

if TYPE_CHECKING:
    TracedFunction = torch.jit.ScriptFunction[Any, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """A traced part of a network, float32.

    examples: its inputs by name, in order, of sizes that go together. outputs: names of its outputs, in order.
    axes: the axes of an input that are open; without an entry they are the last two. any_size: False if none are.
    """

    trace: TracedFunction
    examples: dict[str, torch.Tensor]
    outputs: tuple[str, ...] = ("depth",)
    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    any_size: bool = True


@dataclass(frozen=True, eq=False)
class AnySizeGraph:
    """A traced network for input of any size.

    parts, for pictures:
        depth: image (1, 3, H, W), and for a transformer positions (1, D, rows, cols) -> depth (1, H, W), for Depth
        Anything 3 also sky (1, H, W)
    parts, for clips:
        encode: image (1, 3, H, W) and positions (1, D, rows, cols) -> four maps (1, D, rows, cols)
        mix: the last two maps of a window's 32 frames -> (32, F, 2 rows, 2 cols)
        finish: one frame of that, its second and its first map -> (1, H, W)
    parts, for scenes, of any number V of views: see graphs/any_views.py
        begin: BeginViews, relate: RelateViews, depth: FinishViews, rays: FinishRays
        decode: cameras' tokens (V, 2 D) -> cameras (V, 9). encode: cameras (V, 9) -> tokens (V, D)
    positions: the trained grid (D, side, side) float32, or None for a convolutional network.
    cameras: for scenes, the tokens (2, D) of the reference view and of the others.
    facts: what else has to be kept of the network, ready for JSON.
    """

    parts: dict[str, Part]
    positions: Optional[np.ndarray]
    cameras: Optional[np.ndarray] = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def trace_any_size(network: nn.Module) -> AnySizeGraph:
    """Return the graph of a frozen network."""
    # Small, as tracing runs the network, and with sides and numbers of tokens that nothing else here is equal to.
    rows, cols = 3, 5
    image = torch.zeros(1, 3, rows * PATCH, cols * PATCH)
    if isinstance(network, LiteDepth):
        return AnySizeGraph({"depth": trace_part(_AnySizeLite(network), image=image)}, None)
    if isinstance(network, DepthAnything3Views):
        return _trace_views(network, rows, cols)
    assert isinstance(network, (DepthAnythingV2, DepthAnything3, VideoDepthAnything)), type(network)
    trained = _trained_positions(network.pretrained)
    width = len(trained)
    examples = {"image": image, "positions": torch.zeros(1, width, rows, cols)}
    if isinstance(network, DepthAnythingV2):
        return AnySizeGraph({"depth": trace_part(_AnySizeDepthAnything(network), **examples)}, trained)
    if isinstance(network, DepthAnything3):
        part = replace(trace_part(_AnySizeDepthAnything(network), **examples), outputs=("depth", "sky"))
        return AnySizeGraph({"depth": part}, trained)
    features = network.head.scratch.output_conv1.in_channels
    coarse = {name: torch.zeros(WINDOW, width, rows, cols) for name in ("map3", "map4")}
    fine = {name: torch.zeros(1, width, rows, cols) for name in ("map2", "map1")}
    mixed = torch.zeros(1, features, 2 * rows, 2 * cols)
    parts = {
        "encode": trace_part(_AnySizeEncoder(network.pretrained), **examples),
        "mix": trace_part(_AnySizeMix(network), **coarse),
        "finish": trace_part(_AnySizeFinish(network), mixed=mixed, **fine),
    }
    return AnySizeGraph(parts, trained)


def _trace_views(network: DepthAnything3Views, rows: int, cols: int) -> AnySizeGraph:
    count, vit, head = 2, network.pretrained, network.head
    trained = _trained_positions(vit)
    width, tokens = len(trained), 1 + rows * cols
    dim = width // next(block.attn.heads for block in vit.blocks if isinstance(block, Block))
    channels = [layer.out_channels for layer in head.projects if isinstance(layer, nn.Conv2d)]
    features = head.scratch.output_conv1.out_channels
    image = torch.zeros(count, 3, rows * PATCH, cols * PATCH)
    turns = {
        **{f"alone_{name}": torch.zeros(tokens, dim) for name in ("cos", "sin")},
        **{f"across_{name}": torch.zeros(count * tokens, dim) for name in ("cos", "sin")},
    }
    codes = {f"code{i}": torch.zeros(1, tokens - 1, each) for i, each in enumerate(channels)}
    levels = {f"level{i}": torch.zeros(count, tokens - 1, each) for i, each in enumerate(channels)}

    def places(scale: int) -> dict[str, torch.Tensor]:
        return {
            "columns": torch.zeros(1, features, 1, scale * cols),
            "rows": torch.zeros(1, features, scale * rows, 1),
        }

    cameras = {"cameras": torch.zeros(count, width)}
    begin = {"image": image, "positions": torch.zeros(1, width, rows, cols)}
    relate = {"tokens": torch.zeros(count, tokens, width), **cameras, **turns, **codes}
    open_levels = {"columns": (3,), "rows": (2,), **dict.fromkeys(levels, (0, 1))}
    parts = {
        "begin": replace(
            trace_part(BeginViews(vit), **begin), outputs=("tokens",), axes={"image": (0, 2, 3), "positions": (2, 3)}
        ),
        "relate": replace(
            trace_part(RelateViews(vit, head), **relate),
            outputs=(*levels, "pose"),
            axes={"tokens": (0, 1), "cameras": (0,), **dict.fromkeys(turns, (0,)), **dict.fromkeys(codes, (1,))},
        ),
        "depth": replace(
            trace_part(FinishViews(head), **places(PATCH), **levels), outputs=("depth", "confidence"), axes=open_levels
        ),
        "rays": replace(
            trace_part(FinishRays(head), **places(RAY_SCALE), **levels),
            outputs=("rays", "ray_confidence"),
            axes=open_levels,
        ),
        "decode": replace(
            trace_part(network.cam_dec, pose=torch.zeros(count, 2 * width)), outputs=("numbers",), axes={"pose": (0,)}
        ),
        "encode": replace(
            trace_part(network.cam_enc, numbers=torch.zeros(count, NUMBERS)),
            outputs=("cameras",),
            axes={"numbers": (0,)},
        ),
    }
    return AnySizeGraph(parts, trained, vit.camera_token.detach().float()[0].numpy())


def _trained_positions(vit: VisionTransformer) -> np.ndarray:
    grid = vit.pos_embed.detach().float()[0, 1:].T
    side = round(grid.shape[1] ** 0.5)
    return np.ascontiguousarray(grid.numpy().reshape(len(grid), side, side))


def trace_part(module: nn.Module, **examples: torch.Tensor) -> Part:
    """Return a traced module, which is frozen by this."""
    module.eval().requires_grad_(False)

    # Weights of a function are constants from the start, which takes a third of the time of freezing a module.
    def forward(*inputs: torch.Tensor) -> Any:
        return module(*inputs)

    with torch.no_grad(), quiet_jit():
        # A group norm compares its sizes in Python, outside the trace.
        tracer_warning = torch.jit.TracerWarning  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=tracer_warning, module=r"torch\.nn\.functional")
        traced: TracedFunction = torch.jit.trace(  # type: ignore[no-untyped-call]
            forward, tuple(examples.values()), check_trace=False
        )
    # One node per constant, which halves the time of a conversion. Freezing a module ends with the same two passes.
    passes: Any = torch._C
    passes._jit_pass_constant_pooling(traced.graph)
    passes._jit_pass_cse(traced.graph)
    return Part(traced, examples)


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


class _AnySizeTransformer(nn.Module):
    """Picture and positions to the tokens of the four maps (1, 1 + rows * cols, D), before the last gain and shift."""

    first: torch.Tensor

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.taps = vit.taps
        self.norm = plain_norm(vit.norm)
        self.project = vit.patch_embed.proj
        self.register_buffer("first", (vit.cls_token + vit.pos_embed[:, :1]).detach().float())
        # Blocks after the last tapped one are never read.
        blocks = [block for block in vit.blocks if isinstance(block, Block)][: max(vit.taps) + 1]
        self.blocks = nn.ModuleList(FoldedBlock(block, batch=1, tokens=-1, fused=HAS_FUSED) for block in blocks)

    def forward(self, image: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        x = self.project(image) + positions
        x = torch.cat([self.first, x.flatten(2).permute(0, 2, 1)], dim=1)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(self.norm(x))
        return maps


class _AnySizeEncoder(nn.Module):
    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.transformer = _AnySizeTransformer(vit)
        self.gain, self.shift = vit.norm.weight, vit.norm.bias

    def forward(self, image: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tokens = ((x * self.gain + self.shift)[:, 1:] for x in self.transformer(image, positions))
        return tuple(x.permute(0, 2, 1).reshape(positions.shape) for x in tokens)


class _AnySizeDepthAnything(nn.Module):
    def __init__(self, network: Union[DepthAnythingV2, DepthAnything3]) -> None:
        super().__init__()
        self.transformer = _AnySizeTransformer(network.pretrained)
        self.head = network.head if isinstance(network, DepthAnything3) else network.depth_head
        norm = network.pretrained.norm
        self.activate: Any = network.activate
        # The head's first layers work on tokens, narrow those that have to be transposed, and take the last norm in.
        layers = [layer for layer in self.head.projects if isinstance(layer, nn.Conv2d)]
        self.projects = nn.ModuleList(normed(layer.weight.flatten(1), layer.bias, norm) for layer in layers)

    def forward(self, image: torch.Tensor, positions: torch.Tensor) -> Any:
        rows, cols = positions.shape[2], positions.shape[3]
        levels = []
        for x, project, up in zip(self.transformer(image, positions), self.projects, self.head.resize_layers):
            x = project(x)[:, 1:]
            levels.append(up(x.reshape(1, rows, cols, -1).permute(0, 3, 1, 2)))
        return self.activate(self.head.fuse(levels, (rows, cols)))
