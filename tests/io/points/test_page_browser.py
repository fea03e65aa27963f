"""The page of a mesh in a real browser, if there is one: see tests/io/browser.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import depthcli
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthMap, Provenance
from tests.geometry.scenes import camera, metric
from tests.io.browser import BACKGROUND, difference

pytestmark = pytest.mark.slow
SIZE = (320, 240)


def scene(off_axis: float = 0.0) -> tuple[DepthMap, np.ndarray]:
    """A near square before a slanted wall under a missing sky, and a soft photo of them."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] / max(SIZE)
    z = (4 + 4 * x).astype(np.float32)
    z[(abs(x - 0.5) < 0.15) & (abs(y - 0.4) < 0.15)] = 2
    z[:40] = 90
    seen_by = camera(280.0, SIZE)
    seen_by = replace(seen_by, intrinsics=seen_by.intrinsics + np.array([[0, 0, off_axis], [0, 0, 0], [0, 0, 0]]))
    noise = np.random.default_rng(3).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    rgb = cv2.resize(noise, SIZE, interpolation=cv2.INTER_LINEAR) // 2 + 90
    return replace(metric(z, seen_by), provenance=Provenance(source="photo.jpg")), rgb


def page_of(depth: DepthMap, rgb: np.ndarray) -> Path:
    depthcli.write_shape(depthcli.mesh(depth, rgb, ShapeChoice(farthest=50)), "x.html")
    return Path("x.html")


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("off_axis", [0, 60])
def test_the_first_view_is_the_photo(visit, ratio, off_axis):
    depth, rgb = scene(off_axis)
    seen = visit(page_of(depth, rgb), device_scale_factor=ratio).pixels()
    assert seen.shape[:2] == (500 * ratio, 480 * ratio)
    there = np.abs(seen.astype(int) - BACKGROUND).max(axis=2) > 20
    rows, columns = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
    box = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert abs(box.shape[1] / box.shape[0] - 319 / 239) < 0.01 and there.mean() > 0.3
    photo = cv2.resize(rgb, box.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert difference(box, photo) < 2, "of 255 levels, the sky and the edges that have no depth included"
    assert difference(box[:, :-4], photo[:, 4:]) > 2  # the check would notice 4 pixels


def test_nothing_is_asked_for_and_nothing_goes_wrong(visit):
    depth, rgb = scene()
    name = "</script><img src=x onerror=alert(1)>.jpg"
    path = page_of(replace(depth, provenance=Provenance(source=name)), rgb)
    there = visit(path)
    for key in ("2", "3", "1", "f", "h", "ArrowLeft", "+", " ", "r"):
        there.page.keyboard.press(key)
    there.settle()
    assert [url for url in there.requests if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert there.complaints == []
    assert there.page.locator("h1").inner_text() == name and there.page.locator("img").count() == 0


def test_hands_and_keys_turn_and_reset_brings_the_photo_back(visit):
    there = visit(page_of(*scene()))
    home = there.pixels()
    there.drag(80, 20)
    turned = there.pixels()
    assert difference(home, turned) > 5
    there.page.mouse.dblclick(240, 250)
    assert difference(home, there.pixels()) < 0.1
    there.page.mouse.wheel(0, 300)
    assert difference(home, there.pixels()) > 5
    there.page.keyboard.press("r")
    assert difference(home, there.pixels()) < 0.1
    there.page.keyboard.press("ArrowLeft")
    assert difference(home, there.pixels()) > 1
    there.page.locator("#reset").click()
    assert difference(home, there.pixels()) < 0.1
    there.page.keyboard.press("Shift+ArrowLeft")
    assert difference(home, there.pixels()) > 1


def test_turning_shows_the_near_square_before_the_wall(visit):
    depth, _ = scene()
    rgb = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    rgb[depth.values == 2] = 255, 0, 0

    def middle(seen: np.ndarray) -> float:
        return float(np.nonzero((seen[..., 0] > 150) & (seen[..., 1] < 80))[1].mean())

    there = visit(page_of(depth, rgb))
    before = middle(there.pixels())
    there.drag(60, 0)
    assert middle(there.pixels()) > before + 10  # what is near goes with the hand


def test_a_finger_turns_and_two_taps_reset(visit):
    there = visit(page_of(*scene()), has_touch=True, is_mobile=True)
    home = there.pixels()
    session = there.context.new_cdp_session(there.page)

    def touch(kind: str, *places: tuple[int, int]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in places]})

    touch("touchStart", (240, 200))
    for x in (260, 290, 320):
        touch("touchMove", (x, 205))
    touch("touchEnd")
    assert difference(home, there.pixels()) > 5
    for _ in range(2):
        there.page.touchscreen.tap(240, 250)
    assert difference(home, there.pixels()) < 0.1
    two = {"type": "touchStart", "touchPoints": [{"x": 220, "y": 200, "id": 0}, {"x": 260, "y": 200, "id": 1}]}
    session.send("Input.dispatchTouchEvent", two)
    for apart in (40, 60, 80):
        places = [{"x": 240 - apart, "y": 200, "id": 0}, {"x": 240 + apart, "y": 200, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": places})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert difference(home, there.pixels()) > 5


def test_buttons_show_points_and_the_colours_of_depth(visit):
    there = visit(page_of(*scene()))
    home = there.pixels()
    there.page.get_by_role("button", name="Depth").click()
    colours = there.pixels()
    assert there.page.locator("#near").inner_text() == "near 2 m" and difference(home, colours) > 20
    square, wall = colours[260, 235].astype(int), colours[350, 100].astype(int)
    assert square[0] > square[2] + 30 and wall[2] > square[2]  # red is near
    there.page.get_by_role("button", name="Points").click()
    points = there.pixels()
    assert not there.page.locator("#near").is_visible() and difference(points, colours) > 20
    assert (np.abs(points.astype(int) - BACKGROUND).max(axis=2) > 20).mean() > 0.1
    assert there.page.locator("[aria-pressed=true]").inner_text() == "Points"


def test_who_asks_for_no_motion_gets_none_and_others_see_it_sway(visit):
    path = page_of(*scene())
    calm = visit(path)
    before = calm.pixels()
    calm.page.wait_for_timeout(1500)
    assert np.array_equal(calm.pixels(), before)
    swaying = visit(path, wait=False, reduced_motion="no-preference").page
    swaying.wait_for_timeout(1500)
    one = swaying.screenshot()
    swaying.wait_for_timeout(300)
    assert swaying.screenshot() != one


def test_it_fits_a_phone(visit):
    there = visit(page_of(*scene()), viewport={"width": 360, "height": 640}, device_scale_factor=2, is_mobile=True)
    assert there.page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [one.bounding_box() for one in there.page.get_by_role("button").all()]
    assert len(boxes) == 5 and min(box["height"] for box in boxes) >= 36
    assert min(box["x"] for box in boxes) >= 0 and max(box["x"] + box["width"] for box in boxes) <= 360
    there.page.get_by_role("button", name="Help").click()
    keys = there.page.locator("#keys").bounding_box()
    assert keys["x"] >= 0 and keys["x"] + keys["width"] <= 360 and keys["y"] >= 0
