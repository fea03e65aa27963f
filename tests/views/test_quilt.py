"""Quilts show near things farther right the farther left they are seen from, in the order that the displays read."""

from __future__ import annotations

import numpy as np

from depthcli.views.quilt import COLUMNS, ROWS, quilt, quilt_ending


def views(whole: np.ndarray) -> list[np.ndarray]:
    """The views, from the leftmost on: rows from below."""
    return [view for row in np.split(whole, ROWS)[::-1] for view in np.split(row, COLUMNS, axis=1)]


def test_near_things_move_left_from_view_to_view_and_the_middle_stays() -> None:
    rgb, near = np.zeros((60, 100, 3), np.uint8), np.zeros((60, 100), np.float32)
    rgb[20:30, 45:55], near[20:30, 45:55] = (255, 0, 0), 1  # in front
    rgb[40:50, 45:55], near[40:50] = (0, 255, 0), 0.5  # in the plane of the display
    seen = views(quilt(rgb, near))
    assert len(seen) == 48 and all(view.shape == (60, 100, 3) for view in seen)
    red = [np.nonzero(view[25, :, 0] > 128)[0].mean() for view in seen]
    green = [np.nonzero(view[45, :, 1] > 128)[0].mean() for view in seen]
    assert all(before >= after for before, after in zip(red, red[1:])) and 2.5 <= red[0] - red[-1] <= 3.5
    assert max(green) - min(green) < 0.5
    mirrored = views(quilt(np.ascontiguousarray(rgb[:, ::-1]), np.ascontiguousarray(near[:, ::-1])))
    assert np.array_equal(mirrored[0][:, ::-1], seen[-1])


def test_a_large_picture_becomes_smaller_and_keeps_its_ratio() -> None:
    whole = quilt(np.zeros((1200, 1600, 3), np.uint8), np.zeros((1200, 1600), np.float32))
    assert whole.shape[:2] == (6 * 384, 8 * 512)
    assert quilt_ending((1600, 1200)) == "_qs8x6a1.33.png" and quilt_ending((3, 4)) == "_qs8x6a0.75.png"
