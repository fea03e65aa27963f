"""The way of one picture through the service: read, prepared, through the network, finished, written."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Optional, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from depthcli.depthmap import DepthMap
from depthcli.errors import DepthError, EngineError, PictureError, first_line
from depthcli.host.cores import usable_cores
from depthcli.host.memory import BYTES_PER_PIXEL
from depthcli.io.pictures.images import check_size, picture_size, read_picture
from depthcli.jobs.folder import finish_map, warnings_of
from depthcli.pixels.postprocess import Answer
from depthcli.predict.picture import DepthEstimator, Prepared
from depthcli.serve.admission import Bodies, Places, Room
from depthcli.serve.answers import Body, Wanted, render
from depthcli.serve.metrics import BUSY, DONE, FAILED, LEFT, Metrics
from depthcli.serve.models import Models
from depthcli.serve.problems import BusyError, Refusal
from depthcli.serve.queries import DepthQuery, PictureQuery
from depthcli.serve.results import Result
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings

_BEGIN_SECONDS = 60.0  # from the end of the body to the network, at most
T = TypeVar("T")
Work = Callable[[bytes, float], Awaitable[T]]  # see Pictures.admit


@dataclass
class Timing:
    """Where the time of a request went: seconds by stage."""

    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Take the time of a block."""
        began = time.monotonic()
        yield
        self.stages[stage] = time.monotonic() - began

    def header(self) -> str:
        """Return the header Server-Timing."""
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in self.stages.items())


@dataclass(frozen=True, eq=False)
class Estimated:
    """A picture that is done. body: None if it is kept and not sent."""

    result: Result
    body: Optional[Body]
    timing: Timing


class Pictures:
    """Estimates pictures for requests. It belongs to the event loop; its threads do the work. `close` it in the end."""

    def __init__(self, settings: ServiceSettings, models: Models, runner: Runner, metrics: Metrics) -> None:
        self._settings, self._models, self._runner, self._metrics = settings, models, runner, metrics
        cores = usable_cores()
        # As the folder job: the network needs the cores too, and a picture that is nearly done goes first.
        self._readers = ThreadPoolExecutor(max(1, cores // 3), "reader")
        self._writers = ThreadPoolExecutor(max(1, cores // 2), "writer")
        self._loader = ThreadPoolExecutor(1, "loader")
        self.places = Places(settings.queue + 1)
        self._bodies = Bodies(2 * settings.max_bytes)
        self._room = Room()

    async def estimate(self, request: Request, query: DepthQuery) -> Estimated:
        """Return the picture of a request, estimated. Raises DepthError, and ClientDisconnect if nobody waits."""

        def begin() -> Work[Estimated]:
            wanted, name = query.wanted(), self._models.check(query.model)
            return lambda body, until: self._work(body, query, wanted, name, until)

        return await self.admit(request, query, begin)

    async def admit(self, request: Request, query: PictureQuery, begin: Callable[[], Work[T]]) -> T:
        """Return what is made of the picture of a request; it has a place in the queue, and counts in the figures.

        begin: checks the request before its body is read, and returns what works on the body until a time on
        time.monotonic, after which it is not to begin with a network any more. Raises as `estimate`.
        """
        self._metrics.queue_length.set(self.places.taken + 1)
        result = FAILED
        try:
            with self.places.one():
                _ = query.camera, query.metres  # raise before the body is read
                done = await self._answered(request, begin())
            result = DONE
            return done
        except BusyError:
            result = BUSY
            raise
        except ClientDisconnect:
            result = LEFT
            raise
        except (DepthError, asyncio.CancelledError):
            raise
        except MemoryError:
            raise EngineError("not enough memory", "send a smaller picture, or use a smaller `input_size`") from None
        finally:
            self._metrics.pictures.labels(result).inc()
            self._metrics.queue_length.set(self.places.taken)

    async def render(self, result: Result, wanted: Wanted) -> Body:
        """Return the answer for a depth map that was kept."""
        return await self.write(lambda: _render(result.depth, result.rgb, result.name, wanted))

    async def write(self, call: Callable[[], T]) -> T:
        """Return what a call returns, made by one of the threads that write."""
        return await self._in(self._writers, call)

    def close(self) -> None:
        """Wait for the threads."""
        for pool in (self._readers, self._writers, self._loader):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _answered(self, request: Request, begun: Work[T]) -> T:
        body = await self._read_body(request)
        try:
            until = time.monotonic() + _BEGIN_SECONDS
            leaving = asyncio.ensure_future(_left(request))
            work = asyncio.ensure_future(begun(bytes(body), until))
            try:
                await asyncio.wait({leaving, work}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise ClientDisconnect
                return work.result()
            finally:
                for task in (leaving, work):
                    task.cancel()
                await asyncio.gather(leaving, work, return_exceptions=True)
        finally:
            self._bodies.remove(len(body))

    async def _read_body(self, request: Request) -> bytearray:
        """Return the body. Raises Refusal for one that is too large, and BusyError if the memory is full of them."""
        most = self._settings.max_bytes
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > most:
            raise too_large(most)
        body = bytearray()
        try:
            async for chunk in request.stream():
                if len(body) + len(chunk) > most:
                    raise too_large(most)
                self._bodies.add(len(chunk))
                body += chunk
        except BaseException:
            self._bodies.remove(len(body))
            raise
        return body

    async def _work(self, body: bytes, query: DepthQuery, wanted: Wanted, name: str, until: float) -> Estimated:
        timing = Timing()
        async with self.read(body, query, name, until, timing) as (estimator, prepared):
            wanted.outputs.check_kind(estimator.kind)
            answer = await self.run(estimator, prepared, until, timing)

            def finish() -> tuple[Result, Optional[Body]]:
                settings = query.settings(name, self._settings) if query.keep else {}
                return _finish(estimator, prepared, answer, body, query, wanted, settings)

            with timing.of("write"):
                result, answered = await self.write(finish)
        self.count(result.depth)
        return Estimated(result, answered, timing)

    @asynccontextmanager
    async def read(
        self, body: bytes, query: PictureQuery, name: str, until: float, timing: Timing
    ) -> AsyncIterator[tuple[DepthEstimator, Prepared]]:
        """Give the model of a name with the options of a request, and the picture; both are held in the block."""
        size = await self._in(self._readers, lambda: self._size(body, query))
        async with self._room.taken(size[0] * size[1] * BYTES_PER_PIXEL, until - time.monotonic()):
            async with self._model(name) as loaded:
                estimator = query.variant(loaded)
                with timing.of("read"):
                    prepared = await self._in(self._readers, lambda: self._prepare(body, query, estimator))
                yield estimator, prepared

    async def run(self, estimator: DepthEstimator, prepared: Prepared, until: float, timing: Timing) -> Answer:
        """Return the answer of the network, in its turn."""
        waiting = self._runner.submit(estimator, prepared, until)
        try:
            answer, waited, seconds = await asyncio.wrap_future(waiting)
        finally:
            waiting.cancel()
        timing.stages.update(queue=waited, network=seconds)
        return answer

    def count(self, depth: DepthMap) -> None:
        """Count the pixels of a map that was made."""
        width, height = depth.size
        self._metrics.pixels.inc(width * height)

    @asynccontextmanager
    async def _model(self, name: str) -> AsyncIterator[DepthEstimator]:
        """Give a model; loading one may take long, so that the readers go on with other pictures."""
        found = self._models.take_loaded(name)
        if found is None:
            loading = self._loader.submit(self._models.take, name)
            try:
                found = await asyncio.shield(asyncio.wrap_future(loading))
            except asyncio.CancelledError:
                loading.add_done_callback(lambda done: self._give_back(name, done))
                raise
        try:
            yield found
        finally:
            self._models.give_back(name)

    def _give_back(self, name: str, loaded: Future[DepthEstimator]) -> None:
        """Give back a model that was loaded for a client that has left."""
        if not loaded.cancelled() and loaded.exception() is None:
            self._models.give_back(name)

    def _size(self, body: bytes, query: PictureQuery) -> tuple[int, int]:
        """Return (width, height) of a picture; (0, 0) if its header does not tell, which reading it will."""
        size = picture_size(BytesIO(body))
        if size is not None:
            check_size(size, query.shown_name or "the picture", self._settings.max_pixels)
        return size or (0, 0)

    def _prepare(self, body: bytes, query: PictureQuery, estimator: DepthEstimator) -> Prepared:
        picture = read_picture(body, query.name or None, self._settings.max_pixels, query.keeps_alpha)
        return estimator.prepare(picture)

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def too_large(most: int) -> Refusal:
    """Return the refusal of a body."""
    return Refusal(413, f"the file is larger than {most / 1e6:.4g} MB", "make it smaller first")


def _finish(
    estimator: DepthEstimator,
    prepared: Prepared,
    answer: Answer,
    body: bytes,
    query: DepthQuery,
    wanted: Wanted,
    settings: Mapping[str, Any],
) -> tuple[Result, Optional[Body]]:
    """Return the result of a picture and the answer; files in a ZIP, and what is kept, know the picture's digest."""
    sha256 = hashlib.sha256(body).hexdigest() if wanted.is_zip or query.keep else ""
    depth = finish_map(estimator, prepared, answer, sha256)
    about = {
        "notes": list(prepared.picture.notes),
        "warnings": list(warnings_of(prepared, depth, wanted.outputs)),
        "remembered": estimator.remembered,
    }
    result = Result(depth, prepared.picture.rgb, query.name, about, settings)
    return result, None if query.keep else _render(depth, result.rgb, query.name, wanted)


def _render(depth: DepthMap, rgb: Any, name: str, wanted: Wanted) -> Body:
    """Return the answer. Raises DepthError, whatever a writer raises."""
    try:
        return render(depth, rgb, name, wanted)
    except (DepthError, MemoryError):
        raise
    except Exception as error:
        raise PictureError(f"{type(error).__name__}: {first_line(error)}") from error


async def _left(request: Request) -> None:
    """Return when the client has left."""
    with suppress(asyncio.CancelledError):
        while (await request.receive())["type"] != "http.disconnect":
            pass
