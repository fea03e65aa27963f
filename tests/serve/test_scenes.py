"""Scenes as jobs, and `depth scene --server`: the files, messages and exit codes of a local run."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import depthcli
from depthcli import read_scene
from depthcli.errors import PictureError, UsageError
from depthcli.jobs.remote import Client
from tests.conftest import broken, environment, photo, tree
from tests.io.video.clips import make_clip
from tests.predict import rooms
from tests.serve.running import Got, Service, running, until

FORMATS = ("npz", "mini_npz", "glb", "ply", "colmap", "transforms", "cameras", "poses", "depth_vis", "html")
MODEL = "da3-small"
SIZED = ("-m", MODEL, "--input-size", str(rooms.INPUT), "--confidence", "0")
QUERY = {"input_size": rooms.INPUT, "confidence": 0, "format": "npz"}


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny_file, graphs):
    folder = tmp_path_factory.mktemp("service")
    options = ("--models", f"tiny,{MODEL}", "--clips", "jobs", "--max-megapixels", "2", "--max-clip-bytes", "4M")
    with running(folder, tiny_file, *options, ROOM=str(rooms.INPUT), DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


@pytest.fixture
def serving(tmp_path, tiny_file):
    options = ("--models", f"tiny,{MODEL}", "--clips", "jobs")
    return lambda *more, **settings: running(tmp_path, tiny_file, *options, *more, ROOM=str(rooms.INPUT), **settings)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pictures of a scene, whose network is the same here and in the service."""
    rooms.use_room(monkeypatch)
    rooms.pictures(Path("room"))
    return Path("room")


def packed(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            archive.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def sparse(files: dict[str, bytes]) -> bytes:
    """A tar whose last file says that it is a terabyte of holes."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, (name, data) in enumerate(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == len(files) - 1:
                info.pax_headers = {"GNU.sparse.map": f"0,{len(data)}", "GNU.sparse.size": str(1 << 40)}
            archive.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def long_header(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT) + b"x" * size + b"\0" * 1024


def tar_of(folder: Path) -> bytes:
    return packed({path.name: path.read_bytes() for path in sorted(folder.iterdir())})


def send(service: Service, body: bytes, **query: object) -> Got:
    return service.ask("/v1/scenes", body, **{**QUERY, **query})


def ended(service: Service, url: str) -> dict[str, Any]:
    def look() -> Any:
        job = service.ask(url).json
        return job if job["state"] in ("done", "failed", "cancelled") else None

    return until(look, 60)


def files_of(service: Service, job: dict[str, Any]) -> dict[str, bytes]:
    """The files of a job with their places in the folder of the scene."""
    found: dict[str, bytes] = {}
    for file in job["files"]:
        data = service.ask(file["url"]).body
        assert len(data) == file["size"]
        if file["path"]:
            found[file["path"].removeprefix("scene/")] = data
        else:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                found |= {name: archive.read(name) for name in archive.namelist()}
    return found


def test_pictures_become_the_files_of_the_command_line(service: Service, room, depth):
    formats = ",".join((*FORMATS, "depth-exr"))
    sent = send(service, tar_of(room), format=formats, name="my room")
    assert (sent.status, sent.json["kind"], sent.json["name"]) == (202, "scene", "my room"), sent.body
    job = ended(service, sent.json["url"])
    assert (job["state"], job["error"], job["exit_code"], job["model"]) == ("done", "", 0, MODEL)
    assert [row["status"] for row in job["results"]] == ["done"] * 11
    assert depth("scene", room, *SIZED, "-f", formats, "-o", "local").code == 0
    assert files_of(service, job) == tree("local")
    names = [file["name"] for file in job["files"]]
    assert {"results.npz", "mini_npz-results.npz", "scene.glb", "colmap.zip", "scene.html", "depth-exr.zip"} <= {*names}
    assert len(set(names)) == len(names)
    assert service.ask(job["url"], method="DELETE").status == 204


def test_the_command_makes_the_same_files_with_a_service(service: Service, room, depth):
    broken(room / "3.png")
    formats = ("-f", ",".join((*FORMATS, "depth-npz")))
    local = depth("scene", room, *SIZED, *formats, "-o", "local")
    remote = depth("scene", room, *SIZED, *formats, "-o", "remote", "--server", service.address)
    assert local.code == remote.code == 3 and remote.out == local.out.replace("local/", "remote/"), remote.err
    assert tree("remote") == tree("local")
    said = [line for line in local.err.splitlines() if line.startswith("error")]
    assert said == [line for line in remote.err.splitlines() if line.startswith("error")] and "room/3.png" in said[0]
    assert not [job for job in service.ask("/v1/jobs").json["jobs"] if job["key"]], "nothing is left there"
    # Either machine finds the files, and makes further ones of them.
    for folder, where in (("remote", ()), ("local", ("--server", service.address))):
        again = depth("scene", room, *SIZED, "-f", ",".join((*FORMATS, "depth-npz", "depth-exr")), "-o", folder, *where)
        assert again.code == 3 and "11 skipped" in again.err and "further formats" in again.err, again.err
    assert tree("remote") == tree("local")


def test_pictures_of_several_folders_and_options_of_points(service: Service, room, depth):
    Path("other").mkdir()
    shutil.move("room/2.png", "other/0.png")
    inputs, options = ("room/1.png", "room/0.png", "other/0.png"), ("--points", "500", "--edges", "off", "--ray-pose")
    for folder, where in (("local", ()), ("remote", ("--server", service.address))):
        ran = depth("scene", *inputs, *SIZED, *options, "-f", "ply,colmap-txt,npz", "-o", folder, *where)
        assert ran.code == 0, ran.err
    assert tree("remote") == tree("local")
    assert [view.name for view in read_scene("remote/exports/npz/results.npz").views] == [*inputs]


def test_frames_of_a_clip(service: Service, depth, monkeypatch):
    rooms.use_room(monkeypatch)
    clip = make_clip(Path("walk.mp4"), frames=12, size=(84, 56))
    options = ("--frames", "3", "-f", "npz,transforms,depth-npz")
    for folder, where in (("local", ()), ("remote", ("--server", service.address))):
        ran = depth("scene", clip, *SIZED, *options, "-o", folder, *where)
        assert ran.code == 0, ran.err
    assert tree("remote") == tree("local") and len(list(Path("remote/images").iterdir())) == 3


def test_the_client_in_python(service: Service, room):
    with Client(service.address) as client:
        scene = client.estimate_scene(room, input_size=rooms.INPUT)
        assert len(scene.views) == 3 and scene.facts["model"] == MODEL
        made = client.scene_files(sorted(room.iterdir()), "out", ["ply", "npz"], input_size=rooms.INPUT, confidence=0)
        assert sorted(path.name for path in made) == ["results.npz", "scene.ply"] and all(map(Path.is_file, made))
        other = read_scene("out/exports/npz/results.npz")
        assert np.array_equal(other.views[1].depth.values, scene.views[1].depth.values)
        with pytest.raises(UsageError, match="no option 'colour'"):
            client.estimate_scene(room, colour="red")
        broken(room / "9.png")
        with pytest.raises(PictureError, match=r"9\.png"):
            client.estimate_scene(room, input_size=rooms.INPUT)
    assert depthcli.Client is Client


def test_a_client_loads_no_torch(service: Service, room):
    code = (
        "import sys; from depthcli.cli import app\n"
        f"sys.argv = ['depth', 'scene', 'room', '-q', '--server', {service.address!r}, '--input-size', '84']\n"
        "try: app.run()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print([name for name in ('torch', 'openvino', 'onnxruntime', 'fastapi') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert ran.stdout.strip().endswith("[]"), ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ({"format": "mp4"}, 400, "a scene is not written as mp4"),
        ({"format": "glb,glb-mesh"}, 400, "same place"),
        ({"format": "gs_ply"}, 400, "no Gaussians"),
        ({"model": "tiny"}, 400, "da3-small"),
        ({"model": "da3-large"}, 400, "choose from: da3-small"),
        ({"metres": 1}, 400, "da3-metric"),
        ({"chunk": 1}, 400, "chunk"),
        ({"chunk": 4, "format": "npz"}, 400, "all views at once"),
        ({"fps": 2}, 400, "frames of a clip"),
        ({"confidence": 100}, 400, "confidence"),
        ({"edges": "x"}, 400, "edges"),
        ({"mixed": "x"}, 400, "mixed"),
        ({"name": "../x"}, 400, "without a folder"),
        ({"poses": "/etc/passwd"}, 400, "no parameter 'poses'"),
        ({"key": "x"}, 400, "key"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(service: Service, room, query, status, word):
    got = send(service, tar_of(room), **query)
    assert got.status == status and word in got.json["title"] + got.json["hint"], got.body
    assert service.ask("/v1/jobs").json["jobs"] == [] or all(j["state"] != "queued" for j in _jobs(service))


def _jobs(service: Service) -> list[dict[str, Any]]:
    return service.ask("/v1/jobs").json["jobs"]


def test_bodies_that_are_no_scene_are_refused_by_name(service: Service, room):
    one, before = (room / "0.png").read_bytes(), _jobs(service)
    big = photo("big.png", (2000, 1001)).read_bytes()
    for body, status, word in [
        (b"", 422, "empty"),
        (one, 422, "not a tar of pictures"),
        (b"http://example.org/a.tar", 422, "not a tar of pictures"),
        (packed({}), 400, "there is no picture"),
        (packed({"a.png": one}), 400, "one picture has no pose"),
        (packed({"a.png": one, "notes.txt": b"x"}), 400, "one picture has no pose"),
        (packed({"a.png": one, "../b.png": one}), 400, "../b.png in the tar is not the name of a picture"),
        (packed({"a.png": one, "/b.png": one}), 400, "/b.png in the tar"),
        (packed({"a.png": one, "b\n.png": one}), 400, "b\\n.png in the tar"),
        (packed({"a.png": b"", "b.png": b""}, tarfile.SYMTYPE), 400, "a.png in the tar"),
        (packed({"a.png": b"", "b.png": b""}, tarfile.LNKTYPE), 400, "a.png in the tar"),
        (packed({"a.png": one, "b.png": b""}, tarfile.FIFOTYPE), 400, "a.png in the tar"),
        (sparse({"a.png": one, "b.png": one}), 400, "b.png in the tar"),
        (long_header(2 << 20), 422, "a header is too long"),
        (packed({"a.png": one, "./a.png": one}), 400, "a.png is named twice"),
        (packed({"a.png": one, "b.png": big}), 422, "b.png has 2000x1001 pixels"),
        (packed({"a.png": one, "b.png": one})[: 512 + len(one) // 2], 422, "unexpected end of data"),
        (b"x" * (5 << 20), 413, "larger than"),
    ]:
        got = send(service, body)
        assert got.status == status and word in got.json["title"], (word, got.body)
    form = service.ask("/v1/scenes", one, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert form.status == 415 and "tar c" in form.json["hint"]
    assert _jobs(service) == before


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_is_made(service: Service, room):
    broken(room / "3.png")
    job = ended(service, send(service, tar_of(room)).json["url"])
    assert (job["state"], job["exit_code"]) == ("failed", 3) and job["error"].startswith("3.png is truncated")
    assert [file["name"] for file in job["files"]] == ["results.npz"]
    for name in ("1.png", "2.png"):
        broken(room / name)
    job = ended(service, send(service, tar_of(room)).json["url"])
    assert (job["exit_code"], job["files"]) == (2, []) and "one picture has no pose" in job["error"]


def test_fewer_views_are_taken_evenly_if_so_many_are_asked_for(service: Service, room, depth):
    options = ("--max-views", "2", "-f", "npz,poses")
    local = depth("scene", room, *SIZED, *options, "-o", "local")
    remote = depth("scene", room, *SIZED, *options, "-o", "remote", "--server", service.address)
    words = "2 of 3 pictures are taken, evenly (--max-views)"
    assert local.code == remote.code == 0 and words in local.err.splitlines() and words in remote.err.splitlines()
    job = ended(service, send(service, tar_of(room), max_views=2, format="npz,poses").json["url"])
    assert job["state"] == "done" and words.replace("--max-views", "`max_views`") in job["notes"]
    assert files_of(service, job) == tree("local") == tree("remote")
    assert [view.name for view in read_scene("remote/exports/npz/results.npz").views] == ["0.png", "2.png"]


def test_more_views_than_the_memory_holds_are_refused_with_the_number_that_would_fit(serving, room, depth, monkeypatch):
    free = rooms.bytes_of(2)
    rooms.use_room(monkeypatch, free)
    local = depth("scene", room, *SIZED, "-o", "local")
    with serving(FREE=str(free)) as service:
        remote = depth("scene", room, *SIZED, "-o", "remote", "--server", service.address)
        assert (remote.code, remote.err) == (local.code, local.err) and local.code == 1
        error = remote.err.splitlines()[-1]
        assert "3 views of 84x56" in error and "--max-views 2 would fit" in error
        job = ended(service, send(service, tar_of(room)).json["url"])
        assert (job["state"], job["exit_code"], job["files"]) == ("failed", 1, [])
        assert error == "error: " + re.sub("`([a-z_]+)`", lambda name: f"--{name[1].replace('_', '-')}", job["error"])
        assert ended(service, send(service, tar_of(room), max_views=2).json["url"])["state"] == "done"
        chunks = ended(service, send(service, tar_of(room), chunk=2, format="poses").json["url"])
        assert chunks["state"] == "done", chunks["error"]


def test_errors_of_the_command_are_those_of_a_local_run(service: Service, room, depth):
    for name in ("1.png", "2.png"):
        broken(room / name)
    local, remote = (
        depth("scene", "room", *SIZED, "-o", "out", *where) for where in ((), ("--server", service.address))
    )
    assert local.code == remote.code == 2 and local.err == remote.err, (local.err, remote.err)


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--device", "cpu"), 2, "--device"),
        (("--poses", "x.json"), 2, "--poses"),
        (("--align-to-input-scale",), 2, "--align-to-input-scale"),
        (("--metres",), 2, "da3-metric"),
        (("-m", "da3-giant"), 2, "no model da3-giant"),
        (("-m", "tiny"), 2, "no model tiny"),
        (("--max-views", "1"), 2, "--max-views"),
        (("-f", "mp4"), 2, "a scene is not written as mp4"),
        (("--server", "http://127.0.0.1:9"), 5, "depth serve"),
    ],
)
def test_what_a_service_cannot_do_is_said(service: Service, room, depth, options, code, word):
    ran = depth("scene", room, "--server", service.address, *options)
    assert ran.code == code and word in ran.err.splitlines()[-1], ran.err


def test_a_posed_folder_is_for_a_local_run(service: Service, room, depth):
    assert depth("scene", room, *SIZED, "-f", "cameras", "-o", "room").code == 2
    assert depth("scene", room, *SIZED, "-f", "cameras", "-o", "out").code == 0
    shutil.copy("out/cameras.json", "room")
    ran = depth("scene", room, *SIZED, "--server", service.address)
    error = ran.err.splitlines()[-1]
    assert ran.code == 2 and "without cameras" in error and "--server" in error


def test_a_service_without_a_model_for_scenes_says_how_to_get_one(tmp_path, tiny_file, room, depth):
    for number, options in enumerate((("--clips", "jobs"), ())):
        folder = tmp_path / str(number)
        folder.mkdir()
        with running(folder, tiny_file, *options) as plain:
            got = send(plain, tar_of(room))
            assert got.status == 400 and "tiny,da3-small" in got.json["hint"] and "`clips`" in got.json["hint"]
            assert plain.ask("/v1").json["scene_formats"] == {}
            ran = depth("scene", room, "--server", plain.address)
            assert ran.code == 2 and "makes no scenes" in ran.error and "--clips" in ran.error


def test_models_for_scenes_need_a_folder_and_another_first(depth):
    ran = depth("serve", "--models", "tiny,da3-small", "--port", "0")
    assert ran.code == 2 and "--clips" in ran.error
    ran = depth("serve", "--models", "da3-small", "--port", "0", "--clips", "x")
    assert ran.code == 2 and "da3-small is a model for scenes" in ran.error


def test_a_killed_service_goes_on_with_a_scene(serving, room, depth):
    depth("scene", room, *SIZED, "-f", "npz,depth_vis", "-o", "local")
    body = tar_of(room)
    with serving(network=60) as one:
        url = send(one, body, format="npz,depth_vis").json["url"]
        until(lambda: one.ask(url).json["stage"] == "depth")
        one.signal(signal.SIGKILL)
        one.process.wait()
    with serving() as two:
        job = ended(two, url)
        assert job["state"] == "done" and files_of(two, job) == tree("local")


def test_a_stopping_service_leaves_a_scene_to_the_next_one(serving, room, depth, tmp_path):
    depth("scene", room, *SIZED, "-f", "npz,depth_vis", "-o", "local")
    with serving("--drain", "600s", network=600) as one:
        url = send(one, tar_of(room), format="npz,depth_vis").json["url"]
        until(lambda: one.ask(url).json["stage"] == "depth")
        assert one.stop() == 0, "long before the network would be done, or the time to drain is over"
    (kept,) = tmp_path.glob("jobs/*/job.json")
    assert json.loads(kept.read_text())["state"] == "queued"
    with serving() as two:
        job = ended(two, url)
        assert job["state"] == "done" and files_of(two, job) == tree("local")


def test_a_service_ends_in_time_although_a_layer_takes_longer(serving, room):
    with serving("--drain", "1s", network=60, DEAF="1") as service:
        url = send(service, tar_of(room)).json["url"]
        until(lambda: service.ask(url).json["stage"] == "depth")
        began = time.monotonic()
        assert service.stop() == 0 and time.monotonic() - began < 20


def test_a_scene_that_is_cancelled_in_its_network_makes_room_at_its_next_layer(serving, room, tmp_path):
    def layers() -> int:
        return (tmp_path / "layers").stat().st_size

    with serving(network=600) as service:
        one, two = (send(service, tar_of(room)).json["url"] for _ in range(2))
        until(lambda: (tmp_path / "layers").exists())
        assert service.ask(two).json["ahead"] == 1
        assert service.ask(one, method="DELETE").json["state"] == "cancelled"
        # The network has 30,000 layers; the second scene has it as soon as the first one has left it.
        until(lambda: service.ask(two).json["stage"] == "depth")
        assert service.ask(one).json["files"] == [] and not list(tmp_path.glob(f"jobs/{one.rpartition('/')[2]}/files"))
        service.ask(two, method="DELETE")
        until(lambda: 'depth_jobs{state="running"} 0.0' in service.ask("/metrics").body.decode())
        done = layers()
        time.sleep(0.2)
        assert layers() == done, "nothing runs any more"


def test_a_picture_is_answered_while_a_scene_is_made(serving, room):
    photo("a.png")
    with serving(network=120, PICTURES="0") as service:
        url = send(service, tar_of(room)).json["url"]
        until(lambda: service.ask(url).json["stage"] == "depth")
        assert service.depth(Path("a.png"), format="f16").status == 200
        assert service.ask(url).json["state"] == "running"
        Path("go").touch()
        assert ended(service, url)["state"] == "done"


def test_jobs_tell_their_place_in_the_queue_and_are_cancelled(serving, room):
    with serving(network=120) as service, ExitStack() as stack:
        urls = [send(service, tar_of(room), name=f"scene {number}").json["url"] for number in range(3)]
        until(lambda: service.ask(urls[0]).json["stage"] == "depth")
        assert [service.ask(url).json["ahead"] for url in urls] == [0, 1, 2]
        command = [sys.executable, "-m", "depthcli", "scene", "room", *SIZED, "-f", "npz", "-o", "out", "--server"]
        client = stack.enter_context(
            subprocess.Popen([*command, service.address], env=environment(), stderr=subprocess.PIPE, text=True)
        )
        stack.callback(client.kill)
        mine = until(lambda: next((job for job in _jobs(service) if job["key"]), None))
        assert mine["ahead"] == 3
        time.sleep(1)  # so that the client has seen it
        assert service.ask(urls[1], method="DELETE").json["state"] == "cancelled"
        assert [service.ask(url).json["ahead"] for url in (urls[0], urls[2], mine["url"])] == [0, 1, 2]
        for url in (urls[2], urls[0]):
            service.ask(url, method="DELETE")
        Path("go").touch()
        _, said = client.communicate(timeout=60)
        assert client.returncode == 0 and f"waits for 3 jobs before it at {service.address}" in said, said
        assert until(lambda: service.ask(urls[0]).json["state"]) == "cancelled"
        assert service.ask(urls[0]).json["files"] == []


def test_a_client_that_is_stopped_cancels_and_one_that_is_killed_is_taken_up(serving, room):
    command = [sys.executable, "-m", "depthcli", "scene", "room", *SIZED, "-f", "npz", "-o", "out", "--server"]
    with serving(network=120) as service:

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen([*command, service.address], env=environment(), stderr=subprocess.PIPE)
            until(lambda: any(job["stage"] == "depth" for job in _jobs(service)))
            return process

        one = start()
        one.send_signal(signal.SIGINT)
        assert one.wait(30) == 130
        one.communicate()
        until(lambda: all(job["state"] == "cancelled" for job in _jobs(service)))
        assert not Path("out/exports").exists()
        two = start()
        two.kill()
        two.communicate()
        Path("go").touch()
        three = subprocess.run([*command, service.address], env=environment(), capture_output=True, check=False)
        assert three.returncode == 0, three.stderr
        assert [job["state"] for job in _jobs(service)] == ["cancelled"] and Path("out/exports/npz").is_dir()


def test_the_document_of_the_interface_has_scenes(service: Service):
    document = service.ask("/openapi.json").json
    names = {item["name"] for item in document["paths"]["/v1/scenes"]["post"]["parameters"]}
    assert {"format", "model", "max_views", "chunk", "metres", "fps", "ray_pose"} <= names
    about = service.ask("/v1").json
    assert set(FORMATS) <= set(about["scene_formats"]) and "depth-exr" in about["scene_formats"]
    rows = {row["name"]: row for row in about["models"]}
    assert rows[MODEL]["task"] == "scene" and json.dumps(about)


def test_a_tar_of_countless_entries_is_refused(tmp_path, monkeypatch):
    from depthcli.serve import scene_work

    monkeypatch.setattr(scene_work, "_MOST_MEMBERS", 5)
    (tmp_path / "x.tar").write_bytes(packed({f"{number}.txt": b"" for number in range(6)}))
    with pytest.raises(UsageError, match="more than 5 entries"):
        scene_work._unpack(tmp_path / "x.tar", tmp_path, 1000)
    monkeypatch.setattr(scene_work, "_MOST_PICTURES", 2)
    (tmp_path / "y.tar").write_bytes(packed({f"{number}.png": b"" for number in range(3)}))
    with pytest.raises(UsageError, match="more than 2 pictures"):
        scene_work._unpack(tmp_path / "y.tar", tmp_path, 1000)


def test_scenes_need_twice_their_bytes_on_the_disk_and_go_when_their_time_is_over(serving, room):
    body = tar_of(room)
    with serving("--disk", 3 * len(body) // 2) as service:
        full = send(service, body)
        assert full.status == 507 and "fill their part" in full.json["title"], full.body
    with serving("--keep", "1s") as service:
        job = ended(service, send(service, body, format="glb").json["url"])
        time.sleep(1.5)
        assert send(service, body).status == 202 and service.ask(job["url"]).status == 404
