"""Measure the objects of clips: a line of JSON for each frame, and an overlay film."""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, Union

from depthcli.choices.objects import ObjectsChoice
from depthcli.choices.settings import DEFAULT_COLORMAP, IF_EXISTS, require
from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import ClipError, OutputError, UsageError
from depthcli.host.atomic import atomic_path, remove_partials, temporary_folder
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.foreign import DEPTH_SUFFIXES, check_source, count_maps, read_map
from depthcli.io.masks.files import SCHEMA
from depthcli.io.names import fitting_name
from depthcli.io.pictures.images import Picture
from depthcli.io.video.clip import Frame, Number, Selection
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.reader import natural_order, open_clip
from depthcli.io.video.writers import video_writer
from depthcli.jobs.clip_results import CHANGED, GONE, OTHER, REPLACE, SAME, ClipFiles, is_our_map, relation_of
from depthcli.jobs.manifest import DONE, SKIPPED, Result
from depthcli.jobs.objects import NO_METRES, check_metric, chosen_objects, digest_of, fit_to
from depthcli.jobs.pipeline import Lane
from depthcli.objects.document import Objects, document_of
from depthcli.objects.files import write_label_picture, write_objects_exr
from depthcli.objects.overlay import overlay
from depthcli.objects.sources import MaskSource
from depthcli.objects.track import Tracker
from depthcli.predict.clip import FrameLoop, readable_frames
from depthcli.predict.clip_predictors import ClipPredictor
from depthcli.predict.metres import Metres

_WAITING = 2  # frames that may wait to be written
_FRAME = re.compile(r"\d{6,}\.(png|exr)")
ENDINGS = {"json": "_objects.jsonl", "overlay": "_objects.mp4", "masks": "_masks", "exr": "_objects_exr"}


class ClipDepth(Protocol):
    """Where the depth of a clip's frames comes from."""

    def maps(self, frames: Iterator[Frame], name: str, size: tuple[int, int]) -> Iterator[tuple[Frame, DepthMap]]:
        """Yield each frame with its depth at the clip's (width, height), in order."""


@dataclass(frozen=True, eq=False)
class ClipDepthFromFiles:
    """A folder of depth files in the order of their numbers, or an NPZ with a map for each frame."""

    place: Path
    source: SourceChoice = field(default_factory=SourceChoice)
    cameras: Optional[GivenCameras] = None
    metres: Optional[Metres] = None

    def __post_init__(self) -> None:
        check_source(self.source)
        if not os.path.lexists(self.place):
            raise UsageError(f"{self.place} does not exist", "check the path of `depth`")

    def maps(self, frames: Iterator[Frame], name: str, size: tuple[int, int]) -> Iterator[tuple[Frame, DepthMap]]:
        """Yield each frame with the map of its number. Raises UsageError if there are fewer maps than frames."""
        files = self._files()
        for frame in frames:
            if frame.index >= len(files):
                raise UsageError(f"{self.place} has {len(files)} maps, and {name} more frames", "choose `max_frames`")
            path, number = files[frame.index]
            depth = read_map(path, self.source, number)
            depth, _ = fit_to(depth, Picture(frame.rgb, name), path.name, self.cameras)
            if self.metres is not None:
                depth = self.metres.applied(depth, name)
            made_of = replace(depth.provenance, converted=(path.name, ""))
            yield frame, depth.with_provenance(made_of)

    def _files(self) -> Sequence[tuple[Path, int]]:
        if not os.path.isdir(self.place):
            return [(self.place, number) for number in range(count_maps(self.place, self.source))]
        paths = (path for path in self.place.iterdir() if path.suffix.lower() in DEPTH_SUFFIXES)
        return [(path, 0) for path in sorted(paths, key=natural_order)]


@dataclass(frozen=True, eq=False)
class ClipDepthFromModel:
    """A video model, or a picture model whose depth is made steady."""

    predictor: ClipPredictor
    find_cuts: bool = True
    cameras: Optional[GivenCameras] = None
    metres: Optional[Metres] = None

    def maps(self, frames: Iterator[Frame], name: str, size: tuple[int, int]) -> Iterator[tuple[Frame, DepthMap]]:
        """Yield each frame with its map, which may come some frames after it was read."""
        waiting: deque[Frame] = deque()

        def remembered() -> Iterator[Frame]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        loop = FrameLoop(self.predictor, size, find_cuts=self.find_cuts)
        provenance = loop.provenance(name)
        steps = loop.run(remembered())
        with closing(steps):  # type: ignore[type-var]
            for maps in steps:
                for item in maps:
                    frame = waiting.popleft()
                    depth = loop.depth_map(item.values, provenance)
                    if self.cameras is not None:
                        depth = replace(depth, camera=self.cameras.given_to(Picture(frame.rgb, name)).camera)
                    yield frame, depth if self.metres is None else self.metres.applied(depth, name)


@dataclass(frozen=True)
class ObjectsClipJob:
    """One clip whose objects are measured; fill it by keywords.

    stem: path of the results without ending. formats: json (a line for each frame), overlay (a film), masks and exr
    (folders of frames). track: number the objects through the clip. made_from: places of masks, depth and weights.
    rate, size: of folders and raw video.
    """

    source: Union[Path, str]
    stem: Path
    formats: tuple[str, ...] = ("json", "overlay")
    choice: ObjectsChoice = field(default_factory=ObjectsChoice)
    track: bool = False
    colormap: str = DEFAULT_COLORMAP
    if_exists: str = "skip"
    settings: str = ""
    made_from: tuple[Path, ...] = ()
    selection: Selection = field(default_factory=Selection)
    rate: Optional[Number] = None
    size: Optional[tuple[int, int]] = None
    keep: Callable[[dict[str, Any]], None] = lambda document: None

    def __post_init__(self) -> None:
        require("if_exists", self.if_exists, IF_EXISTS)
        for name in self.formats:
            if name not in ENDINGS:
                raise UsageError(f"{name} is of pictures, not of clips", f"`formats` of clips: {', '.join(ENDINGS)}")

    @property
    def paths(self) -> dict[str, Path]:
        """The files and folders by format."""
        stem = self.stem
        return {name: stem.with_name(fitting_name(stem.parent, stem.name, ENDINGS[name])) for name in self.formats}


def objects_of_clip(
    job: ObjectsClipJob,
    open_masks: Callable[[], MaskSource],
    open_depth: Callable[[], ClipDepth],
    stop: Callable[[], bool] = lambda: False,
) -> Optional[Result]:
    """Measure the objects of a clip; return None if `stop` ended it, without its files.

    Raises ClipError for a clip that cannot be read, after writing what could be, and DepthError.
    """
    started = time.perf_counter()
    paths = job.paths
    texts = tuple(map(str, paths.values()))
    name = str(job.source)
    there = _existing(job)
    if there is not None:
        for document in there:
            job.keep(document)
        return Result(name, texts, SKIPPED, settings=job.settings)
    remove_partials(job.stem.parent)
    damage: list[ClipError] = []
    try:
        with ExitStack() as stack:
            clip = stack.enter_context(open_clip(job.source, job.rate, job.size))
            rate = job.selection.rate(clip.info.rate)
            frames = stack.enter_context(closing(clip.frames(job.selection)))  # type: ignore[type-var]
            files = ClipFiles.of(job.source)
            masks, depth = open_masks(), open_depth()
            maps = depth.maps(readable_frames(frames, damage), Path(clip.info.name).name, clip.info.size)
            timing = Timing(rate, clip.info.time_base)
            results = stack.enter_context(_Results(job, clip.info.size, timing, files.made_of(job.stem.parent)))
            writing: Lane[dict[str, Any]] = stack.enter_context(Lane(1))  # while the networks see the next frame
            count, metric = 0, True
            for frame, found in stack.enter_context(closing(maps)):  # type: ignore[type-var]
                if stop():
                    raise _StoppedError
                check_metric(found, name, job.choice)
                prepared = masks.prepare(frame.rgb, number=frame.index)
                writing.put(results.add, frame, found, masks, prepared, masks.run(prepared))
                count, metric = count + 1, found.kind.is_metric
                while len(writing) > _WAITING:
                    job.keep(writing.take())
            while writing:
                job.keep(writing.take())
            if not count:
                raise damage[0] if damage else ClipError(f"{name} has no frame that was chosen", "", 0)
            if files.compare() in (CHANGED, GONE):
                raise ClipError(f"{name} changed while it was read", "start the command again")
    except _StoppedError:
        return None
    if damage:
        raise damage[0]
    ms = round(1000 * (time.perf_counter() - started), 1)
    warnings = () if metric else (NO_METRES,)
    return Result(name, texts, DONE, ms, notes=clip.info.notes, warnings=warnings, settings=job.settings)


class _Results:
    """The files of a clip while they are written; they appear when the block ends without an error."""

    def __init__(self, job: ObjectsClipJob, size: tuple[int, int], timing: Timing, made_of: Mapping[str, Any]) -> None:
        """made_of: which clip it is, as results note it."""
        self._job, self._size, self._timing, self._made_of = job, size, timing, made_of
        self._made_from = digest_of(job.made_from)
        self._folders: dict[str, Path] = {}  # of frames, by format
        self._stack = ExitStack()
        self._tracker = Tracker() if job.track else None
        self._range: Optional[tuple[float, float]] = None
        self._film: Any = None
        self._lines: Any = None

    def __enter__(self) -> _Results:
        path = self._job.paths.get("json")
        if path is not None:
            partial = self._stack.enter_context(atomic_path(path))
            self._lines = self._stack.enter_context(partial.open("w", encoding="utf-8", errors="backslashreplace"))
        return self

    def __exit__(self, *error: Any) -> None:
        with self._stack:
            if error[0] is None:
                for name, folder in self._folders.items():
                    _replace_frames(folder, self._job.paths[name])
            self._stack.pop_all().__exit__(*error)

    def add(self, frame: Frame, depth: DepthMap, source: MaskSource, prepared: Any, answer: Any) -> dict[str, Any]:
        """Measure the objects of a frame, write them, and return their JSON. prepared, answer: of `source`."""
        job = self._job
        found = chosen_objects(source.finish(prepared, answer, depth.size), depth, job.choice)
        smooth: list[Optional[float]] = []
        if self._tracker is not None:
            numbers = self._tracker.follow(found.masks)
            found = replace(
                found, masks=tuple(replace(item, track=number) for item, number in zip(found.masks, numbers))
            )
            smooth = [self._tracker.smooth(number, was.distance) for number, was in zip(numbers, found.measured)]
        document = document_of(
            found,
            {"path": Path(str(job.source)).name},
            {**source.facts, "threshold": job.choice.threshold},
            {
                "settings": job.settings,
                "made_from": self._made_from,
                "clip": self._made_of,
                "frame": frame.index,
                "time": round(float(frame.time), 6),
            },
        )
        for row, distance in zip(document["objects"], smooth):
            row["smooth_distance"] = None if distance is None else round(distance, 4)
        if self._lines is not None:
            self._lines.write(json.dumps(document, ensure_ascii=False) + "\n")
        self._write_pictures(frame, found, smooth)
        return document

    def _write_pictures(self, frame: Frame, found: Objects, smooth: Sequence[Optional[float]]) -> None:
        paths, depth = self._job.paths, found.depth
        if "overlay" in paths:
            lo, hi = self._range or depth.range  # grows with the clip, so that colours do not flicker
            self._range = min(lo, depth.range[0]), max(hi, depth.range[1])
            picture = overlay(found, self._job.colormap, self._range, smooth)
            if self._film is None:
                output = ClipOutput("stereo-mp4", paths["overlay"], self._size, self._timing, _film_facts(depth))
                self._film = self._stack.enter_context(video_writer(output))
            self._film.write(picture, frame.time)
        name = f"{frame.index:06d}"
        if "masks" in paths:
            write_label_picture(found, self._folder("masks") / f"{name}.png")
        if "exr" in paths:
            write_objects_exr(found, self._folder("exr") / f"{name}.exr")

    def _folder(self, name: str) -> Path:
        """Return the folder of a format's frames while they are written."""
        if name not in self._folders:
            self._folders[name] = self._stack.enter_context(temporary_folder(self._job.stem.parent))
        return self._folders[name]


def _replace_frames(made: Path, folder: Path) -> None:
    """Move frames to the folder of their name. Ours of an earlier run go; what is not ours stays."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if _FRAME.fullmatch(path.name) and is_our_map(path):
            path.unlink()
    for path in made.iterdir():
        os.replace(path, folder / path.name)


class _StoppedError(Exception):
    """Ends the files of a clip before they appear."""


def _film_facts(depth: DepthMap) -> dict[str, Any]:
    return {**facts_of(depth), "objects": {"what": "overlay"}}


def _existing(job: ObjectsClipJob) -> Optional[list[dict[str, Any]]]:
    """Return the lines of a clip that need not be done again.

    Raises OutputError if nothing may be there, or if the files are of another clip.
    """
    paths = job.paths
    there = [path for path in paths.values() if os.path.lexists(path)]
    if job.if_exists == "error" and there:
        raise OutputError(f"{there[0]} is there already")
    if job.if_exists != "skip" or "json" not in paths:
        return None
    try:
        documents = [json.loads(line) for line in paths["json"].read_bytes().splitlines()]
        made_of = documents[0]["clip"] if documents else {}
        relation = relation_of(made_of, job.source, ClipFiles.of(job.source), job.stem.parent)
        wanted = job.settings, digest_of(job.made_from), SCHEMA
        same = all((each["settings"], each["made_from"], each["schema"]) == wanted for each in documents)
    except (OSError, ValueError, KeyError, TypeError, ClipError):
        return None
    if relation == OTHER:
        raise OutputError(
            f"{paths['json']} is of another clip, {made_of.get('name')}", f"choose another `output`, or {REPLACE}"
        )
    return documents if relation == SAME and same and len(there) == len(paths) else None
