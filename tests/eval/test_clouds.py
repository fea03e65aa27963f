"""Clouds against clouds: exact nearest points, known offsets, and empty clouds.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold the figures to those of the official evaluator.
"""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import UsageError
from depthcli.eval.clouds import read_points, score_cloud
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


def ply(path: Path, faces: list[list[int]], order: str = "<", extra: bool = False) -> Path:
    """Write a unit square, or a part of it, as faces of any number of corners."""
    kind = "little" if order == "<" else "big"
    head = f"ply\nformat binary_{kind}_endian 1.0\nelement vertex 4\n"
    head += "".join(f"property double {name}\n" for name in "xyz") + f"element face {len(faces)}\n"
    head += "property uchar flags\n" * extra + "property list uchar int vertex_indices\n" + "end_header\n"
    body = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], order + "f8").tobytes()
    for face in faces:
        body += b"\7" * extra + bytes([len(face)]) + np.array(face, order + "i4").tobytes()
    path.write_bytes(head.encode() + body)
    return path


@pytest.mark.parametrize("faces", [[[0, 1, 2], [0, 2, 3]], [[0, 1, 2, 3]], [[0, 1, 2], [0, 1, 2, 3], [0, 2, 3]]])
@pytest.mark.parametrize(("order", "extra"), [("<", False), (">", True)])
def test_a_surface_is_sampled_evenly(tmp_path: Path, faces: list, order: str, extra: bool) -> None:
    points = read_points(ply(tmp_path / "square.ply", faces, order, extra), 20_000)
    assert points.shape == (20_000, 3) and (points[:, 2] == 0).all()
    assert np.allclose(points[:, :2].mean(axis=0), 0.5, atol=0.01) and np.ptp(points, axis=0)[:2].min() > 0.99
    assert (points == read_points(tmp_path / "square.ply", 20_000)).all()


def test_a_mesh_of_ours_is_sampled_too(tmp_path: Path) -> None:
    from depthcli.geometry.shapes import mesh
    from depthcli.io.points.files import write_shape
    from tests.geometry.scenes import camera, metric

    depth = metric(np.full((40, 60), 2.0, np.float32), camera(60.0, (60, 40)))
    write_shape(mesh(depth, np.zeros((40, 60, 3), np.uint8)), tmp_path / "wall.glb")
    points = read_points(tmp_path / "wall.glb", 5_000)
    assert points.shape == (5_000, 3) and np.allclose(points[:, 2], 2, atol=1e-5)  # OpenCV's axes


def test_broken_surfaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has a corner that is not there"):
        read_points(ply(tmp_path / "a.ply", [[0, 1, 9]]))
    with pytest.raises(UsageError, match="have no area"):
        read_points(ply(tmp_path / "b.ply", [[0, 1, 1]]))
    whole = ply(tmp_path / "c.ply", [[0, 1, 2], [0, 1, 2, 3]]).read_bytes()
    (tmp_path / "c.ply").write_bytes(whole[:-5])
    with pytest.raises(UsageError, match="cannot read a surface"):
        read_points(tmp_path / "c.ply")
    (tmp_path / "d.ply").write_bytes(whole.replace(b"list uchar int", b"list uchar"))
    with pytest.raises(UsageError, match="a list that is none"):
        read_points(tmp_path / "d.ply")
