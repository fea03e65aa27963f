"""Depth Anything 3 (Lin et al., 2025): for one picture, for the views of a scene, and both nested.

Parameter names are those of the official checkpoints, without their leading "model.".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Optional, Union

import torch
from torch import nn

from depthcli.nets.cameras import CameraDecoder, CameraEncoder, to_matrices, to_numbers
from depthcli.nets.dpt import SkyHead, size_of
from depthcli.nets.dual_dpt import RAYS, DualHead, GaussianHead
from depthcli.nets.views import ViewsTransformer
from depthcli.nets.vit import VisionTransformer
from depthcli.zoo.rows import NestedConfig, SkyConfig, ViewsConfig

# Views in a head at once, whose maps are large: 8 as in the official code; on a CPU more than one only take memory.
_VIEWS_AT_ONCE = 8
_AUTOCAST = ("cpu", "cuda")  # devices that have it with every torch
Named = dict[str, Union[torch.Tensor, int]]


@contextlib.contextmanager
def _full_precision(x: torch.Tensor) -> Iterator[None]:
    """Compute in float32, also inside an autocast, as heads do in the official code. x: tells the device."""
    if x.device.type not in _AUTOCAST:
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield


def _parts(views: torch.Tensor) -> list[slice]:
    """Return the views that a head computes at once."""
    count = 1 if views.device.type == "cpu" else _VIEWS_AT_ONCE
    return [slice(start, start + count) for start in range(0, len(views), count)]


class DepthAnything3(nn.Module):
    """One picture: normalised (B, 3, H, W), H and W multiples of 14 -> depth and sky, (B, H, W) each.

    depth: > 0, up to scale, large is far; with the weights of da3-metric, metres = depth * focal / 300 for a focal
    length in pixels of the input. sky: >= 0; at least 0.3 is sky.
    """

    def __init__(self, config: SkyConfig) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"pretrained": VisionTransformer(config)})
        self.head = SkyHead(config)

    @property
    def pretrained(self) -> VisionTransformer:
        """The encoder."""
        encoder = self.backbone["pretrained"]
        assert isinstance(encoder, VisionTransformer)
        return encoder

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.pretrained(x)
        with _full_precision(x):
            return self.activate(self.head([each.float() for each in maps]))

    def activate(self, found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the answer for what the head gives."""
        depth, sky = found
        return torch.exp(depth), torch.relu(sky)


class DepthAnything3Views(nn.Module):
    """The views of one scene: normalised (V, 3, H, W), H and W multiples of 14 -> named tensors, see `forward`."""

    def __init__(self, config: ViewsConfig) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"pretrained": ViewsTransformer(config)})
        self.head = DualHead(config)
        self.cam_enc = CameraEncoder(config.embed_dim)
        self.cam_dec = CameraDecoder(config.map_channels)
        self.gs_head = GaussianHead(config) if config.gaussians else None

    @property
    def pretrained(self) -> ViewsTransformer:
        """The encoder."""
        encoder = self.backbone["pretrained"]
        assert isinstance(encoder, ViewsTransformer)
        return encoder

    def forward(
        self,
        views: torch.Tensor,
        extrinsics: Optional[torch.Tensor] = None,
        intrinsics: Optional[torch.Tensor] = None,
        reference: str = "saddle_balanced",
        rays: bool = False,
        gaussians: bool = False,
        features: Sequence[int] = (),
    ) -> Named:
        """Return for V views, float32, in their order:

        depth: (V, H, W), > 0 along the optical axis, up to one scale for the scene. confidence: (V, H, W), > 1.
        extrinsics: (V, 3, 4) world to camera, in that scale. intrinsics: (V, 3, 3) in pixels of the views.
        cameras: (V, 9), see nets/cameras.py. reference: index of the reference view.
        With `rays`: rays (V, 8 rows, 8 cols, 6), directions and origins, and ray_confidence (V, 8 rows, 8 cols), > 1.
        With `gaussians`: gaussians (V, H, W, 38), before activations.
        With `features`, numbers of blocks of the encoder from 0: features_N (V, rows, cols, D) behind the block N.

        extrinsics: (V, 3 or 4, 4) world to camera, relative to the first view and of normal scale, with intrinsics
        (V, 3, 3) in pixels of the views; or both None. reference: strategy, of geometry.reference_views.REFERENCES.
        """
        size = size_of(views)
        known = None
        if extrinsics is not None and intrinsics is not None:
            known = self.cam_enc(to_numbers(extrinsics, intrinsics, size))
        encoded = self.pretrained(views, known, reference, features)
        with _full_precision(views):
            cameras = self.cam_dec(encoded.pose.float())
            found_extrinsics, found_intrinsics = to_matrices(cameras, size)
            inputs = [x.float() for x in (views, *encoded.maps)]
            parts = [self._answers([x[part] for x in inputs], rays, gaussians) for part in _parts(views)]
        answers: Named = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {
            **answers,
            **{f"features_{number}": tokens.float() for number, tokens in encoded.features.items()},
            "extrinsics": found_extrinsics,
            "intrinsics": found_intrinsics,
            "cameras": cameras,
            "reference": encoded.reference,
        }

    def _answers(self, inputs: list[torch.Tensor], rays: bool, gaussians: bool) -> dict[str, torch.Tensor]:
        views, *maps = inputs
        grid = size_of(maps[0])
        levels = self.head.levels(maps)
        depth, confidence = self.head.depth(levels, grid)
        answers = {"depth": torch.exp(depth), "confidence": torch.exp(confidence) + 1}
        if rays:
            found = self.head.rays(levels, grid)
            answers["rays"] = found[:, :RAYS].permute(0, 2, 3, 1)
            answers["ray_confidence"] = torch.exp(found[:, RAYS]) + 1
        if gaussians and self.gs_head is not None:
            answers["gaussians"] = self.gs_head(maps, views).permute(0, 2, 3, 1)
        return answers


class DepthAnything3Nested(nn.Module):
    """The views of one scene in metres: a network for the views, and the metric one for each view by itself.

    The answer is that of the first, with metric_depth and sky (V, H, W) of the second; how one scale follows from them
    is not part of the network.
    """

    def __init__(self, config: NestedConfig) -> None:
        super().__init__()
        self.da3 = DepthAnything3Views(config.views)
        self.da3_metric = DepthAnything3(config.metric)

    def forward(
        self,
        views: torch.Tensor,
        extrinsics: Optional[torch.Tensor] = None,
        intrinsics: Optional[torch.Tensor] = None,
        reference: str = "saddle_balanced",
        rays: bool = False,
        gaussians: bool = False,
        features: Sequence[int] = (),
    ) -> Named:
        """See DepthAnything3Views.forward."""
        answers = self.da3(views, extrinsics, intrinsics, reference, rays, gaussians, features)
        parts = [self.da3_metric(views[part]) for part in _parts(views)]
        depth, sky = (torch.cat(part) for part in zip(*parts))
        return {**answers, "metric_depth": depth, "sky": sky}
