"""Protocols of benchmarks on miniatures: no error for the truth in another world, the known error for known mistakes.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold the figures of clips to those of DepthCrafter's benchmark.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcli.choices.scenes import SceneChoice
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError, UsageError
from depthcli.eval import benchmarks, clips, clouds
from depthcli.eval.benchmarks import Cameras, ClipRules
from depthcli.eval.layouts import Fusion, layout_of, read_layout
from depthcli.geometry.sim3 import Sim3
from depthcli.io.scenes.files import write_scene
from tests.eval import miniatures
from tests.geometry.worlds import random_turn

MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
MOVED = Sim3(0.5, random_turn(np.random.default_rng(1), 1.0), np.array([3.0, -1.0, 2.0]))
COARSE = Fusion(0.04, 0.16, 0.05)


def predicted_clip(made: miniatures.Views, scale: float = 0.3, shift: float = 0.02) -> list[DepthMap]:
    return [
        DepthMap(((1 / z - shift) / scale).astype(np.float32), DepthKind.RELATIVE_DISPARITY, camera=None)
        for _, z, _ in made
    ]


# --- Cameras and surfaces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["7scenes", "eth3d", "scannetpp", "hiroom", "dtu", "dtu64"])
def test_the_truth_in_another_world_has_no_error(tmp_path: Path, name: str) -> None:
    made = getattr(miniatures, {"7scenes": "seven_scenes"}.get(name, name))(tmp_path)
    (scene,) = read_layout(tmp_path, layout_of(name))
    extrinsics = MOVED.extrinsics(np.stack([seen_by.extrinsics for seen_by, _, _ in made]))
    score = benchmarks.score_cameras(scene, Cameras(None, extrinsics))
    assert score.frames == 6 and score.figures["auc_da3_3"] == score.figures["auc_da3_30"] == 1
    assert score.figures["auc_exact_3"] > 0.999 and score.figures["ate_rmse"] < 1e-6
    wrong = extrinsics.copy()
    wrong[3] = extrinsics[0]
    assert benchmarks.score_cameras(scene, Cameras(None, wrong)).figures["auc_da3_30"] < 0.9


@pytest.mark.parametrize(
    ("name", "posed"),
    [
        ("eth3d", False),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("eth3d", True), ("scannetpp", False))),
        *(pytest.param("hiroom", posed, marks=pytest.mark.slow) for posed in (False, True)),
    ],
)
def test_the_true_depth_makes_the_true_surface(monkeypatch, tmp_path: Path, name: str, posed: bool) -> None:
    monkeypatch.setattr(clouds, "SAMPLES", 60_000)
    made = getattr(miniatures, name)(tmp_path)
    (scene,) = read_layout(tmp_path, layout_of(name))
    names = [entry.picture.name for entry in scene.entries]
    fusion = replace(COARSE, margin=layout_of(name).fusion.margin)
    right = benchmarks.score_reconstruction(scene, miniatures.answer(made, names, MOVED), fusion, posed)
    assert right.frames == 6 and right.figures["f_score"] > 0.9 and right.figures["accuracy"] < 0.03
    pressed = [(seen_by, z * np.linspace(0.8, 1.2, z.shape[1], dtype=np.float32), rgb) for seen_by, z, rgb in made]
    wrong = benchmarks.score_reconstruction(scene, miniatures.answer(pressed, names, MOVED), fusion, posed)
    assert wrong.figures["f_score"] < 0.5 and wrong.figures["accuracy"] > 3 * right.figures["accuracy"]


def test_pixels_without_true_depth_do_not_count(tmp_path: Path) -> None:
    made = miniatures.eth3d(tmp_path)
    (scene,) = read_layout(tmp_path, layout_of("eth3d"))
    counts = benchmarks._counts(scene, 0, made[0][1].shape)
    assert not counts[:5].any() and counts[5:].all()
    entry = scene.entries[1]
    stored = made[1][1].copy()
    stored[:, :9], stored[:, 9:12] = np.inf, 0
    stored.astype("<f4").tofile(entry.truth)
    counts = benchmarks._counts(scene, 1, stored.shape)
    assert not counts[:, :12].any() and counts[:, 12:].all()
    mini = tmp_path / "mini"
    miniatures.hiroom(mini)
    (scene,) = read_layout(mini, layout_of("hiroom"))
    assert not benchmarks._counts(scene, 0, (112, 168)).diagonal().any()


def test_views_belong_to_pictures_by_name_or_order(tmp_path: Path) -> None:
    made = miniatures.dtu64(tmp_path)
    (scene,) = read_layout(tmp_path, layout_of("dtu64"))
    extrinsics = np.stack([seen_by.extrinsics for seen_by, _, _ in made])
    names = tuple(f"pictures/{entry.picture.name}" for entry in scene.entries)
    mixed = [4, 0, 5, 2]
    score = benchmarks.score_cameras(scene, Cameras(tuple(names[n] for n in mixed), extrinsics[mixed]))
    assert score.frames == 4 and score.figures["auc_da3_3"] == 1
    with pytest.raises(UsageError, match="4 predicted views for 6 pictures"):
        benchmarks.score_cameras(scene, Cameras(None, extrinsics[:4]))


def test_saved_scenes_are_found(tmp_path: Path) -> None:
    made = miniatures.seven_scenes(tmp_path / "data")
    (scene,) = read_layout(tmp_path / "data", layout_of("7scenes"))
    names = [entry.picture.name for entry in scene.entries]
    write_scene(miniatures.answer(made, names, MOVED, 4), tmp_path / "ours" / "chess", ["mini_npz"], SceneChoice())
    found = benchmarks.saved_cameras(tmp_path / "ours", "chess")
    assert benchmarks.score_cameras(scene, found).figures["auc_da3_3"] == 1
    (tmp_path / "paths").mkdir()
    rows = np.stack([np.linalg.inv(np.vstack([seen_by.extrinsics, [0, 0, 0, 1]])).ravel() for seen_by, _, _ in made])
    np.savetxt(tmp_path / "paths" / "chess.txt", rows)
    found = benchmarks.saved_cameras(tmp_path / "paths", "chess")
    assert benchmarks.score_cameras(scene, found).figures["auc_da3_3"] == 1
    with pytest.raises(OutputError, match="holds no prediction for fire"):
        benchmarks.saved_cameras(tmp_path / "ours", "fire")


@pytest.mark.slow
def test_seven_scenes_with_the_numbers_of_the_benchmark(tmp_path: Path) -> None:
    made, layout = miniatures.seven_scenes(tmp_path), layout_of("7scenes")
    (scene,) = read_layout(tmp_path, layout)
    names = [entry.picture.name for entry in scene.entries]
    score = benchmarks.score_reconstruction(scene, miniatures.answer(made, names, MOVED, 1), layout.fusion)
    assert score.figures["f_score"] > 0.98 and score.figures["overall"] < 0.01


# --- Clips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sintel", "scannet", "bonn", "kitti"])
def test_disparity_up_to_one_line_has_no_error_by_any_layout(tmp_path: Path, name: str) -> None:
    made, layout = getattr(miniatures, name)(tmp_path), layout_of(name)
    (scene,) = read_layout(tmp_path, layout)
    rules = ClipRules.of(layout)
    used = benchmarks.frames_of(scene, rules)
    made = made[30:] if name == "bonn" else made
    assert len(used.entries) == len(made)
    score = benchmarks.score_frames(used, rules, predicted_clip(made))
    assert score.figures["abs_rel"] < 3e-3 and score.figures["delta1"] == 1  # what the truth rounds
    assert score.figures["scale"] == pytest.approx(0.3, rel=0.01)
    assert (score.figures["tae"] is not None) == (name == "scannet")
    jumping = [
        replace(depth, values=depth.values * (1 + 0.4 * (n % 2))) for n, depth in enumerate(predicted_clip(made))
    ]
    assert benchmarks.score_frames(used, rules, jumping).figures["abs_rel"] > 0.05


def test_a_map_of_the_cropped_picture_is_taken_for_it(tmp_path: Path) -> None:
    made, layout = miniatures.scannet(tmp_path), layout_of("scannet")
    (scene,) = read_layout(tmp_path, layout)
    rules = ClipRules.of(layout)
    used, whole = benchmarks.frames_of(scene, rules), predicted_clip(made)
    cut = [replace(depth, values=benchmarks.cropped(depth.values, rules)) for depth in whole]
    scores = [benchmarks.score_frames(used, rules, maps) for maps in (whole, cut)]
    assert cut[0].size == (168 - 22, 112 - 16)
    assert scores[0].figures["abs_rel"] == pytest.approx(scores[1].figures["abs_rel"], abs=1e-12)
    with pytest.raises(UsageError, match="5 predicted maps for 6 frames"):
        benchmarks.score_frames(used, rules, whole[:5])


def test_other_kinds_of_depth_are_turned_into_disparity(tmp_path: Path) -> None:
    made, layout = miniatures.sintel(tmp_path), layout_of("sintel")
    (scene,) = read_layout(tmp_path, layout)
    maps = [DepthMap((7 * z).astype(np.float32), DepthKind.RELATIVE_DEPTH) for _, z, _ in made]
    assert benchmarks.score_frames(scene, ClipRules.of(layout), maps).figures["abs_rel"] < 1e-5


def test_saved_clips_are_found(tmp_path: Path) -> None:
    made, layout = miniatures.scannet(tmp_path / "data"), layout_of("scannet")
    (scene,) = read_layout(tmp_path / "data", layout)
    rules, maps = ClipRules.of(layout), predicted_clip(made)
    array = np.stack([depth.values for depth in maps])
    np.savez(tmp_path / "scene0707_00.npz", depth=array)
    assert (benchmarks.saved_frames(tmp_path, scene, rules, None)[4].values == array[4]).all()
    np.savez(tmp_path / "scene0707_00.npz", depth=np.repeat(array, 3, axis=0))
    assert (benchmarks.saved_frames(tmp_path, scene, rules, None)[4].values == array[4]).all()
    np.savez(tmp_path / "scene0707_00.npz", depth=array[:4])
    with pytest.raises(OutputError, match="4 predicted maps for 6 frames"):
        benchmarks.saved_frames(tmp_path, scene, rules, None)
    (tmp_path / "scene0707_00.npz").write_bytes(b"PK")
    with pytest.raises(OutputError, match="cannot read maps"):
        benchmarks.saved_frames(tmp_path, scene, rules, None)


def test_alignment_error_is_that_of_the_formula() -> None:
    made = miniatures.views((84, 56))
    matrix = made[0][0].intrinsics
    cameras = np.stack([replace(seen_by, intrinsics=matrix).extrinsics for seen_by, _, _ in made])
    from tests.geometry.rooms import traced

    depths = [traced(replace(seen_by, intrinsics=matrix), (84, 56))[0] for seen_by, _, _ in made]
    still = clips.alignment_error(depths, matrix, cameras, 20)
    jumping = clips.alignment_error([z * (1 + 0.1 * (n % 2)) for n, z in enumerate(depths)], matrix, cameras, 20)
    assert 0 < still < 4 and jumping > still + 5  # percent; pixels are rounded, and the ball hides some
    flat = [np.full((8, 8), 2.0), np.full((8, 8), 2.2)]
    same = np.repeat(np.eye(3, 4)[None], 2, axis=0)
    wanted = 100 * (0.2 / 2.2 + 0.2 / 2) / 2  # each point falls on its own pixel
    assert clips.alignment_error(flat, np.diag([8.0, 8, 1]), same, 20) == pytest.approx(wanted)
    away = np.stack([np.eye(3, 4), np.hstack([np.diag([-1.0, 1, -1]), np.zeros((3, 1))])])
    with pytest.raises(ValueError, match="no point of a frame"):
        clips.alignment_error(flat, np.diag([8.0, 8, 1]), away, 20)


@pytest.mark.skipif(MORE is None, reason="DEPTHCLI_PARITY is not set")
@pytest.mark.parametrize(("cap", "frames"), [(4, 9), (70, 5), (10, 110)])
def test_figures_of_clips_are_the_official_ones(cap: int, frames: int) -> None:
    assert MORE is not None
    official = dict(np.load(MORE / "depthcrafter_eval.npz"))
    names = official["names"].tolist()
    wanted = dict(zip(names, official[f"max{cap}_len{frames}"]))
    truth = official["truth"][:frames]
    maps = [cv2.resize(one, truth.shape[2:0:-1], interpolation=cv2.INTER_LINEAR) for one in official["prediction"]]
    fit = clips.ClipFit(cap)
    for disparity, depth in zip(maps, truth):
        fit.add(disparity, depth)
    score = clips.score_clip(list(zip(maps, truth)), fit)
    for name, key in (("abs_rel", "abs_relative_difference"), ("rmse", "rmse_linear"), ("delta1", "delta1_acc")):
        assert getattr(score, name) == pytest.approx(wanted[key], abs=1e-6)
