"""Scenes whose points are known by a formula, and the small map that must come out the right way round everywhere."""

from __future__ import annotations

import numpy as np

from depthcli.camera import Camera, CameraSource, Distortion
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.geometry.rays import rays

VGA = (640, 480)
PROVENANCE = Provenance(model="vits", source="photo.jpg")
CENTRE, RADIUS = np.array([0.3, -0.2, 2.0]), 0.5


def camera(focal: float = 525.0, size: tuple[int, int] = VGA, lens: Distortion | None = None) -> Camera:
    matrix = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    return Camera(matrix, CameraSource.GIVEN, distortion=lens)


def sphere(seen_by: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth along the axis of a sphere, float32, and where it is."""
    xy = rays(VGA, seen_by)
    direction = np.concatenate([xy, np.ones((*xy.shape[:2], 1))], axis=2)
    a, b, c = (direction**2).sum(axis=2), direction @ CENTRE, CENTRE @ CENTRE - RADIUS**2
    root = b * b - a * c
    hit = root > 0
    return np.where(hit, (b - np.sqrt(np.maximum(root, 0))) / a, 0).astype(np.float32), hit


def plane(seen_by: Camera, normal: tuple[float, float, float], distance: float, size: tuple[int, int]) -> np.ndarray:
    """Return the depth, float32, of the plane of points P with normal . P = distance; infinity where it is not seen."""
    towards = rays(size, seen_by) @ np.array(normal[:2]) + normal[2]
    with np.errstate(divide="ignore"):
        return np.where(towards / distance > 0, distance / towards, np.inf).astype(np.float32)


def metric(z: np.ndarray, seen_by: Camera | None, valid: np.ndarray | None = None) -> DepthMap:
    return DepthMap(z, DepthKind.METRIC_DEPTH, PROVENANCE, valid=valid, camera=seen_by)


def small() -> tuple[DepthMap, np.ndarray]:
    """Return a map of 7x5 with one near pixel at (3, 1), which is red in a picture whose other pixels differ."""
    z = np.full((5, 7), 2.0, np.float32)
    z[1, 3] = 1.9
    rgb = np.zeros((5, 7, 3), np.uint8)
    rgb[..., 1], rgb[..., 2] = np.arange(7) * 20, np.arange(5)[:, None] * 30
    rgb[1, 3] = 255, 0, 0
    return metric(z, camera(10.0, (7, 5))), rgb
