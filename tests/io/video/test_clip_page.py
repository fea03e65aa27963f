"""A clip as one page: what it holds, how much, and how it is played in a real browser, if there is one."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.camera import Camera, Distortion, LensModel
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import OutputError
from depthcli.geometry.grid import grid_step
from depthcli.geometry.rays import rays_at
from depthcli.io.codecs.files import Content, content_of, read_facts
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.clip_page import MOST_BYTES, MOST_FRAMES, frame_mesh_size, shown_every
from depthcli.io.video.writers import video_writer
from depthcli.jobs.info import examine
from tests.conftest import TINY
from tests.geometry.scenes import camera, metric
from tests.io.browser import Visit, difference, drawn
from tests.io.video.clips import make_clip

SIZE = (96, 64)


def frame(index: int, size: tuple[int, int] = SIZE, seen_by: Camera | None = None, noise: int = 0) -> Content:
    """A wall that comes nearer, with a ball before it that moves to the right, over a photo that brightens."""
    index %= 10
    y, x = np.mgrid[: size[1], : size[0]]
    z = np.full(size[::-1], 5.0 - 0.1 * index, np.float32)
    z[np.hypot(y - size[1] / 2, x - (20 + 6 * index) * size[0] / 96) < size[1] / 5] = 2
    rgb = np.full((*size[::-1], 3), 100 + 10 * index, np.uint8)
    rgb[..., 2] = x * 255 // size[0]
    if noise:
        rgb = np.random.default_rng(index).integers(0, noise, rgb.shape).astype(np.uint8)
    depth = metric(z, seen_by or camera(90.0, size))
    mesh_size = frame_mesh_size(size, MOST_FRAMES, 512)
    return content_of(CLIPS["html"], depth, rgb=rgb, shape=ShapeChoice(mesh_size=mesh_size))


def write(frames: int, path: str = "clip_depth.html", size: tuple[int, int] = SIZE, **how: object) -> Path:
    timing = Timing(Fraction(10), Fraction(1, 10))
    output = ClipOutput("html", Path(path), size, timing, {"schema": "depthcli/1", "source": "clip.mp4"}, frames=frames)
    with video_writer(output) as writer:
        for index in range(frames):
            if writer.has(index, Fraction(index, 10)):
                writer.skip(Fraction(index, 10))
            else:
                writer.write(frame(index, size, **how), Fraction(index, 10))
    return Path(path)


def held(path: Path) -> dict:
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', path.read_bytes(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def depths(data: dict, number: int) -> np.ndarray:
    one, (columns, rows, _) = data["frames"][number], data["step"]
    codes = np.frombuffer(base64.b64decode(one["z"]), "<u2").reshape(rows, columns).astype(float)
    return np.where(codes > 0, one["near"] * (one["far"] / one["near"]) ** ((codes - 1) / 65534), 0)


def test_a_page_has_the_depth_the_picture_and_the_time_of_each_frame():
    path = write(5)
    data = held(path)
    assert [one["time"] for one in data["frames"]] == [0, 0.1, 0.2, 0.3, 0.4] and data["length"] == 0.5
    assert (data["of"], data["near"], data["unit"], data["inverse"]) == (5, 2.0, "m", False)
    for index in (0, 4):
        z = depths(data, index)
        wall = z[z > 3]
        assert (
            np.abs(wall / (5 - 0.1 * index) - 1).max() < 1e-4 and 0.02 < (z == 0).mean() < 0.3
        )  # the edge of the ball
        with Image.open(io.BytesIO(base64.b64decode(data["frames"][index]["texture"]))) as picture:
            assert picture.size == SIZE and abs(np.asarray(picture)[5, 5, 0] - (100 + 10 * index)) < 6
    about = json.loads(Path("clip_depth.html.json").read_text())["video"]
    assert about["frames"] == 5 and about["shown"] == [0, 0.1, 0.2, 0.3, 0.4] and about["notes"] == []
    assert read_facts(path)["frames"] == 5 and "clip of 5 frames" in str(examine(path))
    assert path.read_bytes() == write(5, "again.html").read_bytes()


def test_a_long_clip_is_thinned_evenly_and_stays_small():
    assert [shown_every(count) for count in (1, 100, 101, 200, 201, 10_000)] == [1, 1, 2, 2, 3, 100]
    for size in ((1920, 1080), (640, 480), (320, 1200), (97, 3001)):
        for count in (1, 70, 100, 101, 3000):
            shown, side = -(-count // shown_every(count)), frame_mesh_size(size, count, 512)
            step = grid_step(size, side)
            assert shown <= MOST_FRAMES and 16 <= side <= 512
            assert shown * (size[0] // step + 2) * (size[1] // step + 2) * 10 / 3 < 9.1e6
    path = write(250)
    data = held(path)
    assert [one["time"] for one in data["frames"][:3]] == [0, 0.3, 0.6] and len(data["frames"]) == 84
    assert (data["of"], data["length"]) == (250, 25.0)
    assert "84 of 250 frames" in json.loads(Path("clip_depth.html.json").read_text())["video"]["notes"][0]


@pytest.mark.slow
def test_the_worst_pictures_fit_into_the_page():
    path = write(MOST_FRAMES, size=(960, 540), noise=256)
    assert 5e6 < path.stat().st_size < MOST_BYTES


def test_a_lens_has_the_rays_of_the_whole_grid():
    lens = replace(camera(90.0, SIZE), distortion=Distortion(LensModel.RADIAL, (0.1, 0, 0, 0, 0)))
    data = held(write(2, seen_by=lens))
    found = np.frombuffer(base64.b64decode(data["rays"]), "<f4").reshape(data["step"][1], data["step"][0], 2)
    assert np.allclose(found[0, 0], rays_at(np.zeros((1, 2)), lens)[0], atol=1e-6)
    assert held(write(2))["rays"] is None


def test_a_clip_without_a_mesh_has_no_page():
    output = ClipOutput("html", Path("x.html"), SIZE, Timing(Fraction(10), Fraction(1, 10)), {}, frames=1)
    with pytest.raises(OutputError, match="no frame of the clip has a mesh"), video_writer(output) as writer:
        writer.skip(Fraction(0))
    assert not list(Path().glob("x.html*"))


def test_the_command_makes_a_page_beside_other_formats(depth):
    make_clip(Path("a.mp4"), frames=6)
    ran = depth("video", "a.mp4", "-f", "html,mp4", *TINY, "--offline", "--steady", "off", "--edges", "off")
    assert ran.code == 0 and Path("a_depth.mp4").exists()
    data = held(Path("a_depth.html"))
    assert len(data["frames"]) == 6 and data["name"] == "a.mp4" and data["camera"]["source"] == "assumed"
    before = Path("a_depth.html").stat().st_mtime_ns
    assert depth("video", "a.mp4", "-f", "html", *TINY, "--offline", "--steady", "off", "--edges", "off").code == 0
    assert Path("a_depth.html").stat().st_mtime_ns == before  # it is done
    assert (
        depth(
            "video", "a.mp4", "-f", "html", "-o", "b.html", *TINY, "--offline", "--steady", "off", "--edges", "off"
        ).code
        == 0
    )


def until(there: Visit, expression: str) -> None:
    """Wait until an expression is true; the policy of the page lets no script of ours wait in it."""
    for _ in range(200):
        if there.page.evaluate(expression):
            return
        there.page.wait_for_timeout(20)
    raise AssertionError(expression)


@pytest.mark.slow
def test_a_browser_plays_turns_and_asks_for_nothing(visit):
    there = visit(write(8))
    time = "document.getElementById('time').textContent"
    assert there.page.evaluate(time) == "0:00.0 / 0:00.8"
    first = there.pixels()
    assert drawn(first).mean() > 0.2
    for key, shown in ((".", "0:00.1"), ("n", "0:00.2"), ("PageDown", "0:00.7"), (".", "0:00.7"), (",", "0:00.6")):
        there.page.keyboard.press(key)
        until(there, f"{time}.startsWith('{shown}')")
    later = there.pixels()
    assert difference(later, first) > 5  # the ball has moved, and the photo is brighter
    there.page.keyboard.press("PageUp")
    until(there, f"{time}.startsWith('0:00.0')")
    assert difference(there.pixels(), first) < 0.5  # the same frame again
    there.drag(120, 30)
    there.page.wait_for_timeout(200)
    assert difference(there.pixels(), first) > 3
    there.page.keyboard.press(" ")
    until(there, "document.getElementById('play').textContent === 'Pause'")
    until(there, f"!{time}.startsWith('0:00.0')")
    there.page.click("#play")
    until(there, "document.getElementById('play').textContent === 'Play'")
    there.page.focus("#frame")
    there.page.keyboard.press("Home")  # the slider's own key
    until(there, f"{time}.startsWith('0:00.0')")
    for key in ("2", "3", "f", "h", "s", "r"):
        there.page.keyboard.press(key)
    assert there.complaints == [] and all(one.startswith(("file:", "data:")) for one in there.requests)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(360, 640), (740, 360)])
def test_a_phone_shows_all_of_it(visit, size):
    there = visit(write(3), viewport={"width": size[0], "height": size[1]})
    boxes = there.page.evaluate(
        "['film', 'play', 'frame', 'time', 'help'].map((id) => { const b = document.getElementById(id)"
        ".getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"
    )
    assert all(left >= 0 and top >= 0 and right <= size[0] and below <= size[1] for left, top, right, below in boxes)
    assert boxes[2][2] - boxes[2][0] > 60  # a slider that a thumb can move
    assert drawn(there.pixels()).mean() > 0.1
