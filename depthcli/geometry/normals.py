"""Directions of surfaces, from planes fitted to inverse depth."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthMap
from depthcli.geometry.edges import cell_middles
from depthcli.geometry.planes import planes_in_bands
from depthcli.geometry.rays import bands, chunks, rays_at
from depthcli.geometry.solids import OPENGL, turn_to
from depthcli.geometry.space import Space, space_of

_NORMAL_RADIUS = 4  # of the window in a map with the noise of sensors
_SMOOTH_RADIUS = 2  # in a network's, which is smooth


def normals(depth: DepthMap, axes: str = OPENGL) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W, 3) float32 normals of length 1 that face the camera, and the (H, W) bool mask of where they are.

    axes: opencv, opengl or zup. Raises as `space_of`.
    """
    space = space_of(depth, math.inf)
    out = np.empty((*space.z.shape, 3), np.float32)
    for rows, part in normals_in_rows(space, axes):
        out[rows] = part
    return out, space.valid


def normals_in_rows(space: Space, axes: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and the (n, W, 3) float32 normals of their pixels, in these axes."""
    turn = turn_to(axes).T
    for rows, part in _enlarged(_normals_of_cells(space), space) if space.cell > 1 else _normals_in_bands(space):
        yield rows, part @ turn


def normals_at(space: Space, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (N, 3) float32 normals, in the camera's axes, of the pixels at rows (N,), sorted, and columns (N,)."""
    if space.cell > 1:
        return _sampled(_normals_of_cells(space), space.cell, rows, columns)
    out = np.empty((len(rows), 3), np.float32)
    for band, part in _normals_in_bands(space):
        here = slice(*np.searchsorted(rows, (band.start, band.stop)))
        out[here] = part[rows[here] - band.start, columns[here]]
    return out


def _normals_of_cells(space: Space) -> np.ndarray:
    """Return (h, w, 3) normals of the middle pixels of the cells."""
    return np.concatenate([part for _, part in _normals_in_bands(space)])


def _normals_in_bands(space: Space) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of cells and their (h, w, 3) float32 normals of length 1; any direction where invalid.

    Formula: a plane is N . (x, y, 1) = d with inverse depth d and the ray (x, y), so that N has the slopes of d, times
    the focal lengths, as x and y, and d - N.x x - N.y y as z. The slopes are those of a plane of 9x9 pixels, or of 5x5
    of the network's.
    """
    cell, camera = space.cell, space.camera
    rows, columns = (cell_middles(length, cell) for length in space.z.shape)
    z, valid = (layer[np.ix_(rows, columns)] if cell > 1 else layer for layer in (space.z, space.valid))
    inverse = np.divide(1, z, out=np.zeros(z.shape, np.float32), where=valid)
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
        yield band, normal.reshape(-1, len(columns), 3).astype(np.float32)


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


def _enlarged(vectors: np.ndarray, space: Space) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and the (n, W, 3) vectors of length 1 of their pixels, bilinear between those of the cells."""
    height, width = space.z.shape
    left, right, across = _between(np.arange(width), space.cell, vectors.shape[1])
    wide = vectors[:, left] * (1 - across[:, None]) + vectors[:, right] * across[:, None]
    for rows in bands((width, height)):
        above, below, down = _between(np.arange(rows.start, rows.stop), space.cell, vectors.shape[0])
        mixed = wide[above] * (1 - down[:, None, None]) + wide[below] * down[:, None, None]
        yield rows, _of_length_1(mixed)


def _sampled(vectors: np.ndarray, cell: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the (N, 3) vectors of length 1 at the pixels of these rows and columns (N,), bilinear as `_enlarged`."""
    out = np.empty((len(rows), 3), np.float32)
    for part in chunks(len(rows)):
        above, below, down = _between(rows[part], cell, vectors.shape[0])
        left, right, across = (layer[:, None] for layer in _between(columns[part], cell, vectors.shape[1]))
        high, low = (
            vectors[row, left[:, 0]] * (1 - across) + vectors[row, right[:, 0]] * across for row in (above, below)
        )
        out[part] = _of_length_1(high * (1 - down[:, None]) + low * down[:, None])
    return out


def _between(pixels: np.ndarray, cell: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for (N,) rows or columns the cells before and behind them, and the float32 weight of the one behind.

    The middle of a cell is its pixel cell // 2. count: of cells.
    """
    place = np.clip((pixels - cell // 2) / cell, 0, count - 1)
    first = place.astype(np.intp)
    return first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32)


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("...i,...i", vectors, vectors))
    return vectors / np.maximum(length, np.float32(1e-6))[..., None]
