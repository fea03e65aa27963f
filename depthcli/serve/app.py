"""The service as an ASGI application: its routes, and what they share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Optional, Union

from fastapi import FastAPI, HTTPException, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from depthcli.depthmap import DepthMap
from depthcli.errors import DepthError, EngineError, Log, ModelError, UsageError, first_line
from depthcli.host import allocator
from depthcli.io.codecs.formats import CLIPS, STILLS
from depthcli.io.scenes.files import EXPORTS
from depthcli.jobs.scene import DEPTH
from depthcli.serve.admission import Places
from depthcli.serve.answers import RAW, Body, Wanted, disposition, media_type_of, meta_of, render
from depthcli.serve.clip_query import ClipQuery
from depthcli.serve.clip_work import ClipWork, plain_clip_name
from depthcli.serve.gallery import MOST_ENTRIES, Galleries
from depthcli.serve.guard import Guard
from depthcli.serve.jobs import ENDED, Jobs, Wish
from depthcli.serve.metrics import Metrics
from depthcli.serve.models import Models
from depthcli.serve.objects import Found, ObjectFinder
from depthcli.serve.objects_query import ChoiceQuery, ObjectsQuery, formats_of
from depthcli.serve.page_files import page_files
from depthcli.serve.photos import jpeg_of
from depthcli.serve.pictures import Estimated, Pictures
from depthcli.serve.problems import PROBLEM, BusyError, Refusal, problem_of
from depthcli.serve.queries import DepthQuery, LookQuery
from depthcli.serve.results import Result, Results
from depthcli.serve.runner import Runner
from depthcli.serve.scene_query import SceneQuery
from depthcli.serve.scene_work import SceneWork, scene_file_name
from depthcli.serve.settings import ServiceSettings
from depthcli.version import __version__

_MOST_UPLOADS = 4  # of clips at once
_EVENT_SECONDS, _COMMENT_SECONDS = 0.5, 15.0
_IDLE_SECONDS = 5.0  # between two looks for models and results that are not needed any more
_LEFT = 499  # nobody reads it


class Service:
    """What the routes share. `start` it in the event loop, and `close` it in the end."""

    def __init__(self, settings: ServiceSettings, log: Log) -> None:
        self.settings, self.log = settings, log
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics, log)
        self.runner = Runner(self.metrics)
        self.results = Results()
        self.draining = False
        self.pictures = Pictures(settings, self.models, self.runner, self.metrics)
        self.objects = ObjectFinder(settings, self.models, self.pictures, self.runner, self.results, self.metrics, log)
        self.jobs: Optional[Jobs] = None
        if settings.clips is not None:
            works = (ClipWork(settings, self.models, self.runner, log), SceneWork(settings, self.models))
            self.jobs = Jobs(settings.clips, settings, works, self.runner, self.metrics)

    def start(self) -> None:
        """Load the first model and the detector, and go on with the jobs that an earlier service left."""
        self.models.load_first()
        self.objects.load()
        if self.jobs is not None:
            self.jobs.start()

    @property
    def busy(self) -> bool:
        """Whether a picture or a job is in work."""
        return self.pictures.places.taken > 0 or (self.jobs is not None and self.jobs.busy)

    def check(self) -> None:
        """Raise a DepthError if the service cannot take work now."""
        self.check_stays()
        if self.runner.lost is not None:
            raise self.runner.lost
        if self.models.error is not None:
            raise self.models.error
        if not self.runner.alive or not self.models.names or not self.models.is_loaded(self.models.names[0]):
            raise BusyError("the model is not loaded yet")
        if not self.objects.ready:
            raise BusyError("the detector is not loaded yet")

    def check_stays(self) -> None:
        """Raise BusyError if the service is stopping."""
        if self.draining:
            raise BusyError("the service is stopping")

    def drain(self) -> None:
        """Take no new work, and stop jobs at their next step."""
        self.draining = True
        if self.jobs is not None:
            self.jobs.stop()

    async def tidy(self) -> None:
        """Forget what is old, for ever."""
        while True:
            await asyncio.sleep(_IDLE_SECONDS)
            self.results.drop_old()
            await asyncio.to_thread(self.models.drop_idle)
            await asyncio.to_thread(allocator.give_back)

    def close(self) -> None:
        """End the threads and free the models."""
        if self.jobs is not None:
            self.jobs.close()
        self.runner.close()
        self.pictures.close()
        self.objects.close()
        self.models.close()


def make_app(service: Service) -> Any:
    """Return the ASGI application of a service, guarded."""
    settings = service.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(service.tidy())
        yield
        tidying.cancel()

    app = FastAPIOffline(
        title="depth",
        version=__version__,
        description="Depth maps of pictures, clips and scenes.",
        lifespan=lifespan,
        redoc_url=None,
        responses=_REFUSED,
        dependencies=[Security(_TOKEN)] if settings.token else [],
    )
    app.state.root = settings.root_path
    _add_errors(app, service)
    _add_state(app, service)
    _add_pictures(app, service)
    if service.jobs is not None:
        _add_jobs(app, service, service.jobs)
    else:
        _refuse_scenes(app, service)
    if settings.galleries:
        _add_gallery(app, service)
    if settings.page:
        _add_page(app)
    return Guard(app, settings, service.metrics)


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(DepthError)
    async def expected(request: Request, error: DepthError) -> Response:
        return problem_of(error, request)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1]) if first.get("loc") else "parameter"
        if first["type"] == "extra_forbidden":
            return problem_of(UsageError(f"there is no parameter {name!r}", "see /docs"), request)
        return problem_of(UsageError(f"`{name}`: {first['msg']}", "see /docs"), request)

    @app.exception_handler(StarletteHTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"there is no {request.url.path}" if error.status_code == 404 else str(error.detail)
        refusal = Refusal(error.status_code, what, "see /docs", UsageError.exit_code, getattr(error, "headers", None))
        return problem_of(refusal, request)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_LEFT)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        line = f"unexpected {type(error).__name__}: {first_line(error)}"
        service.log(f"error: {request.method} {request.url.path}: {line}")
        return problem_of(DepthError(line, "please report it"), request)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/livez", tags=["state"], summary="200 if the service answers at all")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", tags=["state"], summary="200 if the service takes work, else 503")
    async def ready() -> dict[str, str]:
        try:
            service.check()
        except (ModelError, EngineError) as error:
            raise Refusal(503, error.message, error.hint, error.exit_code) from error
        return {"status": "ready"}

    @app.get("/v1", tags=["state"], summary="Version, models, formats and limits")
    async def about() -> dict[str, Any]:
        return describe(service)

    @app.get("/metrics", tags=["state"], summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def describe(service: Service) -> dict[str, Any]:
    """Return what a service offers, JSON-ready."""
    settings = service.settings
    return {
        "service": "depthcli",
        "version": __version__,
        "models": service.models.describe(),
        "formats": {name: row.what for name, row in STILLS.items()},
        "raw_formats": list(RAW),
        "clip_formats": {name: row.what for name, row in CLIPS.items()} if settings.clips else {},
        "scene_formats": _scene_formats() if service.models.scene_names else {},
        "objects": service.objects.describe(),
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "queue": settings.queue,
            "concurrency": max(1, min(settings.queue, 8)),
            "max_clip_bytes": settings.max_clip_bytes,
        },
        "galleries": [folder.resolve().name for folder in settings.galleries],
        "token": bool(settings.token),
    }


def _scene_formats() -> dict[str, str]:
    views = {f"{DEPTH}{name}": f"for each view: {row.what}" for name, row in STILLS.items()}
    return {**{name: row.what for name, row in EXPORTS.items()}, **views}


def _add_pictures(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/depth",
        tags=["pictures"],
        summary="Depth of the picture in the body",
        openapi_extra=_BODY,
        response_class=Response,
        responses={**_FILE, 201: {"description": "Kept: what is known of it, as JSON. Its address is in Location."}},
    )
    async def depth(request: Request, query: Annotated[DepthQuery, Query()]) -> Response:
        service.check_stays()
        refuse_multipart(request)
        done = await service.pictures.estimate(request, query)
        if done.body is None:
            name = service.results.add(done.result)
            return _kept(app, name, done)
        return body_of(done.body, done.result.depth, done.result.about, {"Server-Timing": done.timing.header()})

    def kept(name: str) -> Result:
        found = service.results.get(name)
        if found is None:
            raise Refusal(404, "this result is not kept any more", "send the picture again", 1)
        return found

    @app.get("/v1/results/{name}", tags=["pictures"], summary="What is known of a kept depth map")
    async def result(name: str) -> dict[str, Any]:
        return _about_kept(app, name, kept(name))

    @app.get("/v1/results/{name}/photo", tags=["pictures"], summary="The upright picture of a kept depth map, as JPEG")
    async def photo(name: str, max_side: Annotated[int, Query(ge=16, le=8192)] = 2048) -> Response:
        rgb = kept(name).rgb
        data = await asyncio.to_thread(jpeg_of, rgb, max_side)
        return Response(data, media_type="image/jpeg")

    _add_objects(app, service, kept)

    @app.get("/v1/results/{name}/{format}", tags=["pictures"], summary="A kept depth map in a format")
    async def rendered(name: str, format: str, query: Annotated[LookQuery, Query()]) -> Response:
        found = kept(name)
        body = await service.pictures.render(found, query.look([format]))
        return body_of(body, found.depth, found.about, {})

    @app.delete("/v1/results/{name}", tags=["pictures"], summary="Forget a kept depth map", status_code=204)
    async def forget(name: str) -> Response:
        kept(name)
        service.results.remove(name)
        return Response(status_code=204)


def _add_objects(app: FastAPI, service: Service, kept: Callable[[str], Result]) -> None:
    """Add what a detector does; its places below a result stand before those of formats."""

    async def of_kept(name: str, query: ChoiceQuery, formats: tuple[str, ...]) -> Response:
        found = kept(name)
        if not found.answers:
            service.check_stays()
        return objects_of(await service.objects.of_kept(name, found, query, formats))

    @app.post(
        "/v1/objects",
        tags=["objects"],
        summary="Objects of the picture in the body, with depth",
        openapi_extra=_BODY,
        response_class=Response,
        responses=_FILE,
    )
    async def objects(request: Request, query: Annotated[ObjectsQuery, Query()]) -> Response:
        service.check_stays()
        refuse_multipart(request)
        return objects_of(await service.objects.of_picture(request, query))

    @app.get("/v1/results/{name}/objects", tags=["objects"], summary="Objects of a kept depth map, as JSON")
    async def kept_objects(name: str, query: Annotated[ChoiceQuery, Query()]) -> Response:
        return await of_kept(name, query, ("json",))

    @app.get("/v1/results/{name}/objects/{format}", tags=["objects"], summary="The same in a format")
    async def kept_files(name: str, format: str, query: Annotated[ChoiceQuery, Query()]) -> Response:
        return await of_kept(name, query, formats_of([format]))


# What the API's description says of every request. The guard looks at the token.
_TOKEN = HTTPBearer(auto_error=False, description="The token of the service.")
_REFUSED: dict[Union[int, str], dict[str, Any]] = {
    "default": {
        "description": "A problem: 400 a parameter, 401 the token, 404 nothing there, 413 too large, 415 a form, "
        "421 the name of the service, 422 a file that cannot be read, 503 busy (see Retry-After), 507 no space.",
        "content": {
            PROBLEM: {
                "schema": {
                    "type": "object",
                    "required": ["title", "hint", "status", "exit_code", "request_id"],
                    "properties": {
                        "title": {"type": "string"},
                        "hint": {"type": "string"},
                        "status": {"type": "integer"},
                        "exit_code": {"type": "integer"},
                        "request_id": {"type": "string"},
                    },
                }
            }
        },
    }
}
_FILE: dict[Union[int, str], dict[str, Any]] = {
    200: {"description": "The file, a ZIP of several, or bare numbers.", "content": {"application/octet-stream": {}}}
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def refuse_multipart(request: Request, command: str = "curl --data-binary @FILE") -> None:
    """Raise Refusal for a form: the body is the file itself. command: that sends it."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        url = f"{request.url.path}?{request.url.query}".rstrip("?")
        raise Refusal(415, "the body must be the file itself, not a form", f"{command} '{url}'", 2)


def body_of(body: Body, depth: Any, about: Any, headers: dict[str, str]) -> Response:
    """Return the answer that holds a rendered map."""
    return Response(
        body.data,
        headers={
            "Depth-Meta": meta_of(depth, body.size, about),
            "Content-Disposition": disposition(body.name),
            **headers,
        },
        media_type=body.media_type,
    )


def objects_of(found: Found) -> Response:
    """Return the answer that holds the files of objects."""
    return body_of(found.body, found.depth, found.about, {"Server-Timing": found.timing.header()})


def _kept(app: FastAPI, name: str, done: Estimated) -> Response:
    about = _about_kept(app, name, done.result)
    return JSONResponse(about, 201, {"Location": about["url"], "Server-Timing": done.timing.header()})


def _about_kept(app: FastAPI, name: str, result: Result) -> dict[str, Any]:
    meta = json.loads(meta_of(result.depth, result.depth.size, result.about))
    return {"id": name, "url": f"{app.state.root}/v1/results/{name}", "name": result.name, "meta": meta}


def _add_jobs(app: FastAPI, service: Service, jobs: Jobs) -> None:
    root = app.state.root
    uploads = Places(_MOST_UPLOADS)

    async def received(request: Request, kind: str, names: tuple[str, str], wish: Wish, key: str) -> Response:
        """Take the body of a request as a job. names: of the file, and of the job if that is another."""
        with uploads.one(), jobs.upload(kind, names[0], wish, key, names[1] if names[1] != names[0] else "") as upload:
            stated = request.headers.get("content-length", "0")
            upload.expect(int(stated) if stated.isdecimal() else 0)
            async for chunk in request.stream():
                upload.write(chunk)
            await asyncio.to_thread(jobs.receive, wish, upload)
        assert upload.job is not None
        about = jobs.describe(upload.job, root)
        return JSONResponse(about, 202, {"Location": about["url"]})

    @app.post(
        "/v1/clips",
        tags=["jobs"],
        summary="Depth of the clip in the body, as a job",
        status_code=202,
        openapi_extra=_BODY,
    )
    async def clip(request: Request, query: Annotated[ClipQuery, Query()]) -> Response:
        service.check_stays()
        refuse_multipart(request)
        wish = query.wish(service.models.check_clip(query.model))
        name = plain_clip_name(query.name)
        return await received(request, ClipWork.kind, (name, name), wish, query.key)

    @app.post(
        "/v1/scenes",
        tags=["jobs"],
        summary="Depth and cameras of the pictures in the body, a tar, or of the clip in it, as a job",
        status_code=202,
        openapi_extra=_BODY,
    )
    async def scene(request: Request, query: Annotated[SceneQuery, Query()]) -> Response:
        service.check_stays()
        refuse_multipart(request, "tar c a.jpg b.jpg | curl --data-binary @-")
        wish = query.wish(service.models.check_scene(query.model))
        return await received(request, SceneWork.kind, scene_file_name(query.name), wish, query.key)

    @app.get("/v1/jobs", tags=["jobs"], summary="All jobs, the newest first")
    async def every() -> dict[str, Any]:
        return {"jobs": [jobs.describe(job, root) for job in jobs.list()]}

    @app.get("/v1/jobs/{name}", tags=["jobs"], summary="A job")
    async def job(name: str) -> dict[str, Any]:
        return jobs.describe(jobs.get(name), root)

    @app.delete(
        "/v1/jobs/{name}",
        tags=["jobs"],
        summary="Cancel a job, or forget one that has ended",
        responses={204: {"description": "It is forgotten."}},
    )
    async def cancel(name: str) -> Response:
        left = await asyncio.to_thread(jobs.cancel, name)
        return Response(status_code=204) if left is None else JSONResponse(jobs.describe(left, root))

    @app.get("/v1/jobs/{name}/files/{file}", tags=["jobs"], summary="A file of a job, with Range")
    async def file(name: str, file: str) -> Response:
        path = jobs.path_of(jobs.get(name), file)
        return FileResponse(path, media_type=media_type_of(file), headers={"Content-Disposition": disposition(file)})

    @app.get("/v1/jobs/{name}/events", tags=["jobs"], summary="Progress of a job as text/event-stream")
    async def events(name: str, request: Request) -> Response:
        jobs.get(name)
        last = request.headers.get("last-event-id", "")
        return StreamingResponse(_events(service, jobs, name, root, last), media_type="text/event-stream")


def _refuse_scenes(app: FastAPI, service: Service) -> None:
    """Tell who sends a scene to a service without jobs how to start one."""

    @app.post("/v1/scenes", include_in_schema=False)
    async def scene() -> None:
        service.models.check_scene(None)


async def _events(service: Service, jobs: Jobs, name: str, root: str, last: str) -> AsyncIterator[bytes]:
    """Yield the changes of a job until it has ended. last: id of the event that the client had last."""
    state, version = "", last
    silent = time.monotonic()
    while not service.draining:
        try:
            job = jobs.get(name)
        except Refusal:  # it was forgotten
            return
        if str(job.version) != version:
            kind = "progress" if job.state == state else "state"
            state, version = job.state, str(job.version)
            data = json.dumps(jobs.describe(job, root))
            yield f"id: {version}\nevent: {kind}\ndata: {data}\n\n".encode()
            silent = time.monotonic()
        elif time.monotonic() - silent > _COMMENT_SECONDS:
            yield b": still here\n\n"
            silent = time.monotonic()
        if job.state in ENDED:
            return
        await asyncio.sleep(_EVENT_SECONDS)


def _add_gallery(app: FastAPI, service: Service) -> None:
    galleries = Galleries(service.settings.galleries)
    root = app.state.root

    @app.get("/v1/gallery", tags=["gallery"], summary="A page of results")
    async def page(
        gallery: int = 0, status: str = "", cursor: str = "", limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES)] = 60
    ) -> dict[str, Any]:
        return await asyncio.to_thread(galleries.page, gallery, status, cursor, limit, root)

    @app.get("/v1/gallery/{name}/thumb", tags=["gallery"], summary="A small JPEG of a result")
    async def thumb(name: str, max_side: Annotated[int, Query(ge=16, le=2048)] = 320) -> Response:
        data = await service.pictures.write(lambda: galleries.thumb(name, max_side))
        return Response(data, media_type="image/jpeg")

    @app.get("/v1/gallery/{name}/{format}", tags=["gallery"], summary="A file of a result, or its numbers")
    async def file(name: str, format: str, max_side: Optional[int] = None) -> Response:
        if format not in RAW:
            path = await asyncio.to_thread(galleries.path_of, name, format)
            shown = {"Content-Disposition": disposition(path.name)}
            return FileResponse(path, media_type=media_type_of(path.name), headers=shown)
        wanted = Wanted((format,), max_side=max_side)

        def numbers() -> tuple[DepthMap, Body]:
            depth = galleries.numbers(name)
            return depth, render(depth, None, depth.provenance.source, wanted)

        depth, body = await service.pictures.write(numbers)
        return body_of(body, depth, {"notes": [], "warnings": []}, {})


def _add_page(app: FastAPI) -> None:
    """Serve the files of the page: those that are there at the start, by name."""
    files = page_files()

    def page(name: str, request: Request) -> Response:
        found = files.get(name)
        if found is None:
            raise Refusal(404, "the page has no such file", exit_code=1)
        if found.zipped and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.zipped, media_type=found.media_type, headers={"Content-Encoding": "gzip"})
        return Response(found.content, media_type=found.media_type)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return page("index.html", request)

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return page(name, request)
