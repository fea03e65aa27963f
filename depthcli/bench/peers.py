"""The official code's network and its script's loop, to compare with in `depth bench`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from depthcli.backends import PICTURE_GRAPHS, SCENE_GRAPHS, Arrays, Traits
from depthcli.backends.torch_eager import pick_device
from depthcli.errors import EngineError, UsageError
from depthcli.graphs.official_form import OfficialForm
from depthcli.graphs.official_views import OfficialViewsForm
from depthcli.host.memory import check_memory, free_memory
from depthcli.io.codecs.formats import SIDE_GAP
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import read_network
from depthcli.nets.depth_anything_3 import DepthAnything3Views
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.pixels.colormap import color_table
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask


class OfficialNetwork:
    """The official code's form of a network, float32, as a backend.

    fused: with torch's fused attention, which Depth Anything 3 always has. Raises EngineError if torch has none,
    UsageError for a network other than Depth Anything V2, or 3 for scenes.
    """

    def __init__(
        self, row: ModelRow, weights: WeightsFile, device: str = "auto", trust: bool = False, fused: bool = False
    ) -> None:
        if fused and not HAS_FUSED:
            raise EngineError(f"torch {torch.__version__} has no fused attention", "it came with torch 2.0")
        self._row, self._fused = row, fused
        self._device = pick_device(device)
        network = read_network(row, weights, trust)
        if isinstance(network, DepthAnything3Views):
            form: nn.Module = OfficialViewsForm(network)
        elif isinstance(network, DepthAnythingV2):
            form = OfficialForm(network, fused)
        else:
            raise UsageError(f"there is no official code for {row.name}", "use `encoder` vits")
        self._form: Optional[nn.Module] = form.to(self._device)
        graphs = SCENE_GRAPHS if row.task is ModelTask.SCENE else PICTURE_GRAPHS
        self.traits = Traits("torch", torch.__version__, str(self._device), "fp32", graphs=graphs)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan: any size works."""
        return plan

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """Raise PictureError if a batch of this size does not fit into the memory."""
        free = torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else free_memory()
        check_memory(self._row.network, plan, batch, free, plain_attention=not self._fused)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}."""
        image = torch.from_numpy(np.ascontiguousarray(inputs["image"])).to(self._device)
        return {"depth": self._forward(image).cpu().numpy()}

    def estimate_file(self, source: Path, target: Path, input_size: int) -> bool:
        """Process one picture as the official script does: write photo, gap and colours side by side.

        The script takes the colours from matplotlib, which is slower. Returns False if OpenCV cannot read the file.
        """
        raw = cv2.imread(str(source))
        if raw is None:
            return False
        height, width = raw.shape[:2]
        policy = self._row.input
        image: np.ndarray = cv2.cvtColor(raw, cv2.COLOR_BGR2RGB) / 255.0
        image = cv2.resize(
            image, plan_input(width, height, policy.with_size(input_size)).input_size, interpolation=cv2.INTER_CUBIC
        )
        image = (image - np.array(policy.mean)) / np.array(policy.std)
        planes = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
        output = self._forward(torch.from_numpy(planes)[None].to(self._device))
        resized = F.interpolate(output[:, None], (height, width), mode="bilinear", align_corners=True)[0, 0]
        depth = resized.cpu().numpy()
        codes = ((depth - depth.min()) / (depth.max() - depth.min()) * 255.0).astype(np.uint8)
        colors = color_table("Spectral_r")[codes][:, :, ::-1]
        gap = np.full((height, SIDE_GAP, 3), 255, np.uint8)
        cv2.imwrite(str(target), cv2.hconcat([raw, gap, np.ascontiguousarray(colors)]))
        return True

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._form = None

    def _forward(self, image: torch.Tensor) -> torch.Tensor:
        if self._form is None:
            raise EngineError("this backend is closed", "open another one")
        with torch.no_grad():
            depth: torch.Tensor = self._form(image)
            return depth


def official_loop(
    network: OfficialNetwork, pictures: Sequence[Path], folder: Path, input_size: int
) -> tuple[float, int]:
    """Return the seconds of the official script's loop over pictures, without its start, and how many it could read."""
    started = time.perf_counter()
    done = sum(network.estimate_file(picture, folder / f"{i}.png", input_size) for i, picture in enumerate(pictures))
    return time.perf_counter() - started, done
