"""A clip on a service: sent once, followed while it is done there, its files fetched whole and put in their places."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import quote

from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import (
    ClipError,
    DepthError,
    DiskFullError,
    EngineError,
    Log,
    ModelError,
    StoppedError,
    UsageError,
    first_line,
)
from depthcli.host.atomic import atomic_path, disk_errors, remove_partials, temporary_folder
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.names import sidecar_of
from depthcli.io.video.frame_files import frames_in
from depthcli.io.video.reader import open_clip
from depthcli.jobs.clip_job import ClipJob, Events, Progress, failed_clip, milliseconds_since, texts_of
from depthcli.jobs.clip_results import already_there, check_one_model, place_of
from depthcli.jobs.find import CLIP_SUFFIXES
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.jobs.picture_file import file_digest
from depthcli.jobs.remote import Client, Upload
from depthcli.jobs.remote_folder import RemoteModel, check_sent_name, named_model
from depthcli.jobs.remote_jobs import ALIVE, ENDED, Waits
from depthcli.jobs.remote_jobs import DONE as ENDED_WELL

_MOST_NAME = 150  # bytes of a clip's name that a service keeps


@dataclass(frozen=True)
class RemoteClips:
    """A service that takes clips, and how it is asked. query: of every clip."""

    client: Client
    model: RemoteModel
    query: Sequence[tuple[str, Any]]

    @classmethod
    def of(
        cls,
        client: Client,
        model: ModelChoice,
        clip: ClipChoice,
        formats: Sequence[str],
        options: Mapping[str, Any],
        space: Sequence[tuple[str, Any]] = (),
    ) -> RemoteClips:
        """Ask a service what it offers. Raises UsageError for what it does not, and EngineError if it is gone.

        options: further parameters of its requests, None for what is left open. space: of the camera and of metres.
        """
        about = client.about()
        if not about["clip_formats"]:
            raise UsageError(f"the service at {client.address} takes no clips", "start it with `clips`")
        missing = [name for name in formats if name not in about["clip_formats"]]
        if missing:
            raise UsageError(f"the service at {client.address} does not write {missing[0]}", "it is of another version")
        tasks = {str(row["name"]): row["task"] for row in about["models"]}
        found = RemoteModel.of(client, about["models"], _name_for_clips(model, clip, tasks))
        every = {**options, "model": found.name, "format": ",".join(formats)}
        return cls(client, found, [*((key, value) for key, value in every.items() if value is not None), *space])

    def check_models(self, jobs: Sequence[ClipJob]) -> None:
        """Raise UsageError if existing results are of another model than this service would take."""
        for job in jobs:
            if job.if_exists != "overwrite":
                check_one_model(job.paths, job.spool_folder, self.model.name, self.model.weights or "")


def run_clip_on_service(
    job: ClipJob,
    open_service: Callable[[], RemoteClips],
    stop: Callable[[], bool] = lambda: False,
    log: Log = lambda line: None,
) -> Events:
    """Do the job as `run_clip` does, on a service: the same files, results and errors.

    open_service: called when there is something to do. After `stop` the job is cancelled there. A run that is killed
    leaves it, and the next one takes it up. Raises EngineError if the service is gone, else as `run_clip`.
    """
    started = time.perf_counter()
    try:
        begun = job.spool_folder.exists()
        settled = already_there(job.name, job.source, job.paths, job.if_exists, job.settings_text, begun)
        if settled is not None:
            yield settled
            return
        if begun:
            hint = "finish it without `server`, or remove that folder"
            raise ClipError(f"{job.spool_folder} holds unfinished depth of {job.name}, made on this machine", hint)
        name = _name_to_send(job)
        for path in job.paths:
            for folder in (path.parent, path):
                remove_partials(folder)
        yield from _Work(job, name, open_service(), stop, log, started).events()
    except StoppedError:
        return
    except (ModelError, EngineError, DiskFullError, UsageError):
        raise
    except Exception as error:
        yield failed_clip(job, error, started)


class _Work:
    """One clip at a service. name: under which it is sent."""

    def __init__(
        self, job: ClipJob, name: str, service: RemoteClips, stop: Callable[[], bool], log: Log, started: float
    ) -> None:
        self._job, self._name, self._service = job, name, service
        self._client, self._stop, self._log, self._started = service.client, stop, log, started

    def events(self) -> Events:
        """Send the clip, follow its job, and fetch its files."""
        query = self._query()
        place = f"/v1/jobs/{self._taken_up(query[-1][1]) or self._sent(query)}"
        try:
            about = yield from self._followed(place)
        except (StoppedError, KeyboardInterrupt, GeneratorExit):
            self._forget(place)
            raise
        facts = self._fetch(place, about)
        self._forget(place)
        notes, warnings = (tuple(map(self._here, about[key])) for key in ("notes", "warnings"))
        for note in notes:
            self._log(f"{self._job.name}: {note}")
        done = about["state"] == ENDED_WELL
        yield Result(
            self._job.name,
            texts_of(self._job),
            DONE if done else FAILED,
            milliseconds_since(self._started),
            error="" if done else self._here(about["error"]) or "the job was cancelled at the service",
            code=0 if done else about["exit_code"] or 1,
            notes=notes,
            warnings=warnings,
            model=self._service.model.name if facts else "",
            weights=str(facts.get("weights_sha256", "")),
            settings=self._job.settings_text,
        )

    def _query(self) -> list[tuple[str, Any]]:
        """Return the parameters of the clip, the last of which is a key of all of them and of its content."""
        job = self._job
        query = [
            *self._service.query,
            ("name", self._name),
            ("settings", job.settings_text),
            ("place", place_of(job.source, job.spool_folder.parent)),
            ("called", job.name),
        ]
        key = hashlib.sha256(repr((query, file_digest(Path(job.source)))).encode(errors="surrogateescape"))
        return [*query, ("key", key.hexdigest())]

    def _taken_up(self, key: str) -> Optional[str]:
        """Return the id of the job that an earlier run left, None if there is none."""
        for about in json.loads(self._client.request("GET", "/v1/jobs").body)["jobs"]:
            if about.get("key") == key and about["state"] in ALIVE:
                self._log(f"{self._job.name}: the service has it already ({about['state']})")
                return str(about["id"])
        return None

    def _sent(self, query: Sequence[tuple[str, Any]]) -> str:
        """Send the clip and return the id of its job."""
        path = Path(self._job.source)
        upload = Upload(lambda: _StoppableFile(path, self._stop), path.stat().st_size)
        return str(json.loads(self._client.request("POST", "/v1/clips", query, upload).body)["id"])

    def _followed(self, place: str) -> Generator[Progress, None, dict[str, Any]]:
        """Yield the progress of a job and return what has become of it."""
        shown, waits = ("", 0), Waits()
        while True:
            about: dict[str, Any] = json.loads(self._client.request("GET", place).body)
            if about["state"] in ENDED:
                return about
            line = waits.line(about)
            if line:
                self._log(f"{self._job.name}: {line} at {self._client.address}")
            now = about["stage"], about["frames_done"]
            if about["stage"] and now != shown:
                shown = now
                yield Progress(self._job.name, *now, about["frames"])
            if self._stop():
                raise StoppedError
            time.sleep(waits.seconds())

    def _fetch(self, place: str, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fetch the results of a job, all before the first appears; return the facts of one. Raises StoppedError."""
        sent = {file["format"]: file for file in about["files"] if file["format"] != "json"}
        sidecars = {file["name"]: file for file in about["files"] if file["format"] == "json"}
        wanted = [(CLIPS[name], path, sent[name]) for name, path in self._job.outputs if name in sent]
        facts: dict[str, Any] = {}
        with disk_errors(self._job.paths[0]), ExitStack() as stack:
            for row, path, file in wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                name = f"{re.sub('[.]zip$', '', file['name']) if row.folder else file['name']}.json"
                # The last to appear, as it says that its film or folder is whole.
                about_it = stack.enter_context(atomic_path(sidecar_of(path)))
                self._fetch_file(place, sidecars[name], about_it)
                facts = json.loads(about_it.read_bytes())
                if row.folder:
                    folder = stack.enter_context(_atomic_frames(path, row.suffix))
                    with temporary_folder(path.parent) as packed:
                        self._fetch_file(place, file, packed / "frames.zip")
                        _unpack(packed / "frames.zip", folder)
                else:
                    self._fetch_file(place, file, stack.enter_context(atomic_path(path)))
            for _, path, _ in wanted:
                sidecar_of(path).unlink(missing_ok=True)
        return facts

    def _fetch_file(self, place: str, file: Mapping[str, Any], path: Path) -> None:
        try:
            with path.open("w+b") as target:
                self._client.fetch(f"{place}/files/{quote(str(file['name']), safe='')}", target, self._stop)
                size = target.tell()
        except InterruptedError:
            raise StoppedError from None
        if size != file["size"]:
            raise EngineError(f"the service sent {size} bytes of {file['name']}, not {file['size']}", "try again")

    def _forget(self, place: str) -> None:
        """Cancel a job, or remove one that has ended."""
        with suppress(DepthError):
            self._client.request("DELETE", place)

    def _here(self, text: str) -> str:
        """Return a message of the service with the name that the clip has here."""
        return re.sub(rf"(?<![\w./-]){re.escape(self._name)}", lambda _: self._job.name, text)


class _StoppableFile:
    """A file that is read to be sent; asked to stop, reading it raises StoppedError."""

    def __init__(self, path: Path, stop: Callable[[], bool]) -> None:
        self._file, self._stop = path.open("rb"), stop

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if self._stop():
            raise StoppedError
        return self._file.read(size)

    def __enter__(self) -> _StoppableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _name_to_send(job: ClipJob) -> str:
    """Return the name under which a clip is sent. Raises as reading it here would, and for what is not one file."""
    path = Path(job.source)
    if path.is_file():
        try:
            path.open("rb").close()
        except OSError:
            with open_clip(job.source):  # which says why it cannot be read
                raise
    elif not path.exists():
        with open_clip(job.source):  # a pattern of frames, or what is not there
            pass
    if not path.is_file():
        raise ClipError(f"{job.name} is not one file, and a service takes no other clips", "leave out `server`")
    usual = path.suffix.lower() in CLIP_SUFFIXES and path.name.isprintable() and not path.name.startswith(".")
    if not usual or "\\" in path.name or len(os.fsencode(path.name)) > _MOST_NAME:
        with open_clip(job.source):  # which tells what is no clip at all
            pass
        raise ClipError(f"{job.name} has a name that a service does not take", "rename it, or leave out `server`")
    return path.name


def _name_for_clips(choice: ModelChoice, clip: ClipChoice, tasks: Mapping[str, str]) -> str:
    """Return the model that a choice means at a service. tasks: of its models, by name, the default first.

    As on this machine a video model is taken if the choice names at most a size and there is one.
    """
    free = choice.model is None and choice.metric is None and choice.checkpoint is None
    video = [name for name, task in tasks.items() if task == "clip"]
    if free and clip.steady == "auto":
        fitting = [name for name in video if choice.encoder in ("auto", name.rpartition("-")[2])]
        if fitting:
            return fitting[0]
    first = next((name for name in tasks if clip.steady == "auto" or name not in video), next(iter(tasks)))
    return named_model(choice) or first


@contextmanager
def _atomic_frames(path: Path, suffix: str) -> Iterator[Path]:
    """Give a folder for frames; at the end they are moved into `path`, and frames of other runs are removed."""
    with temporary_folder(path.parent) as partial:
        yield partial
        path.mkdir(exist_ok=True)
        names = sorted(os.listdir(partial))
        for name in names:
            os.replace(partial / name, path / name)
        for other, _ in frames_in(path, suffix):
            if other.name not in names:
                other.unlink()


def _unpack(packed: Path, folder: Path) -> None:
    """Unpack the frames of a ZIP into a folder. Raises EngineError for a damaged one."""
    try:
        with zipfile.ZipFile(packed) as archive:
            for name in archive.namelist():
                check_sent_name(name)
                with archive.open(name) as data, (folder / name).open("xb") as target:
                    shutil.copyfileobj(data, target, 1 << 20)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise EngineError(f"the answer of the service is damaged: {first_line(error)}") from error
