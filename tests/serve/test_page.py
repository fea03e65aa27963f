"""The files of the page: small, whole, alone, and the one viewer."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.serve.running import Service

page_files = pytest.importorskip("depthcli.serve.page_files", reason="the extra [serve] is not installed").page_files
FILES = page_files()
TEXTS = {name: file.content.decode() for name, file in FILES.items() if name.endswith((".html", ".css", ".js"))}
SCRIPTS = [name for name in TEXTS if name.endswith(".js")]


def test_it_is_small():
    own = sum(len(file.content) for name, file in FILES.items() if name in TEXTS and name != "viewer.js")
    assert own < 100_000
    sent = {name: len(file.zipped or file.content) for name, file in FILES.items() if not name.endswith(".jpg")}
    assert sent.pop("objects.js") < 3_500, "which a browser is sent if the service has a detector"
    assert sum(sent.values()) < 52_000, "bytes that every browser is sent, the viewer and the colours too"
    assert sum(len(file.content) for name, file in FILES.items() if name.endswith(".jpg")) < 100_000


def test_it_names_no_other_host():
    for name, text in TEXTS.items():
        assert not re.search(r"(https?|wss?)://|[\"'(]//", text), name
    icon = FILES["icon.svg"].content.decode()
    assert re.findall(r"https?://[^\"]*", icon) == ["http://www.w3.org/2000/svg"]  # a name, not an address


def test_everything_that_it_names_is_there():
    named = {name for text in TEXTS.values() for name in re.findall(r"[\"'`(]page/([\w.-]+)[\"'`)]", text)}
    imported = {name for text in TEXTS.values() for name in re.findall(r"(?:from |import\()\"\./([\w.-]+)\"", text)}
    examples = set(re.findall(r"\[\"([\w-]+\.jpg)\"", TEXTS["photo.js"]))
    assert len(examples) > 1 and named | imported | examples <= set(FILES)
    assert set(FILES) == named | imported | examples | {"index.html"}, "and nothing else is served"


def test_what_is_imported_is_exported():
    for name in SCRIPTS:
        for names, source in re.findall(r"import \{([^}]+)\} from \"\./([\w.-]+)\"", TEXTS[name]):
            for each in (one.strip() for one in names.split(",")):
                assert re.search(rf"export (async )?(function|class|const) {each}\b", TEXTS[source]), (name, each)


def test_nothing_in_it_needs_a_weaker_policy():
    index = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=", index) and not re.search(r"<script(?![^>]*\ssrc=)", index)
    for name in SCRIPTS:
        assert not re.search(r"\beval\(|new Function|innerHTML|document\.write|setAttribute\(\"style", TEXTS[name]), (
            name
        )


@pytest.mark.skipif(shutil.which("node") is None, reason="no parser of JavaScript")
def test_the_scripts_can_be_parsed():
    for name in SCRIPTS:
        Path(name).with_suffix(".mjs").write_text(TEXTS[name])
        assert subprocess.run(["node", "--check", Path(name).with_suffix(".mjs")], check=False).returncode == 0, name


@pytest.mark.skipif(shutil.which("node") is None, reason="nothing runs JavaScript")
def test_masks_are_read_as_they_were_written():
    from depthcli.io.masks import rle

    draw = np.random.default_rng(0)
    masks = [draw.random((37, 53)) < share for share in (0, 0.02, 0.5, 1)]
    masks += [np.pad(np.ones((150, 90), bool), ((40, 9), (1, 200))), np.tri(60, 41, dtype=bool)]
    # The function alone: what it stands beside needs a page.
    text = TEXTS["objects.js"]
    found = text[text.index("export function maskOf") : text.index("function ordinal")]
    given = [[rle.encode(mask), mask.shape[1], mask.shape[0]] for mask in masks]
    Path("read.mjs").write_text(f"{found}\nconsole.log(JSON.stringify({given!r}.map((one) => [...maskOf(...one)])));")
    ran = subprocess.run(["node", "read.mjs"], capture_output=True, text=True, check=True)
    for mask, seen in zip(masks, json.loads(ran.stdout)):
        assert (np.reshape(seen, mask.shape) == mask).all()


def test_the_viewer_is_that_of_the_pages_that_are_written():
    import depthcli.io.points.page as page

    assert FILES["viewer.js"].content.decode() == page._part("viewer.js")


def test_the_colours_are_those_of_the_maps():
    import base64

    from depthcli.choices.settings import COLORMAPS, DEFAULT_COLORMAP
    from depthcli.pixels.colormap import color_table

    known = json.loads(FILES["colors.json"].content)
    tables = known["tables"]
    assert known["usual"] == DEFAULT_COLORMAP and set(tables) == set(COLORMAPS)
    for name, text in tables.items():
        assert np.array_equal(np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3), color_table(name))


def test_it_is_served_under_a_strict_policy_and_compressed(service: Service):
    for place, name in (("/", "index.html"), *((f"/page/{name}", name) for name in FILES)):
        got = service.ask(place)
        assert got.body == FILES[name].content and got.headers["content-type"].split(";")[0] == FILES[name].media_type
        policy = got.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        packed = service.ask(place, headers={"Accept-Encoding": "gzip"})
        if FILES[name].zipped:
            assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == got.body
        else:
            assert packed.body == got.body
    kinds = {Path(name).suffix: file.media_type for name, file in FILES.items()}
    assert kinds[".js"] == "text/javascript" and kinds[".css"] == "text/css" and kinds[".svg"] == "image/svg+xml"
