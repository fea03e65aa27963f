from __future__ import annotations

import numpy as np
import pytest
import torch

from depthcli.depthmap import DepthKind
from depthcli.errors import EngineError
from depthcli.pixels import postprocess
from depthcli.pixels.postprocess import resize_bilinear, to_depth_map, unwrap
from depthcli.pixels.preprocess import InputPlan, plan_input
from depthcli.zoo.rows import InputPolicy, find_row, with_max_depth

RELATIVE, METRIC = find_row("vits"), find_row("metric-outdoor-vits")


@pytest.mark.parametrize("size", [(70, 42), (31, 97), (300, 10), (1, 1), (1, 50), (42, 28)])
def test_the_resize_back_is_torchs_with_aligned_corners(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((28, 42), np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size[::-1], mode="bilinear", align_corners=True
    )[0, 0].numpy()
    found = resize_bilinear(values, size)
    assert found.dtype == np.float32
    # Positions are float32 and their last bit differs between versions of torch: 1.6e-6 was measured with 1.13.
    assert np.abs(found - wanted).max() <= 4e-6


def test_bands_of_rows_give_the_bits_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((28, 42), np.float32)
    whole = resize_bilinear(values, (97, 131))
    monkeypatch.setattr(postprocess, "_BAND_PIXELS", 97 * 7)
    assert np.array_equal(resize_bilinear(values, (97, 131)), whole)


def test_corners_stay_where_they_are() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = resize_bilinear(values, (9, 7))
    assert found[0, 0] == 0 and found[-1, -1] == 11 and found[0, -1] == 3 and found[-1, 0] == 8


def test_metric_fractions_become_metres() -> None:
    output = np.full((14, 28), 0.25, np.float32)
    depth = to_depth_map(output, InputPlan((56, 28), (28, 14)), METRIC)
    assert depth.kind is DepthKind.METRIC_DEPTH and depth.kind.unit == "m"
    assert np.allclose(depth.values, 20) and depth.size == (56, 28)
    longer = to_depth_map(output, InputPlan((56, 28), (28, 14)), with_max_depth(METRIC, 200))
    assert np.allclose(longer.values, 50)


def test_disparity_stays_as_it_is() -> None:
    output = np.random.default_rng(0).random((14, 28), np.float32)
    depth = to_depth_map(output, InputPlan((28, 14), (28, 14)), RELATIVE)
    assert depth.kind is DepthKind.RELATIVE_DISPARITY
    assert np.array_equal(depth.values, output)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_numbers_are_an_error_not_a_picture(broken: float) -> None:
    output = np.ones((14, 14), np.float32)
    output[3, 5] = broken
    with pytest.raises(EngineError, match="`precision` fp32"):
        to_depth_map(output, InputPlan((14, 14), (14, 14)), RELATIVE)


def test_an_answer_of_another_size_is_an_error() -> None:
    with pytest.raises(EngineError):
        to_depth_map(np.ones((14, 28), np.float32), InputPlan((14, 28), (14, 28)), RELATIVE)


def answer_of(plan: InputPlan, wave) -> np.ndarray:
    """What a network would give for a panorama that is `wave` of the angle, with its two ends off by a tenth."""
    width, height = plan.input_size
    seen = plan.picture_size[0] + 2 * plan.wrapped
    column = (np.arange(width) + 0.5) * seen / width - 0.5 - plan.wrapped
    drift = 0.1 * np.linspace(-1, 1, width)
    values = wave(2 * np.pi * (column + 0.5) / plan.picture_size[0]) + drift
    return np.broadcast_to(values.astype(np.float32), (height, width))


@pytest.mark.parametrize("width", [200, 201, 100, 37])
def test_an_unwrapped_map_goes_on_from_edge_to_edge(width: int) -> None:
    plan = plan_input(200, 100, InputPolicy(140), wrap=True)
    answer = answer_of(plan, lambda angle: 2 + np.sin(angle))
    found = unwrap(answer, plan, width)
    assert found.shape == (140, width) and found.dtype == np.float32
    step = np.abs(np.diff(found[0])).max()
    assert abs(found[0, 0] - found[0, -1]) <= 1.1 * step  # the edges are neighbours like any others
    angle = 2 * np.pi * (np.linspace(0, 199, width) + 0.5) / 200
    assert np.abs(found[0] - (2 + np.sin(angle))).max() <= 0.11  # no more than the network was off


def test_the_fade_meets_the_plain_answer_where_it_ends() -> None:
    plan = plan_input(400, 200, InputPolicy(140), wrap=True)
    answer = answer_of(plan, lambda angle: 2 + np.cos(3 * angle))
    found = unwrap(answer, plan, 400)[0]
    middle = slice(plan.wrapped + 1, 400 - plan.wrapped - 1)
    plain = resize_bilinear(answer, (400 + 2 * plan.wrapped, 140))[0, plan.wrapped : -plan.wrapped]
    assert np.abs(found - plain)[middle].max() < 0.03
    assert abs(plain[0] - plain[-1]) > 0.15 > 20 * abs(found[0] - found[-1])


def test_without_wrapped_columns_nothing_changes() -> None:
    values = np.random.default_rng(0).random((14, 28), np.float32)
    assert unwrap(values, InputPlan((56, 28), (28, 14)), 28) is values


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 40), (7, 3)])
def test_the_smallest_panoramas_have_maps(size: tuple[int, int]) -> None:
    plan = plan_input(*size, InputPolicy(14), wrap=True)
    answer = np.random.default_rng(0).random(plan.input_size[::-1], np.float32)
    depth = to_depth_map(answer, plan, RELATIVE)
    assert depth.size == size and answer.min() <= depth.range[0] <= depth.range[1] <= answer.max()
