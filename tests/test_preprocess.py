from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthcli import preprocess
from depthcli.errors import UsageError
from depthcli.preprocess import MEAN, STD, InputPlan, plan_clip_input, plan_input, to_network_input
from tests.reference import reference_image


@pytest.mark.parametrize(
    ("picture", "size", "network"),
    [
        ((640, 480), 518, (686, 518)),
        ((1280, 720), 518, (924, 518)),
        ((1920, 1080), 518, (924, 518)),
        ((333, 517), 518, (518, 798)),
        ((2048, 858), 518, (1232, 518)),
        ((1000, 100), 518, (5180, 518)),
        ((518, 518), 518, (518, 518)),
        ((1, 1), 518, (518, 518)),
        ((640, 480), 512, (686, 518)),  # not a multiple of 14: up to the next one
        ((100, 100), 500, (504, 504)),
    ],
)
def test_input_sizes_are_the_reference_codes(picture: tuple[int, int], size: int, network: tuple[int, int]) -> None:
    assert plan_input(*picture, size).input_size == network


def test_sides_are_multiples_of_a_patch_and_never_shorter_than_asked() -> None:
    for width in range(1, 400, 37):
        for height in range(1, 400, 41):
            plan = plan_input(width, height, 140)
            assert all(side % 14 == 0 and side >= 140 for side in plan.input_size)
            assert plan.tokens == plan.input_size[0] * plan.input_size[1] // 196 + 1


def test_an_input_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="--input-size"):
        plan_input(100, 100, 13)


def test_the_resize_is_the_bicubic_of_opencv_on_float64() -> None:
    picture = reference_image(123, 210)
    plan = plan_input(210, 123, 70)
    wanted = (cv2.resize(picture / 255.0, plan.input_size, interpolation=cv2.INTER_CUBIC) - MEAN) / STD
    found = to_network_input(picture, plan)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert np.array_equal(found, wanted.transpose(2, 0, 1).astype(np.float32))


def test_bands_of_rows_give_the_bits_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = reference_image(97, 60)
    plan = plan_input(60, 97, 28)
    whole = to_network_input(picture, plan)
    monkeypatch.setattr(preprocess, "_BAND_PIXELS", 60 * 7)
    assert np.array_equal(to_network_input(picture, plan), whole)


@pytest.mark.parametrize("size", [(300, 1400), (1400, 300), (97, 3001), (500, 511)])
def test_rows_that_are_not_looked_at_change_nothing(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    for side in (14, 28, 70):
        plan = plan_input(*size, side)
        wanted = (cv2.resize(picture / 255.0, plan.input_size, interpolation=cv2.INTER_CUBIC) - MEAN) / STD
        assert np.array_equal(to_network_input(picture, plan), wanted.transpose(2, 0, 1).astype(np.float32))


def test_overshoot_of_an_edge_is_kept() -> None:
    picture = np.zeros((28, 28, 3), np.uint8)
    picture[:, 14:] = 255
    found = to_network_input(picture, plan_input(28, 28, 56))
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
        ((1000, 10), 14, (1400, 14)),
    ],
)
def test_the_frames_of_a_wide_clip_get_a_smaller_input(picture, size, wanted) -> None:
    assert plan_clip_input(*picture, size) == InputPlan(picture, wanted)
