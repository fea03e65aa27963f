"""Objects: the answers are the files of the command line, for a picture that is sent and for a map that is kept."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import photo, tree
from tests.serve import detector
from tests.serve.running import Got, Service, running, until

SIZE = (120, 90)
LOCAL = ("--model", "tiny", "--input-size", "56", "--detector", "seg-nano")
ALL = ("json", "overlay", "masks", "mattes", "exr")


@pytest.fixture(scope="module")
def finder(tmp_path_factory, tiny_file, graphs) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("finder")
    options = ("--detector", "seg-nano", "--max-bytes", "4M", "--max-megapixels", "2")
    with running(folder, tiny_file, *options, STANDIN="1", DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


@pytest.fixture
def local(depth, monkeypatch):
    """Run `depth objects` with the same detector and return its files: local("a.png", "-f", "exr")."""
    monkeypatch.setattr("depthcli.backends.detector.open_detector", detector.open_detector)

    def run(picture: str, *options: object) -> dict[str, bytes]:
        ran = depth("objects", picture, *LOCAL, *options, "-o", "out")
        assert ran.code == 0, ran.err
        return tree("out")

    return run


def objects(service: Service, picture: Path, **query: object) -> Got:
    return service.ask("/v1/objects", picture.read_bytes(), **query)


def unpacked(got: Got) -> dict[str, bytes]:
    assert got.status == 200 and got.headers["content-type"] == "application/zip", got.body[:300]
    with zipfile.ZipFile(io.BytesIO(got.body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_all_files_are_those_of_the_command_line(finder: Service, local):
    picture = photo("a.png", SIZE)
    wanted = local("a.png", "-f", ",".join(ALL))
    assert len(wanted) == 7
    assert unpacked(objects(finder, picture, name="a.png", format=",".join(ALL))) == wanted
    for format, name in (("json", "a_objects.json"), ("overlay", "a_objects.png"), ("exr", "a_objects.exr")):
        got = objects(finder, picture, name="a.png", format=format)
        assert got.body == wanted[name] and f'filename="{name}"' in got.headers["content-disposition"]
    document = json.loads(wanted["a_objects.json"])
    assert [row["label"] for row in document["objects"]].count("person") == 2 and len(document["objects"]) == 3
    got = objects(finder, picture)
    assert got.headers["content-type"] == "application/json" and "order alone" in str(got.meta["warnings"])
    stages = [part.partition(";")[0] for part in got.headers["server-timing"].split(", ")]
    assert sorted(stages) == ["detector", "network", "queue", "read", "write"]


@pytest.mark.parametrize(
    ("options", "query"),
    [
        (("--threshold", "0.2", "--sort", "label"), {"threshold": 0.2, "sort": "label"}),
        (("--classes", "person,18", "--threshold", "0.1"), {"classes": "person,18", "threshold": 0.1}),
        (("--max-objects", "1", "--trim-px", "2", "--overlap", "0.1"),
         {"max_objects": 1, "trim_px": 2, "overlap": 0.1}),
        (("--scale-from", "at:60,45=2.5", "--fit", "scale", "--fov", "70", "--require-metric"),
         {"scale_from": "at:60,45=2.5", "fit": "scale", "fov": 70, "require_metric": 1}),
        (("--colormap", "gray", "--detail", "edges"), {"colormap": "gray", "detail": "edges"}),
        (("--classes", "dog"), {"classes": "dog"}),  # too unsure: no object is an answer too
    ],
)  # fmt: skip
def test_options_do_what_they_do_on_the_command_line(finder: Service, local, options, query):
    picture = photo("a.png", SIZE)
    wanted = local("a.png", "-f", ",".join(ALL), *options)
    assert unpacked(objects(finder, picture, name="a.png", format=list(ALL), **query)) == wanted


def test_a_detector_with_weights_notes_them_as_the_command_does(serving, depth, one_thread):
    from tests.nets.test_rf_detr import save_detector

    save_detector("hub")  # where the service runs too
    picture = photo("a.png", SIZE)
    options = ("--model", "tiny", "--input-size", "56", "--detector", "hub", "--backend", "torch")
    assert depth("objects", "a.png", *options, "--threshold", "0", "--overlap", "1", "-o", "out").code == 0
    with serving("--detector", "hub", "--backend", "torch") as service:
        got = objects(service, picture, name="a.png", format="json,overlay", threshold=0, overlap=1)
        about = service.ask("/v1").json["objects"]
    files = unpacked(got)
    assert files == tree("out")
    found = json.loads(files["a_objects.json"])
    assert len(found["made_from"]) == 16 and found["objects"] and about["name"] == "hub"
    assert about["digest"] == found["masks"]["digest"]


def test_a_kept_map_gives_the_same_and_runs_the_detector_once(finder: Service, local):
    picture = photo("a.png", SIZE)

    def passes() -> float:
        lines = finder.ask("/metrics").body.decode().splitlines()
        name = 'depth_network_duration_seconds_count{model="seg-nano"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = passes()
    place = finder.depth(picture, keep=1, name="a.png").json["url"]
    wanted = local("a.png", "-f", ",".join(ALL), "--threshold", "0.3")
    got = finder.ask(f"{place}/objects", threshold=0.3)
    assert got.body == wanted["a_objects.json"] and len(got.json["objects"]) == 4
    assert unpacked(finder.ask(f"{place}/objects/{','.join(ALL)}", threshold=0.3)) == wanted
    assert finder.ask(f"{place}/objects/masks", threshold=0.3).body == wanted["a_masks.png"]
    assert len(finder.ask(f"{place}/objects", threshold=0.9).json["objects"]) == 1
    assert finder.ask(f"{place}/gray").headers["content-type"] == "image/png"
    assert passes() == before + 1
    assert finder.ask(place, method="DELETE").status == 204
    assert finder.ask(f"{place}/objects").status == finder.ask(f"{place}/objects/exr").status == 404


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"treshold": 0.5}, "treshold"),
        ({"threshold": 2}, "threshold"),
        ({"threshold": "nan"}, "threshold"),
        ({"overlap": -1}, "overlap"),
        ({"trim_px": "inf"}, "trim_px"),
        ({"max_objects": 0}, "max_objects"),
        ({"classes": "unicorn"}, "unicorn"),
        ({"sort": "size"}, "sort"),
        ({"format": "gray"}, "gray"),
        ({"format": ","}, "format"),
        ({"colormap": "nope"}, "nope"),
        ({"model": "vitl"}, "vitl"),
        ({"input_size": 3}, "input_size"),
        ({"panorama": 1}, "panorama"),
        ({"require_metric": 1}, "metric"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(finder: Service, query, word):
    got = objects(finder, photo("a.png"), **query)
    assert (got.status, got.headers["content-type"]) == (400, "application/problem+json"), got.body
    assert got.json["exit_code"] == 2 and word in got.json["title"] + got.json["hint"]


def test_what_is_no_picture_or_too_much_is_refused(finder: Service):
    got = finder.ask("/v1/objects", b"nothing", name="shop.jpg")
    assert got.status == 422 and got.json["title"].startswith("shop.jpg ")
    assert finder.ask("/v1/objects", b"x" * (5 << 20)).status == 413
    assert objects(finder, photo("large.jpg", (2000, 1500))).status == 422
    form = finder.ask("/v1/objects", b"--x", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert form.status == 415
    place = finder.depth(photo("a.png"), keep=1).json["url"]
    for target in ("objects?classes=unicorn", "objects?formt=x", "objects/gray", "objects/..%2fexr"):
        assert finder.ask(f"{place}/{target}").status in (400, 404), target


@pytest.mark.parametrize("name", ["", "..", "/", "a/b/c.png", "\0", "x" * 1000, "ü😀.png", "a\nb.png"])
def test_any_name_of_a_picture_gives_files_with_names(finder: Service, name):
    files = unpacked(objects(finder, photo("a.png", SIZE), name=name, format="json,mattes"))
    assert len(files) == 4 and all(part for each in files for part in each.split("/"))
    assert len(json.loads(next(iter(files.values())))["objects"]) == 3


def test_the_service_says_what_it_finds(finder: Service, service: Service):
    about = finder.ask("/v1").json["objects"]
    assert about["name"] == "seg-nano" and about["classes"] == list(detector.CLASSES.values())
    assert (
        list(about["formats"]) == list(ALL) and about["engine"] == "stand-in 1 cpu fp32" and len(about["digest"]) == 12
    )
    assert b'depth_model_loaded{model="seg-nano"} 1.0' in finder.ask("/metrics").body
    assert service.ask("/v1").json["objects"] is None
    names = {item["name"] for item in finder.ask("/openapi.json").json["paths"]["/v1/objects"]["post"]["parameters"]}
    assert {"classes", "threshold", "format", "model"} <= names


def test_without_a_detector_it_is_said_how_to_start_one(service: Service):
    got = objects(service, photo("a.png"))
    assert got.status == 400 and "`detector`" in got.json["hint"] and got.json["exit_code"] == 2
    place = service.depth(photo("a.png"), keep=1).json["url"]
    assert service.ask(f"{place}/objects").status == service.ask(f"{place}/objects/exr").status == 400


def test_a_detector_that_cannot_be_had_ends_the_start(depth):
    ran = depth("serve", "--port", "0", "--models", "tiny", "--detector", "seg-pico")
    assert ran.code == 2 and "no detector is called 'seg-pico'" in ran.error
    ran = depth("serve", "--port", "0", "--models", "tiny", "--detector", "seg-nano", "--offline")
    assert ran.code == 4 and "into checkpoints/rf-detr-seg-nano/" in ran.error
    assert depth("serve", "--port", "0", "--models", "tiny", "--detector", "gone.pth").code == 4


def test_many_masks_do_not_fill_the_memory(serving, monkeypatch):
    with serving("--detector", "seg-nano", STANDIN="1", MASKS="20000") as service:
        assert objects(service, photo("small.png", (60, 60))).status == 200  # 3 masks of 3,600 pixels
        got = objects(service, photo("a.png", SIZE))
        assert got.status == 400 and "threshold" in got.json["hint"] and "3 masks of 120x90" in got.json["title"]
        assert objects(service, photo("a.png", SIZE), threshold=0.9).status == 200


def test_what_was_accepted_is_answered_and_new_work_is_not(serving):
    with serving("--detector", "seg-nano", STANDIN="1", DETECTOR="0.4") as service, ThreadPoolExecutor(3) as pool:
        picture = photo("a.png", SIZE)
        accepted = [pool.submit(objects, service, picture) for _ in range(3)]
        until(lambda: b"\ndepth_queue_length 3.0" in service.ask("/metrics").body)
        service.signal()
        got = until(lambda: (lambda got: got if got.status == 503 else None)(objects(service, picture)))
        assert int(got.headers["retry-after"]) >= 1 and "stopping" in got.json["title"]
        assert [future.result().status for future in accepted] == [200] * 3
        assert service.process.wait(10) == 0


def test_the_queue_is_one_and_a_picture_waits_for_one_pass_at_most(serving):
    with serving("--detector", "seg-nano", "--queue", "5", STANDIN="1", DETECTOR="0.5") as service:
        picture = photo("a.png", SIZE)
        with ThreadPoolExecutor(10) as pool:
            busy = [pool.submit(objects, service, picture) for _ in range(5)]
            until(lambda: b"\ndepth_queue_length 5.0" in service.ask("/metrics").body)
            time.sleep(0.1)  # the first pass has begun
            began = time.monotonic()
            assert service.depth(picture, format="f16").status == 200
            assert time.monotonic() - began < 1.0, "and not for all five, which take 2.5 s"
            more = [pool.submit(objects, service, picture) for _ in range(5)]
            answers = [future.result() for future in (*busy, *more)]
        assert {got.status for got in answers[:5]} == {200} and 503 in {got.status for got in answers[5:]}


def test_a_client_that_left_costs_no_pass(serving):
    with serving("--detector", "seg-nano", STANDIN="1", DETECTOR="0.4") as service:
        body = photo("a.png", SIZE).read_bytes()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(service.ask, "/v1/objects", body)
            until(lambda: b"\ndepth_queue_length 1.0" in service.ask("/metrics").body)
            for _ in range(3):
                with service.socket() as connection:
                    head = f"POST /v1/objects HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                    connection.sendall(head.encode() + body)
                    until(lambda: b"\ndepth_queue_length 2.0" in service.ask("/metrics").body)
            assert first.result().status == 200
        until(lambda: b'depth_pictures_total{result="left"} 3.0' in service.ask("/metrics").body)
        figures = service.ask("/metrics").body.decode()
        count = next(line for line in figures.splitlines() if 'duration_seconds_count{model="seg-nano"}' in line)
        assert float(count.split()[-1]) < 4
