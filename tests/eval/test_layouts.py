"""Each layout on a miniature: pictures, depth, cameras and surfaces are found, and belong together."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import UsageError
from depthcli.eval.evaluate import known_truth
from depthcli.eval.layouts import LAYOUTS, draw, layout_of, read_layout
from depthcli.io.pictures.images import read_picture
from tests.eval import miniatures

MAKERS = {
    "7scenes": miniatures.seven_scenes,
    **{name: getattr(miniatures, name) for name in LAYOUTS if name != "7scenes"},
}
NAMES = {
    "7scenes": "chess",
    "eth3d": "pipes",
    "scannetpp": "09c1414f1b",
    "hiroom": "20241230-828805-cam_sampled",
    "dtu": "scan1",
    "dtu64": "scan24",
    "sintel": "alley_1",
    "scannet": "scene0707_00",
    "bonn": "rgbd_bonn_balloon2",
    "kitti": "2011_09_26_drive_0002_sync",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_miniature_is_read_as_it_was_made(tmp_path: Path, name: str) -> None:
    made, layout = MAKERS[name](tmp_path), layout_of(name)
    scenes = read_layout(tmp_path, layout)
    if name == "nyu":
        assert [scene.name for scene in scenes] == ["kitchen-rgb_00000", "kitchen-rgb_00001"]
        entries = [scene.entries[0] for scene in scenes]
    else:
        assert [scene.name for scene in scenes] == [NAMES[name]]
        entries = list(scenes[0].entries)
    if name == "scannet":
        entries = entries[::3]
    assert len(entries) == len(made)
    for entry, (_, z, rgb) in zip(entries, made):
        picture = read_picture(entry.picture)
        assert picture.size == (z.shape[1], z.shape[0]) and np.abs(picture.rgb.astype(int) - rgb).mean() < 12
        if entry.truth is not None and entry.format != "raw":
            truth = known_truth(entry, picture.size)
            assert truth is not None
            apart = np.abs(truth.values - z)[truth.known]
            assert truth.known.mean() > 0.15 and apart.max() < 0.01
    assert all(entry.truth is not None for entry in entries) == (name not in ("dtu", "dtu64"))
    assert (layout.fusion is not None) == (scenes[0].surface is not None)
    if layout.cameras is None:
        assert scenes[0].extrinsics is None
        return
    found = scenes[0].extrinsics[:: 3 if name == "scannet" else 1]
    assert np.allclose(found, [seen_by.extrinsics for seen_by, _, _ in made], atol=1e-6)
    assert np.allclose(scenes[0].intrinsics[0], made[0][0].intrinsics, atol=1e-6)


def test_the_rules_of_the_protocols_stand_in_the_rows() -> None:
    caps = {name: (row.cap, row.frames) for name, row in LAYOUTS.items() if row.cap}
    assert caps == {
        "sintel": (70, (0, 50, 1)),
        "scannet": (10, (0, 270, 3)),
        "bonn": (10, (30, 140, 1)),
        "kitti": (80, (0, 110, 1)),
        "nyu": (10, (0, 1, 1)),
    }
    fused = {name: row.fusion for name, row in LAYOUTS.items() if row.fusion}
    assert [fused[name].threshold for name in ("7scenes", "eth3d", "scannetpp", "hiroom")] == [0.05, 0.25, 0.05, 0.05]
    assert [fused[name].voxel for name in ("7scenes", "eth3d", "scannetpp")] == [4 / 512, 20 / 512, 0.02]
    assert layout_of("scannet").cut((640, 480)) == (8, 11, 472, 629)
    assert layout_of("nyu").cut((640, 480)) == (45, 41, 471, 601)
    assert layout_of("kitti").cut((1241, 375)) == (0, 0, 374, 1240)


def test_dtu_begins_with_its_reference_view(tmp_path: Path) -> None:
    for number in range(40):
        miniatures.picture(tmp_path / "scan24" / "image" / f"{number:08d}.png", np.zeros((4, 4, 3), np.uint8))
    miniatures.camera_files(tmp_path, miniatures.views((8, 6), places=miniatures.PLACES * 7))
    (scene,) = read_layout(tmp_path, layout_of("dtu64"))
    assert [int(entry.picture.stem) for entry in scene.entries[:3]] == [33, 0, 1] and len(scene.entries) == 40


def test_views_are_drawn_as_in_the_benchmark() -> None:
    numbers = list(range(1000))
    random.seed(42)
    random.shuffle(numbers)
    assert draw(1000, 100) == sorted(numbers[:100])
    assert draw(7, 100) == list(range(7))


def test_pictures_that_are_left_out_and_stairs(tmp_path: Path) -> None:
    miniatures.eth3d(tmp_path)
    assert [scene.name for scene in read_layout(tmp_path, layout_of("eth3d"))] == ["pipes"]
    seven = tmp_path / "seven" / "7Scenes"
    made = miniatures.views((8, 6), places=miniatures.PLACES[:2])
    for folder in ("stairs/seq-01", "stairs/seq-02", "fire/seq-01", "fire/seq-02"):
        for number, (seen_by, _, rgb) in enumerate(made):
            miniatures.picture(seven / folder / f"frame-{number:06d}.color.png", rgb)
            pose = np.vstack([seen_by.extrinsics, [0, 0, 0, 1]])
            miniatures.text(seven / folder / f"frame-{number:06d}.pose.txt", pose)
    scenes = read_layout(tmp_path / "seven", layout_of("7scenes"))
    assert [(scene.name, scene.entries[0].picture.parent.name) for scene in scenes] == [
        ("fire", "seq-01"),
        ("stairs", "seq-02"),
    ]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no scene of sintel"):
        read_layout(tmp_path, layout_of("sintel"))
    with pytest.raises(UsageError, match="is not a folder"):
        read_layout(tmp_path / "none", layout_of("sintel"))
    with pytest.raises(UsageError, match="no layout is called 'x'"):
        layout_of("x")
    miniatures.bonn(tmp_path)
    next((tmp_path / "rgbd_bonn_balloon2" / "depth").iterdir()).unlink()
    with pytest.raises(UsageError, match="34 pictures and 33 maps"):
        read_layout(tmp_path, layout_of("bonn"))
    miniatures.dtu(tmp_path / "dtu")
    (tmp_path / "dtu" / "Cameras" / "00000003_cam.txt").write_text("no camera")
    with pytest.raises(UsageError, match="cannot read a camera from"):
        read_layout(tmp_path / "dtu", layout_of("dtu"))
