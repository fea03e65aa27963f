"""Depth and cameras of a scene whose poses were given: both in one world, at one scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthcli.geometry.sim3 import Sim3, align_cameras


@dataclass(frozen=True, eq=False)
class PosedDepth:
    """depth: (N, H, W) float32. extrinsics: (N, 3, 4) float64, world to camera, that belong to it.

    transform: from the world of the given poses to that of the predicted ones.
    """

    depth: np.ndarray
    extrinsics: np.ndarray
    transform: Sim3


def settle_given_poses(
    depth: np.ndarray, predicted: np.ndarray, given: np.ndarray, keep_given_scale: bool = True
) -> PosedDepth:
    """Return a network's depth with given poses: both (N, 3, 4), and (N, H, W) depth that fits the predicted ones.

    keep_given_scale: the given poses stay, and depth is divided by the scale between the two worlds. Otherwise depth
    stays, and the given poses are moved to the predicted world. Raises ValueError if either has fewer views.
    """
    if not len(depth) == len(predicted) == len(given):
        raise ValueError(f"{len(depth)} maps, {len(predicted)} predicted and {len(given)} given poses")
    transform = align_cameras(given, predicted)
    if keep_given_scale:
        poses = np.array(given, np.float64)[:, :3]
        return PosedDepth(np.asarray(depth / np.float32(transform.scale), np.float32), poses, transform)
    return PosedDepth(np.asarray(depth, np.float32), transform.extrinsics(given), transform)
