"""The page of a scene in a real browser, if there is one: see tests/io/browser.py."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcli.choices.scenes import SceneChoice
from depthcli.io.scenes.files import write_scene
from tests.geometry.rooms import BALL_COLOUR, FLOOR_COLOUR, SIZE, WALL_COLOUR, room
from tests.io.browser import difference, drawn

pytestmark = pytest.mark.slow
COLOURS = np.array([BALL_COLOUR, FLOOR_COLOUR, WALL_COLOUR])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_scene(room(), tmp_path, ["html"], SceneChoice(edges=None))[0]


def opened(visit, page: Path):
    """Return a visit of the page with the list of its views, which narrow windows do not show at first."""
    there = visit(page)
    there.page.keyboard.press("v")
    there.page.set_default_timeout(3000)
    return there


def picture_on_page(seen: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return the part of the page that shows a map of which all but the first row and two columns is drawn.

    around: (H, W) mask of what is drawn.
    """
    rows, columns = (np.flatnonzero(around.any(axis=axis)) for axis in (1, 0))
    return seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def surfaces(pixels: np.ndarray) -> np.ndarray:
    """Return which of the three surfaces each pixel of (..., 3) is nearest to in colour."""
    return np.abs(pixels[..., None, :].astype(int) - COLOURS).sum(axis=-1).argmin(axis=-1)


def test_nothing_is_asked_for_and_nothing_goes_wrong(visit, page):
    there = opened(visit, page)
    for key in ("n", "p", "n", "1", "2", "3", "o", "o", "c", "v", "v", "h", "h", "f", "ArrowLeft", "+", " ", "r", "0"):
        there.page.keyboard.press(key)
    there.settle()
    assert [url for url in there.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert there.complaints == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_through_a_camera_its_own_points_are_its_picture(visit, page, number):
    there = opened(visit, page)
    there.page.get_by_role("button", name=f"left/{number}.png").click()
    for key in ("1", "o"):
        there.page.keyboard.press(key)
    seen = there.pixels()
    box = picture_on_page(seen, drawn(seen))
    picture = room().views[number].picture[1:, 2:]  # sky and the unsure edge are not shown
    assert abs(box.shape[1] / box.shape[0] - (SIZE[0] - 3) / (SIZE[1] - 2)) < 0.02
    shown = cv2.resize(box, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert (surfaces(shown) == surfaces(picture)).mean() > 0.98
    assert (surfaces(shown[:, 3:]) == surfaces(picture[:, :-3])).mean() < 0.98  # three pixels would be noticed


def test_through_a_camera_the_points_of_others_are_at_their_places(visit, tmp_path):
    """One world: the second and third views alone, seen as the first saw it, have the colours of its picture."""
    there = opened(visit, write_scene(room(), tmp_path, ["html"])[0])  # with nothing between two surfaces
    there.page.keyboard.press("n")
    there.page.keyboard.press("1")
    whole = there.pixels()
    there.page.get_by_role("checkbox", name="show left/0.png").click()
    others = there.pixels()
    both = drawn(whole) & drawn(others)
    assert difference(whole, others) > 1 and both.sum() > 0.5 * drawn(whole).sum()
    there.page.get_by_role("button", name="All").click()
    there.page.keyboard.press("o")
    own = there.pixels()
    both &= drawn(own)
    assert (surfaces(others[both]) == surfaces(own[both])).mean() > 0.98


def test_boxes_hide_views_and_the_slider_hides_unsure_points(visit, page):
    there = opened(visit, page)
    there.page.keyboard.press("c")
    everything = drawn(there.pixels()).sum()
    there.page.get_by_role("checkbox", name="show left/1.png").click()
    fewer = drawn(there.pixels()).sum()
    there.page.get_by_role("button", name="None").click()
    assert not drawn(there.pixels()).any() and 0 < fewer < everything
    there.page.get_by_role("button", name="All").click()
    assert drawn(there.pixels()).sum() == everything
    assert there.page.locator("#percent").inner_text() == "3 %"  # two columns of 84
    there.page.locator("#least").fill("0")
    assert drawn(there.pixels()).sum() > everything
    there.page.locator("#least").focus()
    there.page.keyboard.press("ArrowRight")
    assert there.page.locator("#percent").inner_text() == "1 %"


def test_cameras_are_shown_and_hidden(visit, page):
    there = opened(visit, page)
    with_them = there.pixels()
    there.page.keyboard.press("c")
    without = there.pixels()
    assert drawn(with_them).sum() > drawn(without).sum()
    lines = with_them[drawn(with_them) & ~drawn(without)].astype(int)
    assert (lines.max(axis=1) - lines.min(axis=1)).mean() > 100  # coloured
    there.page.get_by_role("checkbox", name="Cameras").click()
    assert np.array_equal(there.pixels(), with_them)


def test_keys_go_from_camera_to_camera_and_out(visit, page):
    there = opened(visit, page)

    def pressed() -> list[str]:
        return [one.inner_text() for one in there.page.locator("#views [aria-pressed=true]").all()]

    outside = there.pixels()
    assert pressed() == ["Overview"]
    for key, name in (("n", "left/0.png"), ("n", "left/1.png"), ("p", "left/0.png"), ("p", "left/2.png")):
        there.page.keyboard.press(key)
        assert pressed() == [name]
    through = there.pixels()
    there.page.keyboard.press("ArrowLeft")
    assert difference(through, there.pixels()) > 1
    there.page.keyboard.press("r")
    assert difference(through, there.pixels()) < 0.1
    there.page.keyboard.press("0")
    assert pressed() == ["Overview"] and difference(outside, there.pixels()) < 0.1


def test_hands_turn_and_wheel_comes_nearer(visit, page):
    there = visit(page)
    home = there.pixels()
    there.drag(60, 10)
    assert difference(home, there.pixels()) > 3
    there.page.mouse.dblclick(240, 250)
    assert difference(home, there.pixels()) < 0.1
    there.page.mouse.wheel(0, -300)
    assert drawn(there.pixels()).sum() > drawn(home).sum()


def test_it_fits_a_phone(visit, page):
    there = visit(page, viewport={"width": 360, "height": 640}, device_scale_factor=2, is_mobile=True, has_touch=True)
    assert there.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not there.page.locator("#views").is_visible()
    there.page.locator("#list").tap()
    box, header = there.page.locator("#views").bounding_box(), there.page.locator("header").bounding_box()
    bar = there.page.locator("footer .bar").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert header["y"] + header["height"] <= box["y"] and box["y"] + box["height"] <= bar["y"]
    there.page.get_by_role("button", name="left/1.png").tap()
    assert there.page.locator("#views [aria-pressed=true]").inner_text() == "left/1.png"


def test_on_a_wide_screen_the_list_hides_nothing(visit, page):
    there = visit(page, viewport={"width": 1200, "height": 700})
    for key in ("n", "c", "o"):
        there.page.keyboard.press(key)
    list_at = there.page.locator("#views").bounding_box()["x"]
    columns = np.flatnonzero(drawn(there.pixels()).any(axis=0))
    assert columns[-1] < list_at
    there.page.keyboard.press("v")
    assert np.flatnonzero(drawn(there.pixels()).any(axis=0)).mean() > columns.mean() + 50
