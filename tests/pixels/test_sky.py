from __future__ import annotations

import numpy as np
import pytest

from depthcli.pixels.sky import fill_sky, sky_mask


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Depth 1 to 2 below, nonsense above, where the sky is."""
    depth = np.random.default_rng(0).uniform(1, 2, (20, 30)).astype(np.float32)
    sky = np.zeros((20, 30), np.float32)
    sky[:8], depth[:8] = 0.9, 0.01
    return depth, sky


def test_sky_is_as_far_as_the_farthest_things() -> None:
    depth, sky = picture()
    found = fill_sky(depth, sky)
    assert found.dtype == np.float32
    assert np.array_equal(found[8:], depth[8:])
    assert found[:8] == pytest.approx(np.quantile(depth[8:].astype(np.float64), 0.99), rel=1e-6)


def test_the_depth_of_another_picture_changes_nothing() -> None:
    """The official code takes the quantile over all pictures of a call."""
    depth, sky = picture()
    assert np.array_equal(fill_sky(depth * 10, sky), fill_sky(depth, sky) * 10)


@pytest.mark.parametrize("pixels", [0, 1, 10, 590, 600])
def test_next_to_no_sky_or_nothing_else_leaves_the_depth(pixels: int) -> None:
    depth, _ = picture()
    sky = (np.arange(600).reshape(20, 30) < pixels).astype(np.float32)
    assert np.array_equal(fill_sky(depth, sky), depth)


def test_depth_is_replaced_where_sky_is_likely_and_the_mask_holds_where_it_is_sure() -> None:
    depth, sky = picture()
    sky[:4] = 0.4
    assert len(np.unique(fill_sky(depth, sky)[:8])) == 1
    assert not sky_mask(sky)[:4].any() and sky_mask(sky)[4:8].all() and not sky_mask(sky)[8:].any()
