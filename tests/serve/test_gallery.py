"""Folders of results, shown: what a run wrote, page by page, and nothing beside the folder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.io.codecs.files import read_depth
from tests.conftest import TINY, broken, photo


@pytest.fixture
def shown(serving, depth):
    """Two galleries: a folder of results, and scenes as Depth Anything 3 lays them out."""
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        photo(f"photos/{name}", (120, 80))
    broken("photos/d.jpg")
    assert depth("dir", str(Path("photos").resolve()), *TINY, "-o", "maps", "-f", "color,npz", "-q").code == 3
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(photo("da3/group/scene/depth_vis/0000.jpg"))
    photo("da3/group/scene/scene.jpg")
    Path("da3/group/scene/scene.glb").write_bytes(b"glTF")
    with serving("--gallery", "maps", "--gallery", "da3") as service:
        yield service


def test_a_gallery_shows_the_rows_of_the_manifest(shown):
    got = shown.ask("/v1/gallery").json
    assert (got["name"], got["total"], got["next"]) == ("maps", 4, None)
    assert [(item["name"], item["status"]) for item in got["items"]] == [
        ("a.jpg", "done"),
        ("b.jpg", "done"),
        ("d.jpg", "failed"),
        ("sub/c.jpg", "done"),
    ]
    first, failed = got["items"][0], got["items"][2]
    assert (
        [file["format"] for file in first["files"]] == ["color", "npz"] and first["model"] == "tiny" and first["depth"]
    )
    assert failed["error"].startswith("d.jpg ") and "/" not in failed["error"], "where it lies is nobody's business"
    assert "truncated" in failed["error"] and not failed["files"] and failed["thumb"] is None and not failed["depth"]
    for file in first["files"]:
        answer = shown.ask(file["url"])
        assert answer.body == Path("maps", file["name"]).read_bytes() and len(answer.body) == file["size"]
        assert answer.headers["content-type"] == file["media_type"]
    assert shown.ask(first["files"][1]["url"], headers={"Range": "bytes=0-3"}).body == b"PK\3\4"
    assert shown.ask("/v1").json["galleries"] == ["maps", "da3"]


def test_pages_follow_each_other_and_states_are_chosen(shown):
    names, cursor = [], ""
    while cursor is not None:
        got = shown.ask("/v1/gallery", limit=3, cursor=cursor).json
        names += [item["name"] for item in got["items"]]
        cursor = got["next"]
    assert names == ["a.jpg", "b.jpg", "d.jpg", "sub/c.jpg"]
    assert [item["name"] for item in shown.ask("/v1/gallery", status="failed").json["items"]] == ["d.jpg"]
    for wrong in ({"status": "lost"}, {"cursor": "x"}, {"limit": 0}, {"limit": 10**6}):
        assert shown.ask("/v1/gallery", **wrong).status == 400, wrong
    assert shown.ask("/v1/gallery", gallery=9).status == 404


def test_numbers_and_thumbnails(shown):
    item = shown.ask("/v1/gallery").json["items"][0]
    with Image.open(io.BytesIO(shown.ask(item["thumb"], max_side=40).body)) as thumb:
        assert thumb.format == "JPEG" and max(thumb.size) == 40
    got = shown.ask(f"/v1/gallery/{item['id']}/f32")
    numbers = np.frombuffer(got.body, "<f4").reshape(got.meta["height"], got.meta["width"])
    assert (numbers == read_depth("maps/a_depth.npz").values).all() and got.meta["kind"] == "relative_disparity"


def test_a_folder_of_numbers_alone_has_thumbnails_too(serving, depth):
    photo("photos/a.png")
    depth("dir", "photos", *TINY, "-o", "maps", "-f", "npz", "-q")
    with serving("--gallery", "maps") as service:
        (item,) = service.ask("/v1/gallery").json["items"]
        assert service.ask(item["thumb"]).body.startswith(b"\xff\xd8")


def test_scenes_of_depth_anything_3(shown):
    (item,) = shown.ask("/v1/gallery", gallery=1).json["items"]
    assert item["name"] == "group/scene" and not item["depth"]
    assert {file["format"] for file in item["files"]} == {"glb", "jpg", "vis-0000"}
    assert shown.ask(item["files"][0]["url"]).headers["content-type"] == "model/gltf-binary"
    assert shown.ask(item["thumb"]).status == 200


def test_a_result_that_comes_later_is_shown(shown, depth):
    photo("photos/e.jpg")
    depth("dir", "photos", *TINY, "-o", "maps", "-f", "color,npz", "-q")
    assert [item["name"] for item in shown.ask("/v1/gallery").json["items"]][-1] == "e.jpg"


def test_nothing_beside_the_folder_is_shown(shown):
    Path("secret.png").write_bytes(b"secret")
    Path("maps/link.png").symlink_to(Path("secret.png").resolve())
    Path("maps-x").mkdir()
    Path("maps-x/secret.png").write_bytes(b"secret")
    ways = [
        "../secret.png",
        str(Path("secret.png").resolve()),
        "link.png",
        "../maps-x/secret.png",
        "\0",
        "gone.png",
        ".",
    ]
    with Path("maps/manifest.jsonl").open("a") as manifest:
        for way in ways:
            manifest.write(json.dumps({"input": f"x{way}", "outputs": [way], "status": "done"}) + "\n")
    items = shown.ask("/v1/gallery").json["items"]
    assert len(items) == 4 + len(ways) and not any(item["files"] for item in items[4:])
    for item in items[4:]:
        for format in ("png", "color", "thumb", "f16", "file"):
            assert shown.ask(f"/v1/gallery/{item['id']}/{format}").status == 404
    (Path("da3/group") / "evil").mkdir()
    (Path("da3/group") / "evil/scene.glb").symlink_to(Path("secret.png").resolve())
    evil = [item for item in shown.ask("/v1/gallery", gallery=1).json["items"] if item["name"] == "group/evil"]
    assert evil and not evil[0]["files"]
