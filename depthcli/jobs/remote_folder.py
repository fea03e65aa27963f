"""The folder job on a service: pictures are sent, several at once, and their files come back whole."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, Union

from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import MetresChoice
from depthcli.choices.model import ModelChoice
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import DiskFullError, EngineError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.outputs import OneStream
from depthcli.jobs.manifest import DONE, Result
from depthcli.jobs.picture_file import PictureFile, file_digest
from depthcli.jobs.picture_job import FolderJob, failed, look_up, note, result_of
from depthcli.jobs.picture_results import file_facts, made_settings
from depthcli.jobs.pipeline import Lane, wait_for_oldest
from depthcli.jobs.remote import Client, ServiceGoneError, unpack
from depthcli.jobs.targets import Task
from depthcli.kinds import DepthKind

_MOST_AT_ONCE = 8
_MOST_NAME = 1000  # characters of a picture's path that are sent


@dataclass(frozen=True)
class RemoteModel:
    """The model of a service. weights, remembered: as of an estimator; None if it is not loaded there yet."""

    name: str
    title: str
    licence: str
    kind: DepthKind
    weights: Optional[str]
    remembered: Optional[str]
    description: Optional[str]

    @classmethod
    def of(cls, client: Client, rows: Sequence[Mapping[str, Any]], name: str) -> RemoteModel:
        """Return a model among those that a service offers. Raises UsageError if it is not there."""
        offered = {str(row["name"]): row for row in rows}
        if name not in offered:
            raise UsageError(f"the service at {client.address} has no model {name}", f"it has: {', '.join(offered)}")
        row = offered[name]
        return cls(
            name,
            str(row["title"]),
            str(row["licence"]),
            DepthKind(row["kind"]),
            row["weights_sha256"],
            row["remembered"],
            row["backend"],
        )


@dataclass(frozen=True)
class RemotePictures:
    """A service, and how it is asked. concurrency: pictures that are sent at once. query: of every picture."""

    client: Client
    model: RemoteModel
    concurrency: int
    query: Sequence[tuple[str, Any]]

    @classmethod
    def of(
        cls,
        client: Client,
        model: ModelChoice,
        formats: Sequence[str],
        options: Mapping[str, Any],
        camera: CameraChoice = CameraChoice(),
        metres: MetresChoice = MetresChoice(),
    ) -> RemotePictures:
        """Ask a service what it offers. Raises UsageError for what it does not, and EngineError if it is gone.

        options: further parameters of its requests, None for what is left open.
        """
        about = client.about()
        found = RemoteModel.of(client, about["models"], named_model(model) or str(about["models"][0]["name"]))
        missing = [format for format in formats if format not in about["formats"]]
        if missing:
            raise UsageError(f"the service at {client.address} does not write {missing[0]}", "it is of another version")
        if metres.is_given:
            found = replace(found, kind=DepthKind.METRIC_DEPTH)
        every = {**options, "model": found.name}
        query = [(key, value) for key, value in every.items() if value is not None]
        query += space_options(camera, metres)
        concurrency = min(_MOST_AT_ONCE, int(about["limits"]["concurrency"]))
        return cls(client, found, concurrency, query)


def space_options(camera: CameraChoice, metres: MetresChoice) -> list[tuple[str, Any]]:
    """Return the parameters of a camera and of what makes metres. Raises UsageError for files, which stay here."""
    every = {
        **{name: getattr(camera, name) for name in ("focal", "fov", "f35")},
        "intrinsics": _inline(camera),
        "scale": metres.scale,
        "fit": None if metres.fit == "auto" else metres.fit,
    }
    given = [(key, value) for key, value in every.items() if value is not None]
    return given + [("scale_from", text) for text in _measured(metres)]


def shape_options(shape: ShapeChoice) -> dict[str, Any]:
    """Return the parameters that say how points and meshes are made."""
    return {
        "axes": shape.axes,
        "edges": "off" if shape.edges is None else shape.edges,
        "points": "all" if shape.points is None else shape.points,
        "mesh_size": shape.mesh_size,
        "farthest": shape.farthest,
    }


def run_on_service(
    job: FolderJob, open_service: Callable[[], RemotePictures], stop: Callable[[], bool] = lambda: False
) -> Generator[Result, None, None]:
    """Do the job as `run_folder` does, on a service: the same results, files and errors, in the order of the tasks.

    open_service: called once, if there is something to do. Raises EngineError if the service is gone, UsageError if it
    cannot do what is asked, DiskFullError and BrokenPipeError as `run_folder`.
    """
    with ExitStack() as stack:
        lane: Optional[Lane[Result]] = None
        service: Optional[RemotePictures] = None
        known: deque[Result] = deque()  # before anything had to be sent
        to_come = look_up(job)
        stack.callback(to_come.close)  # type: ignore[attr-defined]
        ended = False
        while True:
            while not ended and not stop() and (lane is None or not (_is_full(lane, service) or lane.failed())):
                item = next(to_come, None)
                if item is None:
                    ended = True
                    break
                task, file, found = item
                file.close()  # it is opened again in its thread
                if found is not None:
                    if lane is None:
                        known.append(found)
                    else:
                        lane.put_done(found)
                    break
                if service is None:
                    if job.manifest is not None:
                        job.manifest.check()
                    service = open_service()
                    lane = stack.enter_context(Lane(0 if job.is_single else service.concurrency))
                assert lane is not None
                lane.put(_send, job, task, service, lane)
            while known:
                note(job, known[0])
                yield known.popleft()
            if lane:
                if _is_full(lane, service) or ended or stop() or lane.failed():
                    wait_for_oldest(lane)
                while lane.ready():
                    result = lane.take()
                    note(job, result)
                    yield result
            if not lane and (ended or stop()):
                return


def _is_full(lane: Lane[Result], service: Optional[RemotePictures]) -> bool:
    return service is not None and len(lane) >= 2 * service.concurrency


def _send(job: FolderJob, task: Task, service: RemotePictures, lane: Lane[Result]) -> Result:
    """Send a picture and write what comes back. Raises what ends the job."""
    started = time.perf_counter()
    try:
        data, facts = _read(job, task)
        paths = job.paths(task)
        name = task.name if isinstance(task.source, bytes) else str(task.source)
        query = [*service.query, ("name", name[-_MOST_NAME:])]
        query += [("format", ",".join(job.outputs.formats)), *(("file", path.name) for path in paths)]
        answer = service.client.request("POST", "/v1/depth", query, data)
        meta = answer.meta
        if lane.closed:
            raise CancelledError
        if isinstance(job.outputs, OneStream):
            job.outputs.send(answer.body)
        else:
            _write(unpack(answer), paths)
        files = tuple(file_facts(os.stat(path)) for path in paths)
        digests = tuple(map(file_digest, paths)) if job.digests else ()
        if job.remote is not None:
            job.remote.publish(paths)
    except (ServiceGoneError, DiskFullError, BrokenPipeError, CancelledError):
        raise
    except Exception as error:
        return failed(job, task, error)
    return result_of(
        job,
        task,
        DONE,
        ms=round(1000 * (time.perf_counter() - started), 1),
        notes=tuple(meta["notes"]),
        warnings=tuple(meta["warnings"]),
        model=meta["model"],
        weights=meta["weights_sha256"],
        settings=made_settings(job.settings, meta.get("remembered")),
        source=facts,
        files=files,
        digests=digests,
        calibration=meta.get("calibration"),
    )


def _read(job: FolderJob, task: Task) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a picture's file, and what the manifest notes of it."""
    with closing(PictureFile(task.source, task.name)) as file:
        return file.read_bytes(), file.facts() if job.paths(task) else {"sha256": ""}


def _write(files: Mapping[str, bytes], paths: Sequence[Path]) -> None:
    """Write the files of a picture, each whole or not at all; those that belong beside another one before it."""
    folder = paths[0].parent
    names = {path.name for path in paths}
    for name in (*(name for name in files if name not in names), *(name for name in files if name in names)):
        check_sent_name(name)
        with atomic_path(folder / name) as partial:
            partial.write_bytes(files[name])


def check_sent_name(name: str) -> None:
    """Raise EngineError for a name from a service that leads out of its folder."""
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise EngineError(f"the service sent a file with the name {name!r}", "check the address of `server`")


def named_model(choice: ModelChoice) -> str:
    """Return the row that a choice names, "" for the automatic one. Raises UsageError for a file."""
    if choice.checkpoint is not None or choice.trust or choice.max_depth is not None:
        raise UsageError("`checkpoint`, `max_depth` and `trust` are for a model on this machine", "leave out `server`")
    encoder = None if choice.encoder == "auto" else choice.encoder
    if choice.model is None and not encoder and not choice.metric:
        return ""
    from depthcli.zoo.rows import find_row, select_row

    if choice.model is None:
        return select_row(encoder or "vits", choice.metric).name
    if encoder or choice.metric:
        raise UsageError("`model` names the whole model", "leave out `encoder` and `metric`")
    return find_row(choice.model).name


def _inline(camera: CameraChoice) -> Union[str, None]:
    if camera.intrinsics is not None and camera.inline is None:
        raise UsageError(
            "a file of `intrinsics` is read on this machine alone", "give fx,fy,cx,cy, or leave out `server`"
        )
    return None if camera.intrinsics is None else str(camera.intrinsics)


def _measured(metres: MetresChoice) -> tuple[str, ...]:
    files = [reference.text for reference in metres.references if reference.path is not None]
    if files or metres.calibration_from is not None or metres.cloud_to_camera or metres.unit_of_colmap:
        what = files[0] if files else "`calibration_from`"
        raise UsageError(f"{what} is read on this machine alone", "leave out `server`")
    return metres.scale_from
