"""A depth map at another size, and without its holes."""

from __future__ import annotations

import numpy as np

from depthcli.camera import CameraSource, pinhole
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.pixels.maps import filled, resized

METRIC, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY


def test_no_metre_appears_between_two_surfaces() -> None:
    values = np.where(np.arange(48).reshape(6, 8) % 8 < 5, 1.0, 9.0)
    for size in ((8, 6), (13, 7), (3, 2), (80, 60), (1, 1)):
        small = resized(DepthMap(values, METRIC), size)
        assert small.size == size and set(small.values.ravel()) <= {1.0, 9.0}


def test_a_hole_is_never_mixed_with_its_neighbours() -> None:
    valid = np.ones((6, 8), bool)
    valid[2:4, 2:4] = False
    for kind in DepthKind:
        large = resized(DepthMap(np.where(valid, 5.0, 0.0), kind, valid=valid), (24, 18))
        assert (large.values[large.valid] == 5).all() and large.valid.mean() == valid.mean()
        assert not large.valid[6:12, 6:12].any()


def test_relative_maps_without_holes_are_smooth_and_keep_their_place() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (6, 1))
    large = resized(DepthMap(ramp, DISPARITY), (32, 24)).values
    assert np.allclose(large[:, 2:-2], ((np.arange(32) + 0.5) / 4 - 0.5)[2:-2], atol=1e-5)


def test_the_camera_and_the_layers_go_along() -> None:
    layer = np.arange(48, dtype=np.float32).reshape(6, 8)
    depth = DepthMap(layer, METRIC, confidence=layer, sky=layer > 20, camera=pinhole((8, 6), 7, CameraSource.GIVEN))
    large = resized(depth, (16, 12))
    assert large.camera.focal == (14, 14) and large.camera.center == (7.5, 5.5)
    assert np.array_equal(large.confidence, large.values) and np.array_equal(large.sky, large.values > 20)
    assert resized(depth, (8, 6)) is depth


def test_sky_stays_a_mask_and_confidence_between_its_neighbours() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (6, 1))
    depth = DepthMap(ramp, DISPARITY, confidence=1 + ramp, sky=ramp > 4)
    large, small = resized(depth, (32, 24)), resized(depth, (4, 3))
    assert np.array_equal(large.sky, np.kron(ramp > 4, np.ones((4, 4), bool)))
    assert small.sky.tolist() == [[False, False, True, True]] * 3
    assert np.allclose(large.confidence, 1 + large.values, atol=1e-5)


def test_a_hole_takes_the_nearest_depth_there_is() -> None:
    values = np.array([[1, 0, 0, 0, 5], [1, 0, 0, 0, 5]], np.float32)
    full = filled(DepthMap(values, METRIC, valid=values > 0))
    assert full.valid is None and full.values[:, [0, 1, 3, 4]].tolist() == [[1, 1, 5, 5]] * 2
    assert set(full.values[:, 2]) <= {1, 5}


def test_what_has_no_hole_or_nothing_else_stays_as_it_is() -> None:
    whole = DepthMap(np.ones((2, 2)), METRIC)
    empty = DepthMap(np.ones((2, 2)), METRIC, valid=np.zeros((2, 2), bool))
    assert filled(whole) is whole and filled(empty) is empty
