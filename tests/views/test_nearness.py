"""Nearness: disparity of any kind of depth between 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.views.nearness import fill_from_far, nearness


def test_scale_and_shift_of_relative_disparity_do_not_matter() -> None:
    values = np.random.default_rng(0).random((40, 50), np.float32)
    one, other = (nearness(DepthMap(v, DepthKind.RELATIVE_DISPARITY)) for v in (values, 7 * values + 3))
    assert one == pytest.approx(other, abs=1e-5)
    assert one.min() == 0 and one.max() == 1


@pytest.mark.parametrize("kind", [DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DEPTH])
def test_depth_is_turned_into_disparity(kind) -> None:
    metres = np.array([[1.0, 2.0, 4.0]], np.float32)
    assert nearness(DepthMap(metres, kind), (1.0, 4.0)) == pytest.approx(
        np.array([[1, (1 / 2 - 1 / 4) / (1 - 1 / 4), 0]]), abs=1e-6
    )


def test_no_distance_is_nearest() -> None:
    near = nearness(DepthMap(np.array([[0.0, 1.0, 4.0]], np.float32), DepthKind.METRIC_DEPTH), (1.0, 4.0))
    assert near.tolist() == [[1, 1, 0]]


def test_a_range_of_metres_may_begin_at_the_camera() -> None:
    near = nearness(DepthMap(np.array([[0.0, 0.02, 10.0]], np.float32), DepthKind.METRIC_DEPTH), (0.0, 10.0))
    assert near[0, 0] == 1 and 0.3 < near[0, 1] < 0.7 and near[0, 2] == 0


def test_a_given_range_is_kept_and_the_rest_clipped() -> None:
    near = nearness(DepthMap(np.array([[0, 2, 3, 9]], np.float32), DepthKind.RELATIVE_DISPARITY), (2, 4))
    assert near.tolist() == [[0, 0, 0.5, 1]]


def test_a_few_wild_pixels_do_not_flatten_the_rest() -> None:
    values = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (100, 1))
    values[0, 0] = 1000
    near = nearness(DepthMap(values, DepthKind.RELATIVE_DISPARITY))
    assert near[50].max() > 0.99


def test_a_flat_map_is_far_and_a_small_thing_counts() -> None:
    flat = np.full((50, 60), 3, np.float32)
    assert (nearness(DepthMap(flat, DepthKind.RELATIVE_DISPARITY)) == 0).all()
    flat[25, 30] = 5
    assert nearness(DepthMap(flat, DepthKind.RELATIVE_DISPARITY))[25, 30] == 1


def test_gaps_take_the_farther_neighbour() -> None:
    disparity = np.array([[0, 5, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    filled = fill_from_far(disparity, disparity > 0)
    assert filled.tolist() == [[5, 5, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2]]
    depth = DepthMap(disparity, DepthKind.RELATIVE_DISPARITY, valid=disparity > 0)
    assert nearness(depth).tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
