"""Layouts: sizes, which eye is where, colours for glasses, half a sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthcli.camera import CameraSource, pinhole
from depthcli.choices.stereo import LAYOUTS as NAMES
from depthcli.choices.stereo import StereoChoice
from depthcli.views.eyes import both_eyes
from depthcli.views.layouts import LAYOUTS, show
from depthcli.views.vr180 import sphere, sphere_side
from tests.reference import reference_image

SIZE = (80, 60)
RGB = reference_image(60, 80)
NEAR = np.tile(np.linspace(0, 1, 60, dtype=np.float32)[:, None], (1, 80))


def shown(layout: str, **options: object) -> tuple[np.ndarray, ...]:
    return show(RGB, NEAR, StereoChoice(layout, strength=6, **options))


def test_the_table_has_every_layout_that_can_be_chosen() -> None:
    assert tuple(LAYOUTS) == NAMES


@pytest.mark.parametrize("size", [(80, 60), (81, 61)])
@pytest.mark.parametrize("name", NAMES)
def test_a_layout_has_the_size_and_the_files_it_promises(name, size) -> None:
    rgb, near = reference_image(size[1], size[0]), np.zeros(size[::-1], np.float32)
    pictures = show(rgb, near, StereoChoice(name))
    assert len(pictures) == len(LAYOUTS[name].endings)
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape == (*LAYOUTS[name].size(size)[::-1], 3)


def test_names_and_sizes_are_those_that_players_know() -> None:
    found = {name: (row.size((1920, 1080)), *row.endings) for name, row in LAYOUTS.items()}
    assert found == {
        "sbs": ((3840, 1080), "_LRF_Full_SBS"),
        "half-sbs": ((1920, 1080), "_LR"),
        "ou": ((1920, 2160), "_TBF_fulltb"),
        "half-ou": ((1920, 1080), "_TB"),
        "cross": ((3840, 1080), "_RLF_cross"),
        **{f"anaglyph{kind}": ((1920, 1080), "_redcyan") for kind in ("", "-gray", "-color", "-half-color")},
        "vr180": ((5760, 2880), "_180x180_LR"),
        "pair": ((1920, 1080), "_L", "_R"),
        "rgbd": ((3840, 1080), "_RGBD"),
    }


def test_each_eye_is_in_its_place() -> None:
    left, right = both_eyes(RGB, NEAR, StereoChoice(strength=6))
    assert (left != right).any()
    width, height = SIZE
    (sbs,), (cross,), (ou,), pair = (shown(name) for name in ("sbs", "cross", "ou", "pair"))
    assert (sbs[:, :width] == left).all() and (sbs[:, width:] == right).all()
    assert (cross[:, :width] == right).all() and (cross[:, width:] == left).all()
    assert (ou[:height] == left).all() and (ou[height:] == right).all()
    assert (pair[0] == left).all() and (pair[1] == right).all()
    (half,), (half_ou,) = shown("half-sbs"), shown("half-ou")
    assert np.abs(half[:, 0].astype(int) - left[:, :2].mean(axis=1)).max() <= 1
    assert np.abs(half_ou[30].astype(int) - right[:2].mean(axis=0)).max() <= 1


@pytest.mark.parametrize("name", ["sbs", "ou", "pair"])
def test_swapped_eyes_change_places(name) -> None:
    whole, swapped = np.concatenate(shown(name)), np.concatenate(shown(name, swap=True))
    assert (whole != swapped).any()
    parts = np.split(whole, 2, axis=1 if name == "sbs" else 0)
    assert (np.concatenate(parts[::-1], axis=1 if name == "sbs" else 0) == swapped).all()


def test_the_picture_stands_left_of_its_nearness() -> None:
    (rgbd,) = shown("rgbd")
    assert (rgbd[:, :80] == RGB).all()
    assert (rgbd[0, 80:] == 0).all() and (rgbd[-1, 80:] == 255).all()  # white is near


def test_through_either_glass_of_red_and_cyan_one_eye_is_seen() -> None:
    left, right = both_eyes(RGB, NEAR, StereoChoice(strength=6))
    (color,) = shown("anaglyph-color")
    assert np.abs(color[..., 0].astype(int) - left[..., 0]).max() <= 2
    assert np.abs(color[..., 1:].astype(int) - right[..., 1:]).max() <= 2
    (half,) = shown("anaglyph-half-color")
    assert (half[..., 1:] == color[..., 1:]).all() and (half[..., 0] != color[..., 0]).any()
    (gray,) = shown("anaglyph-gray")
    assert (gray[..., 1] == gray[..., 2]).all() and (gray[..., 0] == half[..., 0]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("anaglyph")])
def test_white_and_black_stay_so_in_an_anaglyph(name) -> None:
    for level, margin in ((0, 0), (255, 12)):  # Dubois' shares do not quite add up to one
        (mixed,) = show(np.full((8, 8, 3), level, np.uint8), np.zeros((8, 8), np.float32), StereoChoice(name))
        assert np.abs(mixed.astype(int) - level).max() <= margin


def test_a_direction_is_seen_where_the_camera_saw_it() -> None:
    camera = pinhole((201, 101), 150.0, CameraSource.GIVEN)
    rgb = np.zeros((101, 201, 3), np.uint8)
    column, row = 160, 30
    rgb[row - 1 : row + 2, column - 1 : column + 2] = 255
    seen = sphere(rgb, camera)
    rows, columns = np.nonzero(seen[..., 0] > 128)
    side = sphere_side((201, 101))
    azimuth, elevation = ((found.mean() + 0.5) / side * math.pi - math.pi / 2 for found in (columns, rows))
    assert azimuth == pytest.approx(math.atan((column - 100) / 150), abs=0.01)
    assert elevation == pytest.approx(math.atan((row - 50) / 150 * math.cos(azimuth)), abs=0.01)


def test_around_the_picture_half_a_sphere_is_black() -> None:
    (vr180,) = shown("vr180")
    side = vr180.shape[0]
    assert (vr180[0] == 0).all() and (vr180[-1] == 0).all() and (vr180[:, 0] == 0).all()
    assert vr180[side // 2, side // 2].any() and vr180[side // 2, side + side // 2].any()


def test_half_a_sphere_has_even_sides_that_headsets_play() -> None:
    assert [sphere_side(size) for size in ((1, 1), (8000, 6000))] == [2, 2880]
