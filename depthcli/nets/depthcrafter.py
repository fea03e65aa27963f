"""The networks of DepthCrafter (https://depthcrafter.github.io): those of Stable Video Diffusion, each as one module.

They need the extra `diffusion`. Sizes come from the config.json beside each file of weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from depthcli.errors import CheckpointError, first_line
from depthcli.nets.checkpoint import read_state

# What the published network was trained to be told of every clip: frames per second, motion, noise on the frames.
_TIME_IDS = (7.0, 127.0, 0.02)
_SIDE = 224  # of the image encoder's input, pixels
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP, for RGB in 0..1
_STD = (0.26862954, 0.26130258, 0.27577711)
PARAMETERS = 2_254_442_729  # of all published networks
# The published sizes, where they are not those that the classes have by default.
_UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "num_attention_heads": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
}
_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
_EMBEDDER = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}


class FramewiseUNet(UNetSpatioTemporalConditionModel):  # type: ignore[misc] # diffusers has no types
    """The UNet of Stable Video Diffusion with an image embedding for each frame instead of one for all.

    forward: z (T, 8, h, w); noise, a tensor of one number; context (T, D) -> (T, 4, h, w).
    """

    def forward(self, z: torch.Tensor, noise: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        frames = z.shape[0]
        time = self.time_embedding(self.time_proj(noise.reshape(1)).to(z.dtype))
        ids = self.add_time_proj(z.new_tensor(_TIME_IDS, dtype=torch.float32)).reshape(1, -1)
        time = (time + self.add_embedding(ids.to(z.dtype))).repeat(frames, 1)
        told = {"temb": time, "image_only_indicator": z.new_zeros(1, frames)}
        seen = {"encoder_hidden_states": context[:, None]}

        def of(block: nn.Module) -> Mapping[str, torch.Tensor]:
            return {**told, **seen} if getattr(block, "has_cross_attention", False) else told

        x = self.conv_in(z)
        skips = [x]
        for block in self.down_blocks:
            x, kept = block(hidden_states=x, **of(block))
            skips.extend(kept)
        x = self.mid_block(hidden_states=x, **told, **seen)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, kept = skips[:-count], tuple(skips[-count:])
            x = block(hidden_states=x, res_hidden_states_tuple=kept, **of(block))
        return self.conv_out(self.conv_act(self.conv_norm_out(x)))


class FrameEncoder(nn.Module):
    """The encoder of the autoencoder: (B, 3, H, W) in -1..1 -> the mode of its latents (B, 4, H / 8, W / 8)."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mode: torch.Tensor = self.quant_conv(self.encoder(x)).chunk(2, dim=1)[0]
        return mode


class FramesDecoder(nn.Module):
    """The temporal decoder: (T, 4, h, w) latents of frames in order -> RGB (T, 3, 8 h, 8 w) in 0..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder, self._scale = vae.decoder, float(vae.config.scaling_factor)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        frames = len(z)
        rgb = self.decoder(z / self._scale, image_only_indicator=z.new_zeros(1, frames), num_frames=frames)
        return (rgb.float() / 2 + 0.5).clamp(0, 1)


class FrameEmbedder(nn.Module):
    """CLIP's image encoder: (B, 3, 224, 224), normalised -> (B, D)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.encoder(x).image_embeds
        return embedding


@dataclass(frozen=True)
class Networks:
    """The networks of a clip, in the order in which it needs them. width: channels of the UNet's first level."""

    embedder: FrameEmbedder
    encoder: FrameEncoder
    unet: FramewiseUNet
    decoder: FramesDecoder
    width: int

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All four."""
        return self.embedder, self.encoder, self.unet, self.decoder


def random_networks(dtype: torch.dtype) -> Networks:
    """Return the networks at their published sizes with random weights, to measure with; see `read_networks`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        unet = FramewiseUNet(**_UNET)
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**_EMBEDDER))
    finally:
        torch.set_default_dtype(before)
    return _joined(unet, AutoencoderKLTemporalDecoder(**_VAE), clip, dtype)


def read_networks(parts: Sequence[Path], dtype: torch.dtype) -> Networks:
    """Return the networks of the files of the row `depthcrafter`, on the CPU, for inference.

    dtype: of all but the encoder of the autoencoder, which overflows in half precision. Raises CheckpointError for
    files of other networks.
    """
    files = dict(zip(("unet", "unet.json", "vae", "vae.json", "embedder", "embedder.json"), parts))
    unet = _loaded(FramewiseUNet.from_config, files["unet.json"], files["unet"], dtype)
    vae = _loaded(AutoencoderKLTemporalDecoder.from_config, files["vae.json"], files["vae"], torch.float32)
    clip = _loaded(
        lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)),
        files["embedder.json"],
        files["embedder"],
        dtype,
    )
    return _joined(unet, vae, clip, dtype)


def _joined(unet: Any, vae: Any, clip: Any, dtype: torch.dtype) -> Networks:
    unet.enable_forward_chunking(1)  # the feed-forward of one frame at a time: 40 % less memory
    decoder = FramesDecoder(vae)
    return Networks(
        FrameEmbedder(clip).eval(),
        FrameEncoder(vae).eval(),
        unet.eval(),
        (decoder if dtype is torch.float32 else decoder.to(dtype)).eval(),
        int(unet.config["block_out_channels"][0]),
    )


def _loaded(build: Callable[[Any], Any], config: Path, weights: Path, dtype: torch.dtype) -> Any:
    """Return a network of a config.json with the tensors of a file."""
    try:
        with init_empty_weights(include_buffers=False):
            network = build(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{config} does not describe a network: {first_line(error)}") from error
    state = {
        name: tensor.to(dtype) for name, tensor in read_state(weights).items() if not name.endswith(".position_ids")
    }
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {config}: {first_line(error)}") from error
    return network


def count_operations(
    networks: Networks, size: tuple[int, int], frames: int, dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """Return the floating-point operations for each frame of encoding, denoising once, and decoding, by these words.

    Call it among fake tensors, so that nothing is computed. size: (width, height) of the frames. frames: of a window.
    A multiply-add counts as 2; norms, activations and the products inside attention are not counted. Newer versions of
    torch would count the latter, a quarter of a step more at 1024x576.
    """
    from torch.utils.flop_counter import FlopCounterMode

    width, height = size
    here: dict[str, Any] = {"dtype": dtype, "device": device}
    z = torch.empty(frames, 8, height // 8, width // 8, **here)
    context = torch.empty(frames, networks.unet.config["cross_attention_dim"], **here)
    small = torch.empty(1, 3, _SIDE, _SIDE, **here)
    pixels, noise = torch.empty(1, 3, height, width, device=device), torch.ones(1, device=device)

    def counted(run: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        counts = counter.get_flop_counts().get("Global", {})
        return float(sum(count for operator, count in counts.items() if "scaled_dot_product" not in str(operator)))

    return {
        "encode": counted(lambda: networks.embedder(small)) + counted(lambda: networks.encoder(pixels)),
        "denoise": counted(lambda: networks.unet(z, noise, context)) / frames,
        "decode": counted(lambda: networks.decoder(z[:, :4])) / frames,
    }


def image_of_embedder(frame: torch.Tensor) -> torch.Tensor:
    """Return (1, 3, 224, 224), normalised, for a frame (1, 3, H, W) float32 in -1..1.

    It is blurred, and resized bicubic with aligned corners. The blur is the official code's: sigma by the ratio of each
    side to 224, and 4 sigma as its number of taps.
    """
    for axis in (3, 2):  # along x first
        frame = _blurred(frame, axis)
    small = F.interpolate(frame, (_SIDE, _SIDE), mode="bicubic", align_corners=True)
    mean, std = (small.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return ((small + 1) / 2 - mean) / std


def _blurred(x: torch.Tensor, axis: int) -> torch.Tensor:
    sigma = max((x.shape[axis] / _SIDE - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3))
    taps += 1 - taps % 2
    reach = taps // 2
    kernel = torch.exp(-((torch.arange(taps, dtype=x.dtype, device=x.device) - reach) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, *((1, taps) if axis == 3 else (taps, 1))).expand(x.shape[1], 1, -1, -1)
    padding = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    return F.conv2d(F.pad(x, padding, mode="reflect"), kernel, groups=x.shape[1])
