"""Scenes of known geometry: flat things at known depths, and what must be measured of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthcli.camera import CameraSource, pinhole
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.io.masks.found import ObjectMask

SIZE = (320, 240)
FOCAL = 250.0
WALL = 6.0


@dataclass(frozen=True)
class Disc:
    """A disc that faces the camera. x, y, z: of its middle, metres. radius: metres."""

    label: str
    x: float
    y: float
    z: float
    radius: float


NEAR = Disc("near", -0.2, 0.1, 2.0, 0.35)
FAR = Disc("far", 0.35, 0.0, 4.0, 0.8)
SMALL = Disc("small", 1.6, -0.9, 5.0, 0.2)


def scene(*discs: Disc, blur: float = 0.0, scale: float = 1.0) -> tuple[list[ObjectMask], DepthMap]:
    """Return the masks of discs and metric depth with a camera. blur: pixels, as a network's edges. scale: of depth."""
    width, height = SIZE
    rows, columns = np.mgrid[:height, :width]
    z = np.full((height, width), WALL)
    owner = np.full((height, width), -1)
    for number in sorted(range(len(discs)), key=lambda each: -discs[each].z):
        disc = discs[number]
        u = (width - 1) / 2 + FOCAL * disc.x / disc.z
        v = (height - 1) / 2 + FOCAL * disc.y / disc.z
        inside = (columns - u) ** 2 + (rows - v) ** 2 <= (FOCAL * disc.radius / disc.z) ** 2
        z[inside], owner[inside] = disc.z, number
    if blur:
        z = 1 / cv2.GaussianBlur(1 / z, (0, 0), blur)  # networks smooth disparity
    camera = pinhole(SIZE, FOCAL, CameraSource.GIVEN)
    depth = DepthMap((z * scale).astype(np.float32), DepthKind.METRIC_DEPTH, camera=camera)
    return [ObjectMask(owner == number, disc.label, number) for number, disc in enumerate(discs)], depth


def relative(depth: DepthMap, kind: DepthKind = DepthKind.RELATIVE_DISPARITY) -> DepthMap:
    """Return the same scene as a relative model gives it: of unknown scale and, for disparity, shift."""
    near = kind.near_is_high
    values = 3.7 / depth.values + 0.2 if near else 0.31 * depth.values
    return DepthMap(values, kind, camera=depth.camera)
