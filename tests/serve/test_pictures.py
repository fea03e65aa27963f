"""Pictures: the answers are the bytes of the command line, and what is wrong is named."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY, photo, tree
from tests.serve.running import Service

FORMATS = ("color", "gray", "gray8", "npz", "exr", "tiff", "pfm", "npy", "ply", "glb", "html", "usdz", "side", "normal")


@pytest.mark.parametrize("format", FORMATS)
def test_one_format_is_what_the_command_line_sends_to_a_stream(service: Service, depth, format):
    picture = photo("a.jpg")
    got = service.depth(picture, format=format, name="a.jpg")
    assert got.status == 200
    assert got.body == depth("image", "a.jpg", *TINY, "-f", format, "-o", "-", "-q").stdout
    assert 'filename="a_depth' in got.headers["content-disposition"]


def test_a_zip_holds_the_files_of_the_command_line(service: Service, depth):
    photo("a.jpg")
    formats = "color,obj,npy,gray"
    assert depth("image", "a.jpg", *TINY, "-f", formats, "-o", "out/").code == 0
    got = service.depth(Path("a.jpg"), format=formats, name="a.jpg")
    with zipfile.ZipFile(io.BytesIO(got.body)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == tree("out")
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    named = service.depth(Path("a.jpg"), format="gray", name="a.jpg", file="x y.png")
    with zipfile.ZipFile(io.BytesIO(named.body)) as archive:
        assert archive.namelist() == ["x y.png"]
        assert archive.read("x y.png") == Path("out/a_depth_gray.png").read_bytes()


def test_options_do_what_they_do_on_the_command_line(service: Service, depth):
    picture = photo("a.png", (120, 60))
    for options, query in (
        (("--colormap", "gray", "--detail", "edges"), {"colormap": "gray", "detail": "edges"}),
        (("--panorama",), {"panorama": 1}),
        (("--scale-from", "range:0.5,20", "-f", "npz"), {"scale_from": "range:0.5,20", "format": "npz"}),
        (("-f", "ply", "--fov", "70", "--points", "100"), {"format": "ply", "fov": 70, "points": 100}),
    ):
        local = depth("image", picture, *TINY, *options, "-o", "-", "-q")
        assert service.depth(picture, name="a.png", **query).body == local.stdout, query


def test_the_input_size_is_that_of_the_request(service: Service, depth):
    picture = photo("a.png")
    local = depth("image", "a.png", "--encoder", "tiny", "--input-size", "70", "-o", "-")
    assert service.depth(picture, name="a.png", input_size=70).body == local.stdout


def test_bare_numbers_are_those_of_the_map(service: Service):
    picture = photo("a.png", (120, 80))
    with np.load(io.BytesIO(service.depth(picture, format="npz").body), allow_pickle=False) as kept:
        values = kept["depth"]
    whole = service.depth(picture, format="f32")
    assert (whole.meta["width"], whole.meta["height"]) == (120, 80)
    assert (np.frombuffer(whole.body, "<f4").reshape(80, 120) == values).all()
    small = service.depth(picture, format="f16", max_side=30)
    numbers = np.frombuffer(small.body, "<f2").reshape(small.meta["height"], small.meta["width"])
    assert numbers.shape == (20, 30)
    assert np.isin(numbers, values.astype("<f2")).all()
    assert numbers[0, 0] == values[2, 2].astype("<f2")


def test_pixels_without_depth_are_nan_in_bare_numbers(service: Service):
    from PIL import Image

    pixels = np.full((40, 60, 4), 200, np.uint8)
    pixels[:, :30, 3] = 0
    Image.fromarray(pixels).save("clear.png")
    got = service.depth(Path("clear.png"), format="f32", keep_alpha=1)
    numbers = np.frombuffer(got.body, "<f4").reshape(40, 60)
    assert np.isnan(numbers[:, :30]).all() and np.isfinite(numbers[:, 30:]).all()


def test_a_kept_map_is_rendered_again_and_again_and_forgotten(service: Service, depth):
    picture = photo("a.png")
    made = service.depth(picture, keep=1, name="a.png")
    assert made.status == 201 and made.json["meta"]["source"] == "a.png"
    place = made.headers["location"]
    assert made.json["url"] == place and service.ask(place).json == made.json
    depth("image", "a.png", *TINY, "-f", "gray,npz", "--colormap", "turbo", "-o", "out/", "-q")
    for format in ("gray", "npz"):
        assert service.ask(f"{place}/{format}").body == next(Path("out").glob(f"*{format}*")).read_bytes()
    assert service.ask(f"{place}/f16", max_side=20).meta["width"] == 20
    assert service.ask(f"{place}/color,gray").headers["content-type"] == "application/zip"
    assert service.ask(f"{place}/photo", max_side=16).body.startswith(b"\xff\xd8")
    assert service.ask(place, method="DELETE").status == 204
    assert service.ask(place).status == service.ask(f"{place}/gray").status == 404


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"formt": "gray"}, "formt"),
        ({"format": "tga"}, "tga"),
        ({"format": "f16,gray"}, "f16"),
        ({"format": "mp4"}, "film"),
        ({"model": "vitl"}, "vitl"),
        ({"model": "../../etc/passwd"}, "passwd"),
        ({"colormap": "nope"}, "nope"),
        ({"input_size": 3}, "input_size"),
        ({"input_size": 10**9}, "input_size"),
        ({"max_side": 100}, "max_side"),
        ({"format": "f16", "max_side": 1}, "max_side"),
        ({"points": "nan"}, "points"),
        ({"points": "inf"}, "points"),
        ({"edges": "2"}, "edges"),
        ({"focal": "nan"}, "focal"),
        ({"focal": 1, "fov": 2}, "focal"),
        ({"intrinsics": "/etc/passwd"}, "intrinsics"),
        ({"scale_from": "/etc/passwd"}, "reference"),
        ({"scale_from": "mm:/etc/passwd"}, "reference"),
        ({"detail": "more"}, "detail"),
        ({"panorama": 1, "format": "ply"}, "panorama"),
        ({"file": "../a.png"}, "name of a file"),
        ({"file": "a.exe"}, ".png"),
        ({"file": ["a.png", "b.png"]}, "file"),
        ({"format": "mm"}, "mm"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(service: Service, query, word):
    got = service.depth(photo("a.png"), **query)
    assert (got.status, got.headers["content-type"]) == (400, "application/problem+json")
    assert got.json["exit_code"] == 2 and word in got.json["title"] + got.json["hint"]


@pytest.mark.parametrize("body", [b"", b"http://127.0.0.1:1/photo.jpg", b"file:///etc/passwd", b"{}", b"%PDF-1.4"])
def test_what_is_no_picture_is_refused_by_name(service: Service, body):
    """Among them addresses: the service fetches nothing."""
    got = service.depth(body, name="shop.jpg")
    assert (got.status, got.json["exit_code"]) == (422, 1)
    assert got.json["title"].startswith("shop.jpg ")


def test_a_truncated_picture_is_refused_as_on_the_command_line(service: Service, depth):
    path = photo("a.jpg", (300, 200))
    path.write_bytes(path.read_bytes()[:-900])
    got = service.depth(path, name="a.jpg").json
    assert depth("image", "a.jpg", *TINY).error == f"error: {got['title']} ({got['hint']})"


def bomb(width: int, height: int) -> bytes:
    """Return a PNG that claims many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 900)) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_by_its_header(service: Service):
    service.depth(photo("a.png"))
    before, began = service.memory(), time.monotonic()
    got = service.depth(bomb(30_000, 30_000))
    assert got.status == 422 and "900 megapixels, the limit is 2" in got.json["title"]
    assert time.monotonic() - began < 15 and service.memory() - before < 20e6


def test_a_form_is_refused_with_the_command_that_works(service: Service):
    got = service.ask("/v1/depth?format=gray", b"--x", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert got.status == 415 and got.json["hint"] == "curl --data-binary @FILE '/v1/depth?format=gray'"


def test_the_answer_says_what_it_is(service: Service):
    picture = photo('ü "x".png', exif=b"")
    got = service.depth(picture, name=str(picture), format="gray")
    assert got.headers["content-disposition"].endswith("filename*=UTF-8''%C3%BC%20%22x%22_depth_gray.png")
    assert got.headers["content-type"] == "image/png"
    assert got.meta["kind"] == "relative_disparity" and got.meta["source"] == str(picture)
    assert {"notes", "warnings", "remembered", "size", "model"} <= set(got.meta)
    stages = dict(part.split(";dur=") for part in got.headers["server-timing"].split(", "))
    assert set(stages) == {"read", "queue", "network", "write"} and all(float(ms) >= 0 for ms in stages.values())


def test_the_service_says_what_it_offers(service: Service):
    about = service.ask("/v1").json
    (model,) = about["models"]
    assert (model["name"], model["loaded"], model["input_size"]) == ("tiny", True, 56)
    assert len(model["weights_sha256"]) == 64 and about["limits"]["max_bytes"] == 4 << 20
    assert {"color", "ply"} <= set(about["formats"]) and "mp4" in about["clip_formats"]
    assert about["raw_formats"] == ["f16", "f32"] and about["galleries"] == []


def test_the_figures_count_what_was_done(service: Service):
    def figures() -> dict[str, float]:
        lines = service.ask("/metrics").body.decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = figures()
    service.depth(photo("a.png", (50, 40)))
    service.depth(b"no picture")
    after = figures()

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert more('depth_pictures_total{result="done"}') == more('depth_pictures_total{result="failed"}') == 1
    assert more("depth_pixels_total") == 50 * 40
    assert more('depth_requests_total{route="/v1/depth",status="422"}') == 1
    assert more('depth_network_duration_seconds_count{model="tiny"}') == more("depth_batch_size_count") == 1
    assert after['depth_model_loaded{model="tiny"}'] == 1 and after["depth_queue_length"] == 0
    assert any(name.startswith("depth_build_info{engine=") for name in after)


def test_the_documentation_of_requests_loads_nothing_from_elsewhere(service: Service):
    page = service.ask("/docs").body.decode()
    links = [part.split('"')[0] for part in page.replace("href=", "src=").split('src="')[1:]]
    assert links and all(link.startswith("/") for link in links)
    for link in links:
        assert service.ask(link).status == 200
    paths = service.ask("/openapi.json").json["paths"]
    names = {item["name"] for item in paths["/v1/depth"]["post"]["parameters"]}
    assert {"format", "model", "name", "keep", "max_side"} <= names
    for methods in paths.values():
        for operation in methods.values():  # what generated clients believe
            assert set(operation["responses"]["default"]["content"]) == {"application/problem+json"}
            assert "422" not in operation["responses"], "as FastAPI has it, and this service does not"
    assert {"200", "201"} <= set(paths["/v1/depth"]["post"]["responses"])
    assert {"200", "204"} <= set(paths["/v1/jobs/{name}"]["delete"]["responses"])


def test_bare_numbers_are_named_among_the_formats_and_go_alone(service: Service):
    picture = photo("a.png")
    assert "f16" in service.depth(picture, format="nope").json["hint"]
    assert "by itself" in service.depth(picture, format="f16,gray").json["title"]
    got = service.depth(picture, format="gray", keep=1)
    assert got.status == 400 and "address" in got.json["title"], "nothing that was asked for is dropped in silence"


def test_a_picture_of_which_no_triangle_is_left_is_no_fault_of_the_service(service: Service):
    got = service.depth(photo("a.png", (1, 1)), format="glb")
    assert got.status == 422 and "triangle" in got.json["title"] and "edges" in got.json["hint"]


def test_unknown_places_are_problems(service: Service):
    for target in ("/nope", "/v1/nope", "/page/nope.js", "/v1/results/nope", "/v1/jobs/nope"):
        got = service.ask(target)
        assert (got.status, got.headers["content-type"]) == (404, "application/problem+json"), target
    assert service.ask("/v1/depth").status == 405


def test_the_page_and_its_files_are_there_and_small(service: Service):
    from depthcli.serve import app

    folder = Path(app.__file__).parent / "page"
    assert service.ask("/").body == (folder / "index.html").read_bytes()
    assert service.ask("/").headers["content-type"].startswith("text/html")
    for path in folder.iterdir():
        assert service.ask(f"/page/{path.name}").body == path.read_bytes()
    assert sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".html", ".css", ".js")) < 100_000


def test_json_of_a_problem_carries_the_id_of_the_request(service: Service):
    got = service.ask("/nope", headers={"X-Request-ID": "job-17.3"})
    assert got.headers["x-request-id"] == json.loads(got.body)["request_id"] == "job-17.3"
    assert len(service.ask("/livez", headers={"X-Request-ID": "a b"}).headers["x-request-id"]) == 16
