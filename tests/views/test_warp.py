"""A view from the right: near pixels move left, nearer ones win, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.errors import PictureError
from depthcli.views.warp import Window, right_view, sharpened, source_columns
from tests.reference import reference_image

WIDTH = 60


def stripes(width: int = WIDTH, height: int = 9) -> np.ndarray:
    """A picture whose red value names the column."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width)
    rgb[..., 1] = np.arange(height)[:, None]
    return rgb


def square(shift: float, at: slice = slice(20, 40), width: int = WIDTH, height: int = 9) -> np.ndarray:
    """Shifts of a near thing before a background that stays."""
    field = np.zeros((height, width), np.float32)
    field[:, at] = shift
    return field


def test_without_a_shift_the_picture_comes_back() -> None:
    rgb = reference_image(37, 53)
    assert (right_view(rgb, np.zeros((37, 53), np.float32)) == rgb).all()


def test_a_whole_shift_moves_every_pixel_to_the_left_by_as_much() -> None:
    rgb = reference_image(37, 53)
    moved = right_view(rgb, np.full((37, 53), 5, np.float32))
    assert (moved[:, :-5] == rgb[:, 5:]).all()
    assert (moved[:, -5:] == rgb[:, -1:]).all()  # what it does not see repeats the side


def test_the_nearer_pixel_wins() -> None:
    columns = source_columns(square(6))[0][0]
    assert columns[14:34].tolist() == list(range(20, 40))  # all of the near thing, 6 to the left
    assert columns[:14].tolist() == list(range(14))  # the background beside it
    assert not set(range(14, 20)) & set(columns.tolist())  # and not what it hides now
    assert columns[40:].tolist() == list(range(40, WIDTH))


def test_of_three_layers_each_hides_those_behind_it() -> None:
    shift = square(4, slice(20, 50))
    shift[:, 30:40] = 8
    columns = source_columns(shift)[0][0]
    assert columns[22:32].tolist() == list(range(30, 40))
    assert columns[16:22].tolist() == list(range(20, 26))
    assert columns[36:46].tolist() == list(range(40, 50))


def test_what_only_this_eye_sees_is_a_hole_beside_the_near_thing() -> None:
    columns, holes, far = source_columns(square(6))
    assert set(range(34, 40)) <= set(np.flatnonzero(holes[0])) <= set(range(33, 41))
    assert (far[0, 34:40] == 40).all()  # the background's own edge
    assert (np.diff(columns[0]) >= 0).all()


def test_sources_rise_along_every_row() -> None:
    shift = np.random.default_rng(0).normal(0, 6, (40, 97)).astype(np.float32)
    columns, _, _ = source_columns(shift)
    assert (np.diff(columns, axis=1) >= 0).all() and columns.min() >= 0 and columns.max() <= 96


def test_every_target_lies_between_the_pixels_it_comes_from() -> None:
    """The definition, pixel by pixel, against the fast search."""
    shift = np.random.default_rng(1).normal(0, 5, (6, 41)).astype(np.float32)
    columns, _, _ = source_columns(shift)
    for row, found in zip(shift, columns):
        place = np.arange(41, dtype=np.float32) - row
        seen = [u for u in range(41) if all(place[u] < place[v] for v in range(u + 1, 41))]
        wanted = np.interp(np.arange(41), place[seen], seen)
        assert found == pytest.approx(wanted, abs=1e-3)


def test_the_fills_show_background_and_never_more_of_the_near_thing() -> None:
    rgb, field = stripes(), square(8)
    views = {fill: right_view(rgb, field, fill)[4, :, 0].astype(int) for fill in ("stretch", "edge", "telea")}
    hole = slice(34, 42)  # behind the near thing, which is widened by 2
    for view in views.values():
        assert view[10:33].max() <= 41 and (view[hole] >= 40).all() and (view[42:] == np.arange(42, WIDTH)).all()
    assert (np.diff(views["stretch"][hole]) >= 0).all()
    assert (views["edge"][hole] == 42).all()


def test_a_soft_edge_becomes_a_step_just_outside_the_near_thing() -> None:
    soft = np.tile(np.interp(np.arange(WIDTH), [27, 33], [0, 12]).astype(np.float32), (9, 1))
    sharp = sharpened(soft, np.arange(9))[4]
    assert set(np.unique(sharp)) <= {0, 12}
    edge = int(np.argmax(sharp > 6))
    assert 26 <= edge <= 29  # the middle of the ramp is 30; 2 pixels wider


def test_a_gentle_slope_is_not_snapped() -> None:
    slope = np.tile(np.linspace(0, 6, WIDTH, dtype=np.float32), (9, 1))
    assert np.unique(sharpened(slope, np.arange(9))).size > 50


def test_bands_of_rows_do_not_show(monkeypatch) -> None:
    rgb = reference_image(61, 47)
    shift = np.random.default_rng(2).normal(0, 3, (61, 47)).astype(np.float32)
    window = Window(0.03)
    whole = right_view(rgb, shift, window=window)
    monkeypatch.setattr("depthcli.views.warp._BAND_PIXELS", 47 * 4)
    assert (right_view(rgb, shift, window=window) == whole).all()


def test_a_window_is_enlarged_about_the_middle() -> None:
    rgb = stripes(width=100, height=50)
    shown = right_view(rgb, np.zeros((50, 100), np.float32), window=Window(0.1))
    assert shown[0, 0, 0] == pytest.approx(10, abs=1) and shown[0, -1, 0] == pytest.approx(89, abs=1)
    assert shown[0, 0, 1] == pytest.approx(5, abs=1) and shown[-1, 0, 1] == pytest.approx(44, abs=1)


def test_too_wide_a_picture_is_refused_by_name() -> None:
    with pytest.raises(PictureError, match="32766 columns"):
        right_view(np.zeros((1, 32767, 3), np.uint8), np.zeros((1, 32767), np.float32))
