"""Objects on the page: found, outlined over photo and depth, listed from near to far, and taken home."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import photo
from tests.io.browser import Visit, difference
from tests.serve.browser.pages import PHONE, shot
from tests.serve.running import Service, running

pytestmark = pytest.mark.slow
SIZE = (240, 160)


@pytest.fixture(scope="module")
def finder(tmp_path_factory, tiny_file, graphs, browser) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("finder")
    with running(folder, tiny_file, "--detector", "seg-nano", STANDIN="1", DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


def found(there: Visit) -> None:
    """Give a photo to the page and let it find objects."""
    there.page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Find objects").click()
    there.page.wait_for_selector(".found li")


def place_of(there: Visit) -> str:
    return next(match[1] for url in reversed(there.requests) if (match := re.search(r"(/v1/results/[^/]+)/", url)))


def test_objects_are_outlined_and_listed_from_near_to_far(finder, open_page):
    there = open_page(finder)
    found(there)
    page = there.page
    rows = finder.ask(f"{place_of(there)}/objects").json["objects"]
    names = [" ".join(text.split()) for text in page.locator(".found button").all_inner_texts()]
    far = ["1st, nearest", "2nd", "3rd"]
    assert names == [f"{row['label']} {100 * row['score']:.0f} % {text}" for row, text in zip(rows, far)]
    assert page.locator(".tags span").all_inner_texts() == [f"{row['label']} {t}" for row, t in zip(rows, far)]
    painted = "[...document.querySelector('.objects canvas').getContext('2d').getImageData(0, 0, 240, 160).data]"
    inside = np.array(page.evaluate(painted)).reshape(160, 240, 4)[..., 3] > 0
    from depthcli.io.masks import rle

    assert (inside == np.any([rle.decode(row["mask"]) for row in rows], axis=0)).all()
    label = page.locator(".objects canvas").get_attribute("aria-label")
    assert all(f"{row['label']} {text}" in label for row, text in zip(rows, far))
    page.get_by_role("button", name="Hide").click()
    assert not page.locator(".objects").is_visible() and not page.locator(".found").is_visible()


def test_a_row_lights_its_object_and_an_object_its_row(finder, open_page):
    there = open_page(finder)
    found(there)
    page = there.page
    page.mouse.move(5, 5)
    before = shot(there, ".frame")
    page.locator(".found button").nth(1).hover()
    assert difference(before, shot(there, ".frame")) > 0.5
    page.mouse.move(5, 5)
    assert difference(before, shot(there, ".frame")) < 0.1
    label = page.locator(".found button").nth(2).inner_text().split()[0]
    page.locator(".found button").nth(2).focus()
    assert page.locator(".tags .on").inner_text().startswith(label) and page.locator(".found .on").count() == 1
    box = page.locator(".frame").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.55 * box["height"])  # in the first person
    assert page.locator(".found .on").inner_text().startswith("person") and page.locator(".number").inner_text()
    page.locator(".found button").nth(0).click()
    assert page.locator(".found button").nth(0).get_attribute("aria-pressed") == "true"


def test_another_threshold_asks_for_the_kept_map_again_and_files_are_the_service_s(finder, open_page):
    there = open_page(finder)
    found(there)
    page = there.page
    page.get_by_label("Least score").fill("0.3")
    page.wait_for_selector(".found li:nth-child(4)")
    page.get_by_label("Least score").fill("0.95")
    page.wait_for_selector("[role=status]:text-is('No object is this sure')")
    page.get_by_label("Least score").fill("0.3")
    page.wait_for_selector(".found li:nth-child(4)")
    assert sum("/v1/depth" in url for url in there.requests) == 1
    page.get_by_label("Colours").select_option("gray")
    place = place_of(there)
    for name in ("json", "overlay", "masks", "mattes", "exr"):
        with page.expect_download() as waits:
            page.locator("[aria-labelledby=found]").get_by_role("button", name=name, exact=True).click()
        waits.value.save_as("got")
        wanted = finder.ask(f"{place}/objects/{name}?threshold=0.3&colormap=gray")
        assert Path("got").read_bytes() == wanted.body and waits.value.suggested_filename.startswith("a_")


def test_they_stay_when_the_depth_is_made_anew_and_not_for_another_photo(finder, open_page):
    there = open_page(finder)
    found(there)
    page = there.page
    page.get_by_label("Network detail").select_option("84")
    page.wait_for_selector(".hint:has-text('126 × 84')")
    page.wait_for_selector(".found li")
    page.get_by_role("button", name="Another photo").click()
    page.locator(".photo input[type=file]").set_input_files(photo("b.jpg", SIZE))
    page.wait_for_selector("h1:text-is('b.jpg')")
    page.wait_for_selector(".readout")
    assert page.get_by_role("button", name="Find objects").is_visible() and not page.locator(".found").is_visible()


def test_metres_are_told_and_what_has_no_depth(finder, open_page):
    there = open_page(finder)

    def measured(route) -> None:
        document = route.fetch().json()
        for row, distance in zip(document["objects"], (3.2, 12.345, None)):
            row.update(distance=distance, rank=None if distance is None else row["rank"])
        route.fulfill(json=document)

    there.page.route("**/objects?*", measured)
    found(there)
    told = there.page.locator(".found b").all_inner_texts()
    assert told == ["3.20 m", "12.3 m", "no depth"]
    assert there.page.locator(".tags span").first.inner_text().endswith(" 3.20 m")


def test_a_refusal_is_shown_in_the_service_s_words(finder, open_page):
    there = open_page(finder)
    problem = {"title": "too many masks", "hint": "raise `threshold`", "status": 400, "exit_code": 2}
    there.page.route("**/objects?*", lambda route: route.fulfill(status=400, json=problem))
    there.page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Find objects").click()
    shown = there.page.locator("[aria-labelledby=found] [role=alert]")
    shown.wait_for()
    assert shown.inner_text().split("\n")[0] == "too many masks" and "threshold" in shown.inner_text()
    there.page.unroute("**/objects?*")
    there.page.get_by_role("button", name="Find objects").click()
    there.page.wait_for_selector(".found li")
    assert not shown.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(finder, open_page, scheme):
    there = open_page(finder, color_scheme=scheme, **PHONE)
    found(there)
    page = there.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    buttons = page.locator("[aria-labelledby=found] button").all()
    assert len(buttons) == 9 and min(one.bounding_box()["height"] for one in buttons) >= 36
    page.locator(".found button").nth(1).tap()
    assert page.locator(".tags .on").count() == 1


def test_without_a_detector_nothing_is_offered(browser, serving, open_page):
    with serving() as service:
        there = open_page(service)
        there.page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
        there.page.wait_for_selector(".readout")
        assert there.page.get_by_text("objects").count() == 0
        assert not any("objects.js" in url for url in there.requests)
