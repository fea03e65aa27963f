"""The scene job: views through one network into the files of a scene, resumable.

The manifest has a row for each format: what it was made of, and by what. A format whose files are as noted is skipped.
If the NPZ file is among those, the rest is made from it, without the network. More views than go through the network at
once are the work of `long_scene`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Optional, Union

from depthcli.choices.clips import FramesChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.scenes import ChunksChoice, SceneChoice, ViewsChoice
from depthcli.choices.settings import IF_EXISTS, noted, require
from depthcli.depthmap import DepthKind
from depthcli.errors import DepthError, DiskFullError, OutputError, PictureError, UsageError, first_line
from depthcli.geometry.scene_join import thin_cloud
from depthcli.host.atomic import remove_partials
from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.formats import STILLS, check_kind
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import picture_size, read_picture
from depthcli.io.points.files import write_shape
from depthcli.io.scenes.files import EXPORTS, NPZ, PLY, check_exports, in_order, read_scene, write_vis
from depthcli.jobs.long_scene import LongScene, check_space, chunks_of, join_chunks, make_chunks
from depthcli.jobs.manifest import DONE, FAILED, MANIFEST_NAME, SKIPPED, Manifest, Result
from depthcli.jobs.picture_results import MadeBy, difference, file_facts
from depthcli.jobs.scene_inputs import SceneInput, SceneSource
from depthcli.jobs.scene_paths import GivenPath, given_path
from depthcli.jobs.scene_views import IMAGES, ViewSource, at_most, clip_frames, clip_views, picture_views
from depthcli.jobs.targets import refuse_replacing
from depthcli.pixels.scene_size import at_picture_size
from depthcli.predict.model import known_model
from depthcli.predict.scene import (
    FEWEST_VIEWS,
    Cameras,
    ReadView,
    SceneEstimator,
    check_count,
    given_cameras,
    poses_alone,
)
from depthcli.scene import Scene, View

_OF_NETWORK = ("gs_ply", "feat_vis")  # hold what no NPZ file has
DEPTH = "depth-"  # before the name of a format of single maps: a file per view
WHOLE = ("npz", "mini_npz", "glb-mesh", *_OF_NETWORK)  # formats that need every pixel of all views at once
_OF_PICTURES = ("colmap", "colmap-txt", "transforms")  # which name the pictures, so that frames have to be files
_WITH_SHAPE = ("glb", "glb-mesh", "ply", "colmap", "colmap-txt")
BEGUN = "begun"  # in the manifest: files that an interrupted run may have left
_FOLDER = "depth"
_SHOT = "shot-{:03d}"
_Load = Callable[[], AbstractContextManager[SceneEstimator]]
# What a service says of a clip that becomes several scenes.
SEVERAL_SHOTS = ("the clip has several shots, each a scene of its own", "leave out `server`, or send one shot")
_PATIENCE = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class SceneJob:
    """The views of one scene and the files to make of them.

    found: what was named. folder: for the files. formats: of io.scenes.files.EXPORTS, or depth- and one of STILLS.
    poses: file or folder of cameras with poses, or a path of poses as text, in place
    of those that were found. max_views: take at most so many,
    evenly. if_exists: skip, overwrite or error for formats whose files exist. show: how points and meshes are made.
    chunks: how more views than fit at once are made; chunks and formats of `WHOLE` exclude each other. shot: the first
    and the last frame of the shot of a clip that this is the scene of, "" for all.

    Raises UsageError for unknown formats, and two of one place.
    """

    found: SceneInput
    folder: Path
    formats: tuple[str, ...]
    model: ModelChoice = ModelChoice()
    backend: BackendChoice = BackendChoice()
    views: ViewsChoice = ViewsChoice()
    frames: FramesChoice = FramesChoice()
    show: SceneChoice = SceneChoice()
    poses: Optional[Path] = None
    max_views: Optional[int] = None
    if_exists: str = "skip"
    chunks: ChunksChoice = ChunksChoice()
    shot: str = ""

    def __post_init__(self) -> None:
        require("if_exists", self.if_exists, IF_EXISTS)
        check_formats(self.formats)
        whole = next((name for name in self.formats if name in WHOLE), None)
        if self.chunks.chunk is not None and whole is not None:
            raise UsageError(
                f"{whole} holds all views at once, which is not for views in chunks",
                "chunks/ holds their numbers; leave out `chunk`, or choose from: "
                + ", ".join(name for name in EXPORTS if name not in WHOLE),
            )
        if self.max_views is not None and self.max_views < 2:
            raise UsageError(f"`max_views` must be at least 2, got {self.max_views}")
        if self.found.source is SceneSource.PICTURE:
            check_count(1, self.fewest)
        if self.found.source is SceneSource.FOLDER and _same_place(self.folder, self.found.paths[0].parent):
            raise UsageError(f"scene.jpg would be taken for a picture of {self.folder}", "use another `output`")
        results = [(name, self.files(name, self.found.names)) for name in self.ordered]
        refuse_replacing("picture", results, self.found.paths)
        if self.frames != FramesChoice() and self.found.source is not SceneSource.CLIP:
            name = next(name for name, value in vars(self.frames).items() if value)
            raise UsageError(f"`{name}` chooses frames of a clip, and {self.found.rule}", "leave it out")

    @property
    def fewest(self) -> int:
        """Views that the scene has at least: in chunks a clip may be as short as it likes."""
        return FEWEST_VIEWS if self.chunks.chunk is None else 1

    @property
    def ordered(self) -> list[str]:
        """The formats in the order in which they are made; for a clip with its frames, if another format needs them."""
        scenes = in_order([name for name in self.formats if name in EXPORTS])
        scenes.sort(key=lambda name: name != "npz")  # so that a later run can go on from it
        maps = [name for name in self.formats if name.startswith(DEPTH)]
        needs_images = self.found.source is SceneSource.CLIP and (maps or set(_OF_PICTURES) & set(scenes))
        return [*([IMAGES] if needs_images else []), *scenes, *maps]

    @property
    def wants_gaussians(self) -> bool:
        """Whether the network is asked for Gaussians."""
        return "gs_ply" in self.formats

    @property
    def wants_features(self) -> bool:
        """Whether what the network's last block gives is kept."""
        return "feat_vis" in self.formats

    def settings(self, format: str = "") -> str:
        """Return the options that shape the scene, or one of its formats, as one line."""
        shaping: dict[str, Any] = {
            "backend": self.backend.backend,
            "precision": self.backend.precision,
            **self.views.settings,
            **self.frames.settings,
            "max-views": self.max_views,
            "shot": self.shot or None,
            **self.chunks.settings,
            "poses": self.poses and (self.path or read_cameras(self.poses)).fingerprint,
            **(self.show.settings if format in _WITH_SHAPE else {}),
        }
        return noted(shaping)

    @cached_property
    def path(self) -> Optional[GivenPath]:
        """The poses that were given as text, or None."""
        return None if self.poses is None else given_path(self.poses)

    def with_poses(self, sources: list[ViewSource]) -> list[ViewSource]:
        """Return the views with the poses of a path that was given as text. Raises UsageError for one without."""
        if self.path is None:
            return sources
        indices = [source.frame for source in sources] if self.found.source is SceneSource.CLIP else None
        cameras = self.path.cameras([source.name for source in sources], indices)
        return [source._replace(camera=camera) for source, camera in zip(sources, cameras)]

    def files(self, format: str, names: Sequence[str]) -> list[Path]:
        """Return the paths of a format's files. names: of the views."""
        if format == IMAGES:
            return [self.folder / IMAGES / name for name in names]
        if format in EXPORTS:
            return [self.folder / path for path in EXPORTS[format].files(len(names))]
        return [path for paths in depth_paths(self.folder, format, names) for path in paths]


def _same_place(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


@dataclass(frozen=True)
class Note:
    """A line about the work."""

    text: str


@dataclass(frozen=True)
class Unread:
    """A picture that cannot be read, and is left out of the scene."""

    result: Result


@dataclass(frozen=True, eq=False)
class Made:
    """The scene, as it is about to be written. seconds: that reading and the network took; 0 if it was there."""

    scene: Scene
    seconds: float = 0.0


@dataclass(frozen=True)
class Shot:
    """The scene of a shot of a clip begins: what follows is of it. number: from 1. job: its own."""

    number: int
    job: SceneJob


READING, MAKING, WRITING = "read", "depth", "write"  # stages of a scene


@dataclass(frozen=True)
class Step:
    """How far a scene is. stage: READING, MAKING or WRITING. done: pictures or files of `total`, None if unknown."""

    stage: str
    done: int = 0
    total: Optional[int] = None


Event = Union[Note, Unread, Made, Shot, Step, Result]
# Makes what is wanted of the sources on another machine: (manifest, formats, sources, digest of all inputs).
Elsewhere = Callable[[Manifest, Sequence[str], Sequence[ViewSource], str], Iterator[Event]]


def summary_of(made: Made) -> str:
    """Return what was made, in one line."""
    scene = made.scene
    facts = scene.facts
    size = f"{scene.size[0]}x{scene.size[1]}" if scene.size else "several sizes"
    depths = (view.depth for view in scene.views)  # one held at a time
    ranges = [depth.range for depth in depths if depth.valid is None or depth.valid.any()] or [(0.0, 0.0)]
    low, high = min(one[0] for one in ranges), max(one[1] for one in ranges)
    unit = "m" if scene.unit == "m" else "in the unit of the given cameras" if facts.get("world") == "given" else ""
    unit = unit or "in an arbitrary unit"
    took = f", {made.seconds:.1f} s" if made.seconds else ""
    return (
        f"scene of {len(scene.views)} views of {size}: depth {low:.4g} to {high:.4g} {unit}, "
        f"{facts.get('cameras', 'predicted')} cameras, model {facts.get('model', 'unknown')}{took}"
    )


def check_formats(formats: Sequence[str]) -> None:
    """Raise UsageError for unknown formats, for two of one place, and for none."""
    if not formats:
        raise UsageError("no output format given", f"choose from: {', '.join(EXPORTS)}")
    maps = [name[len(DEPTH) :] for name in formats if name.startswith(DEPTH)]
    unknown = next((name for name in maps if name not in STILLS), None)
    if unknown is not None:
        raise UsageError(f"no depth file is called {DEPTH}{unknown}", f"{DEPTH} and one of: {', '.join(STILLS)}")
    others = [name for name in formats if not name.startswith(DEPTH)]
    single = next((name for name in others if name not in EXPORTS and name in STILLS), None)
    if single is not None:
        raise UsageError(f"{single} is a format of single maps", f"{DEPTH}{single} gives one for each view")
    check_exports(others)


def depth_paths(folder: Path, format: str, names: Sequence[str]) -> list[tuple[Path, ...]]:
    """Return the files of each view for a format of single maps; views that differ only in suffix keep it."""
    spec = OutputSpec((format[len(DEPTH) :],))
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    counts = Counter(stems)
    chosen = [name if counts[stem] > 1 else stem for name, stem in zip(names, stems)]
    return [spec.paths(folder / _FOLDER / name) for name in chosen]


def run_scene(job: SceneJob, load: _Load, elsewhere: Optional[Elsewhere] = None) -> Generator[Event, None, None]:
    """Do the job; yield notes, steps, pictures that cannot be read, and a Result for each format.

    load: makes the estimator; called if the network has to run, unless it does elsewhere. A format that fails does not
    stop the others. Views of a clip that go in chunks and come from several shots become a scene for each shot, in a
    folder of its own. Raises UsageError for existing results of other options, PictureError for too many views, and as
    `SceneEstimator`.
    """
    yield from _run(job, load, _digest(job), elsewhere=elsewhere)


def _run(
    job: SceneJob,
    load: _Load,
    digest: str,
    sources: Optional[list[ViewSource]] = None,
    elsewhere: Optional[Elsewhere] = None,
) -> Generator[Event, None, None]:
    """Do the job. digest: of the inputs. sources: the views, if they are known already."""
    written = {path.parent for name in job.ordered for path in job.files(name, job.found.names)}
    for folder in {*written, *(folder.parent for folder in written)}:
        remove_partials(folder)
    manifest = Manifest(job.folder / MANIFEST_NAME)
    manifest.check()
    check_made_by(job, manifest, MadeBy(*_known(job), job.settings()))
    wanted = [name for name in job.ordered if job.if_exists != "skip" or not _is_there(manifest, name, digest)]
    for name in job.ordered:
        if name not in wanted:
            outputs = tuple(str(path) for path in _noted(manifest, name))
            yield Result(name, outputs, SKIPPED)
    if not wanted:
        yield from _unread_before(job, manifest, digest)
        return
    if sources is None:
        sources = _sources(job)
        if len({source.shot for source in sources}) > 1:
            if elsewhere is not None:
                raise UsageError(*SEVERAL_SHOTS)
            yield from _make_shots(job, load, digest, sources)
            return
    yield from _make(job, load, manifest, wanted, digest, sources, elsewhere)


def _make_shots(job: SceneJob, load: _Load, digest: str, sources: list[ViewSource]) -> Iterator[Event]:
    """Make the scene of each shot; nothing tells how the worlds of two shots lie."""
    shots = [list(group) for _, group in groupby(sources, lambda source: source.shot)]
    yield Note(f"{len(shots)} shots, each a scene of its own, in {job.folder / _SHOT.format(1)} and so on")
    opened: list[SceneEstimator] = []

    def keep() -> AbstractContextManager[SceneEstimator]:
        if not opened:
            opened.append(load().__enter__())
        return nullcontext(opened[0])

    try:
        for number, views in enumerate(shots, 1):
            frames = f"{views[0].frame}-{views[-1].frame}"
            own = replace(job, folder=job.folder / _SHOT.format(number), shot=frames)
            yield Shot(number, own)
            yield from _run(own, keep, digest, views)
    finally:
        for estimator in opened:
            estimator.close()


def _make(
    job: SceneJob,
    load: _Load,
    manifest: Manifest,
    wanted: Sequence[str],
    digest: str,
    sources: list[ViewSource],
    elsewhere: Optional[Elsewhere] = None,
) -> Generator[Event, None, None]:
    check_count(len(sources), job.fewest)
    if job.found.missing:
        count = len(job.found.missing)
        yield Note(f"{count} picture{'s' * (count > 1)} of the cameras not there, such as {job.found.missing[0]}")
    if len(sources) < len(job.found.paths):
        yield Note(f"{len(sources)} of {len(job.found.paths)} pictures are taken, evenly (`max_views`)")
    _refuse_foreign(job, manifest, wanted, [source.name for source in sources])
    in_chunks = job.chunks.chunk is not None and len(sources) > job.chunks.chunk
    scene = None if in_chunks or {*_OF_NETWORK, IMAGES} & set(wanted) else _from_npz(job, manifest, digest)
    if scene is None and elsewhere is not None:
        yield from elsewhere(manifest, wanted, sources, digest)
        return
    if in_chunks:
        yield from _make_long(job, load, manifest, wanted, digest, sources)
        return
    made = Made(scene) if scene is not None else None
    by = manifest.rows.get("npz", {}) if scene is not None else {}
    model, weights = str(by.get("model", "")), str(by.get("weights", ""))
    if made is None:
        with load() as estimator:
            model, weights = estimator.row.name, estimator.weights.sha256
            check_made_by(job, manifest, MadeBy(model, weights, job.settings()))
            check_kinds(job.formats, estimator.kind)
            for event in _estimate(job, estimator, sources, IMAGES in wanted):
                if isinstance(event, Made):
                    made = event
                if isinstance(event, Unread):
                    manifest.add(replace(event.result, source={"sha256": digest}))
                yield event
        assert made is not None
    else:
        yield Note(f"the scene of {job.folder / NPZ} is written in further formats")
        yield from _unread_before(job, manifest, digest)
        check_kinds(job.formats, made.scene.kind)
        yield made
    scene = made.scene
    names = scene.names
    writer = partial(_write, job, scene=scene, views=lambda: scene.views, paths=_paths(job, sources))
    yield from _write_all(job, manifest, wanted, names, digest, (model, weights), writer)


def _paths(job: SceneJob, sources: Sequence[ViewSource]) -> dict[str, Path]:
    return {source.name: source.path or job.folder / IMAGES / source.name for source in sources}


def _write_all(
    job: SceneJob,
    manifest: Manifest,
    wanted: Sequence[str],
    names: Sequence[str],
    digest: str,
    made_by: tuple[str, str],
    write: Callable[[str], tuple[tuple[str, ...], list[Path]]],
) -> Iterator[Event]:
    """Write the formats; yield a Result for each. names: of the views. made_by: model and weights."""
    model, weights = made_by
    for number, name in enumerate(wanted):
        yield Step(WRITING, number, len(wanted))
        about: dict[str, Any] = {
            "model": model,
            "weights": weights,
            "settings": job.settings(name),
            "source": {"sha256": digest},
        }
        started = time.perf_counter()
        if name != IMAGES:
            manifest.add(Result(name, tuple(map(str, job.files(name, names))), BEGUN, **about))
        try:
            warnings, files = write(name)
        except (DiskFullError, BrokenPipeError):
            raise
        except Exception as error:  # one format that cannot be made does not cost the others
            yield _failed(manifest, name, error)
            continue
        facts = tuple(file_facts(os.stat(path)) for path in files)
        ms = round(1000 * (time.perf_counter() - started), 1)
        result = Result(name, tuple(map(str, files)), DONE, ms=ms, warnings=warnings, files=facts, **about)
        manifest.add(result)
        yield result


def _sources(job: SceneJob) -> list[ViewSource]:
    if job.found.source is SceneSource.CLIP:
        find_cuts = job.chunks.chunk is not None
        return job.with_poses(clip_views(job.found.paths[0], job.frames, job.max_views, find_cuts))
    return at_most(job.with_poses(picture_views(job.found)), job.max_views)


def _estimate(
    job: SceneJob, estimator: SceneEstimator, sources: Sequence[ViewSource], keep_images: bool
) -> Iterator[Event]:
    """Read the views and run the network; yield what cannot be read and, at last, the scene."""
    started = time.perf_counter()
    sizes = [picture_size(source.path) if source.path else None for source in sources]
    known = [(source, size) for source, size in zip(sources, sizes) if size is not None]
    if len(known) > 1:  # before the pictures are read, which may take minutes
        estimator.plan([size for _, size in known])
        cameras = _cameras(job, [source for source, _ in known])
        if cameras is not None and poses_alone(cameras) is None:
            given_cameras(cameras, [(source.name, size) for source, size in known])
    views: list[ReadView] = []
    there: list[ViewSource] = []
    told = time.perf_counter()
    for source, picture in _pictures(job, sources, keep_images):
        if isinstance(picture, PictureError):
            yield Unread(Result(source.name, (), FAILED, error=str(picture), code=picture.exit_code))
            continue
        views.append(estimator.read(picture, source.name))
        there.append(source)
        yield Step(READING, len(views), len(sources))
        if time.perf_counter() - told > _PATIENCE:
            told = time.perf_counter()
            yield Note(f"{len(views)} of {len(sources)} pictures are read")
    check_count(len(views), job.fewest)
    plan = estimator.plan([view.size for view in views], job.fewest)
    width, height = plan.size
    yield Note(
        f"{len(views)} views of {width}x{height} at once, about {estimator.memory(plan) / 1e9:.1f} GB of memory;"
        f" {estimator.row.title}, {estimator.row.licence}; {estimator.description}"
    )
    yield Step(MAKING)
    scene = estimator.run(views, _cameras(job, there), job.fewest)
    if len(there) < len(sources):
        read = {source.name for source in there}
        names = [source.name for source in sources if source.name not in read]
        scene = replace(scene, facts={**scene.facts, "left_out": names})
    yield Made(scene, time.perf_counter() - started)


def _pictures(job: SceneJob, sources: Sequence[ViewSource], keep_images: bool) -> Iterator[tuple[ViewSource, Any]]:
    """Yield each source with its picture, or with the error of reading it."""
    if job.found.source is SceneSource.CLIP:
        yield from clip_frames(job.found.paths[0], sources, job.folder / IMAGES if keep_images else None)
        return
    for source in sources:
        assert source.path is not None
        try:
            yield source, read_picture(source.path)
        except PictureError as error:
            yield source, error


def _cameras(job: SceneJob, sources: Sequence[ViewSource]) -> Optional[Cameras]:
    if job.poses is not None and job.path is None:
        return job.poses
    cameras = [source.camera for source in sources]
    return None if None in cameras else [camera for camera in cameras if camera is not None]


def _make_long(
    job: SceneJob,
    load: _Load,
    manifest: Manifest,
    wanted: Sequence[str],
    digest: str,
    sources: Sequence[ViewSource],
) -> Iterator[Event]:
    """Make the scene in chunks, as `_make`. Pictures whose sizes cannot be read are left out."""
    started = time.perf_counter()
    kept: list[ViewSource] = []
    sizes: set[tuple[int, int]] = set()
    for source in sources:
        size = _clip_size(job, sources) if source.path is None else picture_size(source.path)
        if size is None:
            error = PictureError(f"cannot read {source.path} as a picture")
            unread = Result(source.name, (), FAILED, error=str(error), code=error.exit_code, source={"sha256": digest})
            manifest.add(unread)
            yield Unread(unread)
            continue
        kept.append(source)
        sizes.add(size)
    check_count(len(kept), job.fewest)
    if len(sizes) > 1:
        raise UsageError("pictures of several sizes do not go through the network in chunks", "leave out `chunk`")
    names = [source.name for source in kept]
    with load() as estimator:
        made_by = estimator.row.name, estimator.weights.sha256
        check_made_by(job, manifest, MadeBy(*made_by, job.settings()))
        check_kinds(job.formats, estimator.kind)
        without_loops = replace(job, chunks=replace(job.chunks, loops=True))  # which do not shape the chunks
        chunks = chunks_of(names, job.chunks, job.folder, digest, *made_by, without_loops.settings())
        plan = estimator.plan([*sizes] * len(chunks.plan[0]))
        chunks.begin(job.if_exists == "overwrite")
        yield Note(check_space(chunks, plan.size))
        yield Note(
            f"a chunk takes about {estimator.memory(plan) / 1e9:.1f} GB of memory; {estimator.row.title}, "
            f"{estimator.row.licence}; {estimator.description}"
        )
        first = chunks.plan[chunks.first_missing].start if chunks.first_missing < len(chunks.plan) else len(kept)
        missing = [not path.is_file() for path in job.files(IMAGES, names)] if IMAGES in wanted else []
        from_ = min(first, missing.index(True)) if True in missing else first
        reader = _read_again(job, estimator, kept[from_:], IMAGES in wanted)
        for _ in range(first - from_):
            next(reader)
        yield Step(MAKING)
        for line in make_chunks(chunks, reader, estimator, lambda chunk: _cameras(job, kept[chunk.start : chunk.stop])):
            yield Note(line)
        lines: list[str] = []
        joined = join_chunks(chunks, lambda: estimator, job.chunks.loops, lines.append)
    for line in lines:
        yield Note(line)
    pixels = job.show.points or len(kept) * plan.size[0] * plan.size[1]
    scene = LongScene(chunks, joined, job.show.edges, pixels)
    yield Made(scene.sketch, time.perf_counter() - started)
    bare = replace(job, show=replace(job.show, edges=None))  # the sketch is without them already
    writer = partial(_write, bare, scene=scene.sketch, views=scene.views, paths=_paths(job, kept), long=scene)
    yield from _write_all(job, manifest, wanted, names, digest, made_by, writer)


def _clip_size(job: SceneJob, sources: Sequence[ViewSource]) -> tuple[int, int]:
    for _, rgb in clip_frames(job.found.paths[0], sources[:1], None):
        return rgb.shape[1], rgb.shape[0]
    raise PictureError(f"{job.found.paths[0]} has no frame {sources[0].frame}")


def _read_again(
    job: SceneJob, estimator: SceneEstimator, sources: Sequence[ViewSource], keep_images: bool
) -> Iterator[ReadView]:
    """Yield the views of chunks; all have to be read. Raises PictureError."""
    if not sources:
        return
    for source, picture in _pictures(job, sources, keep_images):
        if isinstance(picture, PictureError):
            raise picture
        yield estimator.read(picture, source.name)


def _write(
    job: SceneJob,
    format: str,
    scene: Scene,
    views: Callable[[], Iterable[View]],
    paths: dict[str, Path],
    long: Optional[LongScene] = None,
) -> tuple[tuple[str, ...], list[Path]]:
    """Write one format; return warnings and the files.

    views: with all pixels, in order, for formats of single views; scene may have fewer pixels of each. paths: of the
    pictures, by the names of the views. long: what the scene is a sketch of; a cloud then has one point for those that
    lie together, and a page some of the views.
    """
    if format == IMAGES:  # written when they were read
        return (), [path for path in job.files(IMAGES, scene.names) if path.is_file()]
    if format in EXPORTS:
        if format == "depth_vis":
            return (), [path for number, view in enumerate(views()) for path in write_vis(view, number, job.folder)]
        if format == "ply" and long is not None:
            write_shape(thin_cloud(scene, job.show), job.folder / PLY)
            return (), [job.folder / PLY]
        if format == "html" and long is not None:
            return (), EXPORTS[format].write(long.overview(), job.folder, job.show)
        return (), EXPORTS[format].write(scene, job.folder, job.show)
    spec = OutputSpec((format[len(DEPTH) :],))
    files: list[Path] = []
    warnings: dict[str, None] = {}
    for view, outputs in zip(views(), depth_paths(job.folder, format, scene.names)):
        finer = _at_picture_size(view, paths[view.name])
        for path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        spec.write(finer.depth, finer.picture, outputs)
        warnings.update(dict.fromkeys(spec.warnings(finer.depth)))
        files += outputs
    return tuple(warnings), files


def _at_picture_size(view: View, path: Path) -> View:
    return at_picture_size(view, read_picture(path).rgb)


# --- What is there ----------------------------------------------------------------------------------------------------


def _digest(job: SceneJob) -> str:
    """Return a digest of the contents of all inputs and of their names."""
    found = hashlib.sha256()
    for name, path in zip(job.found.names, job.found.paths):
        found.update(name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    found.update(block)
        except OSError:  # reading it will tell
            found.update(b"\0")
    for stored in job.found.cameras or ():
        found.update(f"{stored.content}{None if stored.pose is None else stored.pose.tolist()}".encode())
    return found.hexdigest()


def _known(job: SceneJob) -> tuple[str, str]:
    from depthcli.predict.scene import DEFAULT_MODEL

    model, weights = known_model(job.model)
    return model or ("" if job.model.checkpoint else DEFAULT_MODEL), weights


def _unread_before(job: SceneJob, manifest: Manifest, digest: str) -> Iterator[Event]:
    """Yield the pictures that the scene was made without."""
    for name in job.found.names:
        row = manifest.rows.get(name, {})
        if row.get("status") == FAILED and _source(row) == digest:
            yield Unread(Result(name, (), FAILED, error=str(row.get("error")), code=int(row.get("code") or 1)))


def _noted(manifest: Manifest, format: str) -> list[Path]:
    row = manifest.rows.get(format, {})
    return [manifest.folder / str(name) for name in row.get("outputs", ())]


def _is_there(manifest: Manifest, format: str, digest: str) -> bool:
    """Return whether a format was made of these inputs, and its files are as they were then."""
    row = manifest.rows.get(format, {})
    if row.get("status") != DONE or _source(row) != digest:
        return False
    return all(_is_as_noted(path, facts) for path, facts in zip(_noted(manifest, format), row.get("files", ())))


def _source(row: Mapping[str, Any]) -> str:
    return str((row.get("source") or {}).get("sha256", ""))


def _is_as_noted(path: Path, facts: Sequence[int]) -> bool:
    try:
        return file_facts(os.stat(path)) == tuple(facts)
    except OSError:
        return False


def check_made_by(job: SceneJob, manifest: Manifest, wanted: MadeBy) -> None:
    """Raise UsageError if the folder has the scene of another model, or of other options, and it is to stay."""
    if job.if_exists == "overwrite":
        return
    for name in job.ordered:
        row = manifest.rows.get(name, {})
        if row.get("status") not in (DONE, BEGUN):
            continue
        made_by = MadeBy(*(str(row.get(key) or "") for key in ("model", "weights", "settings")))
        different = difference(made_by, replace(wanted, settings=job.settings(name)))
        if different:
            hint = "`if_exists` overwrite makes all anew, or use another `output`"
            raise UsageError(f"{name} in {job.folder} was made {different}", hint)


def _refuse_foreign(job: SceneJob, manifest: Manifest, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raise OutputError if a file that is not of this tool would be replaced, or any, with `if_exists` error."""
    if job.if_exists == "overwrite":
        return
    for name in wanted:
        for path in job.files(name, names):
            ours = str(path) in manifest.outputs and job.if_exists == "skip"
            if os.path.lexists(path) and not ours:
                raise OutputError(f"{path} is there already", "`if_exists` overwrite replaces it")


def check_kinds(formats: Sequence[str], kind: DepthKind) -> None:
    """Raise UsageError for a format of single maps that cannot hold a kind."""
    for name in formats:
        if name.startswith(DEPTH):
            try:
                check_kind(STILLS[name[len(DEPTH) :]], kind)
            except UsageError as error:
                raise UsageError(error.message, "`metres` makes metres; or use another format") from error


def _from_npz(job: SceneJob, manifest: Manifest, digest: str) -> Optional[Scene]:
    """Return the scene of the NPZ file, if it is as noted and of these inputs."""
    if job.if_exists != "skip" or not _is_there(manifest, "npz", digest):
        return None
    try:
        return read_scene(job.folder / NPZ)
    except OutputError:
        return None


def _failed(manifest: Manifest, name: str, error: Exception) -> Result:
    if not isinstance(error, DepthError):
        error = DepthError(f"{type(error).__name__}: {first_line(error)}")
    result = Result(name, (), FAILED, error=" ".join(str(error).split()), code=error.exit_code)
    manifest.add(result)
    return result
