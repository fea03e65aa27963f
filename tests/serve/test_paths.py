"""No path leads anywhere: whatever stands in a URL is looked up in a table."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.serve.running import Service
from tests.serve.test_guard import status_of

SECRET = b"root:x:0:0"
WAYS = (
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\..\\etc\\passwd",
    "..%5c..%5cetc%5cpasswd",
    "C:%5cWindows%5cwin.ini",
    "index.html%00.png",
    "%00",
    "....//....//etc/passwd",
    ".",
    "..",
    "job.json",
)
PLACES = (
    "/",
    "/page/",
    "/v1/results/",
    "/v1/results/x/",
    "/v1/jobs/",
    "/v1/jobs/x/files/",
    "/v1/gallery/",
    "/static-offline-docs/",
)


def get(service: Service, target: str) -> bytes:
    """Ask for a path as it is, which a client would tidy up."""
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while block := connection.recv(1 << 16):
            got += block
        return got


@pytest.mark.parametrize("place", PLACES)
def test_no_way_leads_out(service: Service, place):
    for way in WAYS:
        got = get(service, place + way)
        assert SECRET not in got and status_of(got) in (200, 307, 400, 404), (place, way)
        if status_of(got) == 200:  # /. and /.. may be read as /
            assert got.endswith(Path(_page()).read_bytes()), (place, way)


def _page() -> Path:
    from depthcli.serve import app

    return Path(app.__file__).parent / "page/index.html"
