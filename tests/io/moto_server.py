"""A server of S3 for tests: moto, with faults on request, and objects that outlive the process.

    python moto_server.py PORT PLAN KEPT [HOST]

PLAN: a file of JSON, read at every request. every: each n-th request fails with one of `statuses`. hide: objects whose
keys contain this are missing in listings, as if those lagged behind. KEPT: a folder; what was put is written to it, and
put again by the next server. HOST: the address to listen at, 127.0.0.1 by default.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Server:
    def __init__(self, port: int, plan: Path, kept: Path) -> None:
        self._port, self._plan, self._kept = port, plan, kept
        self._app = DomainDispatcherApplication(create_backend_app)
        self._numbers, self._lock = itertools.count(1), threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        plan = json.loads(self._plan.read_text()) if self._plan.exists() else {}
        number, every = next(self._numbers), plan.get("every")
        if every and number % every == 0:
            status = plan["statuses"][number // every % len(plan["statuses"])]
            start(f"{status} Planned", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>planned</Message></Error>"]
        with self._lock:
            status, headers, content = self._answered({**environ, "wsgi.input": io.BytesIO(body)})
            if environ["REQUEST_METHOD"] == "PUT" and status.startswith("200"):
                self._keep(environ["PATH_INFO"], body)
        if plan.get("hide") and b"<ListBucketResult" in content:
            hidden = rb"<Contents>(?:(?!</Contents>).)*?<Key>[^<]*" + re.escape(plan["hide"]).encode()
            content = re.sub(hidden + rb"[^<]*</Key>.*?</Contents>", b"", content, flags=re.DOTALL)
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start(status, headers)
        return [content]

    def _answered(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        told: list[Any] = []
        content = b"".join(self._app(environ, lambda status, headers, *_: told.append((status, headers))))
        return (*told[0], content)

    def _keep(self, path: str, body: bytes) -> None:
        stored = self._kept / quote(path.strip("/"), safe="")
        partial = stored.with_name(f"{stored.name}.part")
        partial.write_bytes(body)
        partial.replace(stored)

    def restore(self) -> None:
        """Put what an earlier server had."""
        for stored in sorted(self._kept.iterdir(), key=lambda path: len(path.name)):  # the bucket before its objects
            if not stored.name.endswith(".part"):
                self._answered(self._request("PUT", f"/{unquote(stored.name)}", stored.read_bytes()))

    def _request(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        scope = "Credential=testing/20260101/us-east-1/s3/aws4_request"
        return {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self._port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": f"127.0.0.1:{self._port}",
            "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    served = Server(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    served.restore()
    host = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1"
    make_server(host, int(sys.argv[1]), served, threaded=True, request_handler=Quiet).serve_forever()
