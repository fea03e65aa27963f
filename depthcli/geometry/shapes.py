"""Points and meshes of a DepthMap."""

from __future__ import annotations

import io
from typing import Any, Optional

import numpy as np

from depthcli.camera import ASSUMED_VIEW, CameraSource, describe_camera
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthKind, DepthMap, describe
from depthcli.errors import EmptyShapeError
from depthcli.geometry.edges import find_edges
from depthcli.geometry.grid import grid_mesh, grid_step, thin
from depthcli.geometry.normals import normals_at
from depthcli.geometry.rays import along_rays, chunks, rays_at
from depthcli.geometry.solids import OPENCV, OPENGL, Mesh, PointCloud, with_axes
from depthcli.geometry.space import CALIBRATED, FARTHEST, RULES, Space, is_fixed, space_of

_JPEG_QUALITY = 92
_MOST_TEXTURE = 1 << 14  # pixels of a side: what graphics cards take


def points(depth: DepthMap, rgb: Optional[np.ndarray] = None, choice: ShapeChoice = ShapeChoice()) -> PointCloud:
    """Return the points of a depth map, with normals that face the camera. rgb: (H, W, 3) uint8, the picture, or None.

    Axes are `choice.axes`, by default OpenGL's. Without a camera 60 degrees across the longer side are assumed, and the
    unit is then never metres. Raises as `space_of`, and ValueError for a picture of another size.
    """
    _check_size(depth, rgb)
    space = space_of(depth, choice.farthest)
    rows, columns = thin(_kept(space, choice), choice.points)
    return with_axes(
        PointCloud(
            points=_placed(space, rows, columns),
            colors=None if rgb is None else rgb[rows, columns],
            normals=normals_at(space, rows, columns),
            axes=OPENCV,
            unit=space.unit,
            facts=_facts(depth, space, choice, {"points": len(rows)}),
        ),
        choice.axes or OPENGL,
    )


def mesh(depth: DepthMap, rgb: np.ndarray, choice: ShapeChoice = ShapeChoice()) -> Mesh:
    """Return the surface of a depth map with the picture on it. rgb: (H, W, 3) uint8, the picture.

    Axes, unit and errors as of `points`; OutputError if no triangle is left.
    """
    _check_size(depth, rgb)
    space = space_of(depth, choice.farthest)
    edges = None if choice.edges is None else find_edges(space.z, space.valid, choice.edges, space.cell)
    keep = space.valid if edges is None else space.valid & ~edges.flying
    step = grid_step(depth.size, choice.mesh_size)
    tolerance = (choice.edges or 0) * max(1, step / space.cell)
    grid = grid_mesh(space.z, keep, step, edges, tolerance)
    if not len(grid.faces):
        raise EmptyShapeError("no triangle is left of the mesh", "set `edges` to off, or raise `mesh_size`")
    counts = {"vertices": len(grid.rows), "triangles": len(grid.faces), "step": step}
    return with_axes(
        Mesh(
            vertices=_placed(space, grid.rows, grid.columns),
            uv=(np.stack([grid.columns, grid.rows], axis=1) + 0.5) / depth.size,
            faces=grid.faces,
            texture=jpeg_of(rgb),
            axes=OPENCV,
            unit=space.unit,
            camera=space.camera,
            size=depth.size,
            facts=_facts(depth, space, choice, counts),
        ),
        choice.axes or OPENGL,
    )


def remarks(depth: DepthMap, shape: bool = True) -> tuple[str, ...]:
    """Return what is guessed in the shape of a depth map, or in its normals alone, one line each."""
    found = []
    if depth.camera is None or depth.camera.source is CameraSource.ASSUMED:
        found.append(
            f"no camera is known: {ASSUMED_VIEW:g} degrees across the longer side are assumed, and if that is wrong "
            "the shape is stretched in depth; `focal`, `fov` or `intrinsics` mend it"
        )
    if shape and not is_fixed(depth):
        found.append(
            "depth is relative: the nearest percent is put at 1, the unit is arbitrary, and what is farther than "
            f"{FARTHEST:g} is left out unless `farthest` says otherwise"
        )
    elif depth.kind is DepthKind.RELATIVE_DISPARITY:
        found.append("depth is relative: its shift is unknown and taken as 0, and directions depend on it")
    return tuple(found)


def _facts(depth: DepthMap, space: Space, choice: ShapeChoice, counts: dict[str, Any]) -> dict[str, Any]:
    shape = {
        "unit": space.unit,
        "axes": OPENCV,
        **counts,
        "rule": RULES[depth.kind] if depth.calibration is None else CALIBRATED,
        "camera": describe_camera(space.camera, depth.size),
        "edges": choice.edges,
        "farthest": choice.farthest if is_fixed(depth) or choice.farthest else FARTHEST,
    }
    return {**describe(depth), "shape": shape}


def _placed(space: Space, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the (N, 3) float32 points of the pixels at rows and columns (N,), in the camera's axes."""
    out = np.empty((len(rows), 3), np.float32)
    for part in chunks(len(rows)):
        pixels = np.stack([columns[part], rows[part]], axis=1).astype(np.float64)
        out[part] = along_rays(space.z[rows[part], columns[part]], rays_at(pixels, space.camera))
    return out


def _kept(space: Space, choice: ShapeChoice) -> np.ndarray:
    """Return the (H, W) mask of the pixels that become points."""
    if choice.edges is None:
        return space.valid
    kept = space.valid & ~find_edges(space.z, space.valid, choice.edges, space.cell).flying
    if not kept.any():
        raise EmptyShapeError("no point is left", "set `edges` to off")
    return kept


def _check_size(depth: DepthMap, rgb: Optional[np.ndarray]) -> None:
    if rgb is not None and (rgb.shape != (*depth.values.shape, 3) or rgb.dtype != np.uint8):
        raise ValueError(f"the picture is {rgb.dtype} {rgb.shape}, the depth map {depth.values.shape}")


def jpeg_of(rgb: np.ndarray) -> bytes:
    """Return the picture as a JPEG file with full colour resolution, smaller if graphics cards could not take it."""
    import cv2
    from PIL import Image

    scale = _MOST_TEXTURE / max(rgb.shape[:2])
    if scale < 1:
        size = tuple(max(1, int(side * scale)) for side in rgb.shape[1::-1])
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
