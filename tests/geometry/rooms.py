"""A scene known by formulas: a ball in the corner of a room, seen by several cameras, as if a network had answered."""

from __future__ import annotations

import numpy as np

from depthcli.camera import Camera, CameraSource
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.geometry.poses import to_world
from depthcli.geometry.rays import rays
from depthcli.scene import Scene, View

CENTRE, RADIUS = np.array([0.2, 0.1, 3.0]), 0.5
# Points P of a plane have normal . P = distance: the floor, y down, and the wall behind.
FLOOR, WALL = (np.array([0.0, 1.0, 0.0]), 1.0), (np.array([0.0, 0.0, 1.0]), 5.0)
BALL_COLOUR, FLOOR_COLOUR, WALL_COLOUR = (220, 40, 20), (30, 160, 60), (40, 70, 210)
SIZE, PICTURE = (84, 56), (336, 224)
PLACES = ((0.0, 0.0, 0.0), (0.5, -0.1, 0.2), (-0.4, 0.2, 0.3))


def camera(place: tuple[float, float, float], focal: float = 70.0) -> Camera:
    """Return a camera at a place of the world that looks at the ball, not quite upright and not centred."""
    place_ = np.array(place)
    forward = (CENTRE - place_) / np.linalg.norm(CENTRE - place_)
    right = np.cross([0.1, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.array([[focal, 0, 40.3], [0, focal * 1.02, 28.4], [0, 0, 1]])
    return Camera(matrix, CameraSource.PREDICTED, np.concatenate([rotation, -rotation @ place_[:, None]], axis=1))


def traced(seen_by: Camera, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) float32 depth along the axis and (H, W, 3) uint8 colours."""
    assert seen_by.extrinsics is not None
    local = np.concatenate([rays(size, seen_by), np.ones((size[1], size[0], 1))], axis=2)
    towards = local @ seen_by.extrinsics[:, :3]
    origin = to_world(np.zeros((1, 3)), seen_by.extrinsics)[0]
    a, b = (towards**2).sum(axis=2), towards @ (CENTRE - origin)
    root = b * b - a * ((CENTRE - origin) @ (CENTRE - origin) - RADIUS**2)
    depths = [np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)]
    for normal, distance in (FLOOR, WALL):
        along = towards @ normal
        depths.append(np.where(along > 1e-9, (distance - origin @ normal) / np.maximum(along, 1e-9), np.inf))
    nearest = np.argmin(depths, axis=0)
    colours = np.array([BALL_COLOUR, FLOOR_COLOUR, WALL_COLOUR], np.uint8)[nearest]
    return np.min(depths, axis=0).astype(np.float32), colours


def room(kind: DepthKind = DepthKind.METRIC_DEPTH, places: tuple = PLACES, confidence: bool = True) -> Scene:
    """Return the scene; the left edge of each view is unsure, and its first row is sky."""
    views = []
    for number, place in enumerate(places):
        seen_by = camera(place, 70.0 + 3 * number)
        z, colours = traced(seen_by)
        sure = np.full(z.shape, 3.0, np.float32)
        sure[:, :2] = 1.0
        sky = np.zeros(z.shape, bool)
        sky[0] = True
        depth = DepthMap(z, kind, confidence=sure if confidence else None, sky=sky, camera=seen_by)
        views.append(View(depth, f"left/{number}.png", colours, PICTURE))
    return Scene(tuple(views), {"model": "traced"})


def surface_errors(points: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return how far (N, 3) points of the world are from the surface of their colour."""
    out = np.full(len(points), np.inf)
    for colour, error in (
        (BALL_COLOUR, lambda p: np.linalg.norm(p - CENTRE, axis=1) - RADIUS),
        (FLOOR_COLOUR, lambda p: p @ FLOOR[0] - FLOOR[1]),
        (WALL_COLOUR, lambda p: p @ WALL[0] - WALL[1]),
    ):
        mine = (colors == colour).all(axis=1)
        out[mine] = np.abs(error(points[mine]))
    return out
