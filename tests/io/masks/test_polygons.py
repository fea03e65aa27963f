"""Polygons as masks: a pixel belongs where more than half of it is covered."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.io.masks.polygons import draw


def test_whole_pixels_are_exact():
    mask = draw([[2, 1, 5, 1, 5, 4, 2, 4]], (8, 6))
    assert mask.sum() == 9 and mask[1:4, 2:5].all()


def test_a_pixel_belongs_where_more_than_half_is_covered():
    assert draw([[0, 0, 2.6, 0, 2.6, 2, 0, 2]], (4, 2)).sum(axis=1).tolist() == [3, 3]
    assert draw([[0, 0, 2.4, 0, 2.4, 2, 0, 2]], (4, 2)).sum(axis=1).tolist() == [2, 2]


def test_a_line_one_pixel_thin_is_not_lost():
    assert draw([[3, 3, 50, 4, 50, 5, 3, 4]], (53, 37)).sum() == pytest.approx(47, abs=3)


def test_parts_join_and_what_lies_outside_is_cut_off():
    mask = draw([[0, 0, 2, 0, 2, 2, 0, 2], [6, 4, 99, 4, 99, 99, 6, 99]], (8, 6))
    assert mask[:2, :2].all() and mask[4:, 6:].all() and mask.sum() == 8
    assert not draw([[20, 20, 30, 20, 30, 30]], (8, 6)).any()


def test_large_areas_come_out_as_analytic_ones():
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([200 + 150.3 * np.cos(angles), 180 + 150.3 * np.sin(angles)], axis=1)
    assert draw([circle.ravel().tolist()], (400, 360)).sum() == pytest.approx(np.pi * 150.3**2, rel=1e-3)


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, float("nan")], ["a"] * 6, 7])
def test_what_is_no_polygon_is_refused(wrong):
    with pytest.raises(ValueError):
        draw([wrong], (8, 6))
