"""A hub on this machine, and files of weights, for the tests of the zoo."""

import hashlib
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from depthcli.zoo.locate import NAMED, WeightsFile
from depthcli.zoo.rows import Weights, find_row

CONTENT = bytes(range(256)) * 2000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VITS = find_row("vits")
INDOOR = find_row("metric-indoor-vits")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


ROW = replace(VITS, files=(Weights("someone/Model", "some_model.pth", COMMIT, sha256(CONTENT), len(CONTENT)),))


class Hub:
    """The two answers of the hub that a download needs, with faults on demand, on a port of this machine."""

    def __init__(self):
        self.content = CONTENT
        self.etag = sha256(CONTENT)
        self.status = 200
        self.cut = 0  # bytes missing at the end of what is sent
        self.delay = 0.0
        self.portal = ""  # where a network that wants a login sends everyone
        self.requests = []  # those for the file; versions of the hub's library also ask for other things
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.note()
                self.answer(len(hub.content))

            def do_GET(self):
                self.note()
                time.sleep(hub.delay)
                body = hub.content[: len(hub.content) - hub.cut]
                self.answer(len(body))
                if hub.status == 200:
                    self.wfile.write(body)

            def do_CONNECT(self):
                self.note()
                self.answer(0)

            def note(self):
                if self.path.endswith("/some_model.pth"):
                    hub.requests.append(self.command)

            def answer(self, length):
                self.send_response(hub.status)
                if hub.portal:
                    self.send_header("Content-Type", "text/html")
                    if hub.status in (301, 302, 307):
                        self.send_header("Location", hub.portal)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_header("ETag", f'"{hub.etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(length if hub.status == 200 else 0))
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def point_to(monkeypatch, url):
    from huggingface_hub import constants, file_download

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Before 1.0 this module has copies of both.
    monkeypatch.setattr(file_download, "ENDPOINT", url, raising=False)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def put(path, content=CONTENT):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def file_of(path, content=b"weights"):
    path = put(path, content)
    return WeightsFile(path, sha256(content), NAMED)
