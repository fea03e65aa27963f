"""Pages of scenes: what is in them is the scene, and nothing in them runs or loads but the viewer."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import OutputError
from depthcli.geometry.poses import to_world
from depthcli.geometry.scene_points import confidence_floor, has_depth, without_pictures
from depthcli.io.codecs.files import is_cut_short, read_facts
from depthcli.io.scenes.files import write_scene
from depthcli.io.scenes.page import scene_page_data
from depthcli.scene import Scene
from tests.geometry.rooms import SIZE, room, surface_errors
from tests.io.points.test_page import EVIL, data_of, elements

WHOLE = SceneChoice(edges=None)


def confident(seed: int = 3) -> Scene:
    """The room with a confidence of its own for every pixel."""
    random = np.random.default_rng(seed)
    views = []
    for view in room().views:
        sure = random.uniform(1, 9, view.depth.values.shape).astype(np.float32)
        views.append(replace(view, depth=replace(view.depth, confidence=sure)))
    return Scene(tuple(views), room().facts)


def world_points(data: dict, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The points of all views as the viewer computes them, in the world, and the colours of their pixels."""
    points, colors = [], []
    for one, view in zip(data["views"], scene.views):
        columns, rows, step = one["step"]
        codes = np.frombuffer(base64.b64decode(one["z"]), "<u2").reshape(rows, columns)
        v, u = np.nonzero(codes)
        z = data["near"] * (data["far"] / data["near"]) ** ((codes[v, u].astype(float) - 1) / 65534)
        v, u = np.minimum(v * step, one["size"][1] - 1), np.minimum(u * step, one["size"][0] - 1)
        camera, pose = one["camera"], np.array(one["pose"]).reshape(3, 4)
        local = np.stack([(u - camera["cx"]) / camera["fx"], (v - camera["cy"]) / camera["fy"], np.ones(len(u))], 1)
        first = local * z[:, None] @ pose[:, :3].T + pose[:, 3]
        points.append(to_world(first, scene.views[0].extrinsics))
        colors.append(view.picture[v, u])
    return np.concatenate(points), np.concatenate(colors)


def test_points_of_all_views_lie_on_the_surfaces():
    scene = room()
    data = scene_page_data(scene, WHOLE)
    points, colors = world_points(data, scene)
    assert len(points) > 3 * 0.9 * SIZE[0] * SIZE[1]
    assert surface_errors(points, colors).max() < 1e-4  # 16 bits for log depth
    assert [one["name"] for one in data["views"]] == [view.name for view in scene.views]
    assert np.allclose(data["views"][0]["pose"], np.eye(4)[:3].ravel(), atol=1e-12)
    assert (data["unit"], data["kind"], data["model"]) == ("m", "metric_depth", "traced")


def test_the_slider_leaves_out_what_the_choice_leaves_out():
    scene = confident()
    data = scene_page_data(scene, WHOLE)
    assert data["least"] == 40  # the default of all files of scenes
    codes = [np.frombuffer(base64.b64decode(one["sure"]), np.uint8) for one in data["views"]]
    for percent in (5, 40, 75):
        floor = confidence_floor(scene, percent)
        for code, view in zip(codes, scene.views):
            there = has_depth(view)
            kept = there & (view.depth.confidence >= floor)
            shown = there & (code.reshape(there.shape) >= percent)
            assert (kept == shown).all()


def test_the_floor_of_confidence_stays():
    """Below 1.05 confidence says nothing, whatever the percentage: the left edge of the room's views is such."""
    scene = room()
    data = scene_page_data(scene, WHOLE)
    codes = np.frombuffer(base64.b64decode(data["views"][0]["sure"]), np.uint8).reshape(SIZE[::-1])
    assert 0 < data["least"] and (codes[1:, :2] < data["least"]).all() and (codes[1:, 2:] >= data["least"]).all()
    assert scene_page_data(room(confidence=False), WHOLE)["views"][0]["sure"] is None


def test_a_page_is_one_file_that_names_no_host(tmp_path: Path):
    (path,) = write_scene(Scene(room().views, {"source": EVIL, "model": "da3-base"}), tmp_path, ["html"])
    assert path == tmp_path / "scene.html" and [one.name for one in tmp_path.iterdir()] == ["scene.html"]
    text, found = path.read_text(encoding="utf-8"), elements(path)
    assert "http://" not in text and "https://" not in text and 'src="' not in text
    assert [tag for tag, _ in found.tags].count("script") == 4 and EVIL not in text
    assert data_of(path)["name"] == EVIL and len(data_of(path)["views"]) == 3
    facts = read_facts(path)
    assert facts["kind"] == "metric_depth" and facts["views"] == 3 and not is_cut_short(path)


def test_depth_info_tells_what_it_is(depth):
    write_scene(room(), Path("out"), ["html"])
    ran = depth("info", "out/scene.html")
    assert ran.code == 0 and ran.lines[0].endswith("scene of 3 views by depthcli, page, which is not read back")


def test_the_same_scene_gives_the_same_page(tmp_path: Path):
    pages = [write_scene(room(), tmp_path / name, ["html"])[0].read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.slow  # twenty pictures of noise are packed again and again until they fit
def test_twenty_views_take_less_than_5_mb(tmp_path: Path):
    random = np.random.default_rng(1)
    first = room().views[0]
    depth = first.depth
    tall = np.kron(depth.values, np.ones((7, 6), np.float32))
    sure = random.uniform(1, 9, tall.shape).astype(np.float32)
    views = [
        replace(
            first,
            name=f"{number}.png",
            depth=replace(depth, values=tall, sky=None, confidence=sure),
            picture=random.integers(0, 256, (*tall.shape, 3), np.uint8),
            picture_size=tall.shape[::-1],
        )
        for number in range(20)
    ]
    (path,) = write_scene(Scene(tuple(views)), tmp_path, ["html"])
    data = data_of(path)
    assert 2_000_000 < path.stat().st_size < 5_000_000 and len(data["views"]) == 20
    assert all(one["step"][2] == 3 for one in data["views"])


def test_a_view_of_which_nothing_is_left_stays_in_the_list():
    scene = room()
    empty = replace(scene.views[1], depth=replace(scene.views[1].depth, sky=np.ones(SIZE[::-1], bool)))
    data = scene_page_data(Scene((scene.views[0], empty, scene.views[2])), WHOLE)
    codes = [np.frombuffer(base64.b64decode(one["z"]), "<u2") for one in data["views"]]
    assert [bool(code.any()) for code in codes] == [True, False, True]
    assert {len(code) for code in codes} == {SIZE[0] * SIZE[1]}


def test_what_cannot_be_shown_is_refused(tmp_path: Path):
    with pytest.raises(OutputError, match="has no picture"):
        write_scene(without_pictures(room()), tmp_path, ["html"])
    views = [replace(view, depth=replace(view.depth, sky=np.ones(SIZE[::-1], bool))) for view in room().views]
    with pytest.raises(OutputError, match="no triangle is left"):
        write_scene(Scene(tuple(views)), tmp_path, ["html"])
    assert not list(tmp_path.iterdir())
