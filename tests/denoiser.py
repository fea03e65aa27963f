"""A stand-in for the networks of a diffusion model: small, and sensitive to everything that they are given."""

from __future__ import annotations

import numpy as np


class StandIn:
    """Answers depend on every frame of a window, on the number of frames that are decoded at once, and on the noise."""

    dtype = np.dtype(np.float32)
    description = "stand-in 1 cpu fp32"
    width, weight_bytes, unet_bytes, on_gpu = 1, 0, 0, False

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def encode(self, frame, noise):
        self.calls.append(("encode", 1))
        noisy = frame + np.float32(0.02) * noise
        blocks = noisy.reshape(3, noisy.shape[1] // 8, 8, -1, 8).mean((2, 4))
        return np.append(frame.mean((1, 2)), frame.std()), np.concatenate([blocks, blocks[:1] * blocks[1:2]])

    def denoise(self, z, latents, context, noise):
        self.calls.append(("denoise", len(z)))
        around = np.tanh(z).mean(0) * context.mean()
        return np.tanh(latents - 0.3 * z * np.float32(noise) + around + context[:, :4, None, None]).astype(np.float32)

    def decode(self, latents):
        self.calls.append(("decode", len(latents)))
        gray = latents.mean(1) + 0.2 * latents.mean((0, 1)) + np.float32(0.01) * len(latents)
        return (1 / (1 + np.exp(-gray))).repeat(8, 1).repeat(8, 2).astype(np.float32)

    def free_memory(self):
        return None

    def close(self):
        pass
