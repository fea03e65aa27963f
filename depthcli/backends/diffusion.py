"""The networks of DepthCrafter on a device, in the form in which temporal/denoising.py asks for them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from depthcli.backends.torch_eager import pick_device, torch_errors
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, UsageError
from depthcli.host.diffusion_memory import check_weights_memory
from depthcli.nets.depthcrafter import (
    PARAMETERS,
    Networks,
    count_operations,
    image_of_embedder,
    random_networks,
    read_networks,
)
from depthcli.zoo.locate import WeightsFile

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Diffusion:
    """The networks of a clip. Raises EngineError for a missing device or precision, ModelError for the files.

    weights: None for random ones of the published networks, to measure with.
    offload: "none" keeps all networks on the device, "model" the one that runs, "sequential" the layer that runs.
    dtype: in which latents are kept between the steps; NumPy has no bf16, so for that it is float32.
    width: channels of the UNet's first level. weight_bytes: of all networks; unet_bytes: of the UNet.
    """

    def __init__(self, weights: Optional[WeightsFile], choice: BackendChoice, offload: str = "none") -> None:
        if choice.backend not in ("auto", "torch"):
            raise UsageError(f"{choice.backend} does not run depthcrafter", "use `backend` auto or torch")
        self._device = pick_device(choice.device)
        precision = _pick_precision(choice.precision, self._device)
        if offload != "none" and choice.device == "auto" and self._device.type == "cpu":
            raise UsageError(
                "`cpu_offload` is for a GPU, and there is none", "leave it out, or name the `device` that computes"
            )
        self._dtype = _DTYPES[precision]
        self.dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
        numbers = PARAMETERS if weights is None else sum(map(_numbers_in, weights.parts))
        check_weights_memory(numbers, self._dtype.itemsize)
        networks = random_networks(self._dtype) if weights is None else read_networks(weights.parts, self._dtype)
        self.width = networks.width
        self.unet_bytes = _bytes_of(networks.unet)
        self.weight_bytes = sum(map(_bytes_of, networks.modules))
        self.on_gpu = self._device.type != "cpu"
        self.description = f"torch {torch.__version__} {self._device} {precision}"
        with torch_errors():
            self._networks: Optional[Networks] = _placed(networks, self._device, offload)

    def encode(self, frame: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the embedding (D,) and the latents (4, H / 8, W / 8), in `dtype`, of a frame (3, H, W) in -1..1.

        noise: (3, H, W), normal; a little of it is put on the frame before the latents are made.
        """
        with self._running() as networks:
            x = torch.from_numpy(frame)[None].to(self._device)
            embedding = networks.embedder(image_of_embedder(x).to(self._dtype))
            noisy = x + 0.02 * torch.from_numpy(noise)[None].to(self._device)
            # In memory as the official code has its frames: other kernels of convolutions round differently.
            latents = networks.encoder(noisy.contiguous(memory_format=torch.channels_last))[0]
            return self._array(embedding[0]), self._array(latents.contiguous())

    def denoise(self, z: np.ndarray, latents: np.ndarray, context: np.ndarray, noise: float) -> np.ndarray:
        """Return the answer (T, 4, h, w) float32 of the UNet, which decides a step.

        z: (T, 4, h, w), scaled for the UNet; latents: (T, 4, h, w) and context: (T, D) of the frames.
        noise: what the UNet is told of the noise in z.
        """
        with self._running() as networks:
            inputs = torch.cat([self._tensor(z), self._tensor(latents)], dim=1)
            told = torch.tensor([noise], dtype=torch.float32, device=self._device)
            answer: np.ndarray = networks.unet(inputs, told, self._tensor(context)).float().cpu().numpy()
        return answer

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return disparity (T, 8 h, 8 w) float32 in 0..1 for latents (T, 4, h, w) of consecutive frames."""
        with self._running() as networks:
            rgb = networks.decoder(self._tensor(latents))
            maps: np.ndarray = (rgb.sum(dim=1) / 3).cpu().numpy()
        return maps

    def operations(self, size: tuple[int, int], frames: int) -> dict[str, float]:
        """Return the floating-point operations for each frame of `encode`, `denoise` and `decode`; nothing is computed.

        size: (width, height) of the frames. frames: of a window. A multiply-add counts as 2; norms and activations are
        not counted.
        """
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            return count_operations(self._opened(), size, frames, self._dtype, self._device)

    def free_memory(self) -> Optional[int]:
        """Return the bytes that are free on the device, without what the weights take."""
        if self._device.type != "cuda":
            return None
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0]) + cached

    def close(self) -> None:
        """Free the networks; closing twice is allowed."""
        self._networks = None

    @contextmanager
    def _running(self) -> Iterator[Networks]:
        networks = self._opened()
        with torch.inference_mode(), torch_errors():
            if self._device.type == "cuda":  # TF32 is on by default in cuDNN and costs three digits
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    yield networks
            else:
                yield networks

    def _opened(self) -> Networks:
        if self._networks is None:
            raise EngineError("this backend is closed", "open another one")
        return self._networks

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._dtype)

    def _array(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.to(torch.float16 if self._dtype is torch.float16 else torch.float32).cpu().numpy()


def _pick_precision(wanted: str, device: torch.device) -> str:
    """Return fp32 or fp16; by default what the official code computes in: fp16 on a GPU, fp32 on a CPU."""
    precision = ("fp32" if device.type == "cpu" else "fp16") if wanted == "auto" else wanted
    if precision == "exact":
        precision = "fp32"
    if precision not in _DTYPES:
        raise EngineError(
            f"depthcrafter does not compute in {precision}", f"use `precision` auto, {', '.join(_DTYPES)}"
        )
    if precision == "fp16" and device.type == "cpu":
        raise EngineError("half precision does not run on the CPU", "use `precision` auto, fp32 or bf16")
    return precision


def _placed(networks: Networks, device: torch.device, offload: str) -> Networks:
    """Return the networks on the device, or with hooks that bring there what runs."""
    from accelerate import cpu_offload, cpu_offload_with_hook

    previous: Any = None
    for network in networks.modules:
        if offload == "model":
            _, previous = cpu_offload_with_hook(network, device, previous)
        elif offload == "sequential":
            cpu_offload(network, device)
        else:
            network.to(device)
    return networks


def _numbers_in(path: Path) -> int:
    """Return how many numbers a safetensors file has by its header; 0 for any other file, whose reader will say why."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError), path.open("rb") as stream:
        if path.suffix == ".safetensors":
            tensors = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            return sum(math.prod(facts["shape"]) for name, facts in tensors.items() if name != "__metadata__")
    return 0


def _bytes_of(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
