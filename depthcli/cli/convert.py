"""`depth convert`: depth files to other formats."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.choices.settings import IF_EXISTS
from depthcli.cli.groups import flag, grouped, option
from depthcli.cli.options import CameraOptions, Colormap, MetresOptions, ReportOptions, ShapeOptions, SourceOptions
from depthcli.errors import SOME_FAILED, OutputError, UsageError
from depthcli.io.codecs.formats import STILLS, implied_format, parse_formats
from depthcli.io.codecs.presets import PRESETS, Preset, preset_of

if TYPE_CHECKING:
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.convert import Conversion
    from depthcli.jobs.picture_job import FolderJob
    from depthcli.jobs.presets import View
    from depthcli.jobs.targets import Target


@dataclass(frozen=True)
class ConvertOptions:
    """What is read, and what is written."""

    formats: Annotated[
        Optional[list[str]],
        option(
            "npz, exr, tiff, pfm, npy, mm, kitti, tum, gray, ply, ... Default: by the file's name.",
            "--format",
            "-f",
            metavar="A,B",
            values=tuple(STILLS),
        ),
    ] = None
    preset: Annotated[
        Optional[str], option(f"Formats for a program: {', '.join(PRESETS)}.", metavar="NAME", values=tuple(PRESETS))
    ] = None
    source: SourceOptions = field(default_factory=SourceOptions)
    photo: Annotated[
        Optional[Path], option("The picture, or a folder with one of each name: colours, and EXIF.", metavar="PATH")
    ] = None
    size: Annotated[
        Optional[str], option("Size of the results, such as 640x480. Default: as it is.", metavar="WxH")
    ] = None
    fill: Annotated[bool, flag("Give holes the depth of the nearest pixel that has one.", "--fill")] = False
    colormap: Colormap = "Spectral_r"
    if_exists: Annotated[
        Optional[str],
        option(
            "Existing results: skip (default in a folder), overwrite (of a file), error.",
            metavar="CHOICE",
            values=IF_EXISTS,
        ),
    ] = None


@dataclass(frozen=True)
class AllOptions:
    """The groups of options."""

    convert: ConvertOptions = field(default_factory=ConvertOptions)
    report: ReportOptions = field(default_factory=ReportOptions)
    camera: CameraOptions = field(default_factory=CameraOptions)
    metres: MetresOptions = field(default_factory=MetresOptions)
    shape: ShapeOptions = field(default_factory=ShapeOptions)


@grouped()
def convert(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Depth files, folders, globs, .txt lists.")],
    output: Annotated[
        Optional[str], option("File or folder for the results.", "-o", "--output", metavar="PATH")
    ] = None,
    *,
    options: AllOptions,
) -> None:
    """Convert depth files between formats, without a model.

    depth convert photo_depth.npz -o photo.exr            files of depthcli say what they are
    depth convert scans --from mm -f exr,ply -o out       a folder of another program's files
    depth convert maps --preset 3dgs -o scene             what a program wants

    Metric depth becomes any format; relative depth has no metres, and is refused for mm, kitti, tum, sun and scannet
    without --scale-from.
    Pixels without depth stay so, and are counted. The same command continues an interrupted run.
    """
    from depthcli.cli.report import log
    from depthcli.jobs.convert import expand, plan_maps, settings_of
    from depthcli.jobs.find import LeftOut, depth_kind, find_inputs
    from depthcli.jobs.manifest import MANIFEST_NAME, Manifest
    from depthcli.jobs.picture_job import FolderJob
    from depthcli.jobs.presets import check_scene_file, scene_range, survey, without_endings
    from depthcli.jobs.targets import FILE, FOLDER, Target

    if not output:
        raise UsageError("there is no place for the results", "name a file or a folder with -o")
    preset = preset_of(options.convert.preset)
    target = Target.of(f"{output}/" if preset is not None and preset.several and not output.endswith("/") else output)
    if target.place not in (FILE, FOLDER):
        raise UsageError(f"{target} is not a file or folder", "use another `output`")
    conversion = _conversion(options)
    kind = depth_kind(conversion.source)
    left = LeftOut(kind)
    found = find_inputs(inputs, kind, left)
    outputs = _outputs(options, target, preset, len(found), conversion)
    manifest = None if target.folder is None else Manifest(target.folder / MANIFEST_NAME)
    below = target.folder
    if below is not None and preset is not None:
        below = below / preset.folder
    tasks = expand(plan_maps(found, below), conversion.source, preset.sequence if preset else "_")
    if preset is not None and preset.scene:
        tasks = without_endings(tasks)
    if target.place == FILE and len(tasks) > 1:
        raise UsageError(f"{target} cannot hold {len(tasks)} maps", "use a folder as `output`")
    if target.place == FILE:
        tasks = [replace(tasks[0], stem=target.path)]
    for line in [] if options.report.quiet else left.lines():
        log(line)
    views = []
    if "3dgs" in outputs.formats or (preset and preset.scene):
        place = target.path.parent if target.folder is None else target.folder
        views = survey(tasks, conversion, place, outputs.endings[0] if outputs.endings else "")
    if "3dgs" in outputs.formats:
        outputs = replace(outputs, scene=scene_range(views))
    settings = settings_of(conversion, {"scene": outputs.scene and "{:.9g},{:.9g}".format(*outputs.scene)})
    if_exists = options.convert.if_exists or ("overwrite" if target.place == FILE else "skip")
    job = FolderJob(tasks=tasks, outputs=outputs, if_exists=if_exists, settings=settings, manifest=manifest)
    if preset is not None and manifest is not None:
        check_scene_file(preset, target.path, manifest, conversion, if_exists == "overwrite")
    _run(job, conversion, preset, views, target, options)


def _conversion(options: AllOptions) -> "Conversion":
    from depthcli.io.cameras.pictures import GivenCameras
    from depthcli.jobs.convert import Conversion, Photos
    from depthcli.predict.metres import Metres

    asked, camera, metres = options.convert, options.camera.choice(), options.metres.choice()
    return Conversion(
        source=asked.source.choice(),
        cameras=GivenCameras(camera) if camera.is_given else None,
        metres=Metres(metres) if metres.is_given else None,
        photos=None if asked.photo is None else Photos(asked.photo),
        size=None if asked.size is None else _size(asked.size),
        fill=asked.fill,
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text)
    if match is None:
        raise UsageError(f"`size` is {text!r}", "give width and height, such as 640x480")
    return int(match[1]), int(match[2])


def _outputs(
    options: AllOptions, target: "Target", preset: Optional[Preset], inputs: int, conversion: "Conversion"
) -> "OutputSpec":
    """Return what is written for each map. Options that are given win over those of a preset."""
    from depthcli.io.codecs.outputs import OneFile, OutputSpec, check_extras
    from depthcli.io.codecs.preset_outputs import endings_of, outputs_of
    from depthcli.jobs.targets import FILE
    from depthcli.pixels.colormap import color_table

    asked = options.convert
    implied = implied_format(target.path, "gray") if target.place == FILE else ""
    named = asked.formats or (preset and preset.formats) or (implied and (implied,))
    if preset is not None and preset.needs_photo and asked.photo is None:
        raise UsageError(f"{preset.name} wants the photo beside its depth", "name it with `photo`")
    if not named and not (preset and preset.layout):
        raise UsageError("no format is given", "choose some with `formats`, such as exr, or a `preset`")
    formats = parse_formats(named) if named else ()
    color_table(asked.colormap)  # an unknown name is an error now, not after the first map
    check_extras(formats)
    shape = options.shape.choice()
    if target.place == FILE:
        target.check_one(inputs, "file", formats, {name: row.suffix for name, row in STILLS.items()})
        return OneFile(formats, asked.colormap, shape=shape)
    if preset is None:
        return OutputSpec(formats, asked.colormap, endings_of(formats, {}), shape)
    outputs = outputs_of(preset, formats, asked.colormap, shape, asked.if_exists == "overwrite")
    return outputs.keeping(conversion.photos.files) if conversion.photos else outputs


def _run(
    job: "FolderJob",
    conversion: "Conversion",
    preset: Optional[Preset],
    views: "Sequence[View]",
    target: "Target",
    options: AllOptions,
) -> None:
    """Convert, report, write the file about the scene, and leave with the exit code."""
    from depthcli.cli.report import log, stop_signals
    from depthcli.jobs.convert import Tally, run_conversion
    from depthcli.jobs.manifest import DONE, Result
    from depthcli.jobs.presets import write_scene

    tally, quiet = Tally(), options.report.quiet
    report = options.report.report(job.total)

    with report, stop_signals(quiet) as stop:
        try:
            with closing(run_conversion(job, conversion, tally, lambda: stop.asked)) as results:
                for result in results:
                    report.add(result)
        except OutputError as error:  # a full disk, or a manifest that cannot be written: the rest would fail too
            report.fail(error)
        interrupted = stop.asked and report.misses_some
        report.finish(interrupted)
    for line in [] if quiet else tally.holes_line(conversion.fill):
        log(line)
    for line in tally.losses_lines():
        log(f"warning: {line}")
    if preset and preset.scene and not interrupted and target.folder is not None and views:
        path, remark = write_scene(preset, views, target.folder, conversion)
        if path.name and job.manifest is not None:
            job.manifest.add(Result(preset.scene, (str(path),), DONE, settings=job.settings))
        if path.name and not quiet:
            print(path)
        if remark:
            log(f"warning: {path if path.name else preset.name}: {remark}")
    code = report.exit_code(interrupted)
    raise typer.Exit(SOME_FAILED if code == 1 else code)
