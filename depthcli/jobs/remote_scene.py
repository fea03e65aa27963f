"""A scene on a service: its pictures or its clip sent once, followed while it is made, its files fetched whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from depthcli.choices.clips import FramesChoice
from depthcli.choices.model import ModelChoice
from depthcli.choices.scenes import ChunksChoice, SceneChoice, ViewsChoice
from depthcli.errors import DepthError, EngineError, ModelError, PictureError, UsageError, first_line
from depthcli.host.atomic import atomic_path, disk_errors, temporary_folder
from depthcli.io.pictures.images import read_picture
from depthcli.io.scenes.files import PLY
from depthcli.jobs.manifest import DONE, FAILED, Manifest, Result
from depthcli.jobs.picture_results import MadeBy, file_facts
from depthcli.jobs.remote import Client, Upload
from depthcli.jobs.remote_folder import RemoteModel, named_model
from depthcli.jobs.remote_jobs import ALIVE, CANCELLED, ENDED, Waits
from depthcli.jobs.scene import (
    BEGUN,
    Event,
    Note,
    SceneJob,
    Step,
    Unread,
    check_formats,
    check_kinds,
    check_made_by,
    run_scene,
)
from depthcli.jobs.scene_inputs import SceneSource, recognise
from depthcli.jobs.scene_views import IMAGES, ViewSource
from depthcli.kinds import DepthKind

_CLASSES = {2: UsageError, 4: ModelError, 5: EngineError}
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class RemoteScenes:
    """A service that makes scenes, and the model that is asked for there."""

    client: Client
    model: RemoteModel

    @classmethod
    def of(cls, client: Client, model: ModelChoice, formats: Sequence[str]) -> RemoteScenes:
        """Ask a service what it offers. Raises UsageError for what it does not, and EngineError if it is gone."""
        if formats:
            check_formats(formats)
        about = client.about()
        offered = about.get("scene_formats")
        rows = [row for row in about["models"] if row["task"] == "scene"]
        if not offered or not rows:
            way_out = "start it with `clips` and `models`, such as tiny,da3-small"
            raise UsageError(f"the service at {client.address} makes no scenes", way_out)
        missing = [name for name in formats if name not in offered]
        if missing:
            raise UsageError(f"the service at {client.address} does not write {missing[0]}", "it is of another version")
        return cls(client, RemoteModel.of(client, rows, named_model(model) or str(rows[0]["name"])))


def make_scene(
    client: Client, inputs: Sequence[str], folder: Path, formats: Sequence[str], options: Mapping[str, Any]
) -> list[Path]:
    """Make the files of a scene at a service; return their paths. options: as of POST /v1/scenes.

    Raises UsageError for an option that there is not, PictureError for a picture that cannot be read, and as
    `run_scene_on_service`.
    """
    given = dict(options)

    def taken(kind: Any, **other: str) -> Any:
        """Return a choice of those options that are its fields. other: names of fields that are others there."""
        names = {other.get(name, name): name for name in kind.__dataclass_fields__}
        return kind(**{names[name]: given.pop(name) for name in list(given) if name in names})

    service = RemoteScenes.of(client, ModelChoice(model=given.pop("model", None)), formats)
    job = SceneJob(
        recognise(inputs),
        folder,
        tuple(formats),
        ModelChoice(model=service.model.name),
        views=taken(ViewsChoice),
        frames=taken(FramesChoice),
        show=taken(SceneChoice, cameras="show_cameras"),
        chunks=taken(ChunksChoice),
        max_views=given.pop("max_views", None),
    )
    if given:
        raise UsageError(f"there is no option {next(iter(given))!r} of a scene")
    events = [event.result if isinstance(event, Unread) else event for event in run_scene_on_service(job, service)]
    results = [event for event in events if isinstance(event, Result)]
    for result in results:
        if result.status == FAILED:
            raise _CLASSES.get(result.code, PictureError)(result.error)
    return [Path(path) for result in results for path in result.outputs]


def run_scene_on_service(job: SceneJob, service: RemoteScenes) -> Generator[Event, None, None]:
    """Do the job as `run_scene` does, with the network at a service: the same files, results and errors.

    job: its model is that of the service. What the folder's NPZ file tells is made here. A run that is killed leaves
    the job there, and the next one takes it up. Raises EngineError if the service is gone, UsageError for given cameras
    and what the service refuses, else as `run_scene`.
    """
    if job.poses is not None or job.found.cameras is not None:
        what = "`poses` gives cameras" if job.poses is not None else f"{job.found.rule}"
        raise UsageError(f"{what}; a service takes pictures or a clip, without cameras", "leave out `server`")

    def elsewhere(
        manifest: Manifest, wanted: Sequence[str], sources: Sequence[ViewSource], digest: str
    ) -> Iterator[Event]:
        return _Work(job, service, manifest, wanted, sources, digest).events()

    def load() -> Any:
        raise AssertionError("the service has the network")

    return run_scene(job, load, elsewhere)


class _Work:
    """One scene at a service. wanted: formats. sources: of the views. digest: of all inputs."""

    def __init__(
        self,
        job: SceneJob,
        service: RemoteScenes,
        manifest: Manifest,
        wanted: Sequence[str],
        sources: Sequence[ViewSource],
        digest: str,
    ) -> None:
        self._job, self._service, self._client = job, service, service.client
        self._manifest, self._wanted, self._sources, self._digest = manifest, wanted, sources, digest
        self._unreadable: dict[str, PictureError] = {}  # by this machine

    def events(self) -> Iterator[Event]:
        """Send the views, follow the job, and fetch its files."""
        model = self._service.model
        check_made_by(self._job, self._manifest, MadeBy(model.name, model.weights or "", self._job.settings()))
        check_kinds(self._job.formats, DepthKind.METRIC_DEPTH if self._job.views.metres else model.kind)
        query = self._query()
        place = self._taken_up(query[-1][1])
        if place is None:
            place = yield from self._sent(query)
        try:
            about = yield from self._followed(place)
        except (KeyboardInterrupt, GeneratorExit):
            self._forget(place)
            raise
        rows = {str(row["name"]): row for row in about["results"]}
        views: list[str] = []
        for source in self._sources:
            row = rows.get(source.name)
            if row is None:
                views.append(source.name)
                continue
            found = self._unreadable.get(source.name)
            error = self._here(row["error"]) if found is None else str(found)
            unread = Result(
                source.name, (), FAILED, error=error, code=row["exit_code"], source={"sha256": self._digest}
            )
            self._manifest.add(unread)
            yield Unread(unread)
        for note in about["notes"]:
            yield Note(self._here(note))
        if not any(name in rows for name in self._wanted):
            self._forget(place)
            raise self._error(about)
        for name in self._wanted:
            if name in rows:
                yield self._result(name, rows[name], about, place, views)
        self._forget(place)

    def _query(self) -> list[tuple[str, Any]]:
        """Return the parameters of the scene, the last of which is a key of all of them and of the views."""
        job = self._job
        formats = [name for name in self._wanted if name != IMAGES] or [
            name for name in job.formats if name not in self._wanted
        ]
        if "transforms" in formats and (job.folder / PLY).is_file() and "ply" not in formats:
            formats.append("ply")  # which transforms.json then names
        show = job.show
        every: dict[str, Any] = {
            "name": self._name,
            "model": self._service.model.name,
            "format": ",".join(formats),
            **{name: value for name, value in vars(job.views).items() if name != "align_to_input_scale"},
            "chunk": job.chunks.chunk,
            "overlap": job.chunks.overlap,
            "loops": job.chunks.loops,
            "confidence": show.confidence,
            "edges": "off" if show.edges is None else show.edges,
            "points": "all" if show.points is None else show.points,
            "sparse_points": "all" if show.sparse_points is None else show.sparse_points,
            "mesh_size": show.mesh_size,
            "show_cameras": show.cameras,
        }
        if job.found.source is SceneSource.CLIP:
            every.update(max_views=job.max_views, **vars(job.frames))
        query = [
            (name, int(value) if isinstance(value, bool) else value)
            for name, value in every.items()
            if value is not None
        ]
        key = hashlib.sha256(repr((query, self._digest, [source.name for source in self._sources])).encode())
        return [*query, ("key", key.hexdigest())]

    @property
    def _name(self) -> str:
        """The name of the scene there."""
        if self._job.found.source is SceneSource.CLIP:
            return f"clip{self._job.found.paths[0].suffix.lower()}"
        return "scene"

    def _taken_up(self, key: str) -> Optional[str]:
        """Return the place of the job that an earlier run left, None if there is none."""
        for about in json.loads(self._client.request("GET", "/v1/jobs").body)["jobs"]:
            if about.get("key") == key and about["state"] in ALIVE:
                return f"/v1/jobs/{about['id']}"
        return None

    def _sent(self, query: Sequence[tuple[str, Any]]) -> Generator[Event, None, str]:
        """Send the views and return the place of their job."""
        if self._job.found.source is SceneSource.CLIP:
            path = self._job.found.paths[0]
            upload = Upload(lambda: path.open("rb"), path.stat().st_size)
        else:
            views = [_Member(source.name, self._readable(source)) for source in self._sources]
            upload = Upload(lambda: _Tar(views), _Tar(views).size)
        yield Step("send", 0, len(self._sources))
        return f"/v1/jobs/{json.loads(self._client.request('POST', '/v1/scenes', query, upload).body)['id']}"

    def _readable(self, source: ViewSource) -> Optional[Path]:
        """Return the path of a picture, None for one that this machine cannot open: an empty one is sent for it."""
        assert source.path is not None
        try:
            source.path.open("rb").close()
        except OSError:
            try:
                read_picture(source.path)
            except PictureError as error:
                self._unreadable[source.name] = error
            return None
        return source.path

    def _followed(self, place: str) -> Generator[Event, None, dict[str, Any]]:
        """Yield the progress of a job and return what has become of it."""
        waits, shown = Waits(), Step("")
        while True:
            about: dict[str, Any] = json.loads(self._client.request("GET", place).body)
            if about["state"] in ENDED:
                return about
            line = waits.line(about)
            if line:
                yield Note(f"{line} at {self._client.address}")
            now = Step(about["stage"], about["frames_done"], about["frames"])
            if now != shown:
                shown = now
                yield now
            time.sleep(waits.seconds())

    def _result(
        self, name: str, row: Mapping[str, Any], about: Mapping[str, Any], place: str, views: Sequence[str]
    ) -> Result:
        """Fetch the files of a format, and return its result."""
        made_by: dict[str, Any] = {
            "model": row["model"] or self._service.model.name,
            "weights": row["weights_sha256"],
            "settings": self._job.settings(name),
            "source": {"sha256": self._digest},
            "ms": row["ms"],
            "warnings": tuple(row["warnings"]),
        }
        if row["status"] != DONE:
            result = Result(name, (), FAILED, error=self._here(row["error"]), code=row["exit_code"])
        else:
            allowed = self._job.files(name, views)
            self._manifest.add(Result(name, tuple(map(str, allowed)), BEGUN, **made_by))
            with disk_errors(self._job.folder):
                files = self._fetch([file for file in about["files"] if file["format"] == name], place, allowed)
            facts = tuple(file_facts(os.stat(path)) for path in files)
            result = Result(name, tuple(map(str, files)), DONE, files=facts, **made_by)
        self._manifest.add(result)
        return result

    def _fetch(self, sent: Sequence[Mapping[str, Any]], place: str, allowed: Sequence[Path]) -> list[Path]:
        """Fetch the files of a format, whole; return their paths. allowed: those that it may have."""
        places = {path.relative_to(self._job.folder).as_posix(): path for path in allowed}
        found: list[Path] = []
        for file in sent:
            alone = file["path"].partition("/")[2]
            if alone:
                found.append(_place(places, alone))
                found[-1].parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(found[-1]) as partial:
                    self._fetch_file(place, file, partial)
                continue
            self._job.folder.mkdir(parents=True, exist_ok=True)
            with temporary_folder(self._job.folder) as packed:
                self._fetch_file(place, file, packed / "files.zip")
                found += _unpack(packed / "files.zip", places)
        return found

    def _fetch_file(self, place: str, file: Mapping[str, Any], path: Path) -> None:
        with path.open("w+b") as target:
            self._client.fetch(f"{place}/files/{quote(str(file['name']), safe='')}", target)
            size = target.tell()
        if size != file["size"]:
            raise EngineError(f"the service sent {size} bytes of {file['name']}, not {file['size']}", "try again")

    def _error(self, about: Mapping[str, Any]) -> DepthError:
        """Return the error that ended a job before it had files."""
        if about["state"] == CANCELLED:
            return EngineError("the job was cancelled at the service", "try again")
        unread = [row["error"] for row in about["results"]]
        text = str(about["error"])
        for line in unread:  # which were told before
            text = text.replace(f"{line}; ", "")
        return _CLASSES.get(about["exit_code"], PictureError)(self._here(text))

    def _forget(self, place: str) -> None:
        """Cancel a job, or remove one that has ended."""
        with suppress(DepthError):
            self._client.request("DELETE", place)

    def _here(self, text: str) -> str:
        """Return a message of the service with the names that pictures have here."""
        known = [(source.name, str(source.path)) for source in self._sources if source.path is not None]
        if self._job.found.source is SceneSource.CLIP:
            known = [(self._name, str(self._job.found.paths[0]))]
        for name, path in known:
            text = re.sub(rf"(?<![\w./-]){re.escape(name)}", path.replace("\\", r"\\"), text)
        return text


@dataclass(frozen=True)
class _Member:
    """A picture in a tar. path: None for an empty one."""

    name: str
    path: Optional[Path]

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size if self.path else 0


class _Tar:
    """A tar that is made while it is read."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self._sizes = [member.size for member in members]
        self._heads = [_head(member.name, size) for member, size in zip(members, self._sizes)]
        self.size = sum(map(len, self._heads)) + sum(map(_padded, self._sizes)) + 2 * _BLOCK
        self._members, self._left = members, b""
        self._pieces = self._all()

    def _all(self) -> Iterator[bytes]:
        for member, size, head in zip(self._members, self._sizes, self._heads):
            yield head
            left = size
            if member.path is not None:
                with member.path.open("rb") as file:
                    while left:
                        piece = file.read(min(left, 1 << 16))
                        if not piece:
                            raise PictureError(f"{member.path} became shorter while it was sent", "try again")
                        left -= len(piece)
                        yield piece
            yield b"\0" * (_padded(size) - size)
        yield b"\0" * (2 * _BLOCK)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        end = len(self._left) if size < 0 else size
        found, self._left = self._left[:end], self._left[end:]
        return found

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces.close()  # type: ignore[attr-defined]


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _place(places: Mapping[str, Path], name: str) -> Path:
    """Return where a file belongs. Raises EngineError for one that does not."""
    if name not in places:
        raise EngineError(f"the service sent a file {name!r}, which was not asked for", "it is of another version")
    return places[name]


def _unpack(packed: Path, places: Mapping[str, Path]) -> list[Path]:
    """Unpack files into their places, each whole; return their paths. Raises EngineError for a damaged ZIP."""
    found: list[Path] = []
    try:
        with zipfile.ZipFile(packed) as archive:
            for name in archive.namelist():
                path = _place(places, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as partial, archive.open(name) as data, partial.open("wb") as target:
                    while piece := data.read(1 << 20):
                        target.write(piece)
                found.append(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise EngineError(f"the answer of the service is damaged: {first_line(error)}") from error
    return found
