"""Clouds against clouds: exact nearest points, known offsets, and empty clouds.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold the figures to those of the official evaluator.
"""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from depthcli.eval.clouds import score_cloud
from depthcli.geometry.nearest import box_means, nearest_distances

MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None


@pytest.mark.parametrize("spread", [(1, 1, 1), (100, 1, 1e-6), (1, 0, 0)])
def test_nearest_points_are_those_of_all(spread: tuple[float, float, float]) -> None:
    generator = np.random.default_rng(0)
    cloud, points = (generator.normal(size=(count, 3)) * spread for count in (700, 400))
    points[:5] += 1e4  # far outside
    wanted = np.sqrt(((points[:, None] - cloud[None]) ** 2).sum(axis=2).min(axis=1))
    assert np.allclose(nearest_distances(points, cloud), wanted, rtol=1e-12, atol=1e-12)
    assert (nearest_distances(cloud, cloud) == 0).all()


def test_clouds_of_a_point_and_of_none() -> None:
    assert nearest_distances(np.zeros((2, 3)), np.zeros((1, 3))).tolist() == [0, 0]
    assert nearest_distances(np.zeros((1, 3)), np.array([[3.0, 4.0, 0.0]]))[0] == pytest.approx(5)
    assert np.isinf(nearest_distances(np.zeros((1, 3)), np.zeros((0, 3)))).all()
    with pytest.raises(ValueError, match="not finite"):
        nearest_distances(np.full((1, 3), np.nan), np.zeros((1, 3)))
    empty = score_cloud(np.zeros((0, 3)), np.zeros((4, 3)), 0.1)
    assert np.isinf(empty.accuracy) and empty.f_score == 0


def test_a_shifted_plane_has_the_shift_for_its_distance() -> None:
    u, v = np.meshgrid(np.arange(40.0), np.arange(40.0))
    plane = np.stack([u.ravel(), v.ravel(), np.zeros(1600)], axis=1)
    half = plane[plane[:, 0] < 20] + (0, 0, 0.25)
    score = score_cloud(half, plane, 0.3)
    assert score.accuracy == pytest.approx(0.25) and (score.precision, score.recall) == (1.0, 0.5)
    assert score.f_score == pytest.approx(2 / 3)
    beyond = np.hypot(np.maximum(plane[:, 0] - 19, 0), 0.25)
    assert score.completeness == pytest.approx(beyond.mean())
    assert score_cloud(half, plane, 0.25).precision == 0  # strictly below


def test_boxes_hold_the_means_of_their_points() -> None:
    points = np.array([[0.0, 0, 0], [0.2, 0, 0], [5.0, 1, 1]])
    means, values = box_means(points, 1.0, np.array([[1.0], [3.0], [9.0]]))
    assert np.allclose(means, [[0.1, 0, 0], [5, 1, 1]]) and values is not None and np.allclose(values, [[2], [9]])
    for width in (0.0, 1e-7, float("nan")):
        with pytest.raises(ValueError, match=r"wide|too small"):
            box_means(points, width)


@pytest.mark.skipif(MORE is None, reason="DEPTHCLI_PARITY is not set")
@pytest.mark.parametrize("voxel", ["0", "0.05", "0.1"])
def test_figures_are_the_official_ones(voxel: str) -> None:
    assert MORE is not None
    official = dict(np.load(MORE / "da3_bench.npz"))
    score = score_cloud(official["recon_pred"], official["recon_truth"], 0.05, float(voxel) or None)
    assert np.allclose(astuple(score), official[f"recon_voxel_{voxel}"], rtol=0, atol=1e-9)
