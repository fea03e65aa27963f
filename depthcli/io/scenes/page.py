"""Pages of HTML of a scene: points and meshes of all views, their cameras and the viewer of `depthcli.io.points.page`.

They are for looking at, and are not read back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import IO, Any, Optional

import numpy as np

from depthcli.choices.scenes import SceneChoice
from depthcli.geometry.grid import grid_step
from depthcli.geometry.poses import inverted, relative_to_first, to_camera
from depthcli.geometry.scene_meshes import meshes_by_view
from depthcli.geometry.scene_points import confidence_floor, extent, frustum_size
from depthcli.geometry.shapes import jpeg_of
from depthcli.geometry.solids import Mesh
from depthcli.io.points import page
from depthcli.io.scenes.cameras import scene_facts
from depthcli.scene import Scene, View

# Bytes of the page that vertices may take: what is left is for the pictures. A vertex has 2 of depth, 1 of confidence
# and half a byte for its cell, which Base64 makes a third longer.
_MOST_OF_VERTICES = 3_000_000
_BYTES_OF_VERTEX = 3.5 * 4 / 3
_SIDES = (4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 128)
_PERCENTILES = 99  # confidence is told in percent of the pixels that are less sure, from 0
_COARSEST = 16  # vertices along the longer side


def write_scene_page(scene: Scene, target: IO[bytes], choice: SceneChoice = SceneChoice()) -> None:
    """Write a page. Raises OutputError if a view has no picture, or if no view has a triangle."""
    about = scene_facts(scene)
    del about["cameras"]  # too long for the head of the file, where facts are looked for; `data` has them
    about["views"] = len(scene.views)
    data = scene_page_data(scene, choice)
    textures = [view.pop("texture") for view in data["views"]]
    spare = (page.MOST_BYTES - len(page.page_bytes(data, about))) * 3 // 4
    for number, (view, texture) in enumerate(zip(data["views"], textures)):
        fitting = page.fitting_texture(texture, max(0, spare // (len(textures) - number)), _SIDES)
        view["texture"] = page.packed(fitting)
        spare -= len(fitting)
    target.write(page.page_bytes(data, about))


def scene_page_data(scene: Scene, choice: SceneChoice = SceneChoice()) -> dict[str, Any]:
    """Return what the viewer draws: as of `page_data`, with a list `views` that have what belongs to a view.

    Space is that of the first view's camera. Of a view, `pose` is its camera there, 12 numbers by row; `sure` is None,
    or uint8 on the grid: a percentage, that of the pixels of the scene that are less sure; `texture` is a JPEG file, in
    bytes. `least`: percent of the least sure that are not shown at first. `middle`: the median point. `extent`: the
    diagonal of the box around the middle 90 % of the points. `frustum`: depth of the shown frusta.
    """
    side = _mesh_size(scene, choice.mesh_size)
    meshes = meshes_by_view(scene, replace(choice, confidence=0, mesh_size=side))
    points = np.concatenate([mesh.vertices for mesh in meshes if mesh is not None]).astype(np.float64)
    grids = [_grid(view, mesh, grid_step(view.depth.size, side)) for view, mesh in zip(scene.views, meshes)]
    depths = [_at(view.depth.values, grid).astype(np.float64) for view, grid in zip(scene.views, grids)]
    near, far = (float(end(np.concatenate(depths))) for end in (np.min, np.max))
    floors = _floors(scene)
    views = [
        {
            "name": view.name,
            "size": list(view.depth.size),
            "step": [len(grid.columns), len(grid.rows), grid_step(view.depth.size, side)],
            "camera": page.camera_data(view.camera),
            "pose": pose.ravel().tolist(),
            **page.grid_data(grid, z, near, far),
            "rays": None,
            "sure": _sure(view, grid, floors),
            "texture": jpeg_of(view.picture),  # type: ignore[arg-type]
        }
        for view, pose, grid, z in zip(scene.views, inverted(relative_to_first(scene.extrinsics)), grids, depths)
    ]
    return {
        "name": str(scene.facts.get("source") or "scene"),
        "unit": scene.unit,
        "kind": scene.kind.value,
        "model": str(scene.facts.get("model_title") or scene.facts.get("model") or ""),
        "near": near,
        "far": far,
        "inverse": False,
        "fill": False,
        "colors": page.colors_data(),
        "views": views,
        "middle": np.median(to_camera(points, scene.views[0].extrinsics), axis=0).tolist(),
        "extent": extent(points),
        "frustum": frustum_size(points),
        "least": _least(scene, choice, floors),
    }


def _mesh_size(scene: Scene, most: int) -> int:
    """Return how many vertices the longer side of a view may have so that those of all views fit into the page."""
    while True:
        steps = [(view.depth.size, grid_step(view.depth.size, most)) for view in scene.views]
        vertices = sum((width // step + 2) * (height // step + 2) for (width, height), step in steps)
        if vertices * _BYTES_OF_VERTEX <= _MOST_OF_VERTICES or most <= _COARSEST:
            return most
        most = max(_COARSEST, int(0.9 * most))


def _grid(view: View, mesh: Optional[Mesh], step: int) -> page.GridCodes:
    if mesh is not None:
        return page.grid_codes(mesh, step)
    columns, rows = (page.grid_lines(length, step) for length in view.depth.size)
    cells = np.zeros((len(rows) - 1) * (len(columns) - 1), np.uint8)
    return page.GridCodes(rows, columns, np.empty(0, np.int64), cells)


def _at(layer: np.ndarray, grid: page.GridCodes) -> np.ndarray:
    """Return the (N,) numbers of an (H, W) layer at the vertices of a grid."""
    rows, columns = np.divmod(grid.numbers, len(grid.columns))
    return layer[grid.rows[rows], grid.columns[columns]]


def _floors(scene: Scene) -> Optional[np.ndarray]:
    """Return (99,) float32, the percentiles of confidence over all views, None if a view has none.

    A pixel of the code `c` is kept by `SceneChoice.confidence` up to `c` percent.
    """
    known = [view.depth.confidence for view in scene.views]
    if any(some is None for some in known):
        return None
    pixels = np.concatenate([some.ravel() for some in known if some is not None])
    return np.percentile(pixels, np.arange(1, _PERCENTILES + 1)).astype(np.float32)


def _sure(view: View, grid: page.GridCodes, floors: Optional[np.ndarray]) -> Optional[str]:
    if floors is None or view.depth.confidence is None:
        return None
    codes = np.zeros(len(grid.rows) * len(grid.columns), np.uint8)
    codes[grid.numbers] = np.searchsorted(floors, _at(view.depth.confidence, grid), side="right")
    return page.packed(codes.tobytes())


def _least(scene: Scene, choice: SceneChoice, floors: Optional[np.ndarray]) -> int:
    """Return the percentage that leaves out what the other files of the scene leave out."""
    floor = confidence_floor(scene, choice.confidence)
    if floors is None or floor is None:
        return 0
    return 1 + min(int(np.searchsorted(floors, floor, side="left")), _PERCENTILES - 1)
