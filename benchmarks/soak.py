"""Ask a running service for minutes, rightly and wrongly at random, and report whether it stays well.

    depth serve --models tiny --clips clips --port 7373 &
    python benchmarks/soak.py                                  # 30 minutes, against http://127.0.0.1:7373
    python benchmarks/soak.py --minutes 2 --seed 7 --address http://127.0.0.1:7399 --pid 4711

A request is a picture of a random size and format, a damaged one, a parameter that makes no sense, a path that leads
out, half a request on a bare socket, a clip that is cancelled, or a question about state. What counts: every answer is
one that its request may have, `/livez` answers within a second, and the service's memory grows by at most 5 % from the
second fifth of the time to the last (on Linux; kept maps are deleted). A line for each minute; exit code 1 for a
finding.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from PIL import Image

GROWTH = 0.05
LIVE_SECONDS = 1.0
FORMATS = ("color", "gray", "npz", "exr", "ply", "f16", "f32", "normal", "color,gray", "obj")
NONSENSE = (
    "../../etc/passwd",
    "%2e%2e/x",
    "\\..\\x",
    "/etc/passwd",
    "\x00",
    "ü" * 300,
    "-1",
    "1e309",
    "nan",
    "",
    "{}",
    "' or 1=1",
)
ANSWERS = {200, 201, 202, 204, 206, 307, 400, 401, 403, 404, 405, 413, 415, 416, 421, 422, 431, 503, 507}


class Soak:
    """The requests of several threads, and what came of them."""

    def __init__(self, address: str, seed: int) -> None:
        parts = urlsplit(address)
        self._host, self._port = str(parts.hostname), parts.port or 80
        self._seed = seed
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self.stop = threading.Event()
        self.about = json.loads(self._ask("GET", "/v1")[1])
        self._lock = threading.Lock()

    def work(self, number: int) -> None:
        """Send requests until it is time to stop."""
        rng = random.Random(f"{self._seed} {number}")
        kinds: list[Callable[[random.Random], None]] = [
            self._picture,
            self._picture,
            self._kept,
            self._damaged,
            self._wrong,
            self._outside,
            self._bare,
            self._state,
        ]
        if self.about["clip_formats"]:
            kinds.append(self._clip)
        while not self.stop.is_set():
            kind = rng.choice(kinds)
            try:
                kind(rng)
            except (OSError, http.client.HTTPException) as error:
                self._find(f"{kind.__name__}: {type(error).__name__}: {error}")
                time.sleep(0.5)
            with self._lock:
                self.counts[kind.__name__.strip("_")] += 1

    def watch(self) -> None:
        """Ask `/livez` twice a second."""
        while not self.stop.wait(0.5):
            began = time.monotonic()
            try:
                status, _ = self._ask("GET", "/livez")
                took = time.monotonic() - began
                if status != 200 or took > LIVE_SECONDS:
                    self._find(f"/livez: {status} after {took:.2f} s")
            except (OSError, http.client.HTTPException) as error:
                self._find(f"/livez: {type(error).__name__}: {error}")

    # --- Requests -----------------------------------------------------------------------------------------------------

    def _picture(self, rng: random.Random) -> None:
        query = {"format": rng.choice(FORMATS), "name": rng.choice(["a.png", "ü b.jpg", "x" * 200])}
        if rng.random() < 0.3:
            query.update(rng.choice([{"input_size": "56"}, {"panorama": "1"}, {"fov": "70"}, {"colormap": "turbo"}]))
        self._expect({200, 400, 422, 503}, "POST", "/v1/depth", query, _picture(rng))

    def _kept(self, rng: random.Random) -> None:
        status, body = self._expect({201, 503}, "POST", "/v1/depth", {"keep": "1"}, _picture(rng))
        if status == 201:
            url = json.loads(body)["url"]
            for path in (
                f"{url}/{rng.choice(['gray', 'npz', 'f16'])}",
                f"{url}/photo",
                f"{url}/{quote(rng.choice(NONSENSE), safe='')}",
            ):
                self._expect({200, 307, 400, 404, 405, 503}, "GET", path)
            self._expect({204}, "DELETE", url)

    def _damaged(self, rng: random.Random) -> None:
        data = bytearray(_picture(rng))
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randint(1, len(data))] if rng.random() < 0.5 else data
        self._expect({200, 422, 503}, "POST", "/v1/depth", {"format": "gray"}, bytes(data))

    def _wrong(self, rng: random.Random) -> None:
        name = rng.choice(
            ["format", "model", "input_size", "fov", "scale_from", "intrinsics", "points", "edges", "file", "nope"]
        )
        self._expect({200, 400, 422, 503}, "POST", "/v1/depth", {name: rng.choice(NONSENSE)}, _picture(rng))

    def _outside(self, rng: random.Random) -> None:
        start = rng.choice(["/v1/results/", "/v1/jobs/", "/v1/gallery/", "/page/", "/", "/v1/jobs/x/files/"])
        method = rng.choice(["GET", "DELETE", "POST", "PUT", "PATCH", "TRACE"])
        self._expect({307, 400, 404, 405}, method, start + quote(rng.choice(NONSENSE[:-3]) or "x", safe="/"))

    def _state(self, rng: random.Random) -> None:
        self._expect({200}, "GET", rng.choice(["/v1", "/readyz", "/metrics", "/openapi.json"]))

    def _clip(self, rng: random.Random) -> None:
        clip = rng.choice([b"no clip", _film(rng)])
        status, body = self._expect(
            {202, 400, 503, 507}, "POST", "/v1/clips", {"name": "a.y4m", "input_size": "56"}, clip
        )
        if status == 202:
            url = json.loads(body)["url"]
            for _ in range(rng.randint(0, 10)):
                self._expect({200}, "GET", url)
                time.sleep(0.05)
            for _ in range(100):  # cancelled first, if it has not ended
                if self._expect({200, 204}, "DELETE", url)[0] == 204:
                    break
                time.sleep(0.1)

    def _bare(self, rng: random.Random) -> None:
        """Send what is no request, or only a part of one, and leave."""
        head = f"POST /v1/depth HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Length: 5000\r\n\r\n".encode()
        parts = [
            b"",
            b"GET",
            head,
            head + b"x" * 100,
            b"\x16\x03\x01\x02\x00",
            rng.randbytes(500),
            b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
        ]
        with socket.create_connection((self._host, self._port), timeout=10) as bare, suppress(OSError):
            bare.sendall(rng.choice(parts))
            bare.settimeout(rng.choice([0.01, 0.2]))
            bare.recv(1000)

    # ------------------------------------------------------------------------------------------------------------------

    def _expect(
        self, allowed: set[int], method: str, path: str, query: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        status, answer = self._ask(method, path + (f"?{urlencode(query)}" if query else ""), body)
        with self._lock:
            self.counts[str(status)] += 1
        if status not in allowed & ANSWERS:
            self._find(f"{method} {path} {query}: {status} {answer[:200]!r}")
        return status, answer

    def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=120)) as connection:
            connection.request(method, path, body or None)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _find(self, line: str) -> None:
        with self._lock:
            self.findings.append(line)
        print(f"finding: {line}", flush=True)


def _picture(rng: random.Random) -> bytes:
    width, height = rng.randint(1, 400), rng.randint(1, 300)
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, rng.choice(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    return stream.getvalue()


def _film(rng: random.Random) -> bytes:
    frames = rng.randint(1, 8)
    return b"YUV4MPEG2 W64 H48 F24:1 C420jpeg\n" + b"".join(
        b"FRAME\n" + rng.randbytes(64 * 48 * 3 // 2) for _ in range(frames)
    )


def resident(pid: int) -> float:
    """Return the resident megabytes of a process. Linux alone."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def main() -> int:
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--address", default="http://127.0.0.1:7373")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pid", type=int, help="of the service, to watch its memory")
    wanted = parser.parse_args()
    soak = Soak(wanted.address, wanted.seed)
    threads = [threading.Thread(target=soak.work, args=(number,)) for number in range(wanted.threads)]
    threads.append(threading.Thread(target=soak.watch))
    began, memory = time.monotonic(), []
    for thread in threads:
        thread.start()
    try:
        while (passed := time.monotonic() - began) < 60 * wanted.minutes:
            time.sleep(min(5.0, 60 * wanted.minutes - passed))
            if wanted.pid:
                memory.append(resident(wanted.pid))
            if passed // 60 != (passed + 5) // 60 or wanted.minutes < 1:
                shown = f", {memory[-1]:.1f} MB" if memory else ""
                print(f"{passed / 60:.1f} min: {sum(soak.counts.values())} requests{shown}", flush=True)
    finally:
        soak.stop.set()
        for thread in threads:
            thread.join()
    print(dict(sorted(soak.counts.items())))
    if len(memory) >= 10:
        settled, rest = memory[len(memory) // 5 : 2 * len(memory) // 5], memory[-len(memory) // 5 :]
        growth = sum(rest) / len(rest) / (sum(settled) / len(settled)) - 1
        seen = f"{memory[0]:.1f} MB at first, {settled[0]:.1f} after a fifth, {memory[-1]:.1f} at the end"
        print(f"memory: {seen}, {growth:+.1%}")
        if growth > GROWTH:
            soak.findings.append(f"memory grew by {growth:.1%}")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, {len(soak.findings)} findings")
    return int(bool(soak.findings))


if __name__ == "__main__":
    sys.exit(main())
