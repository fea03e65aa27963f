"""Cameras against cameras: reference values, known perturbations, and no error against themselves.

tests/data/da3_poses.npz holds outputs of the official evaluator of Depth Anything 3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli.eval.poses import THRESHOLDS, auc_da3, auc_exact, pair_errors, score_path
from depthcli.geometry.poses import centers, square
from depthcli.geometry.sim3 import Sim3
from tests.geometry.worlds import random_turn

OFFICIAL = dict(np.load(Path(__file__).parents[1] / "data" / "da3_poses.npz"))
TRUTH = OFFICIAL["pose_truth"]


@pytest.mark.parametrize("name", ["small", "large"])
def test_errors_and_areas_are_the_official_ones(name: str) -> None:
    found = pair_errors(OFFICIAL[f"pose_{name}_predicted"], TRUTH)
    assert np.abs(found.rotation - OFFICIAL[f"pose_{name}_float64_rotation_deg"]).max() < 1e-9
    assert np.abs(found.translation - OFFICIAL[f"pose_{name}_float64_translation_deg"]).max() < 1e-9
    areas = [auc_da3(found.larger, threshold) for threshold in THRESHOLDS]
    assert np.allclose(areas, OFFICIAL[f"pose_{name}_float64_auc"], rtol=0, atol=1e-12)


def test_edges_of_the_bins_are_the_official_ones() -> None:
    errors = np.maximum(OFFICIAL["auc_in_rotation"], OFFICIAL["auc_in_translation"])
    assert np.allclose([auc_da3(errors, one) for one in THRESHOLDS], OFFICIAL["auc_out"], rtol=0, atol=1e-12)


def test_the_exact_area_is_that_under_the_curve() -> None:
    assert auc_exact(np.zeros(4), 5) == 1 and auc_exact(np.full(4, 6.0), 5) == 0
    # From (0, 0) straight to (2, 1/2), then flat to 4: 1/2 + 1 of 4.
    assert auc_exact(np.array([2.0, 9.0]), 4) == pytest.approx((0.5 + 1.0) / 4)
    fine = np.random.default_rng(0).uniform(0, 20, 20_000)
    assert auc_exact(fine, 10) == pytest.approx(0.25, abs=0.01)


def test_a_path_has_no_error_against_itself_in_any_world() -> None:
    assert pair_errors(TRUTH, TRUTH).larger.max() < 1e-9
    generator = np.random.default_rng(2)
    other = Sim3(2.5, random_turn(generator, 2.0), np.array([3.0, 1.0, -7.0]))
    score = score_path(other.extrinsics(TRUTH), TRUTH)
    assert score.scale == pytest.approx(1 / 2.5)
    for name in ("ate_rmse", "ate_mean", "ate_max", "rotation_mean", "rpe_translation", "rpe_rotation"):
        assert getattr(score, name) < 1e-9, name
    assert pair_errors(other.extrinsics(TRUTH), TRUTH).larger.max() < 1e-9
    rigid = score_path(other.extrinsics(TRUTH), TRUTH, "se3")  # without the scale the error is that of the sizes
    spread = centers(TRUTH) - centers(TRUTH).mean(axis=0)
    assert rigid.ate_rmse == pytest.approx(1.5 * np.sqrt((spread**2).sum(axis=1).mean()))


def test_known_perturbations_give_the_known_error() -> None:
    truth = TRUTH[:, :3]
    moved = truth.copy()  # in the axes of the world: places go up and down in turn, and no fit can hide it
    ups = np.where(np.arange(len(truth)) % 2, 0.01, -0.01)
    moved[:, :, 3] -= np.einsum("nij,nj->ni", moved[:, :, :3], np.outer(ups, [0, 1, 0]))
    score = score_path(moved, truth, "none")
    assert score.ate_rmse == pytest.approx(0.01) and score.ate_max == pytest.approx(0.01)
    assert score.rpe_translation == pytest.approx(0.02) and score.rpe_rotation < 1e-9
    turn = random_turn(np.random.default_rng(1), np.radians(2.0))
    turned = truth.copy()
    turned[4] = turn @ truth[4]  # about its own place
    score = score_path(turned, truth, "none")
    assert score.ate_rmse < 1e-12 and score.rotation_mean == pytest.approx(2.0 / len(truth))
    assert score.rpe_rotation == pytest.approx(np.sqrt(2 * 2.0**2 / (len(truth) - 1)))
    errors = pair_errors(turned, truth).rotation
    assert np.allclose(errors[errors > 1e-9], 2.0) and (errors > 1e-9).sum() == len(truth) - 1


def test_straight_and_still_paths_are_aligned_by_their_directions() -> None:
    line = np.tile(square(TRUTH[:1]), (5, 1, 1))[:, :3]
    line[:, 0, 3] += np.arange(5)
    other = Sim3(3.0, random_turn(np.random.default_rng(4), 1.0), np.ones(3))
    for align, scale in (("sim3", 1 / 3), ("se3", 1.0)):
        score = score_path(other.extrinsics(line), line, align)
        assert score.scale == pytest.approx(scale) and score.rotation_mean < 1e-9
    assert score_path(other.extrinsics(line), line).ate_rmse < 1e-9
    still = np.tile(line[:1], (3, 1, 1))
    assert pair_errors(still, still).larger.max() == 0
    assert pair_errors(line[:3], still).translation.min() == 90
