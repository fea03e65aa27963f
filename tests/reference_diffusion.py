"""Small networks of DepthCrafter's kinds, their weights and their noise, by rule, for tests against the official code.

The arrays of data/depthcrafter.npz were computed by the official pipeline (revision e518612) with these networks and
this noise in place of its own, whose stream differs between devices: for each case all embeddings, every second number
of the latents along both axes, every fourth pixel of the maps, and the ends of all of them.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthcli.choices.clips import DiffusionChoice
from depthcli.temporal.denoising import PIXELS, Noise
from tests.reference import reference_tensor

DATA = Path(__file__).parent / "data/depthcrafter.npz"
UNET = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
    "block_out_channels": [32, 32, 64, 64],
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 48,
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "transformer_layers_per_block": 1,
    "num_attention_heads": [1, 2, 4, 4],
    "num_frames": 25,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "block_out_channels": [32, 32, 32, 32],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 64,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
IMAGE_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 32,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
}


@dataclass(frozen=True)
class Case:
    """One clip that the official code was run on."""

    frames: int
    height: int
    width: int
    choice: DiffusionChoice

    @property
    def name(self) -> str:
        c = self.choice
        size = f"{self.height}x{self.width}"
        return f"n{self.frames}_{size}_w{c.window}_o{c.overlap}_s{c.steps}_g{c.guidance}"

    @property
    def noise(self) -> Noise:
        """The noise in place of the official pipeline's."""
        side = self.height // 8, self.width // 8
        pixels = _normal("video", (self.frames, 3, self.height, self.width))
        latents = _normal("latents", (1, min(self.frames, self.choice.window), 4, *side))[0]
        return lambda kind, place, shape: (pixels if kind == PIXELS else latents)[place]

    def found(self) -> dict[str, np.ndarray]:
        with np.load(DATA) as file:
            return {key.rpartition("/")[2]: file[key] for key in file if key.startswith(self.name + "/")}


CASES = (
    Case(1, 64, 64, DiffusionChoice()),
    Case(6, 64, 64, DiffusionChoice()),
    Case(6, 64, 64, DiffusionChoice(steps=3, window=6, overlap=2, guidance=1.2)),
    Case(14, 64, 128, DiffusionChoice(steps=3, window=6, overlap=2)),
    Case(11, 128, 64, DiffusionChoice(steps=2, window=6, overlap=4)),
    Case(9, 64, 64, DiffusionChoice(steps=1, window=8, overlap=3)),
)


def _normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    text = f"dev:noise:{name}:" + "x".join(map(str, shape))
    return np.random.RandomState(zlib.crc32(text.encode())).standard_normal(shape).astype(np.float32)


def write_weights(folder: Path) -> Path:
    """Write the networks in the layout of the hub's repositories, and return the folder."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    stable = folder / "stable-video-diffusion-img2vid-xt"
    embedder = CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER))
    half, plain = "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"
    _write("unet", UNetSpatioTemporalConditionModel(**UNET), UNET, folder / "DepthCrafter" / plain)
    _write("vae", AutoencoderKLTemporalDecoder(**VAE), VAE, stable / "vae" / half)
    _write("image_encoder", embedder, IMAGE_ENCODER, stable / "image_encoder" / "model.fp16.safetensors")
    return folder


def _write(name: str, network: Any, config: dict[str, Any], path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    state = {key: torch.from_numpy(reference_tensor(f"{name}.{key}", shape)) for key, shape in shapes.items()}
    save_file(state, path)
    (path.parent / "config.json").write_text(json.dumps(config))
