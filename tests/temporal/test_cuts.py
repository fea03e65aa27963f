from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest

from depthcli.temporal.cuts import CutDetector
from tests.temporal.clips import moved, picture, with_noise


def shot(seed: int, frames: int, step: float = 1.0) -> list[np.ndarray]:
    """A slow pan over a picture of a few large things in colours of its own."""
    random = np.random.default_rng(seed)
    large = picture(220, int(360 + frames * step), seed) * 0.3 + random.uniform(0, 120, 3)
    for _ in range(12):
        x, y, r = random.integers(0, large.shape[1]), random.integers(0, 220), random.integers(15, 60)
        large = np.ascontiguousarray(large)
        cv2.circle(large, (int(x), int(y)), int(r), random.uniform(0, 255, 3).tolist(), -1)
    return [with_noise(moved(large, 10 + step * t, 10, (320, 180)), 100 * seed + t) for t in range(frames)]


def cuts(frames: Iterable[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [t for t, frame in enumerate(frames) if detector.is_cut(frame)]


def faded(frames: list[np.ndarray], ends: tuple[float, float]) -> list[np.ndarray]:
    return [(frame * share).astype(np.uint8) for frame, share in zip(frames, np.linspace(*ends, len(frames)))]


def test_every_shot_of_a_montage_is_found_and_nothing_else() -> None:
    lengths = (30, 12, 5, 60, 20, 9, 25)
    frames = [frame for seed, length in enumerate(lengths) for frame in shot(seed, length)]
    assert cuts(frames) == np.cumsum(lengths)[:-1].tolist()


@pytest.mark.parametrize("step", [0.0, 1.0, 10.0, 30.0])
def test_a_pan_is_no_cut(step: float) -> None:
    """30 of 320 pixels: a tenth of the picture from frame to frame."""
    assert cuts(shot(3, 25, step)) == []


def test_a_fast_pan_that_starts_at_once_is_no_cut() -> None:
    still = [shot(3, 25, 25.0)[0]] * 10
    assert cuts([*still, *shot(3, 25, 25.0)]) == []


def test_a_fade_and_a_change_of_exposure_are_no_cuts() -> None:
    frames = shot(1, 60)
    assert cuts([*faded(frames[:24], (1, 0)), *faded(frames[24:48], (0, 1)), *frames[48:]]) == []
    assert cuts([*frames[:20], *faded(frames[20:30], (0.6, 0.6)), *frames[30:]]) == []


def test_a_flash_resets_once_at_most() -> None:
    frames = shot(2, 30)
    bright = [*frames[:15], np.clip(frames[15] * 1.6 + 40, 0, 255).astype(np.uint8), *frames[16:]]
    white = [*frames[:15], np.full_like(frames[15], 255), *frames[16:]]
    assert cuts(bright) == []
    assert cuts(white) == [15]


def test_a_cut_right_after_a_cut_is_found() -> None:
    assert cuts([*shot(1, 10), *shot(2, 1), *shot(3, 10)]) == [10, 11]


def test_black_is_no_cut() -> None:
    assert cuts([np.zeros((90, 160, 3), np.uint8)] * 5) == []


@pytest.mark.parametrize("at", [0, 1, 12, 14, 20])
def test_a_restored_detector_goes_on_as_the_first_would(at: int) -> None:
    frames = [*shot(1, 12), np.full((180, 320, 3), 255, np.uint8), *shot(1, 6), *shot(4, 10)]
    first, second = CutDetector(), CutDetector()
    for frame in frames[:at]:
        first.is_cut(frame)
    kept = first.state()
    assert all(isinstance(value, np.ndarray) for value in kept.values())
    second.restore(kept)
    for frame in frames[at:]:
        assert first.is_cut(frame) == second.is_cut(frame)
    for name, value in first.state().items():
        assert np.array_equal(value, second.state()[name])
