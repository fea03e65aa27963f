"""Pages of HTML: what is in them, and that nothing in them runs or loads but the viewer."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import depthcli
from depthcli.camera import Distortion, LensModel
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.grid import grid_step
from depthcli.io.codecs.files import is_cut_short, read_facts
from depthcli.io.codecs.formats import may_be_ours
from depthcli.io.points.page import fitting_texture, grid_codes, page_data
from tests.conftest import TINY, photo
from tests.geometry.scenes import camera, metric, small

ALL = ShapeChoice(edges=None)
EVIL = "</script><img src=x onerror=alert(1)>&{{viewer}}\\1\u2028.jpg"


def page_of(depth: DepthMap, rgb: np.ndarray, choice: ShapeChoice = ALL) -> Path:
    depthcli.write_shape(depthcli.mesh(depth, rgb, choice), "x.html")
    return Path("x.html")


class Elements(html.parser.HTMLParser):
    """The tags of a page with their attributes, the texts of its scripts, and what lies in its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.title = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = (dict(attrs).get("id") or "code") if tag == "script" else tag

    def handle_data(self, data) -> None:
        if self.tags and self.tags[-1][0] == "script" and self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
        if self._inside == "title":
            self.title += data

    def handle_endtag(self, tag) -> None:
        self._inside = ""


def elements(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))


def data_of(path: Path) -> dict:
    return json.loads(elements(path).scripts["data"])


def depths(data: dict) -> np.ndarray:
    """The depths of the grid as the viewer computes them, NaN for none."""
    columns, rows, _ = data["step"]
    codes = np.frombuffer(base64.b64decode(data["z"]), "<u2").reshape(rows, columns).astype(np.float64)
    return np.where(codes > 0, data["near"] * (data["far"] / data["near"]) ** ((codes - 1) / 65534), np.nan)


def triangles(data: dict) -> set[frozenset[int]]:
    """The triangles as the viewer computes them."""
    columns, rows, _ = data["step"]
    packed = np.frombuffer(base64.b64decode(data["cells"]), np.uint8)
    found = set()
    for cell in range((rows - 1) * (columns - 1)):
        row, column = divmod(cell, columns - 1)
        corners = [(row + k // 2) * columns + column + k % 2 for k in range(4)]
        code = packed[cell // 2] >> (4 * (cell % 2)) & 15
        found |= {frozenset(corners) - {corners[lacks]} for lacks in range(4) if code >> lacks & 1}
    return found


def scene(size: tuple[int, int] = (64, 48)) -> tuple[DepthMap, np.ndarray]:
    """A near square before a slanted wall, in a photo of coloured noise."""
    y, x = np.mgrid[: size[1], : size[0]] / max(size)
    z = (4 + 2 * x).astype(np.float32)
    z[(abs(x - 0.4) < 0.15) & (abs(y - 0.4) < 0.15)] = 2
    rgb = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return metric(z, camera(size[0] * 0.9, size)), rgb


def test_depth_and_triangles_come_through():
    depth, rgb = scene()
    mesh = depthcli.mesh(depth, rgb, ShapeChoice(mesh_size=30))
    data = page_data(mesh, mesh.facts)
    step = data["step"][2]
    assert step == grid_step(depth.size, 30) == 3 and data["step"][:2] == [22, 17]
    rows, columns = np.append(np.arange(0, 48, 3), 47), np.arange(0, 64, 3)
    there = ~np.isnan(depths(data))
    assert len(mesh.vertices) == there.sum()
    assert np.nanmax(abs(depths(data) / depth.values[np.ix_(rows, columns)] - 1)) < 2e-5
    numbers = np.flatnonzero(there)
    assert triangles(data) == {frozenset(numbers[face].tolist()) for face in mesh.faces}
    assert len(mesh.faces) < 2 * 21 * 16 and data["rays"] is None and data["fill"]


def test_a_lens_sends_its_rays():
    depth, rgb = scene()
    lens = Distortion(LensModel.RADIAL, (-0.2, 0.02, 0.001, 0, 0))
    mesh = depthcli.mesh(replace(depth, camera=camera(58.0, depth.size, lens)), rgb, ALL)
    data = page_data(mesh, mesh.facts)
    rays = np.frombuffer(base64.b64decode(data["rays"]), "<f4").reshape(-1, 2)
    codes = grid_codes(mesh, 1)
    seen = mesh.vertices[:, :2] / mesh.vertices[:, 2:] * (-1, 1)  # OpenGL's axes: z is negative, y up
    assert np.abs(rays[codes.numbers] - seen).max() < 1e-5


def test_a_name_cannot_leave_its_place():
    depth, rgb = small()
    path = page_of(depth.with_provenance(Provenance(model="vits", source=EVIL)), rgb)
    found = elements(path)
    assert [tag for tag, _ in found.tags].count("script") == 4 and "img" not in [tag for tag, _ in found.tags]
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert data_of(path)["name"] == EVIL == read_facts(path)["source"]
    assert found.title == f"{EVIL} in three dimensions"
    assert EVIL not in path.read_text(encoding="utf-8")


def test_a_page_names_no_host_and_allows_none():
    path = page_of(*scene())
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text and "//cdn" not in text and 'src="' not in text
    (policy,) = (a["content"] for tag, a in elements(path).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-") and "unsafe" not in policy


def test_the_same_mesh_gives_the_same_bytes():
    first = page_of(*scene()).read_bytes()
    assert page_of(*scene()).read_bytes() == first


def test_a_page_says_what_it_is_and_is_not_read_back():
    path = page_of(*small())
    assert read_facts(path)["kind"] == "metric_depth" and read_facts(path)["shape"]["unit"] == "m"
    assert may_be_ours(path) and not is_cut_short(path)
    for read in (depthcli.read_shape, depthcli.read_depth):
        with pytest.raises(OutputError, match=r"x\.html"):
            read(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert is_cut_short(path)
    Path("other.html").write_text("<!doctype html><p>depthcli</p>")
    assert read_facts(Path("other.html")) == {}


def test_metres_need_a_known_camera():
    depth, rgb = small()
    assert data_of(page_of(depth, rgb))["unit"] == "m"
    data = data_of(page_of(replace(depth, camera=None), rgb))
    assert (data["unit"], data["camera"]["source"]) == ("arbitrary", "assumed")


def test_colours_run_with_the_numbers_of_the_map():
    depth, rgb = small()
    assert not data_of(page_of(depth, rgb))["inverse"]
    disparity = DepthMap(1 / depth.values, DepthKind.RELATIVE_DISPARITY, camera=depth.camera)
    assert data_of(page_of(disparity, rgb))["inverse"]


def test_masked_pixels_are_no_gap_to_fill():
    depth, rgb = scene()
    valid = np.ones(depth.values.shape, bool)
    valid[:10] = False
    assert not data_of(page_of(replace(depth, valid=valid), rgb))["fill"]


def test_a_large_texture_becomes_smaller_by_the_rule():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), np.uint8))
    stream = io.BytesIO()
    noise.save(stream, "JPEG", quality=92, subsampling=0)
    whole = stream.getvalue()
    assert fitting_texture(whole, len(whole)) is whole
    packed = fitting_texture(whole, len(whole) - 1)
    smaller = fitting_texture(whole, len(packed) - 1)
    smallest = fitting_texture(whole, 1000)
    sizes = [Image.open(io.BytesIO(content)).size for content in (packed, smaller, smallest)]
    assert sizes == [(1600, 1200), (1536, 1152), (1024, 768)] and len(whole) > len(packed) > len(smaller)


def test_a_mesh_of_anything_else_is_refused():
    depth, rgb = small()
    ours = depthcli.mesh(depth, rgb, ALL)
    for other in (
        replace(ours, camera=None),
        replace(ours, uv=ours.uv + np.float32(0.05)),
        replace(ours, faces=ours.faces[:, [0, 0, 1]]),
        replace(ours, faces=np.array([[0, 1, 34]])),
        replace(ours, facts={}),
    ):
        with pytest.raises(UsageError, match="page"):
            depthcli.write_shape(other, "y.html")
        assert not os.path.exists("y.html")
    with pytest.raises(UsageError):
        depthcli.write_shape(depthcli.points(depth, rgb, ALL), "y.html")


def test_the_command_writes_pages_of_pictures_and_folders(depth, tiny_weights):
    photo("photos/a.jpg")
    photo("photos/b.jpg")
    assert depth("dir", "photos", "-f", "html", *TINY, "--edges", "off").code == 0
    assert read_facts(Path("photos_depth/a_depth.html"))["source"] == "a.jpg"
    ran = depth("image", "photos/a.jpg", "-o", "-", "-f", "html", *TINY, "--edges", "off")
    assert ran.code == 0 and ran.stdout.startswith(b"<!doctype html>") and ran.stdout.endswith(b"</html>\n")
    assert depth("image", "photos/a.jpg", "-o", "a.html", *TINY, "--edges", "off").code == 0
    info = depth("info", "a.html")
    assert info.code == 0 and "page" in info.lines[0] and "a.jpg" in info.out
