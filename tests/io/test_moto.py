"""`depth dir` with s3:// against a server: faults, a server that dies and comes back, and listings that lag behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, photo, tree

pytestmark = pytest.mark.slow
pytest.importorskip("moto", reason="the server is of the test group")
s3fs = pytest.importorskip("s3fs", reason="the extra s3 is optional")
COUNT = 24
SRC, OUT = "s3://bucket/in", "s3://bucket/out"


class Store:
    """A server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.plan, self._kept = folder / "plan.json", folder / "kept"
        self._kept.mkdir()

    def start(self) -> None:
        command = [sys.executable, "-W", "ignore", str(ROOT / "tests/io/moto_server.py"), str(self.port)]
        self._process = subprocess.Popen([*command, str(self.plan), str(self._kept)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None
            time.sleep(0.05)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def put(self, name: str, content: bytes = b"") -> None:
        """Put a bucket or an object, as a client does."""
        import botocore.session

        client = botocore.session.get_session().create_client("s3")
        if content:
            client.put_object(Bucket="bucket", Key=name, Body=content)
        else:
            client.create_bucket(Bucket=name)
        client.close()

    def results(self) -> dict[str, bytes]:
        """Return what was put to OUT, apart from notes, by what the server keeps."""
        start = "bucket%2Fout%2F"
        found = {path.name[len(start) :]: path.read_bytes() for path in self._kept.glob(f"{start}*.png")}
        return {name.replace("%2F", "/"): content for name, content in found.items()}


@pytest.fixture
def store(tmp_path_factory, monkeypatch) -> Iterator[Store]:
    """A server with pictures of COUNT names in SRC."""
    made = Store(tmp_path_factory.mktemp("store"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # ours are tested
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made.start()
    made.put("bucket")
    for number in range(COUNT):
        name = f"{number % 3}/{number:02d}.jpg"
        made.put(f"in/{name}", photo(f"in/{name}", (60 + number, 45)).read_bytes())
    yield made
    made.kill()


def command(*arguments: str) -> subprocess.Popen:
    """Start `depth dir` from SRC to OUT."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, "-m", "depthcli", "dir", SRC, "-o", OUT, *TINY, "--json", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def finished(process: subprocess.Popen, code: int = 0) -> Counter:
    """Return how many results of each status a run had, whose exit code is as expected."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return Counter(json.loads(line)["status"] for line in out.splitlines() if "status" in json.loads(line))


@pytest.fixture
def local(depth) -> dict[str, bytes]:
    depth("dir", "in", "-o", "local", *TINY)
    return tree("local")


def test_faults_cost_time_and_no_picture(store, local):
    store.plan.write_text(json.dumps({"every": 4, "statuses": [500, 503, 429]}))
    assert finished(command()) == {"done": COUNT}
    assert store.results() == local


def test_a_server_that_is_killed_and_comes_back_loses_nothing(store, local):
    process = command()
    deadline = time.monotonic() + 60
    while len(store.results()) < COUNT // 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    store.kill()
    before = len(store.results())
    assert 0 < before < COUNT
    time.sleep(2)
    assert process.poll() is None
    store.start()
    assert finished(process) == {"done": COUNT}
    assert store.results() == local
    assert finished(command()) == {"skipped": COUNT}


def test_a_run_that_is_killed_leaves_whole_objects_and_the_next_one_goes_on(store, local):
    process = command()
    deadline = time.monotonic() + 60
    while len(store.results()) < COUNT // 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = store.results()
    assert 0 < len(done) < COUNT and done.items() <= local.items()
    counts = finished(command())
    assert counts["skipped"] >= len(done) and sum(counts.values()) == COUNT
    assert store.results() == local


def test_listings_that_lag_behind_repeat_work_and_lose_nothing(store, local):
    finished(command())
    store.plan.write_text(json.dumps({"hide": "_depth.png"}))
    assert finished(command()) == {"done": COUNT}
    assert store.results() == local
    store.plan.write_text(json.dumps({"hide": "in/2/"}))  # pictures that were put a moment ago
    assert finished(command())["skipped"] < COUNT
    store.plan.unlink()
    assert finished(command()) == {"skipped": COUNT}


def test_a_wrong_bucket_and_wrong_keys_are_one_line(store, depth, monkeypatch):
    ran = depth("dir", "s3://nobody/in", "-o", "out", *TINY)
    assert ran.code == 2 and "s3://nobody/in" in ran.error
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    ran = depth("dir", SRC, "-o", "out", *TINY)
    assert ran.code == 2 and "credentials" in ran.error and "testing" not in ran.error
