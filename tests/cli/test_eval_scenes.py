"""`depth eval poses` and `depth eval cloud`: tables, JSON, and what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from depthcli.cli import app
from depthcli.geometry.sim3 import Sim3
from depthcli.geometry.solids import PointCloud
from depthcli.io.points.files import write_shape
from depthcli.io.trajectories import write_kitti, write_tum
from tests.geometry.rooms import room
from tests.geometry.worlds import random_turn

POSES = room(places=tuple((0.3 * n, 0.1 * n * n, -0.2 * n) for n in range(5))).extrinsics
OTHER = Sim3(2.0, random_turn(np.random.default_rng(0), 1.0), np.array([1.0, 2.0, 3.0]))


def depth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["depth", "eval", *words])
    with pytest.raises(SystemExit) as ended:
        app.run()
    return (ended.value.code or 0, *capsys.readouterr())  # type: ignore[return-value]


def path(name: str, poses: np.ndarray, times: tuple[float, ...] = ()) -> str:
    stream = io.BytesIO()
    if times:
        write_tum(poses, times, stream)
    else:
        write_kitti(poses, stream)
    Path(name).write_bytes(stream.getvalue())
    return name


def test_the_same_path_in_another_world_has_no_error(monkeypatch, capsys):
    pair = path("ours.txt", OTHER.extrinsics(POSES)), path("truth.txt", POSES)
    code, out, err = depth(monkeypatch, capsys, "poses", *pair, "--json")
    found = json.loads(out)
    assert (code, err, found["views"], found["auc_da3_3"]) == (0, "", 5, 1.0)
    assert found["scale"] == pytest.approx(0.5) and found["ate_rmse"] < 1e-9
    code, out, _ = depth(monkeypatch, capsys, "poses", *pair, "--align", "se3")
    assert code == 0 and "auc exact 30" in out and "protocol: auc_da3" in out
    rows = dict(line.rsplit(None, 1) for line in out.splitlines() if line.startswith(("ate", "scale")))
    assert rows["scale"] == "1" and float(rows["ate rmse"]) > 0.1


def test_views_are_found_by_their_times(monkeypatch, capsys):
    times = (0.0, 1.0, 2.0, 3.0, 4.0)
    pair = path("ours.txt", POSES[1:4], (1.001, 2.0, 2.999)), path("truth.txt", POSES, times)
    code, out, _ = depth(monkeypatch, capsys, "poses", *pair)
    assert code == 0 and "3 of 5" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("poses", "truth.txt", "none.txt"), "none.txt does not exist"),
        (("poses", "truth.txt", "short.txt"), "nothing tells which belong together"),
        (("poses", "truth.txt", "truth.txt", "--align", "affine"), "unknown --align 'affine'"),
        (("cloud", "truth.txt", "truth.txt", "--threshold", "1"), "no file of points"),
        (("cloud", "cloud.ply", "cloud.ply", "--threshold", "0"), "--threshold must be more than 0"),
        (("cloud", "cloud.ply", "cloud.ply", "--threshold", "1", "--voxel", "1e-9"), "too small for a cloud"),
    ],
)
def test_what_cannot_be_scored_is_one_line(monkeypatch, capsys, words, reason):
    path("truth.txt", POSES)
    path("short.txt", POSES[:3])
    write_shape(PointCloud(np.eye(3, dtype=np.float32)), "cloud.ply")
    code, out, err = depth(monkeypatch, capsys, *words)
    assert code in (1, 2) and out == ""
    assert reason in err and err.count("\n") == 1


def test_clouds_are_scored_as_they_are(monkeypatch, capsys):
    points = np.random.default_rng(0).uniform(0, 10, (200, 3)).astype(np.float32)
    write_shape(PointCloud(points), "truth.ply")
    write_shape(PointCloud(points + np.float32([0.01, 0, 0])), "ours.ply")
    code, out, _ = depth(monkeypatch, capsys, "cloud", "ours.ply", "truth.ply", "--threshold", "0.02", "--json")
    found = json.loads(out)
    assert code == 0 and found["points"] == [200, 200]
    assert found["accuracy"] == pytest.approx(0.01, rel=1e-3) and found["f_score"] == 1.0
    code, out, _ = depth(monkeypatch, capsys, "cloud", "ours.ply", "truth.ply", "--threshold", "0.005")
    assert code == 0 and "f score" in out and "0" in out


def test_a_list_needs_no_word(monkeypatch, capsys):
    for words in (("none.json",), ("list", "none.json"), ("--root", ".", "none.json")):
        code, out, err = depth(monkeypatch, capsys, *words)
        assert (code, out) == (2, "") and "cannot read the list none.json" in err
