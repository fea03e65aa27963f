"""Who is let in, and how much and how slowly they may send: against the real server, on real sockets."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from tests.conftest import photo
from tests.serve.running import Service, until

TOKEN = "correct-horse-battery"


def raw(service: Service, text: str | bytes, wait: float = 10) -> bytes:
    """Send bytes and return all that comes back until the service closes, or `wait` seconds are over."""
    with service.socket(wait) as connection:
        connection.sendall(text.encode("latin-1") if isinstance(text, str) else text)
        got = b""
        try:
            while block := connection.recv(1 << 16):
                got += block
        except TimeoutError:
            pass
        return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# --- Names and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1", "[::1]:7373", "127.8.8.8", "DEPTH.example"])
def test_a_name_of_this_machine_is_let_in(service: Service, host):
    assert service.ask("/livez", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.1.2.3", "a b", "localhost:x", "@", "[x]"]
)
def test_another_name_is_misdirected(service: Service, host):
    got = service.ask("/livez", headers={"Host": host})
    assert got.status == 421 and got.json["status"] == 421


@pytest.mark.parametrize("lines", ["", "Host:\r\n", "Host: localhost\r\nHost: evil\r\n"])
def test_no_name_an_empty_one_and_two_are_refused(service: Service, lines):
    got = raw(service, f"GET /livez HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")
    assert status_of(got) in (400, 421)
    if not lines:
        assert status_of(raw(service, "GET /livez HTTP/1.0\r\n\r\n")) == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", ""])
def test_a_page_of_another_site_is_refused(service: Service, origin):
    got = service.ask("/v1/depth", b"x", headers={"Origin": origin})
    assert got.status == 403


def test_the_services_own_page_is_let_in_and_no_site_is_invited(service: Service):
    host = f"127.0.0.1:{service.port}"
    for headers in ({}, {"Origin": f"http://{host}", "Host": host}, {"Origin": f"https://{host}", "Host": host}):
        got = service.ask("/v1", headers=headers)
        assert got.status == 200 and not any(name.startswith("access-control") for name in got.headers)
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    got = service.ask("/v1/depth", method="OPTIONS", headers=preflight)
    assert got.status == 403 and not any(name.startswith("access-control") for name in got.headers)


def test_every_answer_is_safe_to_show(service: Service):
    for target in ("/", "/v1", "/nope", "/docs"):
        headers = service.ask(target).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    policy = service.ask("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "unsafe" not in policy and "http" not in policy
    assert service.depth(photo("a.png"), format="html").headers["content-disposition"].startswith("attachment")


def test_what_get_answers_head_answers_without_a_body(service: Service):
    for target in ("/", "/livez", "/v1", "/page/app.js", "/nope"):
        got, asked = service.ask(target), service.ask(target, method="HEAD")
        assert (asked.status, asked.body) == (got.status, b""), target
        assert asked.headers["content-length"] == got.headers["content-length"]
    assert service.ask("/v1/depth", method="HEAD").status == 405


# --- Tokens -----------------------------------------------------------------------------------------------------------


def test_a_service_with_a_token_shows_strangers_only_that_it_is_there(serving):
    with serving("--host", "0.0.0.0", DEPTH_TOKEN=TOKEN) as service:
        assert TOKEN not in Path(f"/proc/{service.process.pid}/cmdline").read_text()
        service.token = ""
        for target in ("/", "/livez", "/readyz", "/docs", "/openapi.json", "/page/index.html"):
            assert service.ask(target).status == 200, target
        wrong = ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer é"})
        for target in ("/v1", "/metrics", "/v1/results/x", "/v1/jobs", "/v1/gallery", "/nope", "//v1"):
            for headers in wrong:
                got = service.ask(target, headers=headers)
                assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer"), target
                assert ("not the token" in got.json["title"]) == bool(headers), "a wrong one is told from none"
        assert service.ask("/openapi.json").json["components"]["securitySchemes"], "so that /docs asks for it"
        assert service.ask("/v1/depth", photo("a.png").read_bytes()).status == 401
        assert service.ask("/v1", headers={"Authorization": f"bearer {TOKEN}"}).status == 200
        # Names are checked on every address; an address must be the one that the connection came to.
        for host, status in (("evil.example", 421), ("0.0.0.0", 421), ("127.0.0.1", 200), ("10.9.8.7", 421)):
            assert service.ask("/livez", headers={"Host": host}).status == status, host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_no_door_stands_open_by_accident(depth, host, monkeypatch):
    monkeypatch.delenv("DEPTH_TOKEN", raising=False)
    ran = depth("serve", "--host", host)
    assert ran.code == 2 and "--token-file" in ran.error and "--no-token" in ran.error


def test_a_token_file_must_hold_one(depth):
    Path("short").write_text("abc\n")
    assert depth("serve", "--token-file", "short").code == depth("serve", "--token-file", "gone").code == 2
    Path("token").write_text(TOKEN)
    assert "--no-token" in depth("serve", "--token-file", "token", "--no-token").error


# --- Unix sockets -----------------------------------------------------------------------------------------------------


def unix_ask(path: str, target: str) -> int:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(path)
        connected.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return status_of(connected.recv(1 << 16))


def test_a_unix_socket_is_its_owners_alone_and_a_dead_one_is_replaced(serving, depth):
    path = Path("depth.sock").resolve()
    with serving("--uds", path) as service:
        assert service.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert unix_ask(str(path), "/readyz") == 200
        ran = depth("serve", "--uds", path)
        assert ran.code == 2 and "cannot listen" in ran.error
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        assert path.exists()
    with serving("--uds", path) as service:
        assert unix_ask(str(path), "/livez") == 200
        assert service.stop() == 0 and not path.exists()


def test_a_file_is_no_socket_to_be_replaced(depth):
    Path("notes").write_text("mine")
    assert depth("serve", "--uds", "notes").code == 2
    assert Path("notes").read_text() == "mine"


def test_a_port_that_is_taken_is_an_error(service: Service, depth):
    ran = depth("serve", "--port", service.port)
    assert ran.code == 2 and "--port" in ran.error


# --- Sizes ------------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_whether_its_length_is_stated_or_not(service: Service):
    service.depth(photo("a.png"))
    before = service.memory()
    got = service.ask("/v1/depth", b"x" * (5 << 20))
    assert got.status == 413 and "4.194 MB" in got.json["title"]
    connection = service.connect()
    connection.request(
        "POST", "/v1/depth", iter([b"x" * (1 << 20)] * 5), {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()
    stated = raw(service, "POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 1)
    assert status_of(stated) == 413
    assert service.memory() - before < 30e6
    assert service.depth(photo("a.png")).status == 200


def test_nonsense_on_the_wire_is_answered_or_closed(service: Service):
    for text in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/results/%00%ff%2e HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1?a=%ff&b=%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ):
        got = raw(service, text, 3)
        assert not got or 400 <= status_of(got) < 500 or status_of(got) == 200, text[:40]
    assert service.ask("/readyz").status == 200


# --- Time -------------------------------------------------------------------------------------------------------------


def closed_after(connection: socket.socket, seconds: float) -> float:
    """Return how long the service takes to close a connection, at most `seconds`."""
    began = time.monotonic()
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        raise AssertionError("it is still open") from None
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_clients_that_are_silent_or_slow_are_cut_off_and_others_are_not(serving):
    picture = photo("a.png").read_bytes()
    head = b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with serving(deadline=0.6, network=1.5) as service:
        slow = [service.socket() for _ in range(4)]
        slow[1].sendall(b"GET /livez HTTP/1.1\r\nHos")
        slow[2].sendall(head)
        slow[3].sendall(head + b"x" * 10)
        kept = service.connect()
        assert service.ask("/livez", connection=kept).status == 200
        # An answer that takes longer than the deadline, after a whole body.
        assert service.ask("/v1/depth", picture, connection=kept).status == 200
        assert all(closed_after(connection, 3) < 3 for connection in slow)
        # A second request that stops half-way, on a connection that was kept.
        half = service.socket()
        half.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert half.recv(1 << 16)
        time.sleep(0.3)
        half.sendall(b"GET /li")
        assert 0.3 < closed_after(half, 3) < 2.5
        assert service.ask("/livez", connection=kept).status == 200


def test_a_body_may_take_its_time_if_it_comes(serving):
    picture = photo("a.png", (400, 400)).read_bytes()
    with serving(deadline=0.5) as service:
        with service.socket() as connection:
            head = f"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n"
            connection.sendall(head.encode() + b"Connection: close\r\n\r\n")
            parts = 16
            size = -(-len(picture) // parts)
            for start in range(0, len(picture), size):
                connection.sendall(picture[start : start + size])
                time.sleep(0.06)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert len(picture) / 64e3 > 0.6  # at 64 kB/s it had as much more time


def test_answers_are_sent_at_once(service: Service):
    """Without TCP_NODELAY each one waits 40 ms for the client's acknowledgement."""
    connection = service.connect()
    times = []
    for _ in range(21):
        began = time.monotonic()
        assert service.ask("/livez", connection=connection).status == 200
        times.append(time.monotonic() - began)
    assert sorted(times)[10] < 0.03


def test_silent_connections_keep_nobody_out(service: Service):
    silent = [service.socket() for _ in range(60)]
    assert service.ask("/livez").status == 200 and service.depth(photo("a.png")).status == 200
    for connection in silent:
        connection.close()


def test_a_client_that_leaves_half_way_leaves_nothing_behind(service: Service):
    for text in (b"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc", b"GET /v1 HT"):
        with service.socket() as connection:
            connection.sendall(text)
    assert service.ask("/readyz").status == 200

    def queue() -> bool:
        return b"\ndepth_queue_length 0.0" in service.ask("/metrics").body

    assert until(queue)
    assert os.path.getsize(service.errors) == 0


def test_a_path_of_a_proxy_is_in_every_address_and_warns_of_nothing(serving):
    photo("a.png")
    with serving("--root-path", "/depth") as service:
        kept = service.depth(Path("a.png"), keep=1)
        assert kept.json["url"].startswith("/depth/v1/results/") and kept.headers["location"] == kept.json["url"]
        assert service.ask(kept.json["url"].removeprefix("/depth")).status == 200
        assert service.ask("/openapi.json").json["servers"][0] == {"url": "/depth"}
        assert b'"/depth/openapi.json"' in service.ask("/docs").body.replace(b"'", b'"')
        assert service.errors.read_text() == ""
