"""A mesh of each view of a Scene, in its world, with the view's picture on it."""

from __future__ import annotations

from typing import Optional

import numpy as np

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import EmptyShapeError, OutputError
from depthcli.geometry.edges import find_edges
from depthcli.geometry.grid import grid_mesh, grid_step
from depthcli.geometry.scene_points import confidence_floor, has_depth, world_points
from depthcli.geometry.shapes import jpeg_of
from depthcli.geometry.solids import OPENCV, Mesh
from depthcli.scene import Scene, View


def scene_meshes(scene: Scene, choice: SceneChoice = SceneChoice()) -> list[Mesh]:
    """Return one mesh per view, without those of which no triangle is left, in the world and with OpenCV's axes.

    Raises OutputError if no view has a triangle, or if one has no picture.
    """
    return [mesh for mesh in meshes_by_view(scene, choice) if mesh is not None]


def meshes_by_view(scene: Scene, choice: SceneChoice = SceneChoice()) -> list[Optional[Mesh]]:
    """Return one mesh per view as `scene_meshes`, None for a view of which no triangle is left."""
    bare = next((view.name for view in scene.views if view.picture is None), None)
    if bare is not None:
        raise OutputError(f"{bare} has no picture to put on its mesh", "write points instead")
    floor = confidence_floor(scene, choice.confidence)
    found = [_mesh(view, scene.unit, choice, floor) for view in scene.views]
    if not any(mesh is not None for mesh in found):
        raise EmptyShapeError("no triangle is left of the scene", "use a smaller `confidence`, or set `edges` to off")
    return found


def _mesh(view: View, unit: str, choice: SceneChoice, floor: Optional[np.float32]) -> Optional[Mesh]:
    assert view.picture is not None
    z, keep = view.depth.values, has_depth(view)
    edges = None if choice.edges is None else find_edges(z, keep, choice.edges)
    if edges is not None:
        keep &= ~edges.flying
    if floor is not None and view.depth.confidence is not None:
        keep &= view.depth.confidence >= floor
    step = grid_step(view.depth.size, choice.mesh_size)
    grid = grid_mesh(z, keep, step, edges, (choice.edges or 0) * step)
    if not len(grid.faces):
        return None
    return Mesh(
        vertices=world_points(view, grid.rows, grid.columns),
        uv=(np.stack([grid.columns, grid.rows], axis=1) + 0.5) / view.depth.size,
        faces=grid.faces,
        texture=jpeg_of(view.picture),
        axes=OPENCV,
        unit=unit,
        camera=view.camera,
        size=view.depth.size,
    )
