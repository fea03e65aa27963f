"""`depth stereo`: pictures, folders and clips to two eyes."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.choices.model import ModelChoice
from depthcli.choices.settings import IF_EXISTS, require
from depthcli.choices.stereo import BORDERS, FILLS, LAYOUTS, VIEWS, StereoChoice
from depthcli.cli.dir import do_folder
from depthcli.cli.groups import ADVANCED, flag, grouped, option
from depthcli.cli.image import estimate
from depthcli.cli.options import (
    BackendOptions,
    ModelOptions,
    NetworkOptions,
    PictureOptions,
    PictureOutput,
    ReportOptions,
)
from depthcli.cli.running import kind_of, open_early
from depthcli.cli.video import ClipOptions, do_clips
from depthcli.errors import UsageError

_NETWORK = NetworkOptions(detail="edges")  # an edge of depth beside that of the photo is torn off with it

if TYPE_CHECKING:
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.clip_job import ClipJob
    from depthcli.jobs.find import LeftOut
    from depthcli.jobs.targets import Target


@dataclass(frozen=True)
class StereoOptions:
    """How the eyes are made and shown."""

    layout: Annotated[
        str,
        option(
            "sbs, half-sbs, ou, half-ou, cross, anaglyph (-gray, -color, -half-color), vr180, pair, rgbd.",
            metavar="NAME",
            values=LAYOUTS,
            show_default=True,
        ),
    ] = "sbs"
    strength: Annotated[
        float, option("Depth of the scene in percent of the width; above 4 is tiring.", metavar="N", show_default=True)
    ] = 2.0
    screen: Annotated[
        float,
        option("What lies in the screen: 0 the farthest, 1 the nearest thing.", metavar="0..1", show_default=True),
    ] = 0.5
    view: Annotated[
        str,
        option(
            "both, or one eye beside the picture itself: left, right.", metavar="EYE", values=VIEWS, show_default=True
        ),
    ] = "both"
    swap: Annotated[bool, flag("Exchange the eyes.", "--swap")] = False
    fill: Annotated[
        str,
        option(
            "What only one eye sees: stretch, edge, telea (pictures).",
            metavar="CHOICE",
            values=FILLS,
            show_default=True,
        ),
    ] = "stretch"
    border: Annotated[
        str,
        option(
            "What one eye lacks at the sides: crop or stretch.", metavar="CHOICE", values=BORDERS, show_default=True
        ),
    ] = "crop"
    tags: Annotated[
        Optional[bool],
        option("Name the layout inside films. Default: as players expect.", "--tags/--no-tags", metavar=""),
    ] = None
    depth: Annotated[
        Optional[Path], option("Take this depth of ours (npz, png, exr) for the picture.", metavar="FILE")
    ] = None

    def choice(self) -> StereoChoice:
        """Return the choice of the views."""
        return StereoChoice(**{name: value for name, value in vars(self).items() if name != "depth"})


@dataclass(frozen=True)
class StereoFiles:
    """What becomes of files that are there."""

    if_exists: Annotated[
        Optional[str],
        option(
            "Existing results: skip, overwrite, error. Default: overwrite for pictures, else skip.",
            metavar="CHOICE",
            values=IF_EXISTS,
        ),
    ] = None
    mix_models: Annotated[
        bool, flag("Allow results of another model or with other options.", "--mix-models", panel=ADVANCED)
    ] = False


@dataclass(frozen=True)
class StereoPictures(PictureOptions):
    """All that pictures share, with views as their results."""

    stereo: StereoChoice = field(default_factory=StereoChoice)

    def output_spec(self, target: "Target", pictures: int = 1) -> "OutputSpec":
        """Return the files of each picture. pictures: how many there are."""
        from depthcli.io.codecs.stereo import STEREO_SUFFIXES, OneStereoFile, StereoSpec
        from depthcli.jobs.targets import FILE, STREAM
        from depthcli.views.layouts import LAYOUTS

        if target.place == STREAM:
            raise UsageError(f"views are written to files, and `output` {target} is a stream", "give a file or folder")
        if target.place != FILE:
            return StereoSpec(("stereo",), choice=self.stereo)
        if pictures != 1 or len(LAYOUTS[self.stereo.layout].endings) != 1:
            what = f"{pictures} pictures" if pictures != 1 else f"`layout` {self.stereo.layout}, which is two files"
            raise UsageError(f"{target} cannot hold {what}", "use a folder as `output`")
        if target.path.suffix.lower() not in STEREO_SUFFIXES:
            hint = f"use `output` {target.path.with_suffix('.png')}, or end it with / for a folder"
            raise UsageError(f"views of a picture are written as .png or .jpg, not {target.path.suffix}", hint)
        return OneStereoFile(("stereo",), choice=self.stereo)

    def settings(self, formats: Sequence[str]) -> str:
        """Return the options that shape results as one line, for the manifest."""
        shaping = (f"{name}={value}" for name, value in self.stereo.settings.items() if value is not None)
        return " ".join([super().settings(()), *shaping])


@grouped()
def stereo(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Pictures, clips, or a folder of either.")],
    output: Annotated[
        Optional[str], option("File or folder. Default: beside each input.", "-o", "--output", metavar="PATH")
    ] = None,
    *,
    stereo: StereoOptions,
    files: StereoFiles,
    report: ReportOptions,
    clip: ClipOptions,
    model: ModelOptions,
    network: NetworkOptions = _NETWORK,
    backend: BackendOptions,
) -> None:
    """Turn pictures and clips into 3D: two eyes, in the layout of your player.

    depth stereo photo.jpg                          writes photo_LRF_Full_SBS.png, both eyes side by side
    depth stereo photo.jpg --layout anaglyph        for glasses of red and cyan
    depth stereo photos -o photos_3d                a folder of pictures
    depth stereo clip.mp4 --layout half-sbs         a film with the clip's sound, for a TV or a headset
    depth stereo photo.jpg --depth photo_depth.npz  from depth that was made before

    The same command continues an interrupted run of a folder or a clip.
    """
    from depthcli.cli.report import log

    choice = stereo.choice()
    if files.if_exists is not None:
        require("if_exists", files.if_exists, IF_EXISTS)
    for line in choice.warnings:
        log(f"warning: {line}")
    kind = kind_of(inputs)
    if stereo.depth is not None and (kind != "image" or len(inputs) != 1):
        raise UsageError("`depth` is of one picture", "give one picture, or leave it out")
    given = files.if_exists or ("overwrite" if kind == "image" else "skip")
    pictures = StereoPictures(PictureOutput(if_exists=given), report, model, network, backend, stereo=choice)
    if kind == "video":
        jobs, left = _clip_jobs(inputs, output, choice, given, model.choice(), clip, network, backend)
        do_clips(jobs, output, left, report, files.mix_models)
    elif kind == "dir":
        do_folder(inputs[0], output, pictures, mix_models=files.mix_models, ending="_stereo")
    elif stereo.depth is not None:
        _from_file(inputs[0], output, pictures, stereo.depth)
    else:
        with open_early(pictures, inputs) as early:
            estimate(inputs, output, pictures, early)


def _clip_jobs(
    inputs: Sequence[str],
    output: Optional[str],
    choice: StereoChoice,
    if_exists: str,
    model: ModelChoice,
    clip: ClipOptions,
    network: NetworkOptions,
    backend: BackendOptions,
) -> "tuple[list[ClipJob], LeftOut]":
    """Return the jobs of clips, and what is not taken."""
    from depthcli.jobs.clip_job import ClipJob
    from depthcli.jobs.find import CLIP, LeftOut, find_inputs
    from depthcli.jobs.targets import STREAM, Target, plan_stereo_clips
    from depthcli.views.layouts import LAYOUTS

    if choice.fill == "telea":
        raise UsageError("`fill` telea flickers in clips, as it fills each frame anew", "use stretch or edge")
    target = Target.of(output)
    if target.place == STREAM:
        raise UsageError(f"views are written to files, and `output` {target} is a stream", "give a file or folder")
    left = LeftOut(CLIP)
    found = find_inputs(inputs, CLIP, left)
    layout = LAYOUTS[choice.layout]
    planned = plan_stereo_clips(found, layout.endings, target, layout.exact_colors)
    shared = {
        "model": model,
        "clip": clip.choice(network, backend),
        "selection": clip.selection(),
        "if_exists": if_exists,
        "stereo": choice,
        **clip.raw(),
    }
    return [ClipJob(source, outputs, **shared) for (source, _), outputs in zip(found, planned)], left


def _from_file(name: str, output: Optional[str], options: StereoPictures, depth: Path) -> None:
    """Make the views of one picture of depth that was made before, and leave with the exit code."""
    from depthcli.jobs.find import find_inputs
    from depthcli.jobs.stereo import stereo_of
    from depthcli.jobs.targets import FILE, Target, plan_pictures

    target = Target.of(output)
    found = find_inputs([name])
    outputs = options.output_spec(target, len(found))
    (task,) = plan_pictures(found, target.folder)
    if target.place == FILE:
        task = replace(task, stem=target.path)
    report = options.report.report(1)
    with report:
        report.add(stereo_of(task, outputs, depth, options.output.if_exists, options.settings(())))
        report.finish()
    raise typer.Exit(report.exit_code())
