from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from depthcli.geometry.scene_points import has_depth, world_points
from depthcli.pixels.scene_size import Enlarging, at_picture_size
from depthcli.scene import Area, Scene, View
from tests.geometry.rooms import PICTURE, SIZE, camera, room, surface_errors, traced


def photo(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the true depth and colours at the size of the picture."""
    return traced(view.picture_camera, PICTURE)


@pytest.mark.parametrize("how", list(Enlarging))
def test_points_stay_on_their_surface(how: Enlarging) -> None:
    """The floor is steep: a camera half a pixel off would lift its points by more than linear depth does."""
    view = room().views[0]
    truth, colours = photo(view)
    fine = at_picture_size(view, colours, how)
    assert fine.depth.size == PICTURE and fine.scale == (1, 1)
    assert np.allclose(fine.camera.intrinsics, view.picture_camera.intrinsics)
    rows, columns = np.nonzero(has_depth(fine))
    points = world_points(fine, rows, columns)
    # Far from the edges, where the photograph's colour and the map's point belong together.
    inner = cv2.erode((np.ptp(colours.astype(int), axis=2) > 0).astype(np.uint8), np.ones((3, 3))) > 0
    edge = cv2.dilate(cv2.Laplacian(colours, cv2.CV_16S).any(axis=2).astype(np.uint8), np.ones((17, 17))) > 0
    kept = (inner & ~edge)[rows, columns]
    errors = surface_errors(points[kept], colours[rows, columns][kept])
    assert np.median(errors) < {"nearest": 0.03, "linear": 1e-3, "edges": 1e-3}[how.value]
    if how is Enlarging.NEAREST:
        assert np.isin(fine.depth.values, view.depth.values).all()
    assert np.abs(fine.depth.values / truth - 1)[~edge].max() < 0.1


def test_edges_are_where_the_photograph_has_them() -> None:
    view = room().views[0]
    truth, colours = photo(view)
    wrong = {
        how: (np.abs(at_picture_size(view, colours, how).depth.values / truth - 1) > 0.05).mean()
        for how in (Enlarging.EDGES, Enlarging.LINEAR)
    }
    assert wrong[Enlarging.EDGES] < 0.5 * wrong[Enlarging.LINEAR]


def test_a_part_of_the_picture_keeps_its_place() -> None:
    """A map of the middle of a larger picture: rays of its pixels stay what they were."""
    seen_by = camera((0, 0, 0))
    depth = replace(room().views[0].depth, camera=seen_by)
    view = View(depth, "a.png", picture_size=(400, 300), area=Area(40.25, 30.5, 168, 112))
    fine = at_picture_size(view, np.zeros((300, 400, 3), np.uint8), Enlarging.LINEAR)
    assert fine.depth.size == (168, 112) and (fine.area.left, fine.area.top) == (40, 30)
    before, after = view.picture_camera, fine.picture_camera
    assert np.allclose(before.intrinsics, after.intrinsics)
    Scene((fine,))


def test_holes_and_sky_stay() -> None:
    view = room().views[0]
    valid = np.ones(SIZE[::-1], bool)
    valid[20:24, 30:34] = False
    holed = replace(view, depth=replace(view.depth, values=np.where(valid, view.depth.values, 0), valid=valid))
    fine = at_picture_size(holed, photo(view)[1], Enlarging.LINEAR)
    assert fine.depth.valid is not None and (~fine.depth.valid).sum() == 16 * 16
    assert fine.depth.sky is not None and fine.depth.sky[:4].all() and not fine.depth.sky[4:].any()
    # Beside the hole nothing is mixed with it.
    assert np.abs(fine.depth.values[fine.depth.valid] / photo(view)[0][fine.depth.valid] - 1)[16 * 300 :].max() < 1


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the picture is 84x56"):
        at_picture_size(room().views[0], np.zeros((56, 84, 3), np.uint8))
