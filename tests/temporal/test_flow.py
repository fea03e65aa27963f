from __future__ import annotations

import numpy as np
import pytest

from depthcli.temporal.flow import find_motion, flow_size, small_gray, warp
from tests.temporal.clips import moved, picture, scene_depth, with_noise

INSIDE = (slice(12, -12), slice(12, -12))


def grays(step: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    large = picture(140, 240, 4)
    before, now = (moved(large, 20 + x, 20 + y, (200, 100)) for x, y in ((0, 0), step))
    return small_gray(with_noise(before, 1)), small_gray(with_noise(now, 2))


@pytest.mark.parametrize("step", [(0.0, 0.0), (0.4, -0.3), (3.0, 2.0), (-9.0, 5.0)])
def test_the_motion_of_a_window_is_found(step: tuple[float, float]) -> None:
    motion = find_motion(*grays(step))
    # The window moved by `step`, so what is at p was at p + step. DIS stops at a quarter of the greys' size.
    assert np.abs(np.median(motion.back[INSIDE], axis=(0, 1)) - step).max() < 0.2
    assert motion.seen[INSIDE].mean() > 0.98
    assert motion.alike[INSIDE].mean() > 0.95


def test_what_came_in_over_the_border_was_not_seen() -> None:
    motion = find_motion(*grays((8.0, 0.0)))
    assert not motion.seen[:, -7:].any()
    assert motion.seen[12:-12, 12:-20].mean() > 0.98


def test_what_an_object_uncovers_was_not_seen() -> None:
    rgb, cover = picture(270, 480, 1), 255 - picture(270, 480, 50)
    row, column = np.mgrid[:270, :480]
    discs = [np.hypot(column - x, row - 135) < 70 for x in (180, 204)]
    frames = [np.where(disc[..., None], np.roll(cover, by, axis=1), rgb) for disc, by in zip(discs, (0, 24))]
    motion = find_motion(*(small_gray(with_noise(frame, seed)) for seed, frame in enumerate(frames)))
    uncovered, still = discs[0] & ~discs[1], column > 320
    trust = motion.seen * motion.alike
    assert trust[uncovered].mean() < 0.5 < 0.97 < trust[still].mean()


def test_in_a_clear_sky_the_tone_decides() -> None:
    """Flow wanders where there is no texture, so its not coming back says nothing there."""
    sky = np.full((270, 480, 3), 200.0)
    before, now = (small_gray(with_noise(sky, seed, 1.0)) for seed in (1, 2))
    darker = small_gray(with_noise(np.where(np.arange(480)[:, None] < 320, sky, sky - 60), 3, 1.0))
    motion = find_motion(before, now)
    assert (motion.seen * motion.alike)[INSIDE].mean() > 0.95
    motion = find_motion(before, darker)
    trust = motion.seen * motion.alike
    assert trust[20:-20, 340:460].mean() < 0.1 < 0.95 < trust[20:-20, 20:300].mean()


def test_a_warped_map_lies_where_the_picture_lies() -> None:
    step = (3.4, -1.7)
    depth = scene_depth(140, 240)
    before, now = (moved(depth, 20 + x, 20 + y, (200, 100)) for x, y in ((0, 0), step))
    motion = find_motion(*grays(step))
    assert np.abs(warp(before, motion) - now)[INSIDE].mean() < np.abs(before - now)[INSIDE].mean() / 10


def test_a_map_of_another_size_is_warped_by_the_same_part_of_itself() -> None:
    step = (4.0, 0.0)
    depth = scene_depth(280, 480)
    before, now = (moved(depth, 40 + 2 * x, 40 + 2 * y, (400, 200)) for x, y in ((0, 0), step))
    assert np.abs(warp(before, find_motion(*grays(step))) - now)[20:-20, 20:-20].mean() < 0.01


def test_a_change_of_exposure_is_no_change_of_the_picture() -> None:
    rgb = picture(100, 200, 4)
    motion = find_motion(small_gray(with_noise(rgb, 1)), small_gray(with_noise(rgb, 2, gain=0.8)))
    assert motion.alike.mean() > 0.95 and motion.seen.mean() > 0.98


@pytest.mark.parametrize(
    ("frame", "grid"),
    [((1920, 1080), (480, 270)), ((1080, 1920), (270, 480)), ((200, 100), (200, 100)), ((9, 4), (32, 32))],
)
def test_the_size_of_the_greys(frame: tuple[int, int], grid: tuple[int, int]) -> None:
    assert flow_size(*frame) == grid
    assert small_gray(np.zeros((frame[1], frame[0], 3), np.uint8)).shape == grid[::-1]


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        find_motion(np.zeros((40, 50), np.uint8), np.zeros((40, 51), np.uint8))
