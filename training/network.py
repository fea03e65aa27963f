"""The packaged small model: its configuration, how it starts, and its file of weights."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from depthcli.nets.build import build_network
from depthcli.zoo import NetworkConfig
from training.loss import LEVEL

TINY = NetworkConfig(
    embed_dim=192,
    depth=8,
    heads=3,
    features=32,
    out_channels=(32, 64, 128, 128),
    taps=(1, 3, 5, 7),
    position_grid=16,
)


def new_network(config: NetworkConfig = TINY) -> nn.Module:
    """A network with weights a transformer can be trained from without pretraining."""
    network = build_network(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
            if name.endswith(("attn.proj", "mlp.fc2")):
                module.weight.data.mul_((2 * config.depth) ** -0.5)
    vit = network.pretrained
    nn.init.trunc_normal_(vit.pos_embed, std=0.1)
    nn.init.trunc_normal_(vit.cls_token, std=0.1)
    last = network.depth_head.scratch.output_conv2[2]
    # The network ends in a ReLU: a start well above zero keeps every picture element learning.
    nn.init.constant_(last.bias, LEVEL)
    return network


def save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state as half-precision safetensors, whole or not at all."""
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in state.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(half, str(partial))
    os.replace(partial, path)


def load_weights(path: Path, config: NetworkConfig = TINY) -> nn.Module:
    """The network of a file of weights, in float32, ready to run."""
    network = build_network(config)
    network.load_state_dict({key: value.float() for key, value in load_file(str(path)).items()})
    return network.eval()
