"""Features as colours: one meaning in all views, the same signs in every run."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.pixels.features import feature_colors

RANDOM = np.random.default_rng(5)
# Of three directions in sixteen, with falling spread, and little of everything else.
BASIS = np.linalg.qr(RANDOM.normal(size=(16, 16)))[0]


def features(views: int = 3) -> np.ndarray:
    along = RANDOM.normal(size=(views, 6, 9, 16)) * np.array([9, 5, 3, *[0.1] * 13])
    return along @ BASIS.T + 4


def test_colours_are_the_three_main_directions_in_their_order() -> None:
    tokens = features()
    colors = feature_colors(tokens)
    assert colors.shape == (3, 6, 9, 3) and colors.dtype == np.uint8
    for channel in range(3):
        along = (tokens - tokens.mean(axis=(0, 1, 2))) @ BASIS[:, channel]
        assert abs(np.corrcoef(along.ravel(), colors[..., channel].ravel())[0, 1]) > 0.98
    assert colors.min() == 0 and colors.max() == 255


def test_views_share_their_colours() -> None:
    """What is the same in two views has one colour, whatever else is there."""
    tokens = features(2)
    tokens[1, :3] = tokens[0, 3:]
    tokens[1, 3:] += 30
    colors = feature_colors(tokens)
    assert np.array_equal(colors[1, :3], colors[0, 3:])


def test_signs_do_not_depend_on_the_order_of_the_views() -> None:
    tokens = features()
    order = [2, 0, 1]
    difference = feature_colors(tokens)[order].astype(int) - feature_colors(tokens[order])
    assert np.abs(difference).max() <= 1  # sums are rounded in another order


def test_the_largest_weight_is_positive() -> None:
    tokens = np.zeros((1, 1, 5, 4))
    tokens[0, 0, :, 2] = np.arange(5)
    assert feature_colors(tokens)[0, 0, :, 0].tolist() == sorted(feature_colors(tokens)[0, 0, :, 0].tolist())
    assert np.array_equal(feature_colors(-tokens), feature_colors(tokens)[:, :, ::-1])


def test_what_does_not_differ_is_gray() -> None:
    assert (feature_colors(np.ones((2, 3, 4, 8))) == 128).all()
    one = feature_colors(np.arange(6, dtype=float).reshape(1, 2, 3, 1))
    assert (one[..., 1:] == 128).all() and len(np.unique(one[..., 0])) == 6


def test_what_are_no_features_is_refused() -> None:
    with pytest.raises(ValueError, match="V, rows, cols, D"):
        feature_colors(np.ones((3, 4, 8)))
    with pytest.raises(ValueError, match="NaN"):
        feature_colors(np.full((1, 2, 2, 4), np.nan))
