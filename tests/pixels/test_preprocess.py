from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthcli.errors import UsageError
from depthcli.pixels import preprocess
from depthcli.pixels.preprocess import (
    plan_input,
    to_network_input,
    wrap_columns,
)
from depthcli.zoo.rows import Bound, InputPolicy, find_row
from tests.reference import reference_image

MEAN, STD = np.array(InputPolicy().mean), np.array(InputPolicy().std)


@pytest.mark.parametrize(
    ("picture", "size", "network"),
    [
        ((640, 480), 518, (686, 518)),
        ((1280, 720), 518, (924, 518)),
        ((1920, 1080), 518, (924, 518)),
        ((333, 517), 518, (518, 798)),
        ((2048, 858), 518, (1232, 518)),
        ((518, 518), 518, (518, 518)),
        ((2390, 1000), 518, (1232, 518)),
        ((3000, 1000), 518, (1554, 518)),
        ((3840, 1080), 518, (1848, 518)),  # 32:9
        ((1080, 3840), 518, (518, 1848)),
        ((400, 100), 518, (2072, 518)),
        ((100, 400), 210, (210, 840)),
        ((1, 1), 518, (518, 518)),
        ((640, 480), 512, (686, 518)),  # not a multiple of 14: up to the next one
        ((100, 100), 500, (504, 504)),
    ],
)
def test_input_sizes_are_the_reference_codes(picture: tuple[int, int], size: int, network: tuple[int, int]) -> None:
    assert plan_input(*picture, InputPolicy(size)).input_size == network


def test_sides_are_multiples_of_a_patch_and_never_shorter_than_asked() -> None:
    for width in range(1, 400, 37):
        for height in range(1, 400, 41):
            plan = plan_input(width, height, InputPolicy(140))
            assert all(side % 14 == 0 and side >= 140 for side in plan.input_size)
            assert plan.tokens == plan.input_size[0] * plan.input_size[1] // 196 + 1


@pytest.mark.parametrize(
    "picture", [(1, 1000), (1000, 1), (32, 1000), (1000, 100), (4001, 1000), (1, 500_000), (3, 16)]
)
@pytest.mark.parametrize("size", [14, 210, 500, 518])
def test_the_input_of_a_strip_is_bounded(picture: tuple[int, int], size: int) -> None:
    plan = plan_input(*picture, InputPolicy(size))
    square = plan_input(*(4 if side == max(picture) else 1 for side in picture), InputPolicy(size))
    assert plan.input_size == square.input_size and plan.picture_size == picture
    clip = plan_input(*picture, InputPolicy(size, Bound.SHORTER_SIDE_16_9))
    assert max(clip.input_size) <= 4 * min(clip.input_size) and clip.tokens <= plan.tokens
    (note,) = plan.notes
    assert f"bounded to {plan.input_size[1]}x{plan.input_size[0]}" in note
    assert ("1:" in note) == (picture[1] > picture[0])


@pytest.mark.parametrize("picture", [(400, 100), (100, 400), (3840, 1080), (1, 1)])
def test_ordinary_pictures_need_no_note(picture: tuple[int, int]) -> None:
    assert plan_input(*picture, InputPolicy(210)).notes == ()


def test_the_picture_of_a_strip_is_squeezed_whole() -> None:
    picture = np.zeros((5, 1000, 3), np.uint8)
    picture[:, 500:] = 255
    found = to_network_input(picture, plan_input(1000, 5, InputPolicy(28)))
    assert found.shape == (3, 28, 112)
    assert found[0, :, 50].max() < found[0, :, 62].min()


@pytest.mark.parametrize("picture", [(2000, 1000), (4096, 2048), (640, 480), (8, 4), (3, 40), (5000, 10)])
@pytest.mark.parametrize("bound", [Bound.SHORTER_SIDE, Bound.SHORTER_SIDE_16_9])
def test_a_panorama_is_seen_with_columns_of_the_other_edge(picture: tuple[int, int], bound: Bound) -> None:
    plain, plan = (plan_input(*picture, InputPolicy(140, bound), wrap) for wrap in (False, True))
    added = plan.input_size[0] - plain.input_size[0]
    assert plan.input_size[1] == plain.input_size[1] and added % 28 == 0
    assert added >= 28 and abs(added - plain.input_size[0] / 4) <= 21
    assert plan.wrapped >= 1 and plain.wrapped == 0
    if picture[0] >= 100:
        assert abs(plan.map_size[0] - plain.input_size[0]) <= 1
        assert plan.ratio == pytest.approx(plan.input_size[0] / plan.input_size[1], rel=0.05)
    assert plain.map_size == plain.input_size


def test_a_wrapped_input_holds_the_columns_of_the_other_edge() -> None:
    picture = reference_image(40, 80)
    plan = plan_input(80, 40, InputPolicy(56), wrap=True)
    wide = wrap_columns(picture, plan.wrapped)
    assert np.array_equal(wide[:, : plan.wrapped], picture[:, -plan.wrapped :])
    assert np.array_equal(wide[:, -plan.wrapped :], picture[:, : plan.wrapped])
    wanted = (cv2.resize(wide / 255.0, plan.input_size, interpolation=cv2.INTER_CUBIC) - MEAN) / STD
    assert np.array_equal(to_network_input(picture, plan), wanted.transpose(2, 0, 1).astype(np.float32))


def test_more_columns_than_the_picture_has_go_round_again() -> None:
    row = np.arange(3)[None]
    assert wrap_columns(row, 4).tolist() == [[2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]]
    assert wrap_columns(row, 0) is row


def test_an_input_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="`input_size`"):
        plan_input(100, 100, InputPolicy(13))


def test_the_resize_is_the_bicubic_of_opencv_on_float64() -> None:
    picture = reference_image(123, 210)
    plan = plan_input(210, 123, InputPolicy(70))
    wanted = (cv2.resize(picture / 255.0, plan.input_size, interpolation=cv2.INTER_CUBIC) - MEAN) / STD
    found = to_network_input(picture, plan)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert np.array_equal(found, wanted.transpose(2, 0, 1).astype(np.float32))


def test_bands_of_rows_give_the_bits_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = reference_image(97, 60)
    plan = plan_input(60, 97, InputPolicy(28))
    whole = to_network_input(picture, plan)
    monkeypatch.setattr(preprocess, "_BAND_PIXELS", 60 * 7)
    assert np.array_equal(to_network_input(picture, plan), whole)


@pytest.mark.parametrize("size", [(300, 1400), (1400, 300), (97, 3001), (500, 511)])
def test_rows_that_are_not_looked_at_change_nothing(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    for side in (14, 28, 70):
        plan = plan_input(*size, InputPolicy(side))
        wanted = (cv2.resize(picture / 255.0, plan.input_size, interpolation=cv2.INTER_CUBIC) - MEAN) / STD
        assert np.array_equal(to_network_input(picture, plan), wanted.transpose(2, 0, 1).astype(np.float32))


def test_overshoot_of_an_edge_is_kept() -> None:
    picture = np.zeros((28, 28, 3), np.uint8)
    picture[:, 14:] = 255
    found = to_network_input(picture, plan_input(28, 28, InputPolicy(56)))
    assert found.max() > ((1 - MEAN) / STD).max()


@pytest.mark.parametrize(
    ("picture", "size", "wanted"),
    [
        ((1920, 1080), 518, (924, 518)),
        ((1280, 720), 518, (924, 518)),
        ((2048, 858), 518, (938, 392)),
        ((858, 2048), 518, (392, 938)),
        ((640, 480), 518, (686, 518)),
        ((480, 640), 518, (518, 686)),
        ((1000, 10), 14, (56, 14)),
        ((3840, 1080), 518, (896, 252)),
        ((1000, 100), 518, (896, 224)),
    ],
)
def test_the_frames_of_a_wide_clip_get_a_smaller_input(picture, size, wanted) -> None:
    assert plan_input(*picture, InputPolicy(size, Bound.SHORTER_SIDE_16_9)).input_size == wanted


# --- In steps, to a longer side: Depth Anything 3 ---------------------------------------------------------------------

STEPS = find_row("da3-mono").input


@pytest.mark.parametrize(
    ("picture", "size", "wanted"),
    [
        ((1920, 1080), 504, (504, 280)),
        ((640, 480), 504, (504, 378)),
        ((1242, 375), 504, (504, 154)),
        ((481, 640), 504, (378, 504)),
        ((187, 131), 98, (98, 70)),
        ((497, 301), 252, (252, 154)),
        ((100, 35), 100, (98, 42)),  # of two multiples as near the larger
        ((3000, 10), 504, (504, 14)),
        ((1, 1), 504, (504, 504)),
    ],
)
def test_the_longer_side_is_bounded_and_both_go_to_the_nearest_multiple(picture, size, wanted) -> None:
    plan = plan_input(*picture, STEPS.with_size(size))
    assert plan.input_size == wanted
    assert not plan.notes


@pytest.mark.parametrize(
    ("height", "width", "size", "steps"),
    [
        (131, 187, 98, [((98, 69), cv2.INTER_AREA), ((98, 70), cv2.INTER_CUBIC)]),
        (98, 140, 210, [((210, 147), cv2.INTER_CUBIC), ((210, 154), cv2.INTER_CUBIC)]),
        (60, 100, 100, [((98, 56), cv2.INTER_AREA)]),  # as long as bounded: only to multiples
        (70, 98, 98, []),
    ],
)
def test_a_resize_in_steps_works_on_bytes(height: int, width: int, size: int, steps: list) -> None:
    picture = reference_image(height, width)
    wanted = picture
    for target, interpolation in steps:
        wanted = cv2.resize(wanted, target, interpolation=interpolation)
    found = to_network_input(picture, plan_input(width, height, STEPS.with_size(size)))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    x = wanted.astype(np.float32) / np.float32(255)
    assert np.array_equal(found, ((x - MEAN.astype(np.float32)) / STD.astype(np.float32)).transpose(2, 0, 1))


def test_a_panorama_is_wrapped_before_its_one_step() -> None:
    picture = reference_image(50, 100)
    plan = plan_input(100, 50, STEPS.with_size(56), wrap=True)
    assert plan.input_size == (84, 28) and plan.wrapped
    wide = cv2.resize(wrap_columns(picture, plan.wrapped), plan.input_size, interpolation=cv2.INTER_AREA)
    wanted = (wide.transpose(2, 0, 1) / 255.0 - MEAN[:, None, None]) / STD[:, None, None]
    assert np.allclose(to_network_input(picture, plan), wanted, atol=1e-5)
