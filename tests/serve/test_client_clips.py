"""`depth video --server`: the films, messages and exit codes of a local run, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from depthcli.errors import EngineError
from depthcli.jobs.remote import Client
from tests.conftest import environment, photo, tree
from tests.io.video.clips import make_clip
from tests.serve.running import Service, until

TINY = ("-m", "tiny", "--input-size", "56")


@pytest.fixture
def clip() -> Path:
    Path("in").mkdir()
    return make_clip(Path("in/a.mp4"), frames=12)


@pytest.mark.parametrize(
    "options",
    [
        ("-f", "mp4,gray,npz", "-o", "out/"),
        ("-f", "side", "-o", "out/x.mp4", "--start", "0.1", "--fps", "12", "--range", "0,9", "--scene", "off"),
        ("-o", "out/", "-f", "npz,ply", "--fov", "60", "--points", "300", "--edges", "off", "--axes", "zup"),
        (
            "-o",
            "out/",
            "-f",
            "exr,glb",
            "--intrinsics",
            "50,50,20,15",
            "--scale-from",
            "at:5,5=2",
            "--scale-from",
            "at:30,20=4",
        ),
        ("-o", "out/", "-f", "npz", "--f35", "28", "--scale-from", "ground:1.5"),
        ("-f", "ffv1", "--max-frames", "5", "--stride", "2", "--steady", "off", "--colormap", "turbo"),
    ],
)
def test_a_clip_becomes_the_same_files(service: Service, clip, depth, options):
    local = depth("video", clip, *TINY, *options)
    assert local.code == 0, local.err
    made = {**tree("in"), **tree("out")}
    shutil.rmtree("out", ignore_errors=True)
    for path in Path("in").glob("*_depth*"):
        path.unlink()
    remote = depth("video", clip, *TINY, *options, "--server", service.address)
    assert (remote.code, remote.out) == (0, local.out), remote.err
    assert {**tree("in"), **tree("out")} == made
    assert not [job for job in service.ask("/v1/jobs").json["jobs"] if job["key"]]  # nothing is left there
    # Either machine finds them.
    for where in ((), ("--server", service.address)):
        again = depth("video", clip, *TINY, *options, *where)
        assert again.code == 0 and "1 skipped" in again.err and "warning" not in again.err, again.err


def test_a_name_for_the_size_is_noted_as_it_was_given(service: Service, clip, depth):
    for folder, where in (("one", ()), ("two", ("--server", service.address))):
        assert depth("video", clip, "--encoder", "tiny", *TINY[2:], "-o", f"{folder}/", *where).code == 0
    assert tree("one") == tree("two")
    assert "encoder=tiny" in json.loads(Path("two/a_depth.mp4.json").read_text())["settings"]


def test_what_could_be_read_of_a_damaged_clip_is_the_same(service: Service, depth):
    Path("in").mkdir()
    whole = make_clip(Path("whole.avi"), frames=30, codec="mjpeg", pixel_format="yuvj420p").read_bytes()
    Path("in/a.avi").write_bytes(whole[: len(whole) * 6 // 10])
    local = depth("video", "in/a.avi", *TINY, "-q", "-o", "one/")
    remote = depth("video", "in/a.avi", *TINY, "-q", "-o", "two/", "--server", service.address)
    assert local.code == 3 and "in/a.avi" in local.error
    assert (remote.code, remote.error) == (local.code, local.error)
    assert tree("one") == tree("two") and json.loads(Path("two/a_depth.mp4.json").read_text())["damage"]


def test_several_clips_and_one_that_is_none(service: Service, clip, depth):
    make_clip(Path("in/b.mp4"), frames=3)
    Path("in/c.mp4").write_text("no clip")
    for folder, where in (("one", ()), ("two", ("--server", service.address))):
        ran = depth("video", "in", *TINY, "-o", folder, *where)
        assert ran.code == 3 and "error: in/c.mp4 " in ran.err, ran.err
        rows = [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]
        assert [(row["input"], row["status"], row["model"]) for row in rows] == [
            ("in/a.mp4", "done", "tiny"),
            ("in/b.mp4", "done", "tiny"),
            ("in/c.mp4", "failed", ""),
        ]
    assert tree("one") == tree("two")


@pytest.mark.parametrize("name", ["gone.mp4", "photo.png", "f%04d.png", "folder"])
def test_what_is_no_clip_file_is_said_without_sending_it(service: Service, depth, name):
    photo("photo.png")
    photo("folder/frame_000000.png")
    remote = depth("video", name, *TINY, "--server", service.address)
    assert remote.code in (1, 2) and name.rstrip("0") in remote.error
    if name != "folder":
        assert remote.error == depth("video", name, *TINY).error
    assert service.ask("/v1/jobs").json["jobs"] == [] or all(
        not job["key"] for job in service.ask("/v1/jobs").json["jobs"]
    )


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--device", "cpu"), 2, "--device"),
        (("--checkpoint", "x.pth"), 2, "--checkpoint"),
        (("--calibration-from", "in/a.npz"), 2, "a.npz"),
        (("--intrinsics", "in/camera.txt"), 2, "camera.txt"),
        (("--scale-from", "in/depth.npz"), 2, "depth.npz"),
        (("--rate", "5"), 2, "--rate"),
        (("-o", "-"), 2, "stream"),
        (("-m", "vits"), 2, "no model vits"),
        (("-f", "mm"), 2, "mm holds metres"),
        (("--exact",), 2, "--exact"),
        (("--server", "http://127.0.0.1:9"), 5, "depth serve"),
    ],
)
def test_what_the_service_cannot_do_is_said(service: Service, clip, depth, options, code, word):
    ran = depth("video", clip, "--server", service.address, *options)
    # A job of another test may be before it, which a line of its own says.
    assert ran.code == code and word in ran.err.splitlines()[-1], ran.err
    assert list(tree("in")) == ["a.mp4"]


def test_results_of_another_model_are_not_mixed(service: Service, clip, depth):
    assert depth("video", clip, *TINY).code == 0
    facts = json.loads(Path("in/a_depth.mp4.json").read_text())
    Path("in/a_depth.mp4.json").write_text(json.dumps({**facts, "model": "vitl"}))
    ran = depth("video", clip, *TINY, "-f", "mp4,ffv1", "--server", service.address)
    assert ran.code != 0 and not Path("in/a_depth.mkv").exists()


def test_unfinished_work_of_this_machine_is_not_thrown_away(service: Service, clip, depth):
    spool = Path("in/.a.depthcli-spool")
    spool.mkdir()
    ran = depth("video", clip, *TINY, "--server", service.address)
    assert ran.code == 1 and str(spool) in ran.error and spool.is_dir() and not Path("in/a_depth.mp4").exists()


def test_a_service_without_clips_says_so(serving, clip, depth):
    with serving() as service:
        ran = depth("video", clip, *TINY, "--server", service.address)
    assert ran.code == 2 and "takes no clips" in ran.error


def command(clip: Path, service: Service, *options: str) -> subprocess.Popen[bytes]:
    arguments = ("video", str(clip), *TINY, *options, "--server", service.address)
    return subprocess.Popen([sys.executable, "-m", "depthcli", *arguments], env=environment(), stdout=-1, stderr=-1)


def running_job(service: Service) -> dict:
    def look() -> object:
        return next((job for job in service.ask("/v1/jobs").json["jobs"] if job["frames_done"]), None)

    return until(look)


def test_ctrl_c_cancels_the_job_and_leaves_nothing(serving, clip):
    with serving("--clips", "store", network=0.3) as service:
        process = command(clip, service)
        job = running_job(service)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and b"Traceback" not in err
        until(lambda: service.ask(job["url"]).json["state"] == "cancelled")
        assert list(tree("in")) == ["a.mp4"]


def test_a_run_that_was_killed_goes_on_without_sending_the_clip_again(serving, clip, depth):
    with serving("--clips", "store", network=0.15) as service:
        process = command(clip, service, "-f", "mp4,ffv1")
        job = running_job(service)
        process.kill()
        process.communicate()
        ran = depth("video", clip, *TINY, "-f", "mp4,ffv1", "--server", service.address)
        assert ran.code == 0 and "has it already" in ran.err
        assert service.ask(job["url"]).status == 404 and service.ask("/v1/jobs").json["jobs"] == []
    remote = tree("in")
    for name in remote:
        if name != "a.mp4":
            Path("in", name).unlink()
    assert depth("video", clip, *TINY, "-f", "mp4,ffv1").code == 0
    assert tree("in") == remote


def test_a_job_with_other_options_is_not_taken_up(serving, clip, depth):
    with serving("--clips", "store", network=0.1) as service:
        process = command(clip, service)
        job = running_job(service)
        process.kill()
        process.communicate()
        ran = depth("video", clip, *TINY, "--colormap", "gray", "--server", service.address)
        assert ran.code == 0 and "has it already" not in ran.err
        assert service.ask(job["url"]).status == 200


def test_a_service_that_goes_away_ends_the_run_and_the_next_one_goes_on(serving, clip, depth):
    with serving("--clips", "store", network=0.3) as service:
        timer = threading.Timer(1.5, service.process.kill)
        timer.start()
        ran = depth("video", clip, *TINY, "--server", service.address)
        assert ran.code == 5 and "there is no service" in ran.err
    with serving("--clips", "store") as service:
        ran = depth("video", clip, *TINY, "--server", service.address)
        assert ran.code == 0, ran.err
        assert service.ask("/v1/jobs").json["jobs"] == []


def test_results_appear_all_or_none(service: Service, clip, depth, monkeypatch):
    fetch = Client.fetch

    def half(self, path, target, stop=lambda: False):
        if path.endswith(".zip"):
            raise EngineError("the service broke")
        fetch(self, path, target, stop)

    monkeypatch.setattr(Client, "fetch", half)
    ran = depth("video", clip, *TINY, "-f", "mp4,gray", "-o", "out", "--server", service.address)
    assert ran.code == 5 and (not Path("out").exists() or os.listdir("out") == [])


def test_the_client_of_clips_loads_no_network(service: Service, clip):
    code = (
        "import sys\nfrom depthcli.cli import app\ntry:\n    app.run()\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\nprint(*sorted(sys.modules), file=sys.stderr)"
    )
    arguments = ("video", str(clip), "-q", "--server", service.address)
    ran = subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, check=True)
    loaded = set(ran.stderr.decode().split())
    assert not loaded & {"torch", "openvino", "onnxruntime", "fastapi", "httpx", "requests", "huggingface_hub"}
