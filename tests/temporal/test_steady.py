from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest

from depthcli.temporal.steady import SteadyFilter
from tests.temporal.clips import Frame, contrast, moved, pan, passing, picture, slope, still, with_noise


def steadied(frames: Iterable[Frame], metric: bool = False) -> list[np.ndarray]:
    steady = SteadyFilter(metric=metric)
    return [steady.feed(frame.rgb, frame.depth) for frame in frames]


def flicker(maps: list[np.ndarray], step: tuple[float, float] = (0.0, 0.0)) -> float:
    """Mean change from map to map after the tenth, over the contrast, the picture's known motion taken out."""
    inside = (slice(5, -5), slice(5, -5))
    changes = []
    for before, now in zip(maps[9:], maps[10:]):
        stayed = moved(before, *step, (before.shape[1], before.shape[0]))
        changes.append(np.abs(now - stayed)[inside].mean() / contrast(now))
    return float(np.mean(changes))


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.10])
def test_a_still_scene_stays_still_and_keeps_its_contrast(noise: float) -> None:
    frames = list(still(300, noise))
    maps = steadied(frames)
    assert flicker(maps) < flicker([frame.depth for frame in frames]) / 3
    # The mean over a while: the network's own scale is known no better than its gains allow, 6 % each here.
    kept = np.mean([slope(one, frames[0].true) for one in maps[-50:]])
    wanted = np.mean([slope(frame.depth, frame.true) for frame in frames])
    assert abs(kept / wanted - 1) < 0.02


def test_gain_and_shift_without_noise_are_taken_out() -> None:
    frames = list(still(60, 0.0))
    assert flicker(steadied(frames)) < flicker([frame.depth for frame in frames]) / 10


def test_a_panned_scene_moves_with_the_picture() -> None:
    step = (1.3, 0.4)
    frames = list(pan(100, 0.05, step))
    maps = steadied(frames)
    assert flicker(maps, step) < flicker([frame.depth for frame in frames], step) / 3
    error = [cv2.absdiff(one / slope(one, f.true), f.true) for one, f in zip(maps[30:], frames[30:])]
    worst = np.mean([np.abs(e - np.median(e)).mean() / contrast(f.true) for e, f in zip(error, frames[30:])])
    assert worst < 0.03  # what lags behind the picture, or is blurred by a hundred moves, would be far off at the block
    kept = [slope(one, f.true) / slope(f.depth, f.true) for one, f in zip(maps, frames)]
    assert abs(np.mean(kept[-50:]) - 1) < 0.02


@pytest.mark.parametrize("plain", [False, True])
def test_what_moves_leaves_no_ghost(plain: bool) -> None:
    clip = list(passing(50, 0.02, plain=plain))
    frames = [frame for frame, _ in clip]
    maps = steadied(frames)
    far = []
    for t in range(10, 50):
        disc, before = clip[t][1], clip[t - 3][1]
        uncovered = before & ~disc
        scale = slope(maps[t], frames[t].true)
        fit = (maps[t] - maps[t].mean()) / scale + frames[t].true.mean()
        error = (fit - frames[t].true) / contrast(frames[t].true)
        stands_out = (5.5 - frames[t].true[uncovered].mean()) / contrast(frames[t].true)
        far.append((error[uncovered].mean() / stands_out, error[disc].mean(), np.abs(error[~disc & ~uncovered]).mean()))
    ghost, inside, elsewhere = np.mean(far, axis=0)
    # Of what the disc stood out by, less than a tenth is left where it was one to three frames ago.
    assert abs(ghost) < 0.1 and abs(inside) < 0.03 and elsewhere < 0.03


def test_metres_get_no_gain_and_no_shift() -> None:
    frames = list(still(40, 0.0, gain=0.0, shift=0.0))
    nearer = [Frame(frame.rgb, frame.true, frame.depth * np.float32(0.9)) for frame in frames[20:]]
    maps = steadied([*frames[:20], *nearer], metric=True)
    assert np.abs(maps[19] - frames[19].depth).mean() < 0.002
    # A tenth nearer all at once is so in the result, within a second; a relative map would have been scaled back.
    assert np.abs(maps[-1] - nearer[-1].depth).mean() < 0.02
    assert maps[-1].min() > 0


def test_metres_may_be_of_any_sign_and_relative_depth_is_never_below_zero() -> None:
    frames = [Frame(f.rgb, f.true, f.depth - np.float32(1.5)) for f in still(20, 0.05)]
    assert min(one.min() for one in steadied(frames, metric=True)) < 0
    positive = [Frame(f.rgb, f.true, np.maximum(f.depth, 0)) for f in frames]
    assert min(one.min() for one in steadied(positive)) >= 0


def test_the_first_map_of_a_shot_is_the_frames_own() -> None:
    frame = next(still(1, 0.1))
    assert np.array_equal(SteadyFilter().feed(frame.rgb, frame.depth), frame.depth)


def test_another_picture_is_not_mixed_with_the_one_before() -> None:
    """What a missed cut costs: the map is the new frame's own but for a gain and a shift."""
    old, new = list(still(10, 0.02)), next(passing(1, 0.02))[0]
    new = Frame(255 - new.rgb[::-1], new.true[::-1].copy(), new.depth[::-1].copy())
    last = steadied([*old, new])[-1]
    assert np.corrcoef(last.ravel(), new.depth.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("metric", [False, True])
def test_a_restored_filter_goes_on_bit_for_bit(metric: bool) -> None:
    frames = list(pan(12, 0.05))
    whole = steadied(frames, metric)
    first, second = SteadyFilter(metric=metric), SteadyFilter(metric=metric)
    for frame in frames[:6]:
        first.feed(frame.rgb, frame.depth)
    kept = first.state()
    assert all(isinstance(value, np.ndarray) for value in kept.values())
    first.feed(frames[0].rgb, frames[0].depth)  # what is kept is a copy
    second.restore(kept)
    for frame, wanted in zip(frames[6:], whole[6:]):
        assert np.array_equal(second.feed(frame.rgb, frame.depth), wanted)


def test_a_filter_restored_from_nothing_is_a_new_one() -> None:
    frame = next(still(1, 0.1))
    steady = SteadyFilter()
    assert steady.state() == {}
    steady.feed(frame.rgb, frame.depth * 2)
    steady.restore({})
    assert np.array_equal(steady.feed(frame.rgb, frame.depth), frame.depth)


def test_the_result_is_the_callers() -> None:
    frames = list(still(4, 0.05))
    one, other = SteadyFilter(), SteadyFilter()
    for frame in frames:
        result = one.feed(frame.rgb, frame.depth)
        wanted = other.feed(frame.rgb, frame.depth.copy())
        assert np.array_equal(result, wanted)
        result[:] = 0
        frame.depth[:] = 0


@pytest.mark.parametrize("size", [(33, 21), (400, 20), (700, 300)])
def test_maps_and_frames_of_any_size(size: tuple[int, int]) -> None:
    width, height = size
    rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    steady = SteadyFilter()
    for _ in range(3):
        depth = np.random.default_rng(0).random((max(4, height // 3), max(4, width // 3)), np.float32)
        result = steady.feed(rgb, depth)
        assert result.shape == depth.shape and result.dtype == np.float32 and np.isfinite(result).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_flat_maps_stay_flat(level: float) -> None:
    steady = SteadyFilter()
    for frame in still(5, 0.0):
        result = steady.feed(frame.rgb, np.full((40, 70), level, np.float32))
        assert np.allclose(result, level, atol=1e-5)


def test_a_map_of_another_size_is_refused() -> None:
    frame = next(still(1, 0.0))
    steady = SteadyFilter()
    steady.feed(frame.rgb, frame.depth)
    with pytest.raises(ValueError, match="one size"):
        steady.feed(frame.rgb, frame.depth[:-1])
    with pytest.raises(ValueError, match="one size"):
        steady.feed(frame.rgb[:, :100], frame.depth)


def test_the_packaged_model_becomes_steady() -> None:
    from depthcli.predict.picture import DepthEstimator

    rgb = np.ascontiguousarray(cv2.resize(picture(60, 80, 5), (320, 240), interpolation=cv2.INTER_CUBIC))
    cv2.circle(rgb, (120, 130), 60, (200, 120, 60), -1)
    cv2.rectangle(rgb, (0, 190), (320, 240), (60, 90, 70), -1)
    gains = np.random.default_rng(0).uniform(0.95, 1.05, 40)
    frames = [with_noise(rgb, t, 4.0, gain) for t, gain in enumerate(gains)]
    with DepthEstimator("tiny", input_size=126) as estimator:
        raw = [one.values for one in estimator.map(frames)]
    steady = SteadyFilter()
    maps = [steady.feed(frame, depth) for frame, depth in zip(frames, raw)]
    assert flicker(maps) < flicker(raw) / 3
    assert np.mean([contrast(a) / contrast(b) for a, b in zip(maps[10:], raw[10:])]) > 0.96
