"""Flying pixels go, and flat surfaces stay, however steep they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthcli.geometry.edges import cell_middles, find_edges
from tests.geometry.scenes import camera, plane

SIZE = (320, 240)


def step(sigma: float = 1.0, far: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth of a wall at 1 m before another, whose inverse depth is blurred, and the flying pixels."""
    inverse = np.full((60, 80), 1 / far, np.float32)
    inverse[:, :40] = 1
    blurred = cv2.GaussianBlur(inverse, (0, 0), sigma)
    z = 1 / blurred
    return z, np.minimum(abs(z - 1), abs(z - far) / far) > 0.03


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_flying_pixels_of_a_soft_step_are_found_and_the_walls_stay(sigma):
    z, flying = step(sigma)
    found = find_edges(z, np.ones(z.shape, bool)).flying
    assert flying.sum() >= 4 * 60
    assert (found & flying).sum() >= 0.93 * flying.sum()
    assert (found & ~flying).sum() <= 0.06 * (~flying).sum()


def test_a_road_stays_to_75_metres():
    """By the range of depth alone it would end 23 metres before the camera."""
    z = plane(camera(707.0, SIZE), (0, 1, 0), 1.65, SIZE)
    road = z < 75
    edges = find_edges(np.where(road, z, 0).astype(np.float32), road)
    inside = cv2.erode(road.astype(np.uint8), np.ones((7, 7))) > 0
    assert road.sum() > 20_000
    assert edges.flying[road].mean() <= 0.02
    assert not (edges.uneven & inside).any()
    assert (np.ptp(np.stack([z[1:][road[:-1]], z[:-1][road[:-1]]]), axis=0) > 0.04 * z[:-1][road[:-1]]).mean() > 0.01


def test_invalid_neighbours_do_not_count():
    z, valid = np.full((20, 20), 2.0, np.float32), np.ones((20, 20), bool)
    valid[:, 10:] = False
    z[:, 10:] = 0
    edges = find_edges(z, valid)
    assert not edges.flying.any() and not edges.uneven.any()


@pytest.mark.parametrize(("sigma", "far"), [(1.0, 3.0), (2.0, 1.3), (2.0, 1.5)])
def test_an_edge_that_a_hole_hides_in_part_is_still_one(sigma, far):
    """What is left of the edge lies beside the hole, where half of each window is empty."""
    z, flying = step(sigma, far)
    valid = np.ones(z.shape, bool)
    valid[:, 39:45] = False
    found = find_edges(np.where(valid, z, 0).astype(np.float32), valid).flying
    left = flying & valid
    assert left.sum() >= 60 and found[left].all()
    assert not found[~valid].any() and found[valid & ~flying].mean() <= 0.02


def test_a_slanted_wall_with_holes_stays():
    z = plane(camera(300.0, SIZE), (0.8, 0.1, 0.6), 2.0, SIZE)
    valid = (z > 0) & (z < 30) & (np.random.default_rng(2).random(z.shape) > 0.1)
    assert find_edges(np.where(valid, z, 0).astype(np.float32), valid).flying[valid].mean() < 0.001


def test_edges_of_an_enlarged_map_are_looked_for_in_its_own_pixels():
    z, flying = step(1.0)
    large = np.array(cv2.resize(z, (80 * 8, 60 * 8), interpolation=cv2.INTER_LINEAR))
    everywhere = np.ones(large.shape, bool)
    middle = flying.repeat(8, axis=0).repeat(8, axis=1)
    alone = find_edges(large, everywhere).flying
    known = find_edges(large, everywhere, cell=8).flying
    assert alone[middle].mean() < 0.5 < 0.9 < known[middle].mean()


@pytest.mark.parametrize("cell", range(1, 12))
def test_cells_lie_evenly_and_every_map_has_one(cell):
    for length in range(1, 40):
        middles = cell_middles(length, cell)
        assert len(middles) >= 1 and middles[-1] < length and (np.diff(middles) == cell).all()
    z = np.full((61, 83), 2.0, np.float32)
    assert find_edges(z, np.ones(z.shape, bool), cell=cell).flying.shape == z.shape
