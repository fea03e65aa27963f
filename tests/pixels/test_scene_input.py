"""Pictures to views. data/da3_scene.npz: what the official code of Depth Anything 3 (revision 2c21ea8) answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli.camera import CameraSource, pinhole
from depthcli.pixels.scene_input import Method, normalise, plan_scene, plan_view, prepare_view
from depthcli.pixels.scene_output import network_intrinsics
from tests.reference import reference_image

GOLDEN = np.load(Path(__file__).parents[1] / "data/da3_scene.npz")


@pytest.mark.parametrize("method", list(Method))
def test_pictures_and_cameras_are_prepared_as_by_the_official_code(method: Method) -> None:
    plan = plan_view((187, 131), 98, method)
    view = prepare_view(reference_image(131, 187), plan)
    assert view.shape[0] % 14 == 0 and view.shape[1] % 14 == 0
    assert (view[::8, ::8] == GOLDEN[f"prepared_{method.value}"]).all()
    assert (plan.intrinsics(GOLDEN["prepared_K"]) == GOLDEN[f"prepared_{method.value}_K"]).all()


def test_inputs_are_normalised_as_by_the_official_code() -> None:
    view = prepare_view(reference_image(131, 187), plan_view((187, 131), 98))
    assert (normalise(view)[:, ::16, ::16] == GOLDEN["normalised"]).all()


@pytest.mark.parametrize(
    ("size", "method", "expected"),
    [
        ((1920, 1080), Method.UPPER_BOUND_RESIZE, (504, 280)),
        ((4000, 3000), Method.UPPER_BOUND_RESIZE, (504, 378)),
        ((1242, 375), Method.UPPER_BOUND_RESIZE, (504, 154)),
        ((1242, 375), Method.UPPER_BOUND_CROP, (504, 140)),
        ((1920, 1080), Method.LOWER_BOUND_RESIZE, (896, 504)),
        ((5000, 10), Method.UPPER_BOUND_CROP, (504, 14)),
        ((10, 5000), Method.UPPER_BOUND_RESIZE, (14, 504)),
    ],
)
def test_sizes(size: tuple[int, int], method: Method, expected: tuple[int, int]) -> None:
    plan = plan_view(size, 504, method)
    assert plan.size == expected
    assert prepare_view(np.zeros((size[1], size[0], 3), np.uint8), plan).shape == (expected[1], expected[0], 3)


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = reference_image(98, 140)
    assert (prepare_view(picture, plan_view((140, 98), 140)) == picture).all()


def test_the_area_is_where_the_input_comes_from() -> None:
    """A bright square of the picture is found where the area says."""
    picture = np.zeros((300, 497, 3), np.uint8)
    picture[100:140, 200:260] = 255
    plan = plan_view((497, 300), 252, Method.UPPER_BOUND_CROP)
    rows, columns = np.nonzero(prepare_view(picture, plan)[..., 0] > 127)
    area = plan.area
    x = area.left + (columns + 0.5) * area.width / plan.size[0]
    y = area.top + (rows + 0.5) * area.height / plan.size[1]
    assert abs(x.mean() - 230) < 0.5 and abs(y.mean() - 120) < 0.5


def test_views_of_a_scene_have_one_size_and_what_is_cut_is_told() -> None:
    plans, line = plan_scene([(300, 200), (300, 180), (290, 210)], 140)
    assert {plan.size for plan in plans} == {(140, 84)}
    assert line == (
        "pictures of several sizes: 2 of 3 views are cut to 140x84 in their middle, and lose up to 14 % of their area"
    )
    assert plan_scene([(300, 200), (600, 400)], 140) == plan_scene([(300, 200), (600, 400)], 140, pad=True)
    assert plan_scene([(300, 200), (600, 400)], 140)[1] == ""


@pytest.mark.parametrize("method", list(Method))
def test_views_can_be_padded_and_nothing_is_lost(method: Method) -> None:
    sizes = [(300, 200), (200, 300)]
    plans, line = plan_scene(sizes, 140, method, pad=True)
    assert len({plan.size for plan in plans}) == 1 and "2 of 2 views are padded to" in line
    for plan, (width, height) in zip(plans, sizes):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3] = 255
        view = prepare_view(picture, plan)
        assert view.shape == (plan.size[1], plan.size[0], 3)
        alone = prepare_view(picture, plan_view((width, height), 140, method))
        assert view[plan.inside].shape[0] >= alone.shape[0] and view[plan.inside].shape[1] >= alone.shape[1]
        outside = np.ones(view.shape[:2], bool)
        outside[plan.inside] = False
        assert (view[outside] == (124, 116, 104)).all() and outside.any()
        # The camera of the picture sees its middle where the input shows it.
        middle = network_intrinsics(pinhole((width, height), 150.0, CameraSource.GIVEN), plan)[:2, 2]
        rows, columns = np.nonzero(view[..., 0] == 255)
        assert np.allclose((columns.mean() + 0.5, rows.mean() + 0.5), middle, atol=0.6)


def test_the_middle_of_a_picture_is_the_middle_of_the_input() -> None:
    plan = plan_view((187, 131), 98)
    matrix = network_intrinsics(pinhole((187, 131), 150.0, CameraSource.GIVEN), plan)
    assert np.allclose(matrix[:2, 2], (49, 35))


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="its plan for"):
        prepare_view(np.zeros((10, 20, 3), np.uint8), plan_view((10, 20)))
