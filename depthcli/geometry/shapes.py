"""A DepthMap to points, a mesh or normals.

Relative maps have no scale. Disparity is known up to scale and shift as well: the shift is taken as 0, so that z is the
inverse of the value, which leaves straight what is flat only as far as that is true. Both are scaled so that the
nearest percent lies at 1, what is farther than 20 is left out, and the unit is "arbitrary".
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.camera import ASSUMED_VIEW, Camera, CameraSource, assumed_camera
from depthcli.choices import ShapeChoice
from depthcli.depthmap import DepthKind, DepthMap, describe
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.edges import find_edges
from depthcli.geometry.grid import grid_mesh, grid_step, thin
from depthcli.geometry.planes import planes_in_bands
from depthcli.geometry.rays import along_rays, rays_at
from depthcli.geometry.solids import ARBITRARY, METRES, OPENCV, OPENGL, Mesh, PointCloud, turn_to, with_axes

FARTHEST = 20.0  # of relative maps, whose nearest percent lies at 1; beyond, values near 0 are mostly sky
_NEAREST_PERCENT = 1
_SAMPLES = 1 << 20  # pixels that a percentile is taken of
_NORMAL_RADIUS = 4  # of the window in a map with the noise of sensors
_SMOOTH_RADIUS = 2  # in a network's, which is smooth
_JPEG_QUALITY = 92
_MOST_TEXTURE = 1 << 14  # pixels of a side: what graphics cards take
_RULES = {
    DepthKind.RELATIVE_DISPARITY: "z = 1 / value, its shift taken as 0; the nearest percent lies at 1",
    DepthKind.RELATIVE_DEPTH: "z = value, scaled so that the nearest percent lies at 1",
    DepthKind.METRIC_DEPTH: "z = value, in metres",
}


@dataclass(frozen=True, eq=False)
class Space:
    """Depth along the axis of a camera.

    z: (H, W) float32, positive where `valid`. valid: (H, W) bool. camera: of the map. unit: "m" or "arbitrary".
    cell: pixels of the map for one of the network's, which shapes the edges.
    """

    z: np.ndarray
    valid: np.ndarray
    camera: Camera
    unit: str
    cell: int = 1


def space_of(depth: DepthMap, farthest: Optional[float] = None) -> Space:
    """Return the depth of a map along its camera's axis, or an assumed camera's.

    farthest: what is farther is invalid; None: FARTHEST for relative maps. Invalid, too, are sky and, in a relative
    disparity, 0, which is infinitely far. The unit is metres if the depth is metric and the camera is not assumed.
    Raises UsageError for a panorama, OutputError if no pixel is left.
    """
    if depth.provenance.panorama:
        raise UsageError("the rays of a `panorama` are not those of a pinhole camera", "leave out `panorama`")
    camera = depth.camera or assumed_camera(depth.size)
    values, valid = depth.values, depth.values > 0
    for mask in (depth.valid, None if depth.sky is None else ~depth.sky):
        if mask is not None:
            valid &= mask
    if not valid.any():
        raise OutputError("no pixel has a depth", "all of them are invalid, sky, or infinitely far")
    near_is_high, metric = depth.kind.near_is_high, depth.kind.is_metric
    z = np.divide(1, values, out=np.zeros_like(values), where=valid) if near_is_high else np.where(valid, values, 0)
    if not metric:
        found = z[valid]
        z /= np.float32(np.percentile(found[:: 1 + found.size // _SAMPLES], _NEAREST_PERCENT))
        farthest = FARTHEST if farthest is None else farthest
    if farthest is not None:
        valid &= z <= farthest
        if not valid.any():
            raise OutputError(f"no pixel is nearer than {farthest:g}", "raise `farthest`")
    z[~valid] = 0
    known = metric and camera.source is not CameraSource.ASSUMED
    return Space(z, valid, camera, METRES if known else ARBITRARY, _cell(depth))


def points(depth: DepthMap, rgb: Optional[np.ndarray] = None, choice: ShapeChoice = ShapeChoice()) -> PointCloud:
    """Return the points of a depth map, with normals that face the camera. rgb: (H, W, 3) uint8, the picture, or None.

    Axes are `choice.axes`, by default OpenGL's. Without a camera 60 degrees across the longer side are assumed, and the
    unit is then never metres. Raises as `space_of`, and ValueError for a picture of another size.
    """
    _check_size(depth, rgb)
    space = space_of(depth, choice.farthest)
    rows, columns = thin(_kept(space, choice), choice.points)
    xy = rays_at(np.stack([columns, rows], axis=1).astype(np.float64), space.camera)
    return with_axes(
        PointCloud(
            points=along_rays(space.z[rows, columns], xy),
            colors=None if rgb is None else rgb[rows, columns],
            normals=normals_of(space)[rows, columns],
            axes=OPENCV,
            unit=space.unit,
            facts=_facts(depth, space, choice, {"axes": choice.axes or OPENGL, "points": len(rows)}),
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
        raise OutputError("no triangle is left of the mesh", "set `edges` to off, or raise `mesh_size`")
    pixels = np.stack([grid.columns, grid.rows], axis=1).astype(np.float64)
    axes = choice.axes or OPENGL
    counts = {"axes": axes, "vertices": len(pixels), "triangles": len(grid.faces), "step": step}
    return with_axes(
        Mesh(
            vertices=along_rays(space.z[grid.rows, grid.columns], rays_at(pixels, space.camera)),
            uv=(pixels + 0.5) / depth.size,
            faces=grid.faces,
            texture=_jpeg(rgb),
            axes=OPENCV,
            unit=space.unit,
            camera=space.camera,
            size=depth.size,
            facts=_facts(depth, space, choice, counts),
        ),
        axes,
    )


def normals(depth: DepthMap, axes: str = OPENGL) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W, 3) float32 normals of length 1 that face the camera, and the (H, W) bool mask of where they are.

    axes: opencv, opengl or zup. Raises as `space_of`.
    """
    space = space_of(depth)
    return normals_of(space) @ turn_to(axes).T, space.valid


def normals_of(space: Space) -> np.ndarray:
    """Return (H, W, 3) float32 normals of length 1 that face the camera, in its axes; any direction where invalid.

    Formula: a plane is N . (x, y, 1) = d with inverse depth d and the ray (x, y), so that N has the slopes of d, times
    the focal lengths, as x and y, and d - N.x x - N.y y as z. The slopes are those of a plane of 9x9 pixels, or of 5x5
    of the network's.
    """
    cell, camera = space.cell, space.camera
    rows, columns = (np.minimum(np.arange(0, n, cell) + cell // 2, n - 1) for n in space.z.shape)
    z, valid = (layer[np.ix_(rows, columns)] if cell > 1 else layer for layer in (space.z, space.valid))
    inverse = np.divide(1, z, out=np.zeros(z.shape, np.float32), where=valid)
    out = np.empty((*z.shape, 3), np.float32)
    radius = _NORMAL_RADIUS if cell == 1 else _SMOOTH_RADIUS
    for band, planes in planes_in_bands(inverse, None if valid.all() else valid, radius):
        v, u = np.meshgrid(rows[band], columns, indexing="ij")
        pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)
        slopes = np.stack([planes.across.ravel(), planes.down.ravel()], axis=1) / cell
        xy = rays_at(pixels, camera)
        normal = np.empty((len(pixels), 3))
        normal[:, :2] = _by_rays(slopes, pixels, camera)
        normal[:, 2] = planes.level.ravel() - (normal[:, :2] * xy).sum(axis=1)
        alone = ~np.isfinite(planes.residual.ravel()) | (np.abs(normal).max(axis=1) == 0)
        normal[alone, :2], normal[alone, 2] = xy[alone], 1  # too few neighbours: toward the camera
        normal *= -1 / np.linalg.norm(normal, axis=1)[:, None]
        out[band] = normal.reshape(-1, len(columns), 3)
    return out if cell == 1 else _finer(out, cell, space.z.shape)


def remarks(depth: DepthMap) -> tuple[str, ...]:
    """Return what is guessed in the shape of a depth map, one line each."""
    found = []
    if depth.camera is None or depth.camera.source is CameraSource.ASSUMED:
        found.append(
            f"no camera is known: {ASSUMED_VIEW:g} degrees across the longer side are assumed, and if that is wrong "
            "the shape is stretched in depth; the focal length, the field of view or the intrinsics mend it"
        )
    if not depth.kind.is_metric:
        found.append(
            "depth is relative: the nearest percent is put at 1, the unit is arbitrary, and what is farther than "
            f"{FARTHEST:g} is left out unless `farthest` says otherwise"
        )
    return tuple(found)


def camera_facts(camera: Camera, size: tuple[int, int]) -> dict[str, Any]:
    """Return a camera for the facts of a file. size: (width, height) of its picture."""
    lens = camera.distortion
    return {
        "source": camera.source.value,
        "intrinsics": [[float(number) for number in row] for row in camera.intrinsics],
        "size": list(size),
        **(
            {} if lens is None else {"distortion": {"model": lens.model.value, "coefficients": list(lens.coefficients)}}
        ),
    }


def _facts(depth: DepthMap, space: Space, choice: ShapeChoice, counts: dict[str, Any]) -> dict[str, Any]:
    shape = {
        "unit": space.unit,
        **counts,
        "rule": _RULES[depth.kind],
        "camera": camera_facts(space.camera, depth.size),
        "edges": choice.edges,
        "farthest": choice.farthest if depth.kind.is_metric or choice.farthest else FARTHEST,
    }
    return {**describe(depth), "shape": shape}


def _kept(space: Space, choice: ShapeChoice) -> np.ndarray:
    """Return the (H, W) mask of the pixels that become points."""
    if choice.edges is None:
        return space.valid
    kept = space.valid & ~find_edges(space.z, space.valid, choice.edges, space.cell).flying
    if not kept.any():
        raise OutputError("no point is left", "set `edges` to off")
    return kept


def _cell(depth: DepthMap) -> int:
    """Return how many pixels of the map a pixel of the network's output became; 1 if unknown, or detail was added."""
    width, height = depth.provenance.input_size
    if not (width and height) or depth.provenance.detail != "off":
        return 1
    return max(1, round(math.sqrt(depth.size[0] / width * depth.size[1] / height)))


def _by_rays(slopes: np.ndarray, pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Return (N, 2) slopes by ray of slopes by pixel: times the focal lengths, or as the lens has it there."""
    if camera.distortion is None:
        return slopes @ camera.intrinsics[:2, :2]
    half = np.array([[0.5, 0], [0, 0.5]])
    by_u, by_v = (rays_at(pixels + step, camera) - rays_at(pixels - step, camera) for step in half)
    # slope_u = N.x dx/du + N.y dy/du, and the same for v: two equations for N.
    determinant = by_u[:, 0] * by_v[:, 1] - by_u[:, 1] * by_v[:, 0]
    x = (slopes[:, 0] * by_v[:, 1] - slopes[:, 1] * by_u[:, 1]) / determinant
    y = (slopes[:, 1] * by_u[:, 0] - slopes[:, 0] * by_v[:, 0]) / determinant
    return np.stack([x, y], axis=1)


def _finer(vectors: np.ndarray, cell: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return (H, W, 3) vectors of length 1 for those of cells."""
    import cv2

    height, width = vectors.shape[:2]
    fine = cv2.resize(vectors, (width * cell, height * cell), interpolation=cv2.INTER_LINEAR)[: shape[0], : shape[1]]
    length = np.linalg.norm(fine, axis=2, keepdims=True)
    return fine / np.maximum(length, np.float32(1e-6))


def _check_size(depth: DepthMap, rgb: Optional[np.ndarray]) -> None:
    if rgb is not None and (rgb.shape != (*depth.values.shape, 3) or rgb.dtype != np.uint8):
        raise ValueError(f"the picture is {rgb.dtype} {rgb.shape}, the depth map {depth.values.shape}")


def _jpeg(rgb: np.ndarray) -> bytes:
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
