"""Scenes on the page: several pictures are sent, the scene is looked at, turned and taken home."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import broken
from tests.io.browser import difference
from tests.io.video.clips import make_clip
from tests.predict import rooms
from tests.serve.browser.pages import PHONE, shot
from tests.serve.running import Service, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, tiny_file, graphs, browser) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("scenes")
    options = ("--models", "tiny,da3-small", "--clips", "jobs")
    with running(folder, tiny_file, *options, ROOM=str(rooms.INPUT), DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


def choose(there, paths: list[Path]) -> None:
    there.page.locator(".scenes input[type=file]").set_input_files(paths)


@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_pictures_become_a_scene_that_turns(scenes, open_page, window):
    there = open_page(scenes, "#scenes", **window)
    page = there.page
    one, *others = rooms.pictures(Path("room"))
    choose(there, [one])
    assert page.get_by_role("button", name="One more is needed").is_disabled()
    choose(there, [*others, others[0]])  # which is the same file again
    assert page.locator(".thumbs img").count() == 4
    page.get_by_role("button", name="Leave out 1.png").first.click()
    page.get_by_role("button", name="Make a scene of 3 pictures").click()
    card = page.locator(".job").first
    card.get_by_text(re.compile("Done · da3-small")).wait_for()
    card.get_by_role("button", name="Look at the scene").click()
    page.wait_for_selector("dialog .solid canvas")
    page.wait_for_timeout(400)
    home = shot(there, "dialog .solid canvas")
    assert home.std() > 15, "it is not blank"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert difference(home, shot(there, "dialog .solid canvas")) > 1
    page.keyboard.press("n")
    assert page.locator("dialog aside select").input_value() == "0"
    page.locator("dialog aside select").select_option("2")
    page.wait_for_timeout(400)
    assert difference(home, shot(there, "dialog .solid canvas")) > 3
    page.get_by_role("button", name="Mesh", exact=True).click()
    page.get_by_label("Show the cameras").uncheck()
    wide = page.evaluate("document.querySelector('dialog').scrollWidth - document.querySelector('dialog').clientWidth")
    assert wide == 0 and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as waits:
        page.locator("dialog").get_by_role("button", name="scene.glb").click()
    waits.value.save_as("got.glb")
    job = scenes.ask("/v1/jobs").json["jobs"][0]
    file = next(file for file in job["files"] if file["name"] == "scene.glb")
    assert Path("got.glb").read_bytes() == scenes.ask(file["url"]).body
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("^Remove 0.png and 2 more")).click()
    card.wait_for(state="detached")
    assert scenes.ask(job["url"]).status == 404


def test_a_clip_is_a_scene_too_and_each_page_lists_its_own_jobs(scenes, open_page):
    clip = make_clip(Path("walk.mp4"), frames=60, size=(84, 56), pixel_format="yuv420p")
    there = open_page(scenes, "#scenes")
    choose(there, [clip])
    card = there.page.locator(".job[aria-label='walk.mp4']")
    card.get_by_text(re.compile("Done")).wait_for()
    there.page.get_by_role("link", name="Clips").click()
    there.page.get_by_text("Clips that were sent stand here").wait_for()
    assert there.page.locator(".job").count() == 0


def test_names_that_are_long_alike_or_not_ascii_and_one_that_is_broken(scenes, open_page):
    there = open_page(scenes, "#scenes")
    pictures = rooms.pictures(Path("room"))
    long, other = Path("x" * 120 + ".png"), Path("Küche ü/0.png")
    other.parent.mkdir()
    pictures[1].rename(long)
    pictures[2].rename(other)
    bad = broken("Straße.jpg")
    choose(there, [pictures[0], long, other, bad])
    there.page.get_by_role("button", name="Make a scene of 4 pictures").click()
    card = there.page.locator(".job").first
    card.locator(".problem").wait_for()
    assert card.locator(".problem").inner_text().startswith("Straße.jpg is truncated")
    card.get_by_role("button", name="Look at the scene").click()
    there.page.wait_for_selector("dialog .solid canvas")
    names = there.page.locator("dialog aside select").locator("option").all_inner_texts()
    assert names == ["Overview", "0.png", "x" * 80 + ".png", "0-2.png"]
