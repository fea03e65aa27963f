"""Meshes on the pixel grid: which triangles, which way round, which diagonal."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.geometry.edges import find_edges
from depthcli.geometry.grid import grid_mesh, grid_step, thin
from depthcli.geometry.rays import unproject
from tests.geometry.scenes import camera, plane


def facing(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return for each triangle n . P, below 0 if it faces the camera."""
    a, b, c = (points[faces[:, corner]].astype(np.float64) for corner in range(3))
    return (np.cross(b - a, c - a) * a).sum(axis=1)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_every_triangle_faces_the_camera_and_the_last_pixels_are_corners(step):
    z = plane(camera(30.0, (23, 17)), (0.3, -0.4, 1), 2.0, (23, 17))
    grid = grid_mesh(z, np.ones(z.shape, bool), step)
    points = unproject(z, camera(30.0, (23, 17)))[grid.rows, grid.columns]
    assert (facing(points, grid.faces) < 0).all()
    assert set(grid.columns[grid.rows == 16]) >= {0, 22} and grid.rows.max() == 16
    rows, columns = len(set(grid.rows)), len(set(grid.columns))
    assert len(grid.faces) == 2 * (rows - 1) * (columns - 1) and len(grid.rows) == rows * columns


@pytest.mark.parametrize(("depths", "diagonal"), [((2, 1, 3, 2), {0, 3}), ((1, 2, 2, 3), {1, 2})])
def test_a_cell_is_split_where_depth_differs_less(depths, diagonal):
    z = np.array(depths, np.float32).reshape(2, 2)
    faces = [set(map(int, face)) for face in grid_mesh(z, np.ones((2, 2), bool), 1).faces]
    assert set.intersection(*faces) == diagonal


@pytest.mark.parametrize("missing", range(4))
def test_three_corners_make_a_triangle(missing):
    keep = np.ones(4, bool)
    keep[missing] = False
    grid = grid_mesh(np.full((2, 2), 2, np.float32), keep.reshape(2, 2), 1)
    assert len(grid.faces) == 1 and sorted(2 * grid.rows + grid.columns) == sorted({0, 1, 2, 3} - {missing})
    points = unproject(np.full((2, 2), 2, np.float32), camera(2.0, (2, 2)))[grid.rows, grid.columns]
    assert (facing(points, grid.faces) < 0).all()


def test_a_step_tears_the_mesh_and_a_steep_road_does_not():
    walls = np.full((20, 20), 1.0, np.float32)
    walls[:, 10:] = 3
    everywhere = np.ones(walls.shape, bool)
    torn = grid_mesh(walls, everywhere, 1, find_edges(walls, everywhere), 0.04)
    for face in torn.faces:
        assert len({walls[torn.rows[corner], torn.columns[corner]] for corner in face}) == 1
    assert len(torn.faces) == 2 * 19 * 18
    road = plane(camera(707.0, (60, 60)), (0, 1, 0), 1.65, (60, 60))
    far = (road < 75) & (np.arange(60)[:, None] > 46)
    road = np.where(far, road, 0).astype(np.float32)
    edges = find_edges(road, far)
    assert len(grid_mesh(road, far, 1, edges, 0.04).faces) == len(grid_mesh(road, far, 1).faces)


@pytest.mark.parametrize("step", [5, 8, 16])
def test_an_edge_between_two_vertices_tears_the_mesh(step):
    walls = np.full((80, 80), 1.0, np.float32)
    walls[:, 43:] = 3
    everywhere = np.ones(walls.shape, bool)
    grid = grid_mesh(walls, everywhere, step, find_edges(walls, everywhere), 0.04 * step)
    assert all(len(set(walls[grid.rows[face], grid.columns[face]])) == 1 for face in grid.faces)


def test_steps_keep_to_the_number_of_vertices():
    assert [grid_step(size, 512) for size in ((512, 9), (513, 9), (640, 480), (9, 1023), (4032, 3024))] == [
        *(1, 2, 2, 2, 8)
    ]
    for length in range(2, 60):
        for most in range(2, 20):
            step = grid_step((length, 2), most)
            assert len(range(0, length, step)) <= most


def test_points_are_thinned_on_a_regular_grid():
    keep = np.ones((100, 120), bool)
    rows, columns = thin(keep, 1000)
    assert 500 < len(rows) <= 1000
    assert len(set(np.diff(np.unique(rows)))) == len(set(np.diff(np.unique(columns)))) == 1
    assert len(thin(keep, None)[0]) == 12_000 == len(thin(keep, 12_000)[0])
    keep[:50] = False
    assert all(keep[row, column] for row, column in zip(*thin(keep, 700)))
