"""The plan of the tiles: every cell is covered, with weights that add up to 1, at no less than the input's detail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from depthcli.pixels.preprocess import plan_input
from depthcli.pixels.tiles import Level, crop, plan_levels
from depthcli.zoo.rows import InputPolicy

SIZES = [(400, 300), (300, 400), (1000, 750), (757, 1001), (2000, 200), (150, 1500)]


def levels_of(size: tuple[int, int], wrap: bool = False) -> tuple[Level, ...]:
    return plan_levels(plan_input(*size, InputPolicy(56), wrap=wrap))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_weights_of_the_tiles_add_up_to_one_everywhere(size: tuple[int, int], wrap: bool) -> None:
    levels = levels_of(size, wrap)
    assert levels
    for level in levels:
        for spans, cells in ((level.columns, level.size[0]), (level.rows, level.size[1])):
            total = np.zeros(cells)
            for span in spans:
                assert np.array_equal(np.unique(span.cells), np.sort(span.cells)) and (span.weights > 0).all()
                total[span.cells] += span.weights
            assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_tile_lies_inside_the_picture_and_has_the_pixels_that_the_network_takes(size: tuple[int, int]) -> None:
    wanted = plan_input(*size, InputPolicy(56)).input_size
    for level in levels_of(size):
        for spans, side, least in zip((level.columns, level.rows), size, wanted):
            assert all(0 <= span.start <= side - span.length and span.length >= least for span in spans)
            apart = np.diff([span.start for span in spans])
            assert (apart <= 0.75 * spans[0].length + 1).all()


def test_levels_are_two_and_four_times_finer_while_the_picture_has_the_pixels() -> None:
    assert [level.size for level in levels_of((600, 450))] == [(149, 112), (299, 224)]
    assert [len(levels_of((4 * side, 3 * side))) for side in (30, 37, 38, 75, 150, 1500)] == [0, 0, 1, 2, 2, 2]


def test_the_tiles_grow_in_number_with_the_pixels_and_no_further_than_the_last_level() -> None:
    count = [sum(level.tiles for level in levels_of((4 * side, 3 * side))) for side in (38, 75, 150, 300)]
    assert count == [9, 39, 39, 39]


@pytest.mark.parametrize("size", SIZES)
def test_the_tiles_of_a_flipped_picture_are_flipped(size: tuple[int, int]) -> None:
    for level in levels_of(size):
        for spans, side, cells in ((level.columns, size[0], level.size[0]), (level.rows, size[1], level.size[1])):
            for span, other in zip(spans, reversed(spans)):
                assert other.start == side - span.length - span.start
                assert np.array_equal(np.sort(cells - 1 - other.cells), span.cells)
                assert other.weights[::-1] == pytest.approx(span.weights, abs=1e-6)


def test_a_long_strip_has_tiles_that_are_not_squeezed() -> None:
    (level, *_) = levels_of((2000, 200))
    tile = level.columns[0].length / level.rows[0].length
    assert tile == pytest.approx(4, rel=0.02) and plan_input(2000, 200, InputPolicy(56)).input_size == (224, 56)


def test_the_tiles_of_a_panorama_go_on_over_its_edge() -> None:
    rgb = np.arange(400, dtype=np.uint8)[None, :, None].repeat(200, axis=0).repeat(3, axis=2)
    (level, *_) = levels_of((400, 200), wrap=True)
    last = level.columns[-1]
    assert last.start + last.length > 400
    pixels = crop(rgb, last, level.rows[0])
    assert pixels.shape == (level.rows[0].length, last.length, 3)
    assert np.array_equal(pixels[0, :, 0], (np.arange(last.start, last.start + last.length) % 400).astype(np.uint8))


def test_a_stretched_input_does_not_stretch_the_tiles() -> None:
    plan = replace(plan_input(600, 450, InputPolicy(56)), input_size=(112, 56))
    (level, *_) = plan_levels(plan)
    assert level.size[0] / level.size[1] == pytest.approx(4 / 3, rel=0.01)
    assert level.columns[0].length / level.rows[0].length == pytest.approx(2, rel=0.02)
