"""Sky, metres and whole scenes. data/da3_scene.npz: what the official code of Depth Anything 3 answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind
from depthcli.errors import EngineError
from depthcli.geometry.poses import decode_cameras, normalised, square
from depthcli.geometry.ray_pose import cameras_of_rays
from depthcli.geometry.sim3 import align_cameras
from depthcli.pixels.metric_scene import metres_of, metric_scene, scene_scale
from depthcli.pixels.scene_input import plan_scene
from depthcli.pixels.scene_output import scene_of
from depthcli.pixels.sky import fill_sky, sky_mask

GOLDEN = np.load(Path(__file__).parents[1] / "data/da3_scene.npz")


def test_metric_scenes_are_those_of_the_official_code() -> None:
    metric = metres_of(GOLDEN["nested_in_metric"], GOLDEN["nested_in_intrinsics"])
    found = metric_scene(GOLDEN["nested_in_depth"], GOLDEN["nested_in_conf"], metric, GOLDEN["nested_in_sky"])
    assert found.scale == pytest.approx(float(GOLDEN["nested_out_scale"]), rel=1e-6)
    assert np.abs(found.depth - GOLDEN["nested_out_depth"]).max() < 1e-6
    assert (found.confidence == GOLDEN["nested_out_conf"]).all()


def test_sky_is_filled_as_by_the_official_code() -> None:
    filled = fill_sky(GOLDEN["nested_in_metric"], GOLDEN["nested_in_sky"])
    expected = GOLDEN["mono_sky_out_depth"]
    assert np.abs(filled - expected).max() < 1e-6 * expected.max()


def test_sky_of_one_picture_does_not_depend_on_another() -> None:
    depth, sky = np.linspace(1, 2, 200, dtype=np.float32).reshape(2, 10, 10), np.zeros((2, 10, 10))
    sky[:, :2] = 1
    assert fill_sky(depth[0], sky[0]).max() < 1.5 < fill_sky(depth[1], sky[1]).max()
    assert (fill_sky(depth[0], np.ones((10, 10))) == depth[0]).all()  # nothing but sky: nothing to go by
    assert sky_mask(np.array([0.4, 0.5])).tolist() == [False, True]


def test_nothing_but_sky_has_no_scale() -> None:
    depth = np.ones((1, 5, 5), np.float32)
    with pytest.raises(ValueError, match="nothing but sky"):
        scene_scale(depth, depth, depth, depth)
    with pytest.raises(ValueError, match="too few pixels"):
        scene_scale(depth, depth, 0 * depth)
    assert scene_scale(depth, None, 3 * depth) == pytest.approx(3)


def test_poses_are_those_of_the_official_code() -> None:
    assert np.abs(normalised(GOLDEN["normalise_in_12"]) - GOLDEN["normalise_out_12"]).max() < 1e-6
    given, predicted = GOLDEN["umeyama_12_given"], GOLDEN["umeyama_12_predicted"]
    found = align_cameras(given, predicted)
    assert found.scale == pytest.approx(float(GOLDEN["umeyama_12_scale"]), rel=1e-6)
    assert np.abs(square(found.extrinsics(given)) - GOLDEN["umeyama_12_aligned"]).max() < 1e-6
    extrinsics, intrinsics = decode_cameras(GOLDEN["code_pose_enc"].reshape(-1, 9), (98, 70))
    assert np.abs(extrinsics - GOLDEN["code_extrinsics"].reshape(-1, 3, 4)).max() < 1e-6
    expected = GOLDEN["code_intrinsics"].reshape(-1, 3, 3)
    assert np.abs(intrinsics - expected).max() < 1e-6 * expected.max()


def test_cameras_of_noisy_rays_are_within_what_the_official_seeds_differ_by() -> None:
    found = cameras_of_rays(GOLDEN["rays_noisy_ray"], GOLDEN["rays_noisy_conf"], (56, 42))
    poses = np.abs(found.extrinsics - GOLDEN["rays_noisy_extrinsics"]).max(axis=(1, 2, 3))
    focals = np.abs((found.intrinsics - GOLDEN["rays_noisy_intrinsics"])[:, :, [0, 1], [0, 1]]).max(axis=(1, 2))
    assert poses.min() < 2e-3 and focals.min() < 0.11


def answers(count: int = 2) -> dict[str, np.ndarray]:
    depth = np.full((count, 70, 98), 2.0, np.float32)
    depth[0, 0, 0], depth[0, 0, 1] = np.inf, 0
    return {
        "depth": depth,
        "confidence": np.full(depth.shape, 1.5, np.float32),
        "sky": np.where(depth == 2, 0.1, 0.9),
        "extrinsics": np.repeat(np.eye(4)[None], count, axis=0),
        "intrinsics": np.repeat(np.array([[80, 0, 49], [0, 80, 35], [0, 0, 1.0]])[None], count, axis=0),
    }


def test_a_networks_answers_become_a_scene() -> None:
    plans, _ = plan_scene([(187, 131)] * 2, 98)
    scene = scene_of(answers(), plans, ["a.png", "b.png"])
    first = scene.views[0]
    assert scene.kind is DepthKind.RELATIVE_DEPTH and scene.unit == "arbitrary"
    assert first.depth.valid is not None and (~first.depth.valid).sum() == 2 and scene.views[1].depth.valid is None
    assert first.camera.center == ((98 - 1) / 2, (70 - 1) / 2)  # the middle, with centres at integers
    assert np.allclose(first.picture_camera.center, ((187 - 1) / 2, (131 - 1) / 2))
    assert first.depth.provenance.source == "a.png"
    assert first.depth.sky is not None and first.depth.sky.sum() == 2


def test_answers_that_do_not_fit_are_refused() -> None:
    plans, _ = plan_scene([(187, 131)] * 2, 98)
    with pytest.raises(EngineError, match="the network answered"):
        scene_of(answers(3), plans, ["a.png", "b.png"])
    broken = answers()
    broken["depth"][1] = np.nan
    with pytest.raises(EngineError, match=r"no depth in b\.png"):
        scene_of(broken, plans, ["a.png", "b.png"])
