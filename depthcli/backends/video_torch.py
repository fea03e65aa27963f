"""Eager PyTorch for models that see a window of frames at once, on CPU, CUDA or Apple's MPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from depthcli.backends.torch_eager import TorchDevice
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.host.memory import check_clip_memory
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.video_depth_anything import Taps, VideoDepthAnything
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

# Frames that are encoded at once. Divisors of 10, 22 and 32, the frames that a window begins and goes on with: every
# call then has the same size, and a frame that is encoded again after an interruption gets the same bits on a GPU too.
_BATCHES = {"cpu": 1}
_BATCH_ON_DEVICES = 2


class VideoTorch:
    """A `VideoNetwork` of temporal/windows.py on a device. Arguments as for every engine of `backends`."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        self._row = row
        self._on = TorchDevice(choice)
        network = self._on.load(row, weights, trust)
        assert isinstance(network, VideoDepthAnything), row.name
        self._network: VideoDepthAnything | None = network
        self.best_batch = _BATCHES.get(self._on.device.type, _BATCH_ON_DEVICES)
        self.description = self._on.description

    def check(self, plan: InputPlan) -> None:
        """Raise PictureError where a window of this size would not fit into the device's memory."""
        check_clip_memory(
            self._row.network, plan, self.best_batch, self._on.free_memory(), plain_attention=not HAS_FUSED
        )

    def encode(self, images: np.ndarray) -> Sequence[Any]:
        """Return the tapped maps of each of the images (n, 3, H, W) float32, on the device; raises EngineError."""
        network = self._opened()
        with self._on.computing():
            return network.encode(torch.from_numpy(np.ascontiguousarray(images)).to(self._on.device))

    def decode(self, frames: Sequence[Taps]) -> np.ndarray:
        """Return the answers (32, H, W) float32 for the maps of a window; raises EngineError."""
        network = self._opened()
        with self._on.computing():
            return network.decode(frames).float().cpu().numpy()

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._network = None

    def _opened(self) -> VideoDepthAnything:
        if self._network is None:
            raise EngineError("this network is closed", "open another one")
        return self._network
