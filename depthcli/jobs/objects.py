"""Measure the objects of pictures: masks from files or a detector, depth from files or a model. No torch by itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Callable, Optional, Protocol

from depthcli.camera import same_ratio
from depthcli.choices import IF_EXISTS, OBJECT_FILES, ObjectsChoice, SourceChoice, require
from depthcli.depthmap import DepthMap
from depthcli.errors import DeviceLostError, DiskFullError, ModelError, OutputError, UsageError
from depthcli.geometry.rays import depth_along_axis
from depthcli.host.atomic import remove_partials
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.foreign import check_source, is_ray, read_map
from depthcli.io.codecs.formats import STILL_ENDINGS
from depthcli.io.masks.files import SCHEMA
from depthcli.io.pictures.images import Picture
from depthcli.jobs.find import depth_kind, find_in_folder
from depthcli.jobs.manifest import DONE, SKIPPED, Result
from depthcli.jobs.picture_file import PictureFile
from depthcli.jobs.picture_job import failure
from depthcli.jobs.targets import Task, refuse_replacing
from depthcli.objects.document import Objects, document_of, objects_in
from depthcli.objects.files import paths_of, write_objects
from depthcli.objects.select import select
from depthcli.objects.sources import FoundMasks, MaskSource
from depthcli.pixels.colormap import DEFAULT_COLORMAP
from depthcli.pixels.maps import resized
from depthcli.predict.metres import Metres
from depthcli.predict.picture import DepthEstimator

NO_METRES = "its depth is relative: order alone, no metres (`metric`, `scale_from` or `depth` gives them)"


class DepthSource(Protocol):
    """Where depth comes from: files or a model."""

    def of_picture(self, task: Task, picture: Picture) -> tuple[DepthMap, tuple[str, ...]]:
        """Return the depth of a picture at its size, with its camera, and notes. Raises DepthError."""


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

    def of_picture(self, task: Task, picture: Picture) -> tuple[DepthMap, tuple[str, ...]]:
        """Return the depth of a picture at its size."""
        path = self._file_of(task)
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

    def _file_of(self, task: Task) -> Path:
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

    def of_picture(self, task: Task, picture: Picture) -> tuple[DepthMap, tuple[str, ...]]:
        """Return the depth of a picture."""
        prepared = self.estimator.prepare(picture)
        (answer,) = self.estimator.run([prepared])
        return self.estimator.finish(prepared, answer), prepared.picture.notes[len(picture.notes) :]


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
    anew that have other settings or an older picture. settings: the options that shape a result, as one line. keep: is
    given the JSON of each picture.
    """

    tasks: Sequence[Task]
    formats: tuple[str, ...] = ("json", "overlay")
    choice: ObjectsChoice = ObjectsChoice()
    colormap: str = DEFAULT_COLORMAP
    if_exists: str = "skip"
    settings: str = ""
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
    """Do the job; yield one Result per picture. A picture that fails does not stop the rest.

    open_masks, open_depth: called once, when the first picture needs them. Raises ModelError, EngineError or UsageError
    if they do not open, DiskFullError if nothing more can be written.
    """
    for folder in {task.stem.parent for task in job.tasks}:
        remove_partials(folder)
    sources: list[Any] = []
    for task in job.tasks:
        if stop():
            return
        started = time.perf_counter()
        try:
            assert isinstance(task.source, Path)
            with closing(PictureFile(task.source, task.name)) as file:
                sha256 = file.sha256
                document = _existing(job, task, sha256)
                if document is not None:
                    job.keep(document)
                    yield Result(task.name, _texts(job, task), SKIPPED, settings=job.settings)
                    continue
                picture = file.read()
        except Exception as error:  # whatever a decoder raises
            yield failure(task, error, job.settings)
            continue
        if not sources:
            sources = [open_masks(), open_depth()]
        try:
            result = _measured(job, task, picture, sha256, *sources)
        except (DiskFullError, DeviceLostError, ModelError, BrokenPipeError):
            raise
        except Exception as error:
            yield failure(task, error, job.settings)
            continue
        yield replace(result, ms=round(1000 * (time.perf_counter() - started), 1))


def _measured(
    job: ObjectsJob, task: Task, picture: Picture, sha256: str, masks: MaskSource, source: DepthSource
) -> Result:
    depth, notes = source.of_picture(task, picture)
    check_metric(depth, task.name, job.choice)
    assert isinstance(task.source, Path)
    found = masks.of_picture(task.source, picture.rgb)
    objects = chosen_objects(found, depth, job.choice)
    about = {"path": PurePath(task.name).as_posix(), "sha256": sha256}
    document = document_of(
        objects, about, {**masks.facts, "threshold": job.choice.threshold}, {"settings": job.settings}
    )
    write_objects(objects, document, job.paths(task), job.colormap)
    job.keep(document)
    warnings = () if depth.kind.is_metric else (NO_METRES,)
    return Result(
        task.name,
        _texts(job, task),
        DONE,
        notes=(*picture.notes, *notes, *found.notes),
        warnings=(*picture.warnings, *warnings),
        model=depth.provenance.model,
        weights=depth.provenance.sha256,
        settings=job.settings,
    )


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


def _existing(job: ObjectsJob, task: Task, sha256: str) -> Optional[dict[str, Any]]:
    """Return the JSON of a picture that need not be done again. Raises OutputError if nothing may be there."""
    paths = job.paths(task)
    there = [path for path in paths.values() if os.path.lexists(path)]
    if job.if_exists == "error" and there:
        raise OutputError(f"{there[0]} is there already")
    if job.if_exists != "skip" or "json" not in paths or len(there) < len(paths):
        return None
    try:
        document = json.loads(paths["json"].read_bytes())
        same = document["settings"] == job.settings and document["picture"]["sha256"] == sha256
        return document if same and document["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
