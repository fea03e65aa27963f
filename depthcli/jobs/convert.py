"""Convert depth files into other formats: no model, several files at a time, resumable as a folder of pictures."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Callable, Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import DiskFullError, UsageError
from depthcli.host.cores import usable_cores
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.foreign import check_source, count_maps, is_ray, read_map
from depthcli.io.codecs.formats import STILL_ENDINGS
from depthcli.io.codecs.outputs import loss_line
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.io.video.depth_film import SUFFIXES as FILM_SUFFIXES
from depthcli.io.video.depth_film import DepthFilm
from depthcli.jobs.find import Input, find_in_folder
from depthcli.jobs.manifest import DONE, Manifest, Result
from depthcli.jobs.picture_file import PictureFile
from depthcli.jobs.picture_job import FolderJob, failed, look_up, note, result_of
from depthcli.jobs.picture_results import file_facts
from depthcli.jobs.pipeline import Lane
from depthcli.jobs.targets import Task, refuse_meeting
from depthcli.pixels.maps import filled, resized
from depthcli.predict.metres import Metres

_PER_THREAD = 2  # files on their way: one at work, one that waits
_DIGITS = 4  # of the numbers of maps, at least
_Done = tuple[Result, Optional["Tally"]]
_MARK = "convert="  # begins the settings of conversions in a manifest


@dataclass(frozen=True)
class Conversion:
    """What is done to each map between its two files.

    source: what files of other programs hold. cameras: given by the user, None for those that files and photos tell.
    photos: pictures by the names of their maps, None for none. size: (width, height), None for the map's own.
    fill: holes take the depth of their nearest neighbours. metres: makes metres of relative depth, None for none.
    """

    source: SourceChoice = field(default_factory=SourceChoice)
    cameras: Optional[GivenCameras] = None
    photos: Optional[Photos] = None
    size: Optional[tuple[int, int]] = None
    fill: bool = False
    metres: Optional[Metres] = None

    def __post_init__(self) -> None:
        check_source(self.source)
        if self.size is not None and min(self.size) < 1:
            raise UsageError("`size` must be at least 1x1 pixels", "such as 640x480")

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes the results, by the names that a manifest notes."""
        return {
            **self.source.settings,
            "size": self.size and "{}x{}".format(*self.size),
            "fill": self.fill or None,
            **(self.cameras.settings if self.cameras else {}),
            **(self.metres.settings if self.metres else {}),
        }


@dataclass(frozen=True, eq=False)
class Converted:
    """A map on its way. rgb: (H, W, 3) uint8 photo at its size, or None. holes: pixels without depth before filling."""

    depth: DepthMap
    rgb: Optional[np.ndarray]
    holes: int
    notes: tuple[str, ...] = ()


@dataclass
class Tally:
    """Counts over all maps of a job. holes: pixels without depth before filling. losses: by format, those too far."""

    pixels: int = 0
    holes: int = 0
    losses: Counter[str] = field(default_factory=Counter)

    def losses_lines(self) -> list[str]:
        """Return what was lost, one line for each format."""
        return [loss_line(name, count) for name, count in self.losses.items()]

    def holes_line(self, filled: bool) -> list[str]:
        """Return how many pixels had no depth; nothing if all had one."""
        if not self.holes:
            return []
        what = "had no depth and were filled" if filled else "have no depth"
        return [f"{self.holes} of {self.pixels} pixels {what} ({self.holes / self.pixels:.2%})"]


class Photos:
    """The pictures that belong to depth files: one file, or a folder, by the same name below it.

    Raises UsageError if there is none at all.
    """

    def __init__(self, place: Path) -> None:
        self._one = None if os.path.isdir(place) else place
        self._place = place
        self._files: dict[str, list[Path]] = {}
        if self._one is not None and not os.path.lexists(place):
            raise UsageError(f"{place} does not exist", "check the path of `photo`")
        for relative in find_in_folder(place) if self._one is None else ():
            for key in (relative.with_suffix("").as_posix(), relative.stem):
                self._files.setdefault(key, []).append(relative)

    @property
    def files(self) -> Iterator[Path]:
        """The files of all pictures."""
        if self._one is not None:
            yield self._one
        for names in self._files.values():
            yield from (self._place / name for name in names)

    def of(self, task: Task, source: str) -> Path:
        """Return the photo of a depth file. source: the picture that it was made of, by its facts, or empty.

        Raises UsageError if there is none, or several.
        """
        if self._one is not None:
            return self._one
        stem = PurePath(task.name).with_suffix("")
        names = [stem.as_posix(), PurePath(source).stem, stem.name]
        ends = {PurePath(ending).stem for ending in STILL_ENDINGS if ending}
        names += [stem.name[: -len(end)] for end in ends if stem.name.endswith(end)]
        for name in filter(None, names):
            found = list(dict.fromkeys(self._files.get(name, ())))
            if len(found) == 1:
                return self._place / found[0]
        raise UsageError(f"{self._place} has no picture for {task.name}", "give `photo` with files of the same names")


def plan_maps(files: Sequence[Input], folder: Optional[Path]) -> list[Task]:
    """Return one task per file, with the stem of its results below a folder; the tree of the files is kept.

    Files of one name keep their suffix in it: a.png and a.exr give a.png.npz and a.exr.npz.
    Raises UsageError if two files would still have the same results.
    """
    tasks = []
    counts = Counter(relative.with_suffix("") for _, relative in files)
    for source, relative in files:
        short = relative.with_suffix("")
        stem = (Path() if folder is None else folder) / (short if counts[short] == 1 else relative)
        tasks.append(Task(Path(source), relative.as_posix(), stem))
    refuse_meeting(files, [task.stem for task in tasks], "", "convert them one after the other")
    return tasks


def expand(tasks: Sequence[Task], source: SourceChoice, separator: str = "_") -> list[MapTask]:
    """Return a task for each map: a file that holds several gives numbered results.

    separator: before the numbers. Raises PictureError for a film without numbers.
    """
    found = []
    for task in tasks:
        assert isinstance(task.source, Path)
        film = DepthFilm(task.source) if task.source.suffix.lower() in FILM_SUFFIXES else None
        count = film.count if film else count_maps(task.source, source)
        if count == 1:
            found.append(MapTask(task.source, task.name, task.stem, film=film))
        digits = max(_DIGITS, len(str(count - 1)))
        for number in range(count if count > 1 else 0):
            stem = task.stem.with_name(f"{task.stem.name}{separator}{number:0{digits}d}")
            found.append(MapTask(task.source, f"{task.name}#{number}", stem, number, film))
    return found


@dataclass(frozen=True)
class MapTask(Task):
    """One map to convert. number: its place in a file that holds several. film: that file, if it is one."""

    number: int = 0
    film: Optional[DepthFilm] = None


def run_conversion(
    job: FolderJob,
    conversion: Conversion,
    tally: Tally,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """Do the job; yield one Result per task, in their order. Close the iterator to stop early.

    tally: counts what was converted.
    Raises DiskFullError if nothing more can be written, UsageError if the manifest has results with other options.
    """
    if job.manifest is not None:
        check_same_settings(job, job.manifest)
        job.manifest.check()
    threads = 0 if job.is_single else 2 * usable_cores()  # half of them wait for the disk
    films = {task.film for task in job.tasks if isinstance(task, MapTask) and task.film}
    with ExitStack() as stack, Lane[_Done](threads) as lane:
        for film in films:
            stack.callback(film.close)
        for task, file, known in look_up(job):
            file.close()
            if stop() or lane.failed():
                break
            if known is not None:
                lane.put_done((known, None))
            else:
                lane.put(_convert, job, conversion, task, lane)
            while len(lane) > _PER_THREAD * threads or lane.ready():
                yield _noted(job, lane.take(), tally)
        while lane:
            yield _noted(job, lane.take(), tally)


def check_same_settings(job: FolderJob, manifest: Manifest) -> None:
    """Raise UsageError if files that a job would keep were converted with other options."""
    if job.if_exists == "overwrite":
        return
    for path in map(str, job.every_path()):
        row, _ = manifest.outputs.get(path, ({}, 0))
        there = str(row.get("settings") or "")
        if there.startswith(_MARK) and there != job.settings and os.path.isfile(path):
            raise UsageError(
                f"{path} was converted with other options ({there[len(_MARK) :]})",
                "`if_exists` overwrite makes all anew, or use another `output`",
            )


def settings_of(conversion: Conversion, more: Mapping[str, Any]) -> str:
    """Return the options of a conversion as one line, for the manifest."""
    named = {**conversion.settings, **more}
    return _MARK + (" ".join(f"{name}={value}" for name, value in named.items() if value is not None) or "plain")


def open_map(task: Task, conversion: Conversion) -> Converted:
    """Return the map of a task as it will be written. Raises DepthError."""
    assert isinstance(task.source, Path)
    number, film = (task.number, task.film) if isinstance(task, MapTask) else (0, None)
    depth = film.map(number) if film else read_map(task.source, conversion.source, number)
    photo, notes = _photo(task, depth, conversion)
    camera, more = _camera(task, depth, photo, conversion)
    depth = replace(depth, camera=camera)
    if film is None and is_ray(task.source, conversion.source):
        depth = _along_axis(task, depth)
    if conversion.metres is not None:
        depth = conversion.metres.applied(depth, depth.provenance.source or task.name)
        more = more if depth.calibration is None else (*more, depth.calibration.line())
    holes = 0 if depth.valid is None else int(depth.valid.size - depth.valid.sum())
    if conversion.size is not None:
        depth = resized(depth, conversion.size)
    if conversion.fill:
        depth = filled(depth)
    return Converted(depth, None if photo is None else _fitted(photo.rgb, depth.size), holes, (*notes, *more))


def _convert(
    job: FolderJob,
    conversion: Conversion,
    task: Task,
    lane: Lane[_Done],
) -> _Done:
    started = time.perf_counter()
    file = PictureFile(task.source, task.name)
    facts: dict[str, Any] = {"sha256": ""}
    try:
        with suppress(OSError):  # reading it will tell
            facts = file.facts()
        item = open_map(task, conversion)
        made_of = replace(item.depth.provenance, converted=(file.name, facts["sha256"]))
        depth = item.depth.with_provenance(made_of)
        if lane.closed:  # nobody waits for this any more
            raise CancelledError
        job.outputs.write(depth, item.rgb, job.paths(task))
        files = tuple(file_facts(os.stat(path)) for path in job.paths(task))
        warnings, losses = job.outputs.doubts(depth), job.outputs.losses(depth)
    except (DiskFullError, CancelledError, BrokenPipeError):
        raise
    except Exception as error:  # whatever a reader raises
        return failed(job, task, error), None
    finally:
        file.close()
    result = result_of(
        job,
        task,
        DONE,
        ms=round(1000 * (time.perf_counter() - started), 1),
        notes=item.notes,
        warnings=warnings,
        model=depth.provenance.model,
        weights=depth.provenance.sha256,
        settings=job.settings,
        source=facts,
        files=files,
    )
    return result, Tally(depth.values.size, item.holes, Counter(losses))


def _noted(job: FolderJob, done: _Done, tally: Tally) -> Result:
    result, counts = done
    if counts is not None:
        tally.pixels, tally.holes = tally.pixels + counts.pixels, tally.holes + counts.holes
        tally.losses += counts.losses
    note(job, result)
    return result


def _photo(task: Task, depth: DepthMap, conversion: Conversion) -> tuple[Optional[Picture], tuple[str, ...]]:
    if conversion.photos is None:
        return None, ()
    path = conversion.photos.of(task, depth.provenance.source)
    return read_picture(path), (f"photo {path}",)


def _camera(
    task: Task, depth: DepthMap, photo: Optional[Picture], conversion: Conversion
) -> tuple[Optional[Camera], tuple[str, ...]]:
    """Return the camera of a map: the user's, then the file's, then that of the photo's EXIF."""
    if conversion.cameras is not None:
        blank = np.broadcast_to(np.uint8(0), (*depth.values.shape, 3))
        given = conversion.cameras.given_to(Picture(blank, photo.name if photo else _picture_of(task, depth)))
        return given.camera, given.notes
    if depth.camera is not None or photo is None or photo.camera is None:
        return depth.camera, ()
    return photo.camera.resized(photo.size, depth.size), (f"camera from the EXIF of {photo.name}",)


def _picture_of(task: Task, depth: DepthMap) -> str:
    """Return the path of the picture that a map was made of, as far as its facts know it."""
    assert isinstance(task.source, Path)
    return str(task.source.with_name(depth.provenance.source or task.source.name))


def _along_axis(task: Task, depth: DepthMap) -> DepthMap:
    from depthcli.geometry.rays import depth_along_axis

    if depth.kind.near_is_high:
        raise UsageError(f"{task.name} holds {depth.kind.value}, which no ray has", "leave out `depth_is`")
    if depth.camera is None:
        raise UsageError(
            f"`depth_is` ray needs the camera of {task.name}", "give one of `intrinsics`, `focal`, `fov` and `f35`"
        )
    return replace(depth, values=depth_along_axis(depth.values, depth.camera))


def _fitted(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    smaller = size[0] < rgb.shape[1]
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))
