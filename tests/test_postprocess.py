from __future__ import annotations

import numpy as np
import pytest
import torch

from depthcli import postprocess
from depthcli.depthmap import DepthKind
from depthcli.errors import EngineError
from depthcli.postprocess import resize_bilinear, to_depth_map
from depthcli.preprocess import InputPlan
from depthcli.zoo import find_row, with_max_depth

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
    with pytest.raises(EngineError, match="--precision fp32"):
        to_depth_map(output, InputPlan((14, 14), (14, 14)), RELATIVE)


def test_an_answer_of_another_size_is_an_error() -> None:
    with pytest.raises(EngineError):
        to_depth_map(np.ones((14, 28), np.float32), InputPlan((14, 28), (14, 28)), RELATIVE)
