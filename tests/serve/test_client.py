"""`depth image` and `depth dir` with `--server`: the files, messages and exit codes of a local run."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

import depthcli
from depthcli.errors import PictureError, UsageError
from tests.conftest import TINY, broken, photo, tree
from tests.serve.running import Service, until

REMOTE = ("--input-size", "56")


def test_a_folder_gets_the_same_files_rows_and_exit_code(service: Service, depth):
    for name in ("a.jpg", "a.png", "ü.png", "sub/b.jpg"):
        photo(f"photos/{name}", (90, 60))
    broken("photos/c.jpg")
    formats = ("-f", "color,npz,obj,pfm", "-q")
    local = depth("dir", "photos", *TINY, "-o", "local", *formats)
    remote = depth("dir", "photos", *REMOTE, "-o", "remote", *formats, "--server", service.address)
    assert (remote.code, remote.err, remote.out) == (local.code, local.err, local.out) and local.code == 3
    assert tree("remote") == tree("local")

    def rows(folder: str) -> list[dict]:
        lines = [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]
        return [{key: row[key] for key in row if key not in ("ms", "files", "settings")} for row in lines]

    assert rows("remote") == rows("local")
    # The next run, on either machine, finds the results.
    for options in (("--server", service.address), ("--encoder", "tiny")):
        again = depth("dir", "photos", *REMOTE, "-o", "remote", *formats[:2], *options)
        assert again.code == 3 and "4 skipped, 1 failed" in again.err, again.err


def test_pictures_to_files_names_and_streams(service: Service, depth):
    photo("a.jpg")
    server = ("--server", service.address)
    for output in (("-o", "x.npz"), ("-o", "out/", "-f", "gray,ply"), ("-o", "out/", "--name", "{stem}-{format}"), ()):
        for where, options in (("local", TINY), ("remote", (*REMOTE, *server))):
            assert depth("image", "a.jpg", *options, *output, "-q").code == 0
            Path(where).mkdir(exist_ok=True)
            for path in [*Path("out").glob("*"), *Path().glob("x.npz"), *Path().glob("*_depth.png")]:
                path.rename(Path(where, path.name))
    assert len(tree("remote")) == 5 and tree("remote") == tree("local")
    sent = depth("image", "a.jpg", *REMOTE, *server, "-o", "-", "-f", "gray")
    assert sent.stdout == depth("image", "a.jpg", *TINY, "-o", "-", "-f", "gray").stdout
    data = Path("a.jpg").read_bytes()
    sent = depth("image", "-", *REMOTE, *server, "-o", "-", stdin=data)
    assert sent.stdout == depth("image", "-", *TINY, "-o", "-", stdin=data).stdout


def test_options_travel(service: Service, depth):
    photo("a.png", (120, 60))
    for options in (
        ("-f", "ply", "--fov", "80", "--points", "50", "--edges", "off"),
        ("--panorama", "--colormap", "turbo"),
        ("-f", "npz", "--scale-from", "range:1,9"),
        ("-f", "npz", "--intrinsics", "100,100,60,30", "--detail", "edges"),
    ):
        local = depth("image", "a.png", *TINY, *options, "-o", "-")
        remote = depth("image", "a.png", *REMOTE, *options, "-o", "-", "--server", service.address)
        assert (remote.stdout, remote.err) == (local.stdout, local.err), options


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--device", "cpu"), 2, "--device"),
        (("--precision", "fp32"), 2, "--precision"),
        (("--batch", "2"), 2, "--batch"),
        (("--checkpoint", "x.pth"), 2, "--checkpoint"),
        (("--offline",), 2, "--offline"),
        (("--encoder", "vits"), 2, "no model vits"),
        (("-m", "x.pth"), 2, "x.pth"),
        (("-f", "mm"), 2, "mm"),
        (("--intrinsics", "calibration.json"), 2, "--intrinsics"),
        (("--scale-from", "truth.png"), 2, "truth.png"),
        (("--server", "http://127.0.0.1:9"), 5, "depth serve"),
        (("--server", "ftp://x"), 2, "ftp://x"),
        (("--server", "unix:"), 2, "unix:"),
        (("--server", "unix:/nowhere.sock"), 5, "nowhere.sock"),
    ],
)
def test_what_the_service_cannot_do_is_said_before_anything_is_sent(service: Service, depth, options, code, word):
    photo("a.png")
    ran = depth("image", "a.png", "--server", service.address, *options)
    assert ran.code == code and word in ran.error and not list(Path().glob("*_depth*"))


def test_a_picture_that_cannot_be_read_fails_as_it_does_here(service: Service, depth):
    broken("a.jpg")
    Path("text.png").write_text("no picture")
    for picture in ("a.jpg", "text.png", "gone.png"):
        local, remote = depth("image", picture, *TINY), depth("image", picture, "--server", service.address)
        assert (remote.code, remote.err) == (local.code, local.err)


def test_the_variable_names_the_service_and_auto_finds_none(service: Service, depth, monkeypatch):
    photo("a.png")
    monkeypatch.setenv("DEPTH_SERVER", service.address)
    assert service.address in depth("image", "a.png", *REMOTE, "-v").err
    monkeypatch.setattr("depthcli.jobs.remote.DEFAULT_ADDRESS", "http://127.0.0.1:9")
    ran = depth("image", "a.png", *TINY, "--server", "auto")
    assert ran.code == 0 and "no service answers" in ran.err
    monkeypatch.setattr("depthcli.jobs.remote.DEFAULT_ADDRESS", service.address)
    assert f"asking {service.address}" in depth("image", "a.png", "--server", "auto").err


def test_a_unix_socket_serves_as_well(serving, depth):
    photo("a.png")
    with serving("--uds", "depth.sock"):
        assert depth("image", "a.png", "--server", "unix:depth.sock", "-o", "x.npz").code == 0
        assert depth("serve", "--check", "unix:depth.sock").code == 0
    assert depth("image", "a.png", *TINY, "-o", "y.npz").code == 0
    assert Path("x.npz").read_bytes() == Path("y.npz").read_bytes()


def test_a_token_is_taken_from_the_environment(serving, depth, monkeypatch):
    photo("a.png")
    with serving(DEPTH_TOKEN="open-sesame") as service:
        monkeypatch.delenv("DEPTH_TOKEN", raising=False)
        ran = depth("image", "a.png", "--server", service.address)
        assert ran.code == 5 and "DEPTH_TOKEN" in ran.error
        monkeypatch.setenv("DEPTH_TOKEN", "open-sesame")
        assert depth("image", "a.png", "--server", service.address).code == 0


def test_a_full_service_is_asked_again_until_all_are_done(serving, depth):
    for number in range(12):
        photo(f"photos/{number:02}.png", (60 + number, 50))
    with serving("--queue", 1, network=0.02) as service:
        others = [depthcli.Client(service.address) for _ in range(2)]
        ran = depth("dir", "photos", "-o", "out", "-q", "--server", service.address)
        assert ran.code == 0 and len(tree("out")) == 12
        for client in others:
            client.close()


@pytest.mark.parametrize(("options", "lines"), [((), 1), (("-q",), 0)])
def test_a_command_that_waits_for_a_full_service_says_so_once(serving, depth, options, lines):
    for number in range(3):
        photo(f"photos/{number}.png", (60 + number, 50))
    with serving("--queue", 1) as service:
        others = [service.socket() for _ in range(2)]  # each has a place, and never sends all of its picture
        for other in others:
            other.sendall(b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        until(lambda: "depth_queue_length 2.0" in service.ask("/metrics").body.decode())
        leave = Timer(3, lambda: [other.close() for other in others])
        leave.start()
        ran = depth("dir", "photos", "-o", "out", *options, "--server", service.address)
        leave.join()
    said = f"{service.address} is busy, waiting for it: the service has as much to do as it takes"
    assert ran.code == 0 and ran.err.splitlines().count(said) == lines and ran.err.count("busy") == lines, ran.err


def test_a_service_that_goes_away_ends_the_run_and_the_next_one_goes_on(serving, depth):
    for number in range(6):
        photo(f"photos/{number}.png")
    with serving(network=0.4) as service:
        Timer(1.0, service.process.kill).start()
        ran = depth("dir", "photos", "-o", "out", "-q", "--server", service.address)
    assert ran.code == 5 and "there is no service" in ran.err
    done = len(tree("out"))
    assert done < 6
    with serving() as service:
        ran = depth("dir", "photos", "-o", "out", "--server", service.address)
    assert ran.code == 0 and f"{6 - done} done" in ran.err and len(tree("out")) == 6


def test_python_asks_a_service(service: Service, tiny_weights):
    path = photo("a.png")
    with depthcli.Client(service.address) as client:
        assert client.about()["models"][0]["name"] == "tiny"
        client.check_ready()
        depth = client.estimate(path, fov=70)
        with depthcli.DepthEstimator("tiny", input_size=56, camera=depthcli.CameraChoice(fov="70")) as estimator:
            local = estimator.estimate(path)
        assert (depth.values == local.values).all() and depth.kind is local.kind and depth.range == local.range
        assert np.allclose(depth.camera.intrinsics, local.camera.intrinsics)
        assert depth.provenance.model == "tiny" and depth.provenance.source == "a.png"
        files = client.files(path.read_bytes(), ["gray"], name="a.png")
        assert list(files) == ["a_depth_gray.png"]
        assert set(client.files(path.read_bytes(), ["gray", "npy"], name="a.png")) == {
            "a_depth_gray.png",
            "a_depth.npy",
            "a_depth.npy.json",
        }
        with pytest.raises(UsageError, match="nope"):
            client.estimate(path, nope=1)
        with pytest.raises(PictureError, match="is not a picture"):
            client.estimate(b"text")
        with pytest.raises(PictureError, match=r"gone\.png"):
            client.estimate("gone.png")
