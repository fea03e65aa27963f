"""Answers of an any-view network to a Scene.

The network counts pixels from the picture's corner: the middle of its input is (width / 2, height / 2). Ours have their
centres at integers, so principal points move by half a pixel on the way in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from depthcli.camera import Camera, CameraSource
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import EngineError
from depthcli.pixels.scene_input import ViewPlan
from depthcli.pixels.sky import sky_mask
from depthcli.scene import Gaussians, Scene, View


def network_intrinsics(camera: Camera, plan: ViewPlan) -> np.ndarray:
    """Return the (3, 3) float32 matrix of the network's input for the camera of a picture."""
    return plan.intrinsics(camera.cropped(-0.5, -0.5).intrinsics)


def scene_of(
    answers: Mapping[str, np.ndarray],
    plans: Sequence[ViewPlan],
    names: Sequence[str],
    pictures: Optional[Sequence[np.ndarray]] = None,
    kind: DepthKind = DepthKind.RELATIVE_DEPTH,
    source: CameraSource = CameraSource.PREDICTED,
    provenance: Provenance = Provenance(),
    facts: Mapping[str, Any] = {},
    gaussians: Optional[Gaussians] = None,
    features: Optional[np.ndarray] = None,
) -> Scene:
    """Return the scene of a network's answers, at the size of its input.

    answers: depth (N, H, W), extrinsics (N, 3, 4) or (N, 4, 4), intrinsics (N, 3, 3) of the input, and if known
    confidence and sky, both (N, H, W); sky as the network gives it, or bool. plans, names: of the pictures.
    pictures: (H, W, 3) uint8 each, prepared by the plans. Depth of 0 or less, infinite, or of padding, is invalid.
    gaussians, features: of the scene, see Scene.

    Raises EngineError for shapes that do not fit, and for a view without any depth.
    """
    depth = np.asarray(answers["depth"], np.float32)
    expected = (len(plans), plans[0].size[1], plans[0].size[0])
    if depth.shape != expected or any(
        name in answers and answers[name].shape != expected for name in ("confidence", "sky")
    ):
        raise EngineError(f"the network answered {depth.shape} for views of {expected}")
    sky = answers.get("sky")
    if sky is not None and sky.dtype != bool:
        sky = sky_mask(sky)
    confidence = answers.get("confidence")
    views = []
    for number, plan in enumerate(plans):
        valid = np.isfinite(depth[number]) & (depth[number] > 0) & shows_picture(plan)
        if not valid.any():
            raise EngineError(f"the network found no depth in {names[number]}", "use `precision` fp32")
        matrix = np.array(answers["intrinsics"][number], np.float64)
        camera = Camera(matrix, source, answers["extrinsics"][number][:3]).cropped(0.5, 0.5)
        views.append(
            View(
                DepthMap(
                    np.where(valid, depth[number], np.float32(0)),
                    kind,
                    replace(provenance, source=names[number], input_size=plan.size),
                    valid=valid,
                    confidence=None if confidence is None else confidence[number],
                    sky=None if sky is None else sky[number] & shows_picture(plan),
                    camera=camera,
                ),
                names[number],
                None if pictures is None else pictures[number],
                plan.picture_size,
                plan.area,
            )
        )
    return Scene(tuple(views), facts, gaussians, features)


def shows_picture(plan: ViewPlan) -> np.ndarray:
    """Return the (H, W) mask of the input's pixels that are of the picture, and not padding."""
    mask = np.zeros(plan.size[::-1], bool)
    mask[plan.inside] = True
    return mask
