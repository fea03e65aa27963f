"""Measure the objects of pictures: masks from files or a detector, depth from files or a model. No torch by itself."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Callable, Optional, Protocol, Union

from depthcli.camera import same_ratio
from depthcli.choices.objects import OBJECT_FILES, ObjectsChoice
from depthcli.choices.settings import DEFAULT_COLORMAP, IF_EXISTS, require
from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import DeviceLostError, DiskFullError, ModelError, OutputError, UsageError
from depthcli.geometry.rays import depth_along_axis
from depthcli.host.atomic import remove_partials
from depthcli.host.memory import free_memory
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.foreign import check_source, is_ray, read_map
from depthcli.io.codecs.formats import STILL_ENDINGS
from depthcli.io.masks.files import SCHEMA
from depthcli.io.pictures.images import Picture
from depthcli.jobs.find import depth_kind, find_in_folder
from depthcli.jobs.folder import bytes_of, thread_counts
from depthcli.jobs.manifest import DONE, SKIPPED, Result
from depthcli.jobs.picture_file import PictureFile, file_digest
from depthcli.jobs.picture_job import failure
from depthcli.jobs.pipeline import Lane, wait_for_oldest
from depthcli.jobs.targets import Task, refuse_replacing
from depthcli.objects.document import Objects, document_of, objects_in
from depthcli.objects.files import paths_of, write_objects
from depthcli.objects.select import select
from depthcli.objects.sources import FoundMasks, MaskSource
from depthcli.pixels.maps import resized
from depthcli.pixels.postprocess import Answer
from depthcli.predict.metres import Metres
from depthcli.predict.picture import DepthEstimator, Prepared

NO_METRES = "its depth is relative: order alone, no metres (`metric`, `scale_from` or `depth` gives them)"


FoundDepth = tuple[DepthMap, tuple[str, ...]]  # with notes
# Part of the free memory for pictures on their way; the networks need the rest.
_SHARE = 0.25
_MASKS = 32  # bytes per pixel for masks: so many objects, of which only the largest pictures have more


class DepthSource(Protocol):
    """Where depth comes from: files or a model."""

    # The three steps, as those of a MaskSource.

    def prepare(self, task: Task, picture: Picture) -> Any:
        """Return what `run` takes of a picture; in any thread. Raises DepthError."""

    def run(self, prepared: Any) -> Any:
        """Return the answer of a network; in one thread at a time. Raises DepthError."""

    def finish(self, prepared: Any, answer: Any) -> FoundDepth:
        """Return the depth at the picture's size, with its camera, and notes; in any thread. Raises DepthError."""


@dataclass(frozen=True, eq=False)
class DepthFromFiles:
    """Depth files, one for each picture by its name, or one file. Raises UsageError if there is none at all.

    source: what files of other programs hold. cameras: given by the user; then the file's, then the picture's own.
    """

    place: Path
    source: SourceChoice = SourceChoice()
    cameras: Optional[GivenCameras] = None
    metres: Optional[Metres] = None

    def __post_init__(self) -> None:
        check_source(self.source)
        if not os.path.lexists(self.place):
            raise UsageError(f"{self.place} does not exist", "check the path of `depth`")
        files: dict[str, list[Path]] = {}
        for relative in find_in_folder(self.place, depth_kind(self.source)) if os.path.isdir(self.place) else ():
            for key in {relative.as_posix(), relative.name}:
                files.setdefault(key, []).append(relative)
        object.__setattr__(self, "_files", files)

    def prepare(self, task: Task, picture: Picture) -> FoundDepth:
        """Return the depth of a picture at its size."""
        path = self.file_of(task)
        depth, notes = fit_to(read_map(path, self.source), picture, path.name, self.cameras)
        if is_ray(path, self.source):
            if depth.camera is None:
                raise UsageError(f"`depth_is` ray needs the camera of {task.name}", "give `intrinsics` or `focal`")
            depth = replace(depth, values=depth_along_axis(depth.values, depth.camera))
        if self.metres is not None:
            depth = self.metres.applied(depth, task.name)
        with closing(PictureFile(path, path.name)) as file:
            made_of = replace(depth.provenance, converted=(file.name, file.sha256))
        return depth.with_provenance(made_of), notes

    def run(self, prepared: FoundDepth) -> None:
        """Do nothing."""

    def finish(self, prepared: FoundDepth, answer: None) -> FoundDepth:
        """Return what was read."""
        return prepared

    def file_of(self, task: Task) -> Path:
        """Return the file of a picture's depth. Raises UsageError if there is none."""
        files: Mapping[str, Sequence[Path]] = self._files  # type: ignore[attr-defined]
        if not os.path.isdir(self.place):
            return self.place
        name = PurePath(task.name)
        stems = [name.with_suffix("").as_posix(), name.as_posix(), name.stem, name.name]
        endings = [ending for ending in STILL_ENDINGS if ending] + [".npz", ".exr", ".tiff", ".pfm", ".npy", ".png"]
        for stem in stems:
            for ending in endings:
                found = files.get(f"{stem}{ending}", ())
                if len(found) > 1:
                    raise UsageError(
                        f"{self.place} has several {stem}{ending}", "`depth` keeps the folders of pictures"
                    )
                if found:
                    return self.place / found[0]
        raise UsageError(
            f"{self.place} has no depth of {task.name}", f"such as {name.stem}_depth.npz or {name.stem}.png"
        )


@dataclass(frozen=True, eq=False)
class DepthFromModel:
    """A model that estimates the depth of each picture."""

    estimator: DepthEstimator

    def prepare(self, task: Task, picture: Picture) -> Prepared:
        """Return the input of the network."""
        return self.estimator.prepare(replace(picture, notes=()))

    def run(self, prepared: Prepared) -> Answer:
        """Return the answer of the network."""
        (answer,) = self.estimator.run([prepared], recheck=True)
        return answer

    def finish(self, prepared: Prepared, answer: Answer) -> FoundDepth:
        """Return the depth of a picture."""
        return self.estimator.finish(prepared, answer), prepared.picture.notes


def fit_to(
    depth: DepthMap, picture: Picture, file: str, cameras: Optional[GivenCameras] = None
) -> tuple[DepthMap, tuple[str, ...]]:
    """Return the depth in a file at the size of its picture, with the camera, and notes.

    The camera is the user's, then the file's, then that of the picture's EXIF. Raises UsageError if the sides have
    another ratio.
    """
    if not same_ratio(depth.size, picture.size):
        sizes = "{}x{}, and the picture {}x{}".format(*depth.size, *picture.size)
        raise UsageError(f"{file} is {sizes} pixels: it is not of this picture", "`depth` takes a map of it")
    notes = () if depth.size == picture.size else ("depth of {}x{} pixels, resized".format(*depth.size),)
    depth = resized(depth, picture.size)
    if cameras is not None:
        given = cameras.given_to(replace(picture, notes=()))
        return replace(depth, camera=given.camera), (*notes, *given.notes)
    return (depth if depth.camera is not None else replace(depth, camera=picture.camera)), notes


@dataclass(frozen=True)
class ObjectsJob:
    """Pictures whose objects are measured; fill it by keywords.

    formats: of OBJECT_FILES. if_exists: skip, overwrite or error for a picture whose files are there; skip makes those
    anew that have other settings, or whose picture, masks or depth files have changed. settings: the options that shape
    a result, as one line. made_from: digest of the files of masks and depth of a picture; called from any thread. keep:
    is given the JSON of each picture.
    """

    tasks: Sequence[Task]
    formats: tuple[str, ...] = ("json", "overlay")
    choice: ObjectsChoice = ObjectsChoice()
    colormap: str = DEFAULT_COLORMAP
    if_exists: str = "skip"
    settings: str = ""
    made_from: Callable[[Task], str] = lambda task: ""
    keep: Callable[[dict[str, Any]], None] = lambda document: None

    def __post_init__(self) -> None:
        require("if_exists", self.if_exists, IF_EXISTS)
        for name in self.formats:
            require("formats", name, OBJECT_FILES)
        sources = [task.source for task in self.tasks if isinstance(task.source, Path)]
        refuse_replacing("picture", ((task.name, self.paths(task).values()) for task in self.tasks), sources)

    def paths(self, task: Task) -> dict[str, Path]:
        """Return the files of a picture by format."""
        return paths_of(task.stem, self.formats)


def run_objects(
    job: ObjectsJob,
    open_masks: Callable[[], MaskSource],
    open_depth: Callable[[], DepthSource],
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """Do the job; yield one Result per picture, in their order. A picture that fails does not stop the rest.

    While one picture is in the networks, in the calling thread, other threads read the next and write the last.
    open_masks, open_depth: called once, when the first picture needs them. Raises ModelError, EngineError or UsageError
    if they do not open, DiskFullError if nothing more can be written.
    """
    for folder in {task.stem.parent for task in job.tasks}:
        remove_partials(folder)
    with closing(_Stages(job, open_masks, open_depth)) as stages:
        for done in stages.results(stop):
            if done.document is not None:
                job.keep(done.document)
            yield done.result


@dataclass(frozen=True, eq=False)
class _Done:
    """A picture that has left. document: its JSON, None for a failure."""

    result: Result
    document: Optional[dict[str, Any]] = None


@dataclass(frozen=True, eq=False)
class _Read:
    """A picture that was read. made_from: see ObjectsJob.

    prepared: for the masks and for the depth; None before these are open.
    """

    task: Task
    picture: Picture
    sha256: str
    made_from: str
    prepared: Optional[tuple[Any, Any]]
    seconds: float


class _Stages:
    """Pictures pass `reading`, the networks and `finishing` in the order of the tasks.

    Threads call `_read` and `_finish` only; everything else belongs to the calling thread.
    """

    def __init__(
        self, job: ObjectsJob, open_masks: Callable[[], MaskSource], open_depth: Callable[[], DepthSource]
    ) -> None:
        self._job, self._open = job, (open_masks, open_depth)
        self._sources: Optional[tuple[MaskSource, DepthSource]] = None
        self._ahead, self._behind = thread_counts(len(job.tasks) == 1)
        self._reading: Lane[Union[_Done, _Read]] = Lane(self._ahead)
        self._finishing: Lane[_Done] = Lane(self._behind)
        self._tasks = iter(job.tasks)
        self._next = next(self._tasks, None)
        self._held: deque[int] = deque()  # bytes of each picture on its way
        free = free_memory()
        self._budget = math.inf if free is None else free * _SHARE

    def close(self) -> None:
        """Wait for the threads."""
        with closing(self._finishing), closing(self._reading):
            pass

    def results(self, stop: Callable[[], bool]) -> Iterator[_Done]:
        """Yield what has left; after `stop` or an error nothing new begins."""
        while not (self._finishing.failed() or stop()):
            if self._finishing.ready():
                yield self._leave()
                continue
            self._read_ahead()
            if not self._reading and not self._finishing:
                break
            if not self._reading or len(self._finishing) > self._behind:
                wait_for_oldest(self._finishing)
            elif self._reading.ready():
                self._take()
            else:
                wait_for_oldest(self._reading, self._finishing)
        while self._finishing:
            yield self._leave()

    def _leave(self) -> _Done:
        self._held.popleft()
        return self._finishing.take()

    def _read_ahead(self) -> None:
        """Start reading as many pictures as may be read now; one always may."""
        while self._next is not None and len(self._reading) <= self._ahead:
            assert isinstance(self._next.source, Path)
            file = PictureFile(self._next.source, self._next.name)
            with closing(file):  # until a thread opens it again
                need = bytes_of(file, _MASKS)
            if self._held and sum(self._held) + need > self._budget:
                return
            self._held.append(need)
            self._reading.put(self._read, self._next, file)
            self._next = next(self._tasks, None)

    def _take(self) -> None:
        """Move the oldest picture out of `reading` and through the networks."""
        item = self._reading.take()
        if isinstance(item, _Done):
            self._finishing.put_done(item)
            return
        if self._sources is None:
            self._sources = self._open[0](), self._open[1]()  # an error here is not the picture's: it ends the job
        masks, depth = self._sources
        started = time.perf_counter()
        try:
            prepared = item.prepared or self._prepared(item.task, item.picture)
            answers = self._finishing.with_room(lambda: (masks.run(prepared[0]), depth.run(prepared[1])))
        except (DeviceLostError, ModelError):
            raise
        except Exception as error:
            self._finishing.put_done(_Done(failure(item.task, error, self._job.settings)))
            return
        seconds = item.seconds + time.perf_counter() - started
        self._finishing.put(self._finish, replace(item, prepared=prepared, seconds=seconds), answers)

    def _prepared(self, task: Task, picture: Picture) -> tuple[Any, Any]:
        assert self._sources is not None and isinstance(task.source, Path)
        masks, depth = self._sources
        return masks.prepare(picture.rgb, task.source), depth.prepare(task, picture)

    def _read(self, task: Task, file: PictureFile) -> Union[_Done, _Read]:
        """Read one picture, unless its files are there, and prepare it if the sources are open."""
        job, started = self._job, time.perf_counter()
        try:
            with closing(file):
                sha256 = file.sha256
                made_from = job.made_from(task)
                document = _existing(job, task, sha256, made_from)
                if document is not None:
                    return _Done(Result(task.name, _texts(job, task), SKIPPED, settings=job.settings), document)
                picture = file.read()
            prepared = self._prepared(task, picture) if self._sources else None
        except Exception as error:  # whatever a decoder raises
            return _Done(failure(task, error, job.settings))
        return _Read(task, picture, sha256, made_from, prepared, time.perf_counter() - started)

    def _finish(self, item: _Read, answers: tuple[Any, Any]) -> _Done:
        """Measure the objects of a picture and write them."""
        started = time.perf_counter()
        try:
            done = self._measured(item, answers)
        except (DiskFullError, CancelledError, BrokenPipeError):
            raise
        except Exception as error:
            return _Done(failure(item.task, error, self._job.settings))
        seconds = item.seconds + time.perf_counter() - started
        return replace(done, result=replace(done.result, ms=round(1000 * seconds, 1)))

    def _measured(self, item: _Read, answers: tuple[Any, Any]) -> _Done:
        assert self._sources is not None and item.prepared is not None
        job, task, picture = self._job, item.task, item.picture
        masks, source = self._sources
        depth, notes = source.finish(item.prepared[1], answers[1])
        made = MadeFrom(task.name, item.sha256, job.settings, item.made_from)
        check_metric(depth, task.name, job.choice)  # before masks are made
        found = masks.finish(item.prepared[0], answers[0], picture.size)
        objects, document = measured(masks, found, depth, job.choice, made)
        if self._finishing.closed:  # nobody waits for this any more
            raise CancelledError
        write_objects(objects, document, job.paths(task), job.colormap)
        result = Result(
            task.name,
            _texts(job, task),
            DONE,
            notes=(*picture.notes, *notes, *found.notes),
            warnings=(*picture.warnings, *warnings_of(depth)),
            model=depth.provenance.model,
            weights=depth.provenance.sha256,
            settings=job.settings,
        )
        return _Done(result, document)


@dataclass(frozen=True)
class MadeFrom:
    """What the JSON of a picture notes besides its objects.

    name, sha256: of the picture. settings: the options that shape a result, as one line. made_from: digest of the files
    that were named as masks, depth or weights.
    """

    name: str
    sha256: str
    settings: str
    made_from: str


def measured(
    masks: MaskSource, found: FoundMasks, depth: DepthMap, choice: ObjectsChoice, made: MadeFrom
) -> tuple[Objects, dict[str, Any]]:
    """Return the objects of a picture, and its JSON. Raises UsageError for relative depth where metres are required."""
    check_metric(depth, made.name, choice)
    objects = chosen_objects(found, depth, choice)
    about = {"path": PurePath(made.name).as_posix() if made.name else "", "sha256": made.sha256}
    document = document_of(
        objects,
        about,
        {**masks.facts, "threshold": choice.threshold},
        {"settings": made.settings, "made_from": made.made_from},
    )
    return objects, document


def warnings_of(depth: DepthMap) -> tuple[str, ...]:
    """Return what a user should know about the distances of objects."""
    return () if depth.kind.is_metric else (NO_METRES,)


def chosen_objects(found: FoundMasks, depth: DepthMap, choice: ObjectsChoice) -> Objects:
    """Return the objects of a choice, measured. depth: at the size of the masks."""
    trim = found.trim if choice.trim_px is None else choice.trim_px
    return objects_in(select(found.masks, choice), depth, trim, choice.sort)


def check_metric(depth: DepthMap, name: str, choice: ObjectsChoice) -> None:
    """Raise UsageError for relative depth where metres are required."""
    if choice.require_metric and not depth.kind.is_metric:
        raise UsageError(f"{name}: {NO_METRES}", "or leave out `require_metric`")


def _texts(job: ObjectsJob, task: Task) -> tuple[str, ...]:
    return tuple(map(str, job.paths(task).values()))


def given_weights(detector: Optional[str], checkpoint: Optional[Path]) -> tuple[Path, ...]:
    """Return the weights that a user named as a file or folder; None for those that were not named at all."""
    named = None if detector is None else Path(detector).expanduser()
    return tuple(path for path in (named, checkpoint) if path is not None and path.exists())


def digest_of(places: Sequence[Path]) -> str:
    """Return a digest of files and folders, "" of none: of the content of files, of names, sizes and times in folders.

    Raises OSError.
    """
    digest = hashlib.sha256()
    for place in places:
        if place.is_dir():
            found = sorted((path.name, path.stat()) for path in place.iterdir())
            facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
            digest.update(repr(facts).encode(errors="replace"))
        else:
            digest.update(file_digest(place).encode())
    return digest.hexdigest()[:16] if places else ""


def _existing(job: ObjectsJob, task: Task, sha256: str, made_from: str) -> Optional[dict[str, Any]]:
    """Return the JSON of a picture that need not be done again. Raises OutputError if nothing may be there."""
    paths = job.paths(task)
    there = [path for path in paths.values() if os.path.lexists(path)]
    if job.if_exists == "error" and there:
        raise OutputError(f"{there[0]} is there already")
    if job.if_exists != "skip" or "json" not in paths or len(there) < len(paths):
        return None
    try:
        document = json.loads(paths["json"].read_bytes())
        made_of = document["settings"], document["made_from"], document["picture"]["sha256"]
        same = made_of == (job.settings, made_from, sha256)
        return document if same and document["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
