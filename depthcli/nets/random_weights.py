"""Random weights for measurements: always the same, and smooth enough for maps like depth."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from depthcli.nets.build import build_network
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.nets.dpt import DPTHead, bilinear
from depthcli.nets.video_depth_anything import VideoDepthAnything
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask
from depthcli.zoo.verify import digest


def random_weights(row: ModelRow, folder: Path) -> WeightsFile:
    """Write a row's random weights, always the same, and return the file.

    The map is as smooth as depth and uses all codes, as the time of writing a PNG depends on that.
    """
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(row.network, row.kind.is_metric, row.task is ModelTask.CLIP).eval()
        if isinstance(network, (DepthAnythingV2, VideoDepthAnything)):
            _make_smooth(network)
    path = folder / f"{row.name}-random.safetensors"
    save_file(network.state_dict(), str(path))
    return WeightsFile(path, digest(path), "random")


def _make_smooth(network: DepthAnythingV2 | VideoDepthAnything) -> None:
    """Remove the pattern of the two finest maps, and scale the output to about 1/4 to 5/4."""
    head: DPTHead = network.head if isinstance(network, VideoDepthAnything) else network.depth_head
    for layer in list(head.resize_layers)[:2]:
        nn.init.zeros_(cast(nn.ConvTranspose2d, layer).weight)
    image = bilinear(torch.randn(1, 3, 8, 8), (112, 112))
    answer = head(network.encode(image) if isinstance(network, VideoDepthAnything) else network.pretrained(image))
    low, high = float(answer.min()), float(answer.max())
    last = cast(nn.Conv2d, head.scratch.output_conv2[2])
    assert last.bias is not None
    last.weight /= high - low
    last.bias.copy_((last.bias - low) / (high - low) + 0.25)
