"""Many requests at once, and the end of a service: every answer is counted."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from tests.serve.running import Got, Service, until

THREADS = 60


def picture(width: int, height: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), width % 251, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_of_1000_requests_beyond_the_queue_each_gets_its_own_answer(serving):
    """60 connections against a queue of 16: depth for its picture, or 503 at once. No answer is lost."""
    widths = [40 + number % 50 for number in range(1000)]
    bodies = {width: picture(width) for width in set(widths)}
    local = threading.local()
    times: dict[int, list[float]] = {200: [], 503: []}

    with serving("--queue", 16, network=0.004) as service:

        def send(number: int) -> Got:
            if not hasattr(local, "connection"):
                local.connection = service.connect()
            width = widths[number]
            began = time.monotonic()
            got = service.ask(f"/v1/depth?format=f16&name={number}.png", bodies[width], connection=local.connection)
            times[got.status].append(time.monotonic() - began)
            return got

        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(send, range(1000)))
        figures = service.ask("/metrics").body.decode()

    counts = Counter(got.status for got in answers)
    assert len(answers) == counts[200] + counts[503] == 1000
    assert counts[200] >= 17 and counts[503] > 0  # the queue was full, and still work was done
    for number, got in enumerate(answers):
        if got.status == 200:
            assert (got.meta["source"], got.meta["width"]) == (f"{number}.png", widths[number])
            assert len(got.body) == 2 * widths[number] * 40
        else:
            assert int(got.headers["retry-after"]) >= 1 and got.json["exit_code"] == 5
    assert f'depth_pictures_total{{result="done"}} {counts[200]}.0' in figures
    assert f'depth_pictures_total{{result="busy"}} {counts[503]}.0' in figures
    assert "\ndepth_queue_length 0.0" in figures


def test_a_signal_lets_everything_that_was_accepted_be_answered(serving):
    with serving(network=0.25) as service, ThreadPoolExecutor(6) as pool:
        body = picture(60)
        accepted = [pool.submit(service.depth, body, format="f16") for _ in range(6)]
        until(lambda: b"\ndepth_queue_length 6.0" in service.ask("/metrics").body)
        service.signal()
        newcomer = until(lambda: (lambda got: got if got.status == 503 else None)(service.ask("/readyz")))
        assert "stopping" in newcomer.json["title"]
        assert service.depth(body).status == 503
        assert [future.result().status for future in accepted] == [200] * 6
        assert service.process.wait(10) == 0
        with pytest.raises(OSError):
            service.ask("/livez")


def test_a_second_signal_ends_at_once(serving):
    with serving(network=60) as service:  # whose end is not waited for
        thread = threading.Thread(target=lambda: _ignore(service))
        thread.start()
        until(lambda: b"\ndepth_queue_length 1.0" in service.ask("/metrics").body)
        service.signal()
        time.sleep(0.2)
        assert service.process.poll() is None
        service.signal(signal.SIGINT)
        service.process.wait(30)
        thread.join()


def _ignore(service: Service) -> None:
    try:
        service.depth(picture(50))
    except OSError:
        pass


def test_what_takes_longer_than_the_drain_is_cut_off(serving):
    with serving("--drain", "0s", network=1.5) as service:
        thread = threading.Thread(target=lambda: _ignore(service))
        thread.start()
        until(lambda: b"\ndepth_queue_length 1.0" in service.ask("/metrics").body)
        assert service.stop() == 0
        thread.join()


def test_a_picture_whose_client_has_left_never_reaches_the_network(serving):
    with serving(network=0.3) as service:
        first = threading.Thread(target=lambda: _ignore(service))
        first.start()
        until(lambda: b"\ndepth_queue_length 1.0" in service.ask("/metrics").body)
        body = picture(50)
        for _ in range(5):
            with service.socket() as connection:
                head = f"POST /v1/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                until(lambda: b"\ndepth_queue_length 2.0" in service.ask("/metrics").body)
        first.join()

        def figures() -> str:
            return service.ask("/metrics").body.decode()

        until(lambda: 'depth_pictures_total{result="left"} 5.0' in figures())
        runs = next(line for line in figures().splitlines() if line.startswith("depth_batch_size_count"))
        assert float(runs.split()[1]) < 6


def test_the_service_is_alive_while_the_network_runs(serving):
    with serving(network=0.4) as service, ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(service.depth, picture(300, 300)) for _ in range(3)]
        times = []
        connection = service.connect()
        while not all(future.done() for future in busy):
            began = time.monotonic()
            assert service.ask("/livez", connection=connection).status == 200
            times.append(time.monotonic() - began)
        assert len(times) > 4 and sorted(times)[len(times) // 2] < 0.2  # half of a run


def test_ready_and_check_say_the_same(serving, depth, monkeypatch):
    with serving("--drain", "10s", network=1.0) as service:
        assert service.ask("/readyz").status == 200
        assert depth("serve", "--check", service.address).code == 0
        assert depth("serve", "--check", "--port", service.port).code == 0
        thread = threading.Thread(target=lambda: _ignore(service))
        thread.start()
        until(lambda: b"\ndepth_queue_length 1.0" in service.ask("/metrics").body)
        service.signal()
        until(lambda: service.ask("/readyz").status == 503)
        ran = depth("serve", "--check", service.address)
        assert ran.code == 5 and "stopping" in ran.error
        thread.join()
        service.process.wait(10)
        ran = depth("serve", "--check", service.address)
        assert ran.code == 5 and "there is no service" in ran.error


@pytest.mark.slow
def test_memory_stays_flat_over_2000_pictures_of_mixed_sizes(serving):
    bodies = [picture(40 + 37 * number % 900, 40 + 53 * number % 700) for number in range(40)]
    with serving() as service:
        connection = service.connect()

        def send(number: int) -> int:
            body = bodies[number % len(bodies)]
            format = ("f16", "gray", "color,npz")[number % 3]
            return service.ask(f"/v1/depth?format={format}", body, connection=connection).status

        assert {send(number) for number in range(1000)} == {200}
        half = service.memory()
        assert {send(number) for number in range(1000, 2000)} == {200}
        assert service.memory() <= 1.03 * half


def test_a_photo_that_is_kept_open_by_nobody(serving):
    """A slow reader of an answer does not stop the others."""
    with serving() as service:
        body = photo("a.png", (900, 700)).read_bytes()
        with service.socket() as lazy:
            head = f"POST /v1/depth?format=npz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            lazy.sendall(head.encode() + body)
            time.sleep(0.2)
            assert all(service.depth(body, format="f16").status == 200 for _ in range(3))
