"""`depth objects`: how far each object of pictures and clips is."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from depthcli.choices.model import shaping_settings
from depthcli.choices.objects import OBJECT_FILES, OBJECT_ORDERS, ObjectsChoice, object_files
from depthcli.choices.settings import DEFAULT_COLORMAP, IF_EXISTS, noted, require
from depthcli.cli.dir import beside
from depthcli.cli.groups import ADVANCED, flag, grouped, option
from depthcli.cli.options import (
    DETECTORS,
    BackendOptions,
    CameraOptions,
    Colormap,
    MetresOptions,
    ModelOptions,
    NetworkOptions,
    ReportOptions,
    SourceOptions,
)
from depthcli.cli.running import kind_of, open_model
from depthcli.cli.video import ClipOptions
from depthcli.errors import DepthError, DiskFullError, EngineError, ModelError, OutputError, UsageError
from depthcli.jobs.parsing import parse_list

if TYPE_CHECKING:
    from depthcli.jobs.objects import DepthFromFiles, DepthSource
    from depthcli.jobs.objects_clip import ClipDepth
    from depthcli.jobs.targets import Target, Task
    from depthcli.objects.sources import MasksFromFiles, MaskSource

DEFAULT_DETECTOR = "seg-small"


@dataclass(frozen=True)
class ObjectsOptions:
    """Where masks and depth come from, and which objects are measured."""

    masks: Annotated[
        Optional[Path],
        option("COCO JSON, our JSON, a label PNG, or a folder of these: no detector runs.", metavar="PATH"),
    ] = None
    detector: Annotated[
        Optional[str],
        option(
            f"{', '.join(DETECTORS)}, a hub folder, a .pth of RF-DETR, or a file of depth compile. Default: seg-small.",
            metavar="NAME",
            values=DETECTORS,
        ),
    ] = None
    depth: Annotated[
        Optional[Path], option("Depth files (any of `depth convert`), or a folder: no model runs.", metavar="PATH")
    ] = None
    source: SourceOptions = field(default_factory=SourceOptions)
    classes: Annotated[Optional[str], option("Only these: person,car, or their numbers.", metavar="A,B")] = None
    threshold: Annotated[float, option("Least score of a detection.", metavar="0..1", show_default=True)] = 0.5
    max_objects: Annotated[Optional[int], option("At most so many, the surest.", metavar="N")] = None
    trim_px: Annotated[
        Optional[float],
        option("Leave out so much along the edge of a mask. Default: 1; by the detector.", metavar="PIXELS"),
    ] = None
    overlap: Annotated[
        float,
        option("Drop a detection that covers a better one by this.", metavar="0..1", panel=ADVANCED, show_default=True),
    ] = 0.8
    sort: Annotated[
        str,
        option(f"{', '.join(OBJECT_ORDERS)}.", metavar="ORDER", values=OBJECT_ORDERS, show_default=True),
    ] = "distance"
    require_metric: Annotated[bool, flag("Refuse depth that has no metres.", "--require-metric")] = False
    track: Annotated[bool, flag("In clips: number the objects, and smooth their distances.", "--track")] = False

    def choice(self) -> ObjectsChoice:
        """Return the choice of the objects."""
        return ObjectsChoice(
            parse_list([self.classes or ""]),
            self.threshold,
            self.max_objects,
            self.trim_px,
            self.overlap,
            self.sort,
            self.require_metric,
        )


@dataclass(frozen=True)
class ObjectsOutput:
    """What is written."""

    formats: Annotated[
        Optional[list[str]],
        option(
            "overlay (default), masks (16-bit labels), mattes, exr (Z and id), json. JSON is always written.",
            "--format",
            "-f",
            metavar="A,B",
            values=OBJECT_FILES,
        ),
    ] = None
    table: Annotated[Optional[Path], option("Also a table with a row for each object.", "--csv", metavar="FILE")] = None
    coco: Annotated[Optional[Path], option("Also all of it as COCO JSON.", metavar="FILE")] = None
    colormap: Colormap = "Spectral_r"
    if_exists: Annotated[
        Optional[str],
        option(
            "Existing results: skip, overwrite, error. Default: overwrite for pictures, else skip.",
            metavar="CHOICE",
            values=IF_EXISTS,
        ),
    ] = None

    def chosen(self) -> tuple[str, ...]:
        """Return the formats. Raises UsageError for unknown names before any work is done."""
        from depthcli.pixels.colormap import color_table

        color_table(self.colormap)
        if self.if_exists is not None:
            require("if_exists", self.if_exists, IF_EXISTS)
        for path in filter(None, (self.table, self.coco)):
            if path.is_dir():
                raise UsageError(f"{path} is a folder, not a file", "name a file with --csv and --coco")
        return object_files(["json", *(self.formats or ("overlay",))])


@dataclass(frozen=True)
class AllOptions:
    """The groups of options."""

    objects: ObjectsOptions = field(default_factory=ObjectsOptions)
    output: ObjectsOutput = field(default_factory=ObjectsOutput)
    report: ReportOptions = field(default_factory=ReportOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)
    camera: CameraOptions = field(default_factory=CameraOptions)
    metres: MetresOptions = field(default_factory=MetresOptions)

    def weights(self) -> tuple[Path, ...]:
        """Return the weights that the user named as a file or folder."""
        from depthcli.jobs.objects import given_weights

        asked = self.objects
        return given_weights(None if asked.masks is not None else asked.detector, self.model.checkpoint)

    def settings(self) -> str:
        """Return the options that shape results as one line."""
        asked, plain = self.objects, ClipOptions()
        panorama = self.network.panorama
        shaping: dict[str, Any] = {
            **asked.choice().settings,
            "masks": asked.masks and asked.masks.name,
            "detector": None if asked.masks else asked.detector or DEFAULT_DETECTOR,
            "depth": asked.depth and asked.depth.name,
            **asked.source.choice().settings,
            **(
                {}
                if asked.depth
                else shaping_settings(
                    self.model.choice(), self.backend.choice(), self.network.input_size, panorama, self.network.detail
                )
            ),
            **self.camera.settings(panorama),
            **self.metres.settings(panorama),
            "track": asked.track or None,
            **{
                name.replace("_", "-"): value
                for name, value in vars(self.clip).items()
                if value != getattr(plain, name)
            },
            "colormap": None if self.output.colormap == DEFAULT_COLORMAP else self.output.colormap,
        }
        return noted(shaping)


@grouped(without=("batch", "panorama"))
def objects(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Pictures, clips, or a folder of either.")],
    output: Annotated[
        Optional[str],
        option("Folder, or - for JSON on stdout. Default: beside each input.", "-o", "--output", metavar="PATH"),
    ] = None,
    *,
    options: AllOptions,
) -> None:
    """Tell how far each object is: masks joined with depth.

    depth objects photo.jpg --metric indoor                    objects that RF-DETR finds, metres of a metric model
    depth objects a.jpg --masks coco.json --depth a.npz        masks and depth from files: no network runs
    depth objects photos --masks labels --depth scans --from mm --csv all.csv
    depth objects clip.mp4 --metric outdoor --track            a line of JSON per frame, and a film

    Writes photo_objects.json and photo_objects.png. Relative depth gives the order of objects, and no metres.
    """
    from depthcli.jobs.targets import STREAM, Target

    asked = options.objects
    choice, formats = asked.choice(), options.output.chosen()
    if asked.masks is not None and asked.detector is not None:
        raise UsageError("`masks` are made already, no `detector` runs", "leave out one of them")
    if asked.depth is not None and (options.model, options.network) != (ModelOptions(), NetworkOptions()):
        raise UsageError("`depth` is made already, no model runs", "leave out the options of the model")
    if asked.source != SourceOptions() and asked.depth is None:
        raise UsageError("`source_format`, `kind` and `depth_is` describe the files of `depth`", "give `depth`")
    kind = kind_of(inputs)
    folder = f"{beside(Path(inputs[0]), '_objects')}/" if kind == "dir" and output is None else output
    target = Target.of(folder)
    if target.place == STREAM and str(target.path) == "-":
        formats = ()
    elif target.place not in ("beside", "folder"):
        raise UsageError(f"{target} is not a folder", "`output` is a folder, or - for JSON on stdout")
    if kind == "video":
        _clips(inputs, target, options, choice, formats)
    else:
        if asked.track or options.clip != ClipOptions():
            raise UsageError("`track` and the choice of frames are for clips", "leave them out")
        _pictures(inputs, target, options, choice, formats, kind)


def _pictures(
    inputs: Sequence[str],
    target: "Target",
    options: AllOptions,
    choice: ObjectsChoice,
    formats: tuple[str, ...],
    kind: str,
) -> None:
    """Do the pictures, report them, and leave with the exit code."""
    from depthcli.cli.report import log, stop_signals
    from depthcli.jobs.find import LeftOut, find_inputs
    from depthcli.jobs.objects import ObjectsJob, run_objects
    from depthcli.jobs.targets import plan_pictures

    left = LeftOut()
    found = find_inputs(inputs, left=left)
    tasks = plan_pictures(found, target.folder, rows={})
    quiet = options.report.quiet or not formats
    for line in [] if quiet else left.lines():
        log(line)
    documents, keep = _kept(options, formats)
    job = ObjectsJob(
        tasks=tasks,
        formats=formats,
        choice=choice,
        colormap=options.output.colormap,
        if_exists=options.output.if_exists or ("skip" if kind == "dir" else "overwrite"),
        settings=options.settings(),
        made_from=_made_from(options),
        keep=keep,
    )
    report = replace(options.report, as_json=options.report.as_json and bool(formats), quiet=quiet).report(len(tasks))
    with ExitStack() as stack, report, stop_signals(quiet) as stop:
        try:
            results = run_objects(
                job, lambda: _open_masks(options, stack), lambda: _open_depth(options, stack), lambda: stop.asked
            )
            with closing(results):
                for result in results:
                    report.add(result)
        except OutputError as error:
            report.fail(error)
        interrupted = stop.asked and sum(report.counts.values()) < len(tasks)
        report.finish(interrupted)
    _write_tables(documents, options, quiet)
    raise typer.Exit(report.exit_code(interrupted))


def _clips(
    inputs: Sequence[str], target: "Target", options: AllOptions, choice: ObjectsChoice, formats: tuple[str, ...]
) -> None:
    """Do the clips, report them, and leave with the exit code."""
    from depthcli.cli.report import log, stop_signals
    from depthcli.jobs.find import CLIP, LeftOut, find_inputs
    from depthcli.jobs.objects_clip import ObjectsClipJob, objects_of_clip
    from depthcli.jobs.picture_job import failure
    from depthcli.jobs.targets import Task, clip_stems

    left = LeftOut(CLIP)
    found = find_inputs(inputs, CLIP, left)
    quiet = options.report.quiet or not formats
    for line in [] if quiet else left.lines():
        log(line)
    documents, keep = _kept(options, formats)
    report = replace(options.report, as_json=options.report.as_json and bool(formats), quiet=quiet).report(len(found))
    if_exists = options.output.if_exists or "skip"
    with ExitStack() as stack, report, stop_signals(quiet, "frame") as stop:
        masks = cache(lambda: _open_masks(options, stack))
        depth = cache(lambda: _open_clip_depth(options, stack))
        for (source, _), stem in zip(found, clip_stems(found, target.folder)):
            job = ObjectsClipJob(
                source,
                stem,
                formats=formats,
                choice=choice,
                track=options.objects.track,
                colormap=options.output.colormap,
                if_exists=if_exists,
                settings=options.settings(),
                made_from=(*filter(None, (options.objects.masks, options.objects.depth)), *options.weights()),
                selection=options.clip.selection(),
                keep=keep,
                **options.clip.raw(),
            )
            try:
                result = objects_of_clip(job, masks, depth, lambda: stop.asked)
            except (ModelError, EngineError, DiskFullError):  # which would end the next clip too
                raise
            except DepthError as error:
                result = failure(Task(Path(source), str(source), stem), error, job.settings)
            if result is None:
                break
            report.add(result)
        interrupted = stop.asked and sum(report.counts.values()) < len(found)
        report.finish(interrupted)
    if not interrupted:
        _write_tables(documents, options, quiet)
    raise typer.Exit(report.exit_code(interrupted))


def _kept(
    options: AllOptions, formats: tuple[str, ...]
) -> "tuple[list[dict[str, Any]], Callable[[dict[str, Any]], None]]":
    """Return a list, and what fills it with results for tables and prints them if nothing is written."""
    documents: list[dict[str, Any]] = []
    keeps = bool(options.output.table or options.output.coco)

    def keep(document: dict[str, Any]) -> None:
        if not formats:
            print(json.dumps(document, ensure_ascii=False), flush=True)
        if keeps:
            documents.append(document)

    return documents, keep


def _write_tables(documents: Sequence[dict[str, Any]], options: AllOptions, quiet: bool) -> None:
    from depthcli.objects.files import write_coco, write_table

    for path, write in ((options.output.table, write_table), (options.output.coco, write_coco)):
        if path is not None:
            write(documents, path)
            if not quiet:
                print(path)


def _made_from(options: AllOptions) -> "Callable[[Task], str]":
    """Return what tells the files of masks and depth of a picture, and given weights, from changed ones."""
    from depthcli.jobs.objects import digest_of

    asked = options.objects
    masks, depth = cache(lambda: _mask_files(asked)), cache(lambda: _depth_files(options))
    weights = cache(lambda: digest_of(options.weights()))

    def digest(task: "Task") -> str:
        assert isinstance(task.source, Path)
        files = [masks().file_of(task.source)] if asked.masks is not None else []
        return digest_of([*files, depth().file_of(task)] if asked.depth is not None else files) + weights()

    return digest


def _mask_files(asked: ObjectsOptions) -> "MasksFromFiles":
    from depthcli.objects.sources import MasksFromFiles

    assert asked.masks is not None
    return MasksFromFiles(asked.masks)


def _depth_files(options: AllOptions) -> "DepthFromFiles":
    from depthcli.jobs.objects import DepthFromFiles
    from depthcli.predict.picture import open_cameras, open_metres

    asked = options.objects
    assert asked.depth is not None
    cameras = open_cameras(options.camera.choice(), False)
    return DepthFromFiles(asked.depth, asked.source.choice(), cameras, open_metres(options.metres.choice()))


def _open_masks(options: AllOptions, stack: ExitStack) -> "MaskSource":
    """Return where masks come from. stack: frees a detector when it is closed."""
    from depthcli.cli.report import log
    from depthcli.objects.sources import Detector

    asked, model = options.objects, options.model
    if asked.masks is not None:
        return _mask_files(asked)
    detector = Detector(
        asked.detector or DEFAULT_DETECTOR,
        choice=asked.choice(),
        backend=options.backend.choice(),
        offline=model.offline,
        trust=model.trust,
        log=log,
    )
    return stack.enter_context(closing(detector))


def _open_depth(options: AllOptions, stack: ExitStack) -> "DepthSource":
    """Return where depth comes from. stack: frees a model when it is closed."""
    from depthcli.jobs.objects import DepthFromModel

    if options.objects.depth is not None:
        return _depth_files(options)
    estimator = stack.enter_context(
        open_model(
            options.model,
            options.backend,
            options.network,
            camera=options.camera.choice(),
            metres=options.metres.choice(),
        )
    )
    return DepthFromModel(estimator)


def _open_clip_depth(options: AllOptions, stack: ExitStack) -> "ClipDepth":
    """Return where the depth of clips comes from. stack: frees a model when it is closed."""
    from depthcli.cli.report import log
    from depthcli.jobs.objects_clip import ClipDepthFromFiles, ClipDepthFromModel
    from depthcli.predict.clip import open_clip_predictor
    from depthcli.predict.picture import open_cameras, open_metres

    asked, metres = options.objects, options.metres.choice()
    if metres.scale_from:
        raise UsageError("`scale_from` is of one picture", "make a file with `depth calibrate`, and give it for clips")
    cameras = open_cameras(options.camera.choice(), False)
    if asked.depth is not None:
        return ClipDepthFromFiles(asked.depth, asked.source.choice(), cameras, open_metres(metres))
    clip = options.clip.choice(options.network, options.backend)
    predictor = stack.enter_context(closing(open_clip_predictor(options.model.choice(), clip, log)))
    return ClipDepthFromModel(predictor, clip.scenes, cameras, open_metres(metres))
