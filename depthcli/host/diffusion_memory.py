"""Estimate how much memory a window of a diffusion model needs."""

from __future__ import annotations

from typing import Optional, Protocol

import numpy as np

from depthcli.choices.clips import LATENT_MULTIPLE, DiffusionChoice
from depthcli.errors import EngineError, PictureError
from depthcli.host.memory import free_memory
from depthcli.pixels.preprocess import InputPlan

_GIB = 1 << 30
# Largest sums of live tensors of the published networks in half precision, traced for 1024x576 with fused attention
# and the feed-forward a frame at a time: a pass of the UNet over 110 frames, the decoder of eight frames, and the
# encoder of one frame, which runs in float32.
_PIXELS, _WIDTH, _FRAMES = 1024 * 576, 320, 110
_UNET, _DECODER, _ENCODER = 10.6 * _GIB, 9.0 * _GIB, 1.4 * _GIB


class _Networks(Protocol):
    dtype: np.dtype
    width: int
    on_gpu: bool

    def free_memory(self) -> Optional[int]: ...


def diffusion_bytes(plan: InputPlan, frames: int, width: int = _WIDTH, bytes_per_number: int = 2) -> int:
    """Return the peak bytes of a window beside the weights. width: channels of the UNet's first level."""
    area = plan.input_size[0] * plan.input_size[1] / _PIXELS
    half = max(_UNET * frames / _FRAMES, _DECODER) * bytes_per_number / 2
    return int(max(half, _ENCODER) * area * width / _WIDTH)


def check_weights_memory(numbers: int, bytes_per_number: int) -> None:
    """Raise EngineError if so many numbers of weights do not fit into the memory of this machine, as loading begins."""
    need, free = numbers * bytes_per_number, free_memory()
    if free is not None and need > free:
        way = "use a machine with more memory" if bytes_per_number < 4 else "`precision` bf16 takes half of it"
        raise EngineError(f"the networks take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free", way)


def check_diffusion_memory(
    networks: _Networks, choice: DiffusionChoice, plan: InputPlan, frames: Optional[int] = None
) -> None:
    """Raise PictureError, with a window or a size that would fit, if a window needs more than the free memory.

    frames: of the clip, None if unknown.
    """
    free = networks.free_memory() if networks.on_gpu else free_memory()
    if free is None:
        return
    room, most = free, min(choice.window, frames or choice.window)

    def need_of(plan: InputPlan, frames: int) -> int:
        return diffusion_bytes(plan, frames, networks.width, networks.dtype.itemsize)

    need = need_of(plan, most)
    if need <= room:
        return
    width, height = plan.input_size
    windows = (count for count in range(most - 1, choice.overlap, -1) if need_of(plan, count) <= room)
    sizes = (
        size
        for size in range(max(width, height) - LATENT_MULTIPLE, 0, -LATENT_MULTIPLE)
        if need_of(plan.resized(size), most) <= room
    )
    ways = [f"`{name}` {way}" for name, way in (("window", next(windows, None)), ("max_res", next(sizes, None))) if way]
    raise PictureError(
        f"windows of {most} frames of {width}x{height} need about {need / 1e9:.1f} GB beside the weights, and "
        f"{room / 1e9:.1f} GB are free",
        f"{' or '.join(ways)} would fit" if ways else "use a machine with more memory",
    )
