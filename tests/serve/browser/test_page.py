"""The page of the service in a real browser: what a person does with it, and what it never does."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.io.codecs.formats import STILLS
from tests.conftest import photo
from tests.io.browser import Visit, difference, drawn
from tests.io.video.clips import make_clip
from tests.serve.browser.pages import PHONE, shot
from tests.serve.running import Service, until

pytestmark = pytest.mark.slow
SIZE = (240, 160)


def choose(there: Visit, path: Path) -> None:
    """Give a photo to the page and wait for its depth."""
    there.page.locator(".photo input[type=file]").set_input_files(path)
    there.page.wait_for_selector(".readout")


def wait_for_title(there: Visit, shown: str) -> None:
    until(lambda: there.page.title() == f"{shown} – depth")


def result_of(there: Visit) -> str:
    """The place of the result that the page shows."""
    return next(match[1] for url in reversed(there.requests) if (match := re.search(r"(/v1/results/[^/]+)/f16", url)))


def numbers_of(service: Service, place: str) -> np.ndarray:
    got = service.ask(f"{place}/f32")
    return np.frombuffer(got.body, "<f4").reshape(got.meta["height"], got.meta["width"])


def test_a_photo_is_compared_with_its_depth(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    middle = shot(there, ".frame")
    box = there.page.locator(".frame").bounding_box()
    assert abs(box["width"] / box["height"] - 1.5) < 0.01
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 4
    there.page.mouse.move(x, y)
    there.page.mouse.down()
    there.page.mouse.move(box["x"] + box["width"] - 1, y, steps=4)
    there.page.mouse.up()
    assert there.page.get_by_role("slider").get_attribute("aria-valuenow") == "100"
    right = shot(there, ".frame")
    with Image.open("a.jpg") as file:
        wanted = np.asarray(file.convert("RGB").resize(right.shape[1::-1], Image.Resampling.BILINEAR))
    inside = np.s_[20:-20, 20:-40]
    assert difference(right[inside], wanted[inside]) < 6, "the photo is whole"
    assert difference(right, middle) > 5
    half = right.shape[1] // 2 - 30
    assert difference(right[:, :half], middle[:, :half]) < 1, "left of the divider was the photo before"


def test_the_number_under_the_pointer_is_that_of_the_map(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    box, values = there.page.locator(".frame").bounding_box(), numbers_of(site, result_of(there))
    for u, v in ((0.1, 0.2), (0.45, 0.9), (0.8, 0.3)):
        there.page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
        row, column = int(v * values.shape[0]), int(u * values.shape[1])
        near = values[
            max(0, row - 1) : row + 2, max(0, column - 1) : column + 2
        ]  # the pointer stands on a pixel's edge
        shown = float(there.page.locator(".number").inner_text())
        assert near.min() * 0.99 <= shown <= near.max() * 1.01
        assert there.page.locator(".unit").inner_text() == "relative, larger is nearer"
    there.page.mouse.move(5, 5)
    assert there.page.locator(".number").inner_text() == ""
    assert "a guess" in there.page.locator(".facts").inner_text()


@pytest.mark.parametrize("name", ["magma", "turbo_r"])
def test_the_colours_are_those_of_the_command_line(site, open_page, name):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_label("Colours").select_option(name)
    there.page.wait_for_timeout(100)
    drawn = there.page.evaluate(
        "[...document.querySelector('canvas.over').getContext('2d').getImageData(0, 0, 240, 160).data]"
    )
    seen = np.array(drawn, np.uint8).reshape(160, 240, 4)[..., :3]
    file = Image.open(io.BytesIO(site.ask(f"{result_of(there)}/color?colormap={name}").body)).convert("RGB")
    off = np.abs(seen.astype(int) - np.asarray(file)).max(axis=2)
    assert (off > 12).mean() < 0.002 and off.mean() < 2, "f16 moves a number to the next colour at most"


def test_the_mesh_turns_and_comes_back(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Mesh", exact=True).click()
    there.page.wait_for_selector("#main .solid canvas")
    there.page.wait_for_timeout(300)
    home = shot(there, ".solid canvas")
    assert home.std() > 15, "it is not blank"
    there.page.locator(".solid canvas").focus()
    for _ in range(4):
        there.page.keyboard.press("ArrowLeft")
    turned = shot(there, ".solid canvas")
    assert difference(home, turned) > 3
    there.page.get_by_role("button", name="Back to the photo").click()
    there.page.locator(".solid canvas").focus()  # for the same ring around it
    there.page.keyboard.press("r")
    assert difference(home[20:-80, 20:-20], shot(there, ".solid canvas")[20:-80, 20:-20]) < 0.5


def test_points_have_a_size_and_the_camera_an_angle(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Points", exact=True).click()
    there.page.wait_for_selector("#main .solid canvas")
    there.page.wait_for_timeout(300)
    home = shot(there, ".solid canvas")
    there.page.get_by_label("Point size").fill("-1.5")
    small = shot(there, ".solid canvas")
    assert small.mean() < home.mean() - 3, "more of the dark ground is seen between small points"
    there.page.get_by_label("Point size").fill("0.7")
    angle = there.page.get_by_label("Field of view")
    assert angle.input_value() == "60" and "assumed" in there.page.locator("aside").inner_text()
    angle.fill("30")
    assert difference(home[:-80], shot(there, ".solid canvas")[:-80]) < 3, "the first view stays the photo"
    there.page.locator(".solid canvas").focus()
    for _ in range(5):
        there.page.keyboard.press("ArrowUp")
    narrow = shot(there, ".solid canvas")
    angle.fill("100")
    assert difference(narrow, shot(there, ".solid canvas")) > 3
    assert there.page.locator(".caption").inner_text() == "Relative depth: the shape is a guess"


def test_every_format_is_offered_and_a_download_is_the_answer_of_the_service(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_text("more formats").click()
    buttons = there.page.locator("[aria-labelledby=take] button")
    assert buttons.count() == len(STILLS) and all(buttons.nth(i).is_visible() for i in range(len(STILLS)))
    there.page.get_by_label("Colours").select_option("gray")
    with there.page.expect_download() as waits:
        there.page.get_by_role("button", name="Colour PNG").click()
    assert waits.value.suggested_filename == "a_depth.png"
    waits.value.save_as("got.png")
    assert Path("got.png").read_bytes() == site.ask(f"{result_of(there)}/color?colormap=gray").body
    there.page.get_by_role("button", name="mm", exact=True).click()  # which a relative map is not
    problem = there.page.locator("[aria-labelledby=take] [role=alert]").inner_text()
    assert "metric" in problem


def test_a_result_that_was_forgotten_is_made_again(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    assert site.ask(result_of(there), method="DELETE").status == 204
    with there.page.expect_download() as waits:
        there.page.get_by_role("button", name="NumPy").click()
    assert waits.value.suggested_filename == "a_depth.npz"
    there.complaints[:] = [text for text in there.complaints if "404" not in text]


def test_files_are_dropped_and_pasted(site, open_page):
    there = open_page(site)
    there.page.wait_for_selector(".picker")
    content = list(photo("a.png", SIZE).read_bytes())
    give = """([kind, name, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
      const of = kind === "paste" ? ClipboardEvent : DragEvent;
      dispatchEvent(new of(kind, { [kind === "paste" ? "clipboardData" : "dataTransfer"]: data, cancelable: true }));
    }"""
    there.page.evaluate(give, ["dragenter", "dropped.png", content])
    assert there.page.locator("#drop").is_visible()
    there.page.evaluate(give, ["drop", "dropped.png", content])
    there.page.wait_for_selector(".readout")
    assert not there.page.locator("#drop").is_visible()
    assert there.page.locator("aside h1").inner_text() == "dropped.png"
    there.page.evaluate(give, ["paste", "pasted.png", content])
    there.page.wait_for_selector("h1:text-is('pasted.png')")
    there.page.wait_for_selector(".readout")


def test_it_works_by_keyboard_alone(site, open_page):
    there, path = open_page(site), photo("a.jpg", SIZE)
    page = there.page
    page.wait_for_selector(".picker")

    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                outline = page.evaluate(
                    "getComputedStyle(document.activeElement).outlineStyle + "
                    "getComputedStyle(document.activeElement.firstElementChild || document.body).outlineStyle"
                )
                assert "solid" in outline, "what has the focus is seen"
                return
        raise AssertionError(f"Tab never comes to {selector}")

    with page.expect_file_chooser() as waits:
        tab_to(".picker button.main")
        page.keyboard.press("Enter")
    waits.value.set_files(path)
    page.wait_for_selector(".readout")
    tab_to(".frame")
    page.keyboard.press("ArrowRight")
    assert page.locator(".cross").is_visible()
    one = page.locator(".number").inner_text()
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    assert float(one) > 0 and page.locator(".number").inner_text() != one
    tab_to(".handle")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".handle").get_attribute("aria-valuenow") == "48"
    page.keyboard.press("End")
    assert page.locator(".handle").get_attribute("aria-valuenow") == "100"
    tab_to(".segments button:nth-child(2)")
    page.keyboard.press("Enter")
    page.wait_for_selector("#main .solid canvas")
    assert page.get_by_role("button", name="Mesh", exact=True).get_attribute("aria-pressed") == "true"


def test_what_is_no_picture_is_said_in_the_words_of_the_service(site, open_page):
    there = open_page(site)
    Path("notes.txt").write_text("no picture at all")
    there.page.locator(".photo input[type=file]").set_input_files("notes.txt")
    problem = there.page.wait_for_selector("[role=alert]").inner_text()
    assert site.depth(Path("notes.txt"), name="notes.txt").json["title"] in problem
    assert there.page.evaluate("document.activeElement.textContent") == "Choose a photo"
    Path("large.jpg").write_bytes(bytes(2_000_000))
    there.page.locator(".photo input[type=file]").set_input_files("large.jpg")
    there.page.wait_for_selector("[role=alert]:has-text('2.0 MB')")
    assert "up to 1.0 MB" in there.page.locator("[role=alert]").inner_text()
    assert there.page.evaluate("document.activeElement.textContent") == "Choose a photo"
    choose(there, photo("a.jpg", SIZE))  # and nothing is stuck


def test_a_busy_service_is_asked_again(site, open_page):
    there = open_page(site)
    refused: list[str] = []

    def refuse_twice(route) -> None:
        if len(refused) == 2:
            route.continue_()
            return
        refused.append(route.request.url)
        problem = {"title": "the queue is full", "status": 503}
        route.fulfill(status=503, headers={"Retry-After": "1"}, body=json.dumps(problem))

    there.page.route("**/v1/depth?*", refuse_twice)
    there.page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
    there.page.wait_for_selector("[role=status]:has-text('busy')")
    there.page.wait_for_selector(".readout")
    assert len(refused) == 2


def test_who_waits_for_a_busy_service_sees_the_seconds_and_may_leave(browser, serving, open_page):
    with serving("--queue", 1, deadline=60) as service:
        others = [service.socket() for _ in range(2)]  # each has a place, and never sends all of its picture
        for other in others:
            other.sendall(b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        until(lambda: "depth_queue_length 2.0" in service.ask("/metrics").body.decode())
        there = open_page(service)
        page = there.page
        page.evaluate(
            "window.told = []; new MutationObserver(() => told.push(document.querySelector('.wait')?.textContent))"
            ".observe(document.getElementById('main'), { childList: true, subtree: true })"
        )
        # The service asks for a second; here it is made three, to see them pass.
        page.route("**/v1/depth?*", lambda route: route.fulfill(response=(got := route.fetch()), headers=_longer(got)))
        page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
        page.get_by_text("Asking again in 1 s").wait_for()
        works = "told.lastIndexOf('Estimating the depth …') > told.findIndex((text) => / 1 s/.test(text))"
        until(lambda: page.evaluate(works))
        told = page.evaluate("told")
        left = [int(found[1]) for text in told if (found := re.search(r"again in (\d) s", text or ""))]
        assert left[left.index(3) :][:3] == [3, 2, 1]
        page.get_by_text("The service is busy").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector(".picker")
        page.wait_for_timeout(4000)
        assert page.locator(".picker").is_visible() and page.locator(".problem").count() == 0
        page.locator(".photo input[type=file]").set_input_files(photo("b.jpg", SIZE))
        page.get_by_text("The service is busy").wait_for()
        for other in others:
            other.close()
        page.wait_for_selector(".readout")


def test_a_download_that_waits_for_a_busy_service_says_so(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    assert site.ask(result_of(there), method="DELETE").status == 204
    answers = iter([{"status": 503, "headers": {"Retry-After": "2"}, "body": '{"title": "the queue is full"}'}])
    there.page.route(
        "**/v1/depth?*", lambda route: route.fulfill(**one) if (one := next(answers, {})) else route.continue_()
    )
    with there.page.expect_download():
        there.page.get_by_role("button", name="NumPy").click()
        there.page.wait_for_selector("#gone:has-text('busy. Asking again in 1 s')")
    assert not there.page.locator("#gone").is_visible()
    there.complaints[:] = [text for text in there.complaints if "404" not in text]


def _longer(answer) -> dict[str, str]:
    """The headers of an answer that asks for three seconds, if it asks for any."""
    return {**answer.headers, **({"retry-after": "3"} if answer.status == 503 else {})}


def test_a_service_that_is_gone_is_waited_for(browser, serving, open_page):
    with serving() as service:
        there = open_page(service)
        there.page.wait_for_selector(".picker")
        port = service.port
    there.page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
    there.page.wait_for_selector("#gone:has-text('does not answer')")
    with serving("--port", port):
        there.page.wait_for_selector(".readout")
        assert "back" in there.page.locator("#gone").inner_text()


def test_a_token_is_asked_for_and_kept_in_the_tab(browser, serving, open_page):
    with serving(DEPTH_TOKEN="open sesame", network=0) as service:
        there = open_page(service)
        page = there.page
        page.wait_for_selector("#ask[open]")
        page.keyboard.type("a guess")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-title:has-text('not the token')")
        page.locator("#token").fill("open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector(".picker")
        choose(there, photo("a.jpg", SIZE))
        page.get_by_role("button", name="Mesh", exact=True).click()
        page.wait_for_selector("#main .solid canvas")
        page.reload()
        page.wait_for_selector(".picker")
        assert not page.locator("#ask").is_visible()
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        assert all("sesame" not in url for url in there.requests)
        stranger = open_page(service)  # another tab
        stranger.page.wait_for_selector("#ask[open]")


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_who_has_no_token_may_leave_and_try_again(browser, serving, open_page, way):
    with serving(DEPTH_TOKEN="open sesame", network=0) as service:
        there = open_page(service)
        page = there.page

        def leave(typed: str) -> None:
            page.wait_for_selector("#ask[open]")
            page.locator("#token").fill(typed)
            page.keyboard.press("Escape") if way == "Escape" else page.get_by_role("button", name="Cancel").click()
            page.wait_for_selector("#ask", state="hidden")

        for typed in ("", "a secret not meant"):
            leave(typed)
            problem = page.locator("#main [role=alert]")
            assert "token" in problem.inner_text()
            problem.get_by_role("button", name="Try again").click()
        leave("")
        assert page.evaluate("sessionStorage.length") == 0
        page.get_by_role("button", name="Try again").click()
        page.locator("#token").fill("open sesame")
        page.get_by_role("button", name="Continue").click()
        choose(there, photo("a.jpg", SIZE))
        page.evaluate("sessionStorage.setItem('depth-token', 'an old one')")
        page.reload()
        leave("open sesame")
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("#ask-title:has-text('not the token')")
        assert page.evaluate("sessionStorage.getItem('depth-token')") == "an old one"
        assert page.locator("#token").input_value() == ""
    there.complaints[:] = [text for text in there.complaints if "401" not in text]


def test_a_photo_that_lacks_the_token_is_sent_again_from_its_problem(browser, serving, open_page):
    with serving(DEPTH_TOKEN="open sesame", network=0) as service:
        there = open_page(service)
        page = there.page
        page.locator("#token").fill("open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector(".picker")
        refusals = iter([{"status": 401, "body": '{"title": "a token is needed"}'}])
        page.route(
            "**/v1/depth?*", lambda route: route.fulfill(**one) if (one := next(refusals, {})) else route.continue_()
        )
        page.locator(".photo input[type=file]").set_input_files(photo("a.jpg", SIZE))
        page.wait_for_selector("#ask[open]")
        page.keyboard.press("Escape")
        page.locator(".picker .problem").get_by_role("button", name="Try again").click()
        page.wait_for_selector(".readout")
        assert page.evaluate("sessionStorage.getItem('depth-token')") == "open sesame"


def test_the_window_is_called_by_what_it_shows(site, open_page):
    there = open_page(site)
    page = there.page
    page.wait_for_selector(".picker")
    assert page.title() == "Photo – depth"
    choose(there, photo("a.jpg", SIZE))
    assert page.title() == "a.jpg – depth"
    for place, title in (("clips", "Clips"), ("gallery", "Gallery"), ("photo", "a.jpg")):
        page.evaluate("(place) => { location.hash = place; }", place)
        wait_for_title(there, title)
    page.evaluate("location.hash = 'gallery'")
    page.locator(".name:text-is('b.jpg')").click()
    page.wait_for_selector("dialog .readout")
    assert page.title() == "b.jpg – depth"
    page.keyboard.press("Escape")
    wait_for_title(there, "Gallery")
    page.evaluate("location.hash = 'photo'")
    page.get_by_role("button", name="Another photo").click()
    wait_for_title(there, "Photo")


def test_the_depth_is_told_in_words_and_in_short(site, open_page):
    there = open_page(site)
    page = there.page
    choose(there, photo("a.jpg", SIZE))
    depth, colors = page.locator("canvas.over"), page.get_by_label("Colours")
    assert depth.get_attribute("aria-label") == "Depth of a.jpg, red is near"
    for name, near in (("Spectral", "blue"), ("magma", "bright"), ("gray_r", "dark"), ("turbo", "red")):
        colors.select_option(name)
        page.wait_for_timeout(100)
        assert depth.get_attribute("aria-label") == f"Depth of a.jpg, {near} is near"
    page.locator(".frame").focus()
    page.keyboard.press("ArrowRight")
    number = page.locator(".number").inner_text()
    said = page.locator(".readout").get_by_role("status")
    assert said.text_content() == f"depth {number}, larger is nearer"
    assert page.locator(".readout").aria_snapshot().count(number) == 1
    page.evaluate("location.hash = 'gallery'")
    page.get_by_label("Folder").select_option("2")
    page.locator(".name:text-is('m.jpg')").click()
    page.locator("dialog .frame").focus()
    page.keyboard.press("ArrowRight")
    said = page.locator("dialog .readout").get_by_role("status")
    assert said.text_content() == "depth 4.00 m"
    for _ in range(4):
        page.keyboard.press("Shift+ArrowUp")
    assert said.text_content() == "no depth here"


def test_a_clip_is_sent_watched_and_played(site, open_page):
    clip = make_clip(Path("walk.mp4"), frames=48, size=(160, 120), pixel_format="yuv420p")
    there = open_page(site, "#clips")
    page = there.page
    page.locator(".clips input[type=file]").set_input_files(clip)
    card = page.locator(".job[aria-label='walk.mp4']")
    card.locator(".results").wait_for()
    assert "Done · 48 frames" in card.inner_text()
    card.get_by_role("button", name="Play with its depth").click()
    films = "[...document.querySelectorAll('video')].map((one) => [one.currentTime, one.paused, one.readyState])"
    page.wait_for_selector(".player .compare video.over")
    card.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_timeout(700)
    (one, one_paused, _), (other, other_paused, _) = page.evaluate(films)
    assert not one_paused and not other_paused and one > 0.2 and abs(one - other) < 0.1
    card.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(200)
    (one, one_paused, _), (other, other_paused, _) = page.evaluate(films)
    assert one_paused and other_paused and abs(one - other) < 0.05
    page.get_by_label("Time").fill("0.5")
    page.wait_for_timeout(200)
    assert shot(there, ".screen").std() > 15
    card.get_by_role("button", name="Side by side").click()
    assert page.locator(".screen.beside > video").count() == 2
    film = card.get_by_role("listitem").filter(has=page.get_by_role("button", name="walk_depth.mp4", exact=True))
    assert site.ask("/v1").json["clip_formats"]["mp4"] in film.inner_text()
    assert not card.get_by_role("button", name="walk_depth.mp4.json").is_visible(), "notes come last"
    with page.expect_download() as waits:
        film.get_by_role("button").click()
    job = site.ask("/v1/jobs").json["jobs"][0]
    waits.value.save_as("got.mp4")
    film = next(file for file in job["files"] if file["format"] == "mp4")
    assert Path("got.mp4").read_bytes() == site.ask(film["url"]).body
    page.reload()
    page.locator(".job[aria-label='walk.mp4']").wait_for()
    page.get_by_role("button", name="Remove walk.mp4").click()
    page.locator(".job[aria-label='walk.mp4']").wait_for(state="detached")
    assert site.ask(job["url"]).status == 404


def test_a_clip_is_followed_and_cancelled(browser, serving, open_page):
    clip = make_clip(Path("long.mp4"), frames=60, pixel_format="yuv420p")
    with serving("--clips", "clips", network=0.2) as service:
        there = open_page(service, "#clips")
        there.page.locator(".clips input[type=file]").set_input_files(clip)
        card = there.page.locator(".job[aria-label='long.mp4']")
        card.get_by_text(re.compile(r"frame [2-9] of 60 · .* a second · .* left")).wait_for()
        assert 0 < card.locator("progress").evaluate("(bar) => bar.value") < 0.5
        there.page.reload()  # which the clip does not notice
        card.get_by_role("button", name="Cancel").click()
        card.get_by_text("Cancelled", exact=True).wait_for()
        assert until(lambda: service.ask("/v1/jobs").json["jobs"][0]["state"] == "cancelled")


def test_what_is_no_clip_says_why(site, open_page):
    Path("notes.mp4").write_text("no clip at all")
    there = open_page(site, "#clips")
    there.page.locator(".clips input[type=file]").set_input_files("notes.mp4")
    card = there.page.locator(".job[aria-label='notes.mp4']")
    card.locator(".problem").wait_for()
    job = site.ask("/v1/jobs").json["jobs"][0]
    assert job["error"] == card.locator(".problem").inner_text()
    card.get_by_role("button", name="Remove").click()


def test_a_gallery_shows_results_and_names_what_failed(site, open_page):
    there = open_page(site, "#gallery")
    page = there.page
    page.wait_for_selector(".grid li")
    assert page.locator(".grid .name").all_inner_texts() == ["a.jpg", "b.jpg", "c.jpg"]
    assert "truncated" in page.locator(".grid .failed .why").inner_text()
    page.wait_for_selector(".grid img[src*=thumb]")
    page.locator(".card").first.click()
    page.wait_for_selector("dialog .readout")
    page.locator("dialog .frame").focus()
    page.keyboard.press("ArrowRight")
    assert float(page.locator("dialog .number").inner_text()) > 0
    page.locator("dialog").get_by_role("button", name="Mesh", exact=True).click()
    page.wait_for_selector("dialog .solid canvas")
    page.wait_for_timeout(300)
    assert shot(there, "dialog .solid canvas").std() > 15
    page.locator("dialog").get_by_role("button", name="Next").click()
    page.wait_for_selector("dialog h1:text-is('b.jpg')")
    page.wait_for_selector("dialog .readout")
    assert page.locator("dialog").get_by_role("button", name="Next").is_disabled(), "what failed cannot be opened"
    page.keyboard.press("Escape")
    assert not page.locator("dialog.viewer").is_visible()
    page.get_by_role("button", name="Failed").click()
    page.wait_for_selector("text=1 result")
    assert page.locator(".grid .name").all_inner_texts() == ["c.jpg"]


def test_a_gallery_of_scenes_shows_their_pictures(site, open_page):
    there = open_page(site, "#gallery")
    there.page.get_by_label("Folder").select_option("1")
    there.page.locator(".name:text-is('group/scene')").click()
    there.page.wait_for_selector("dialog .pictures img")
    assert there.page.locator("dialog .pictures img").count() == 2
    assert there.page.locator("dialog").get_by_role("button", name="scene.glb").is_visible()


def test_metres_are_called_so_and_missing_depth_is_said(site, open_page):
    there = open_page(site, "#gallery")
    page = there.page
    page.get_by_label("Folder").select_option("2")
    page.locator(".name:text-is('m.jpg')").click()
    page.wait_for_selector("dialog .readout")
    box, said = page.locator("dialog .frame").bounding_box(), page.locator("dialog .readout p").first
    for u, v, text in ((0.3, 0.8, "2.50 m"), (0.7, 0.8, "4.00 m"), (0.3, 0.1, "– no depth here")):
        page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
        assert " ".join(said.inner_text().split()) == text
    assert page.locator("dialog .ends").inner_text().split() == ["far", "4.00", "m", "near", "2.50", "m"]
    assert page.locator("dialog .handle").count() == 0, "there is no photo to compare with"
    page.keyboard.press("PageDown")
    page.wait_for_selector("dialog h1:text-is('n.jpg')")
    page.locator("dialog .handle").press("End")  # the picture of both has the photo on its left
    assert abs(shot(there, "dialog .frame")[:, 40:-40].mean() - 210) < 3


def test_nothing_is_offered_that_the_service_lacks(browser, serving, open_page):
    with serving() as service:
        there = open_page(service, "#clips")
        there.page.wait_for_selector(".picker")
        assert there.page.locator(".photo").count() == 1 and not there.page.locator("#tabs").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_night(site, open_page, scheme):
    there = open_page(site, color_scheme=scheme, **PHONE)
    page = there.page
    page.get_by_role("heading", name="Choose a photo").wait_for()
    choose(there, photo("a.jpg", SIZE))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) > 200) == (scheme == "light")
    for place in ("#photo", "#clips", "#gallery"):
        page.evaluate("(place) => { location.hash = place; }", place)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, place
    page.evaluate("location.hash = '#photo'")
    page.locator(".readout").wait_for()
    buttons = [box for one in page.get_by_role("button").all() if (box := one.bounding_box())]
    assert len(buttons) > 8 and min(box["height"] for box in buttons) >= 36
    box = page.locator(".frame").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert abs(int(page.locator(".handle").get_attribute("aria-valuenow")) - 25) <= 1
    assert float(page.locator(".number").inner_text()) > 0


def test_without_cut_edges_the_points_cover_the_photo(site, open_page):
    there = open_page(site)
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Points", exact=True).click()
    cut = there.page.get_by_label("Cut edges")
    assert cut.is_checked()
    there.page.wait_for_timeout(300)
    middle = np.s_[120:500, 40:-40]  # of the photo, which is 810 x 540 of the 838 x 680 pixels
    few = drawn(shot(there, ".solid canvas")[middle]).mean()
    cut.uncheck()
    there.page.wait_for_timeout(300)
    assert few < 0.8 and drawn(shot(there, ".solid canvas")[middle]).mean() > 0.99
    assert cut.evaluate("(box) => box === document.activeElement")
    cut.check()
    there.page.wait_for_timeout(300)
    assert abs(drawn(shot(there, ".solid canvas")[middle]).mean() - few) < 0.01


def test_motion_stands_still_for_those_who_ask(site, open_page):
    there = open_page(site)  # reduced motion is what tests ask for
    choose(there, photo("a.jpg", SIZE))
    there.page.get_by_role("button", name="Mesh", exact=True).click()
    there.page.wait_for_selector("#main .solid canvas")
    there.page.wait_for_timeout(1200)
    before = shot(there, ".solid canvas")
    there.page.wait_for_timeout(500)
    assert np.array_equal(before, shot(there, ".solid canvas"))
