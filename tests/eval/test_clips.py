"""One scale and one shift for a clip: right where they are one, wrong where each frame has its own."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.eval.clips import ClipFit, ClipScore, score_clip


def truth(frames: int = 4) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.uniform(1, 9, (12, 16)) for _ in range(frames)]


def scored(frames: list[tuple[np.ndarray, np.ndarray]], farthest: float = 10.0) -> ClipScore:
    fit = ClipFit(farthest)
    for disparity, depth in frames:
        fit.add(disparity, depth)
    return score_clip(frames, fit)


def test_disparity_up_to_one_line_has_no_error() -> None:
    score = scored([((1 / depth - 0.05) / 3, depth) for depth in truth()])
    assert score.abs_rel < 1e-7 and score.delta1 == 1 and score.frames == 4
    assert (score.scale, score.shift) == (pytest.approx(3, rel=1e-6), pytest.approx(0.05, rel=1e-6))


def test_a_line_of_its_own_for_each_frame_is_an_error() -> None:
    score = scored([(1 / depth * (1 + 0.5 * number), depth) for number, depth in enumerate(truth())])
    assert score.abs_rel > 0.1 and score.delta1 < 0.9


def test_figures_are_those_of_the_formula() -> None:
    depth = np.array([[2.0, 4.0, 8.0, 0.0, 12.0, np.nan]])
    disparity = np.array([[0.5, 0.25, 0.05, 7.0, 7.0, 7.0]])  # the last three are unknown, too far and no number
    known = depth[0, :3]
    design = np.stack([disparity[0, :3], np.ones(3)], axis=1)
    line = np.linalg.lstsq(design, 1 / known, rcond=None)[0]
    predicted = np.minimum(1 / np.maximum(design @ line, 1e-3), 10)
    score = scored([(disparity, depth)])
    assert score.abs_rel == pytest.approx((abs(predicted - known) / known).mean())
    assert score.delta1 == pytest.approx((np.maximum(predicted / known, known / predicted) < 1.25).mean())


def test_what_cannot_be_scored_is_refused() -> None:
    for disparity, depth in ((np.ones((2, 2)), np.full((2, 2), 3.0)), (np.eye(2), np.zeros((2, 2)))):
        with pytest.raises(ValueError, match="unknown everywhere, or the prediction is the same"):
            scored([(disparity, depth)])
