"""Clips as jobs: the films of the command line, whatever happens to the service meanwhile."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import photo, tree
from tests.io.video.clips import make_clip
from tests.serve.running import Got, Service, until

OPTIONS = ("-m", "tiny", "--input-size", "56")


@pytest.fixture
def clip() -> Path:
    Path("clips.in").mkdir()
    return make_clip(Path("clips.in/a.mp4"), frames=12)


def send(service: Service, clip: Path, **query: object) -> Got:
    return service.ask("/v1/clips", clip.read_bytes(), **{"name": clip.name, "input_size": 56, **query})


def ended(service: Service, url: str) -> dict[str, Any]:
    def look() -> Any:
        job = service.ask(url).json
        return job if job["state"] in ("done", "failed", "cancelled") else None

    return until(look, 60)


def files_of(service: Service, job: dict[str, Any]) -> dict[str, bytes]:
    return {file["name"]: service.ask(file["url"]).body for file in job["files"]}


def test_a_clip_becomes_the_files_of_the_command_line(service: Service, clip, depth):
    sent = send(service, clip, format="mp4,gray")
    assert (sent.status, sent.json["state"], sent.headers["location"]) == (202, "queued", sent.json["url"])
    job = ended(service, sent.json["url"])
    assert (job["state"], job["frames_done"], job["error"], job["exit_code"]) == ("done", 12, "", 0)
    files = files_of(service, job)
    assert [file["format"] for file in job["files"]] == ["source", "mp4", "json", "png16", "json"]
    assert all(len(files[file["name"]]) == file["size"] for file in job["files"])
    assert depth("video", clip, *OPTIONS, "-f", "mp4,gray", "-q").code == 0
    local = tree("clips.in")
    for name in ("a.mp4", "a_depth.mp4", "a_depth.mp4.json"):
        assert files[name] == local[name], name
    with zipfile.ZipFile(io.BytesIO(files["a_depth_png.zip"])) as archive:
        frames = {f"a_depth_png/{name}": archive.read(name) for name in archive.namelist()}
    assert frames == {name: data for name, data in local.items() if name.startswith("a_depth_png/")}
    assert service.ask("/v1/jobs").json["jobs"][0] == job
    assert job["expires"] == pytest.approx(job["updated"] + 86400, abs=5)


def test_a_file_of_a_job_is_sent_in_ranges_and_not_in_a_hundred(service: Service, clip):
    job = ended(service, send(service, clip).json["url"])
    file = next(file for file in job["files"] if file["format"] == "mp4")
    whole = service.ask(file["url"]).body
    got = service.ask(file["url"], headers={"Range": "bytes=10-19"})
    assert (got.status, got.body, got.headers["content-range"]) == (206, whole[10:20], f"bytes 10-19/{len(whole)}")
    assert service.ask(file["url"], headers={"Range": f"bytes={len(whole)}-"}).status == 416
    began = time.monotonic()
    many = ",".join(f"{2 * place}-{2 * place}" for place in range(101))
    got = service.ask(file["url"], headers={"Range": f"bytes={many}"})
    assert got.status in (200, 400, 416) and time.monotonic() - began < 15
    many = ",".join(["0-"] * 5000)
    got = service.ask(file["url"], headers={"Range": f"bytes={many}"})
    assert got.status >= 200 and len(got.body) <= 2 * len(whole) and time.monotonic() - began < 30


def test_events_tell_the_states_and_the_frames_and_then_end(service: Service, clip):
    url = send(service, clip).json["url"]
    got = service.ask(f"{url}/events")
    assert got.headers["content-type"].startswith("text/event-stream")
    events = [
        dict(line.split(": ", 1) for line in part.split("\n")) for part in got.body.decode().strip().split("\n\n")
    ]
    states = [json.loads(event["data"])["state"] for event in events if event["event"] == "state"]
    assert states[-1] == "done" and states == sorted(states, key=["queued", "running", "done"].index)
    versions = [int(event["id"]) for event in events]
    assert versions == sorted(set(versions))
    again = service.ask(f"{url}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert again.body == b""


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"name": "../a.mp4"}, 400),
        ({"name": ".hidden.mp4"}, 400),
        ({"name": "a\\b.mp4"}, 400),
        ({"name": "a.exe"}, 400),
        ({"format": "far0"}, 400),
        ({"steady": "perhaps"}, 400),
        ({"exact": 1}, 400),
        ({"place": "../x"}, 400),
        ({"key": "not hexadecimal"}, 400),
        ({"start": "x"}, 400),
        ({"value_range": "1"}, 400),
        ({"stride": 0}, 400),
        ({"model": "vitl"}, 400),
        ({"nope": 1}, 400),
    ],
)
def test_a_clip_that_is_asked_for_wrongly_leaves_nothing(service: Service, clip, query, status):
    before = service.ask("/v1/jobs").json
    got = send(service, clip, **query)
    assert (got.status, got.json["exit_code"]) == (status, 2), got.json
    assert service.ask("/v1/jobs").json == before


def test_what_is_no_clip_fails_as_a_job_and_an_empty_one_at_once(service: Service):
    job = ended(service, service.ask("/v1/clips?name=a.mp4", b"no clip").json["url"])
    assert (job["state"], job["exit_code"]) == ("failed", 1) and job["error"].startswith("a.mp4 ")
    assert service.ask("/v1/clips?name=a.mp4", b"").status == 422


def test_a_job_is_cancelled_while_it_runs_and_forgotten_afterwards(serving, clip):
    with serving("--clips", "store", network=0.2) as service:
        running = send(service, clip).json
        waiting = send(service, clip).json
        until(lambda: service.ask(running["url"]).json["state"] == "running")
        assert service.ask(waiting["url"], method="DELETE").json["state"] == "cancelled"
        ending = service.ask(running["url"], method="DELETE").json
        assert (ending["state"], ending["expires"]) == ("cancelled", None), "it still ends its step"
        assert ended(service, running["url"])["files"] == []
        for job in (running, waiting):
            until(lambda job=job: [path.name for path in Path("store", job["id"]).iterdir()] == ["job.json"])
            until(lambda job=job: service.ask(job["url"], method="DELETE").status == 204)
            assert service.ask(job["url"]).status == 404 and not Path("store", job["id"]).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_clips_leave_no_threads_behind(service: Service, clip):
    def threads() -> int:
        return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))

    ended(service, send(service, clip).json["url"])
    before = threads()
    for _ in range(6):
        ended(service, send(service, clip).json["url"])
    until(lambda: threads() <= before + 1, 5)


def test_a_picture_waits_for_one_step_of_a_clip_at_most(serving, clip):
    with serving("--clips", "store", network=0.15) as service:
        url = send(service, clip).json["url"]
        until(lambda: service.ask(url).json["frames_done"] > 0)
        began = time.monotonic()
        assert service.depth(photo("a.png"), format="f16").status == 200
        assert time.monotonic() - began < 15
        assert service.ask(url).json["state"] == "running"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_clip_goes_on_after_the_service_was_ended(serving, clip, depth, end):
    with serving("--clips", "store", network=0.15) as service:
        job = send(service, clip, format="mp4,ffv1").json
        until(lambda: service.ask(job["url"]).json["frames_done"] >= 4)
        service.signal(end)
        assert service.process.wait(10) == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        Path("store/half-upload/files").mkdir(parents=True)
    with serving("--clips", "store") as service:
        assert not Path("store/half-upload").exists()
        files = files_of(service, ended(service, job["url"]))
    depth("video", clip, *OPTIONS, "-f", "mp4,ffv1", "-q")
    assert files == tree("clips.in")


def test_an_ended_job_is_there_after_a_restart_and_expires(serving, clip):
    with serving("--clips", "store") as service:
        job = ended(service, send(service, clip).json["url"])
    with serving("--clips", "store") as service:
        assert service.ask(job["url"]).json == job
        assert files_of(service, job).keys() == {file["name"] for file in job["files"]}
    with serving("--clips", "store", "--keep", "0s") as service:
        until(lambda: not service.ask("/v1/jobs").json["jobs"] or send(service, clip).status)
        until(lambda: not Path("store", job["id"]).exists())
        assert service.ask(job["url"]).status == 404


def test_uploads_are_bounded_by_their_size_and_by_the_disk(serving, clip):
    size = clip.stat().st_size
    with serving("--clips", "store", "--max-clip-bytes", size - 1, "--disk", "1M") as service:
        got = send(service, clip)
        assert got.status == 413
        connection = service.connect()
        chunks = iter([clip.read_bytes(), b"x"])
        connection.request(
            "POST", "/v1/clips?name=a.mp4", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        assert [path.name for path in Path("store").iterdir() if path.is_dir()] == []
    with serving("--clips", "store", "--disk", size + 10) as service:
        assert ended(service, send(service, clip).json["url"])["state"] == "done"
        got = send(service, clip)
        assert (got.status, got.json["exit_code"]) == (507, 1) and "disk" in got.json["title"]


def test_an_upload_that_breaks_off_leaves_nothing(serving, clip):
    with serving("--clips", "store") as service:
        with service.socket() as connection:
            connection.sendall(
                b"POST /v1/clips?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nabc"
            )
            until(lambda: [path for path in Path("store").iterdir() if path.is_dir()])
        until(lambda: not [path for path in Path("store").iterdir() if path.is_dir()])
        assert service.ask("/v1/jobs").json == {"jobs": []}


def test_two_services_do_not_share_a_folder(serving, depth):
    with serving("--clips", "store"):
        ran = depth("serve", "--models", "tiny", "--port", "0", "--clips", "store")
        assert ran.code == 2 and "another service uses store" in ran.error


def test_a_service_without_a_folder_takes_no_clips(serving):
    with serving() as service:
        assert service.ask("/v1/clips?name=a.mp4", b"x").status == 404
        assert service.ask("/v1").json["clip_formats"] == {}


def test_a_job_record_that_is_damaged_is_removed(tmp_path):
    from depthcli.serve.jobs import Jobs
    from depthcli.serve.metrics import Metrics
    from depthcli.serve.settings import ServiceSettings

    for name, text in (("half", '{"id": "half"'), ("other", '{"id": "elsewhere"}'), ("empty", "")):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "job.json").write_text(text)
    made = Jobs(tmp_path / "store", ServiceSettings(), (), None, Metrics())  # type: ignore[arg-type]
    made.start()
    made.close()
    assert made.list() == [] and [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()] == []


def test_the_number_of_jobs_is_bounded(tmp_path, monkeypatch):
    from depthcli.errors import DiskFullError
    from depthcli.serve import jobs
    from depthcli.serve.clip_query import ClipWish
    from depthcli.serve.metrics import Metrics
    from depthcli.serve.settings import ServiceSettings

    class Anything:
        kind, space = "clip", 1
        check = close = staticmethod(lambda *_: None)

        @staticmethod
        def receive(wish: object, source: object) -> tuple[object, ...]:
            return ()

    monkeypatch.setattr(jobs, "_MOST_JOBS", 2)
    store = tmp_path / "store"
    made = jobs.Jobs(store, ServiceSettings(), (Anything(),), None, Metrics())  # type: ignore[arg-type]
    wish = ClipWish("tiny", ("mp4",))

    def add() -> str:
        with made.upload("clip", "a.mp4", wish) as upload:
            upload.write(b"x")
            made.receive(wish, upload)
        assert upload.job is not None
        return upload.job.id

    first = add()
    add()
    with pytest.raises(DiskFullError, match="2 jobs"):
        add()
    made.cancel(first)
    made.cancel(first)
    add()
    made.close()
