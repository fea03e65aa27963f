from __future__ import annotations

import numpy as np
import pytest

from depthcli.eval.steadiness import Steadiness, SteadinessMeter, cut_bleeding, difference
from depthcli.temporal.steady import SteadyFilter
from tests.temporal.clips import contrast, moved, pan, picture, scene_depth, still, with_noise


def measured(rgbs: list[np.ndarray], maps: list[np.ndarray], cuts: tuple[int, ...] = ()) -> Steadiness:
    meter = SteadinessMeter()
    for t, (rgb, depth) in enumerate(zip(rgbs, maps)):
        meter.add(rgb, depth, t in cuts)
    return meter.result()


def test_what_never_changes_is_steady() -> None:
    rgb, depth = with_noise(picture(90, 160, 1), 0), scene_depth(90, 160)
    found = measured([rgb] * 5, [depth] * 5)
    assert found == Steadiness(5, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_the_figures_are_those_of_the_formulas() -> None:
    """In a still picture the flow is 0, and all formulas can be written down."""
    rgb, depth = with_noise(picture(90, 160, 1), 0), scene_depth(90, 160)
    maps = [depth, depth * np.float32(1.1), depth + np.float32(0.2)]
    found = measured([rgb] * 3, maps)
    steps = list(zip(maps, maps[1:]))
    flicker = np.mean([np.abs(now - before).mean() / contrast(now) for before, now in steps])

    def normal(values: np.ndarray) -> np.ndarray:
        apart = values - np.median(values)
        return apart / np.abs(apart).mean()

    opw = np.mean([10 * (3 * np.abs(normal(now) - normal(before))).mean() for before, now in steps])
    ends = np.array([np.percentile(one, (2, 98)) for one in maps])
    jitter = ends.std(axis=0).mean() / np.diff(ends.mean(axis=0))[0]
    assert found.flicker == pytest.approx(flicker, rel=1e-4)
    assert found.flow_flicker == pytest.approx(flicker, rel=1e-4)
    assert found.opw == pytest.approx(opw, abs=1e-4)
    assert found.range_jitter == pytest.approx(jitter, rel=1e-4)
    assert found.contrast_kept == pytest.approx(1)  # the first ten and the last ten of three frames are the same


def test_opw_asks_for_shape_and_not_for_scale() -> None:
    rgb, depth = with_noise(picture(90, 160, 1), 0), scene_depth(90, 160)
    scaled = measured([rgb] * 3, [depth, 2 * depth + 1, depth * np.float32(0.5)])
    assert scaled.opw == pytest.approx(0, abs=1e-4) and scaled.flicker > 0.1


def test_a_map_that_moves_with_the_picture_has_flicker_but_not_along_the_flow() -> None:
    frames = list(pan(12, 0.0, (2.0, 1.0)))
    found = measured([frame.rgb for frame in frames], [frame.true for frame in frames])
    assert found.flow_flicker < found.flicker / 5


def test_more_noise_is_less_steady_by_every_figure() -> None:
    clips = [list(still(20, noise)) for noise in (0.01, 0.05, 0.2)]
    found = [
        measured([f.rgb for f in clip], [f.true + (f.depth - f.true) * k for f in clip]) for k, clip in enumerate(clips)
    ]
    for name in ("opw", "flicker", "flow_flicker", "range_jitter"):
        figures = [getattr(one, name) for one in found]
        assert figures == sorted(figures) and figures[0] < figures[2], name


def test_a_fading_map_looks_steady_but_has_lost_its_contrast() -> None:
    rgb, depth = with_noise(picture(90, 160, 1), 0), scene_depth(90, 160)
    faded = [depth.mean() + (depth - depth.mean()) * np.float32(0.97**t) for t in range(60)]
    found = measured([rgb] * 60, faded)
    assert found.contrast_kept == pytest.approx(0.97**50, rel=1e-3)


def test_steps_over_cuts_do_not_count() -> None:
    one, other = (with_noise(picture(90, 160, seed), 0) for seed in (1, 2))
    depth = scene_depth(90, 160)
    rgbs, maps = [one, one, other, other], [depth, depth, 3 * depth, 3 * depth]
    assert measured(rgbs, maps, (2,)).flicker == 0
    assert measured(rgbs, maps).flicker > 0.1


def test_too_few_frames_have_no_figures() -> None:
    rgb, depth = with_noise(picture(90, 160, 1), 0), scene_depth(90, 160)
    assert measured([], []) == Steadiness(0)
    assert measured([rgb], [depth]) == Steadiness(1)


def test_the_filter_is_steadier_by_every_figure() -> None:
    frames = list(still(40, 0.05))
    steady = SteadyFilter()
    rgbs = [frame.rgb for frame in frames]
    before = measured(rgbs, [frame.depth for frame in frames])
    after = measured(rgbs, [steady.feed(frame.rgb, frame.depth) for frame in frames])
    for name in ("opw", "flicker", "flow_flicker", "range_jitter"):
        assert getattr(after, name) < getattr(before, name) / 2, name


def test_a_difference_is_in_shares_of_the_contrast() -> None:
    depth = scene_depth(90, 160)
    assert difference(depth + np.float32(0.1), depth) == pytest.approx(0.1 / contrast(depth), rel=1e-4)
    assert difference(10 * depth + 1, 10 * depth) == pytest.approx(0.1 / contrast(depth), rel=1e-4)


def test_bleeding_over_a_cut() -> None:
    old, new = scene_depth(90, 160, 3), moved(scene_depth(90, 160, 8), 20, 0, (160, 90))
    noisy = [(new + np.float32(0.1), new)]
    assert cut_bleeding([(new, new)], noisy) == 0
    assert cut_bleeding(noisy, noisy) == 1
    assert cut_bleeding([((old + new) / 2, new)], noisy) > 3
    assert cut_bleeding([(old, new)], [(new, new)]) == np.inf
    assert cut_bleeding([(new, new)], [(new, new)]) == 0
