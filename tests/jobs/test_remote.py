"""The client against services that are busy, broken, gone, or something else."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from depthcli.errors import EngineError, ModelError, OutputError, PictureError, UsageError
from depthcli.jobs import remote
from depthcli.jobs.remote import Client, ServiceGoneError, Upload, find_server


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run a server that answers every request as a function does; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def problem(status: int, exit_code: int) -> dict[str, Any]:
    return {"title": "it went wrong", "hint": "try `input_size`", "status": status, "exit_code": exit_code}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waiting is noted and not done."""
    waited: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 2, UsageError),
        (422, 1, PictureError),
        (500, 4, ModelError),
        (500, 5, EngineError),
        (500, 1, OutputError),
        (507, 1, OutputError),
    ],
)
def test_a_problem_is_the_error_of_its_exit_code(status, code, kind):
    with answering(lambda handler: send(handler, status, problem(status, code))) as address, Client(address) as client:
        with pytest.raises(kind) as raised:
            client.request("GET", "/v1")
    assert (raised.value.exit_code, str(raised.value)) == (code, "it went wrong (try `input_size`)")


def test_a_refused_token_is_told_for_people_at_a_command(quick):
    with answering(lambda handler: send(handler, 401, problem(401, 5))) as address, Client(address) as client:
        with pytest.raises(EngineError, match="it went wrong") as raised:
            client.request("GET", "/v1")
    assert "DEPTH_TOKEN" in raised.value.hint and "header" not in raised.value.hint


def test_a_busy_service_is_asked_again_after_the_time_it_names(quick):
    answers = iter([(503, {"Retry_After": "2"}), (503, {"Retry_After": "soon"}), (503, {}), (200, {})])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status, headers = next(answers)
        send(handler, status, problem(503, 5) if status == 503 else {"ok": 1}, **headers)

    with answering(answer) as address, Client(address) as client:
        assert json.loads(client.request("POST", "/v1/depth", body=b"x").body) == {"ok": 1}
    assert 2 <= sum(quick) <= 6


def test_a_wait_is_told_once_and_only_if_it_lasts(monkeypatch):
    now, left, lines = [0.0], [0], list[str]()
    monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(remote.random, "uniform", lambda low, high: 0.5)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        left[0] -= 1
        busy = left[0] >= 0
        send(handler, 503 if busy else 200, problem(503, 5) if busy else {}, **({"Retry_After": "1"} if busy else {}))

    with answering(answer) as address, Client(address, log=lines.append) as client:
        left[0] = 2  # half a second each
        client.request("POST", "/v1/depth", body=b"x")
        assert lines == [] and now[0] == 1.0
        for _ in range(2):
            left[0] = 4
            client.request("POST", "/v1/depth", body=b"x")
        assert lines == [f"{address} is busy, waiting for it: it went wrong"] and now[0] == 5.0


def test_a_service_that_stays_busy_is_an_error_in_the_end(monkeypatch):
    monkeypatch.setattr(remote, "_BUSY_SECONDS", 0.0)
    with answering(lambda handler: send(handler, 503, problem(503, 5))) as address, Client(address) as client:
        with pytest.raises(EngineError, match="it went wrong"):
            client.request("GET", "/v1")


def test_a_request_that_breaks_five_times_fails_alone(quick):
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/livez":
            send(handler, 200, {})
            return
        asked.append(handler.path)
        handler.close_connection = True

    with answering(answer) as address, Client(address) as client:
        with pytest.raises(PictureError, match="broke 5 times"):
            client.request("POST", "/v1/depth", body=b"x")
        assert len(asked) == 5 and len(quick) == 4


def test_an_idle_connection_that_was_closed_is_no_failure(quick):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"ok": 1})
        handler.close_connection = True  # without saying so

    with answering(answer) as address, Client(address) as client:
        for _ in range(3):
            assert client.request("GET", "/v1").status == 200
    assert not quick


def test_a_service_that_is_gone_is_said_to_be(quick):
    with answering(lambda handler: send(handler, 200, {})) as address:
        pass
    with Client(address) as client, pytest.raises(ServiceGoneError, match="depth serve"):
        client.request("GET", "/v1")


@pytest.mark.parametrize("body", [b"hello", b"{}", b"[]", b'{"service": "other"}'])
def test_something_else_is_not_taken_for_a_service(body):
    with answering(lambda handler: send(handler, 200, body)) as address, Client(address) as client:
        with pytest.raises(EngineError, match="is not depth serve"):
            client.about()
        with pytest.raises(EngineError, match="not from depth serve"):
            _ = client.request("GET", "/v1").meta
    with answering(lambda handler: send(handler, 404, b"<html>")) as address, Client(address) as client:
        with pytest.raises(EngineError, match="answered 404"):
            client.about()


@pytest.mark.parametrize(
    "address", ["", "http://", "http://x:port", "http://x:99999", "ftp://x", "unix:", "http://x?a=b"]
)
def test_what_is_no_address(address):
    with pytest.raises(UsageError):
        Client(address)


def test_a_path_of_a_proxy_and_a_bare_host_are_addresses():
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, handler.headers["Authorization"]))
        send(handler, 200, {})

    with answering(answer) as address:
        with Client(f"{address}/depth/", token="abc") as client:
            client.request("GET", "/v1", [("a", "ü b"), ("a", 1)])
        with Client(address[len("http://") :], token="") as client:
            client.request("GET", "/v1")
    assert seen == [("/depth/v1?a=%C3%BC+b&a=1", "Bearer abc"), ("/v1", None)]


def test_auto_takes_a_service_that_answers_at_once(monkeypatch):
    with answering(lambda handler: send(handler, 200, {})) as address:
        monkeypatch.setattr(remote, "DEFAULT_ADDRESS", address)
        monkeypatch.setattr(remote, "_AUTO_SECONDS", 5)
        found = find_server("auto")
        assert found is not None and found.address == address
    monkeypatch.setattr(remote, "_AUTO_SECONDS", 0.05)
    assert find_server("auto") is None


def test_a_file_with_a_path_in_its_name_is_not_written(tmp_path):
    from depthcli.jobs.remote_folder import _write

    for name in ("../x.png", "/tmp/x.png", "..", ""):
        with pytest.raises(EngineError, match="name"):
            _write({name: b"x"}, [tmp_path / "out/a.png"])
    assert not list(tmp_path.rglob("*.png"))


# --- Files of a service -----------------------------------------------------------------------------------------------


def sending(data: bytes, breaks: list[int]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with a file, with Range; connections close after so many bytes, one by one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/livez":
            return send(handler, 200, {})
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        rest = data[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        handler.wfile.write(rest[: breaks.pop(0) if breaks else len(rest)])
        handler.close_connection = True

    return answer


def test_a_file_is_taken_up_where_the_connection_broke():
    data = bytes(range(256)) * 2000
    target = io.BytesIO()
    with answering(sending(data, [100_000, 1, 70_000])) as address, Client(address) as client:
        client.fetch("/v1/jobs/x/files/a.mp4", target)
    assert target.getvalue() == data


def test_a_file_that_never_comes_is_an_error_of_the_service():
    with answering(sending(b"data", [0] * 99)) as address, Client(address) as client:
        with pytest.raises(PictureError, match="broke 5 times"):
            client.fetch("/v1/jobs/x/files/a.mp4", io.BytesIO())


def test_fetching_ends_when_it_is_asked_to():
    with answering(sending(bytes(200_000), [])) as address, Client(address) as client:
        with pytest.raises(InterruptedError):
            client.fetch("/x", io.BytesIO(), lambda: True)


def test_an_upload_is_read_anew_for_each_try():
    tries = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        tries.append(handler.headers["Content-Length"])
        send(handler, 503, problem(503, 5), Retry_After="0") if len(tries) < 3 else send(handler, 202, {})

    opened = []

    def file() -> io.BytesIO:
        opened.append(io.BytesIO(b"clip"))
        return opened[-1]

    with answering(answer) as address, Client(address) as client:
        assert client.request("POST", "/v1/clips", body=Upload(file, 4)).status == 202
    assert tries == ["4"] * 3 and len(opened) == 3 and all(stream.closed for stream in opened)
