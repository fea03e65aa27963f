"""Two machines that write to a store over links of their own, of which one is cut for half a minute.

A machine is a network namespace of this one, for which the test must be run by root; the links are pairs of virtual
devices, with addresses that exist in these namespaces alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from depthcli.jobs.manifest import read_rows
from depthcli.jobs.shards import Shard
from tests.conftest import ROOT, TINY, photo, tree
from tests.io.test_moto import OUT, SRC

pytestmark = pytest.mark.slow
pytest.importorskip("moto", reason="the server is of the test group")
pytest.importorskip("s3fs", reason="the extra s3 is optional")
COUNT, SECONDS, PORT = 64, 30, 5000
NAMES = [f"{number % 3}/{number:02d}.jpg" for number in range(COUNT)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Net:
    """A store and two machines, each with a link to it. A name tells the namespace."""

    def __init__(self, folder: Path) -> None:
        self.kept = folder / "kept"
        self.kept.mkdir()
        self._plan = folder / "plan.json"
        self.store, *self.machines = (f"depth-{os.getpid()}-{name}" for name in ("store", "one", "two"))
        self.started: list[subprocess.Popen] = []

    def make(self) -> None:
        for name in (self.store, *self.machines):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number, name in enumerate(self.machines):
            ip("link", "add", f"at{number}", "netns", self.store, "type", "veth", "peer", "name", "up0", "netns", name)
            for place, device, host in ((self.store, f"at{number}", 1), (name, "up0", 2)):
                ip("-n", place, "address", "add", f"10.77.{number}.{host}/30", "dev", device)
                ip("-n", place, "link", "set", device, "up")

    def set_link(self, number: int, state: str) -> None:
        ip("-n", self.store, "link", "set", f"at{number}", state)

    def keep(self, name: str, content: bytes = b"") -> None:
        """Have the server begin with a bucket or an object."""
        (self.kept / quote(name, safe="")).write_bytes(content)

    def serve(self) -> None:
        server = [sys.executable, "-W", "ignore", str(ROOT / "tests/io/moto_server.py"), str(PORT)]
        self._start(self.store, [*server, str(self._plan), str(self.kept), "0.0.0.0"])
        asks = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 5)"
        deadline = time.monotonic() + 60
        probe = ["ip", "netns", "exec", self.store, sys.executable, "-c", asks]
        while subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def depth(self, number: int, *arguments: str) -> subprocess.Popen:
        """Start a command on a machine."""
        url = f"http://10.77.{number}.1:{PORT}"
        return self._start(self.machines[number], [sys.executable, "-m", "depthcli", *arguments], AWS_ENDPOINT_URL=url)

    def _start(self, namespace: str, line: list[str], **more: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} if more else {}
        line = ["ip", "netns", "exec", namespace, *line]
        self.started.append(subprocess.Popen(line, env={**environment, **more}, **pipes))
        return self.started[-1]

    def results(self) -> dict[str, bytes]:
        start = quote(f"{OUT.removeprefix('s3://')}/", safe="")
        found = {path.name[len(start) :]: path.read_bytes() for path in self.kept.glob(f"{start}*.png")}
        return {name.replace("%2F", "/"): content for name, content in found.items()}

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        for name in (self.store, *self.machines):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture
def net(tmp_path_factory, monkeypatch) -> Iterator[Net]:
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root, and the program ip")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # ours are tested
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = Net(tmp_path_factory.mktemp("net"))
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces: {error.stderr.decode()}")
        yield made
    finally:
        made.close()


def ended(process: subprocess.Popen) -> list[str]:
    """Return the lines that a command printed, which did all."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.splitlines()


def test_a_link_that_is_cut_for_half_a_minute_costs_time_alone(net, depth):
    for number, name in enumerate(NAMES):
        net.keep(f"bucket/in/{name}", photo(f"in/{name}", (60 + number, 45)).read_bytes())
    net.keep("bucket")
    depth("dir", "in", "-o", "local", *TINY)
    local = tree("local")
    net.serve()
    first = {f"{name[:-4]}_depth.png" for name in NAMES if Shard(1, 2).has(name)}
    one, two = (net.depth(n - 1, "dir", SRC, "-o", OUT, *TINY, "--json", "--shard", f"{n}/2") for n in (1, 2))
    deadline = time.monotonic() + 120
    while not first & net.results().keys() and time.monotonic() < deadline:
        time.sleep(0.01)
    net.set_link(0, "down")
    cut = time.monotonic()
    time.sleep(5)
    there = first & net.results().keys()
    assert there and there < first
    assert Counter(json.loads(line).get("status") for line in ended(two))["done"] == COUNT - len(first)
    time.sleep(max(0.0, cut + SECONDS - time.monotonic()))
    assert one.poll() is None and first & net.results().keys() == there
    net.set_link(0, "up")
    assert Counter(json.loads(line).get("status") for line in ended(one))["done"] == len(first)
    print(f"{len(there)} of {len(first)} were there; done {time.monotonic() - cut:.0f} s after the cut")
    assert net.results() == local
    assert ended(net.depth(1, "manifest", "merge", OUT)) == [f"{COUNT} rows in {OUT}/manifest.jsonl"]
    assert ended(net.depth(0, "manifest", "missing", OUT)) == []
    assert ended(net.depth(0, "manifest", "verify", OUT, "--deep")) == []
    rows = list(read_rows(net.kept / quote(f"{OUT.removeprefix('s3://')}/manifest.jsonl", safe="")))
    assert Counter((row["input"], row["status"]) for row in rows) == {(name, "done"): 1 for name in NAMES}
