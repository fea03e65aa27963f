"""`depth auto`: takes what is named for a picture or a scene, says which, and does it."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from dataclasses import dataclass, field
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import grouped, option
from depthcli.cli.options import BackendOptions, ModelOptions, PictureOptions, PictureOutput, ReportOptions
from depthcli.cli.scene import LEFT_OUT, FrameOptions, SceneOptions, do_scene


@dataclass(frozen=True)
class AutoOptions:
    """What pictures and scenes share."""

    report: ReportOptions = field(default_factory=ReportOptions)
    frames: FrameOptions = field(default_factory=FrameOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)


@grouped(without=LEFT_OUT)
def auto(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="A picture, pictures, a folder, a clip, a COLMAP folder.")
    ],
    output: Annotated[
        Optional[str],
        option("File or folder for the results. Default: beside the input.", "-o", "--output", metavar="PATH"),
    ] = None,
    *,
    options: AutoOptions,
) -> None:
    """Take what is named for a picture or a scene, and say which.

    depth auto photo.jpg          one picture: as depth image
    depth auto a.jpg b.jpg -o ab  several pictures are views of one scene: as depth scene
    depth auto photos             so are the pictures of a folder, and the views of a COLMAP or Nerfstudio folder
    depth auto walk.mp4           and the frames of a clip, one a second

    For unrelated pictures use depth dir, for a film of depth use depth video.
    """
    from depthcli.cli.report import log
    from depthcli.jobs.scene_inputs import SceneSource, recognise

    found = recognise(inputs)
    if found.source is SceneSource.PICTURE:
        if not options.report.quiet:
            log(f"{found.rule}: depth image")
        _image(inputs, output, options)
        return
    if not options.report.quiet:
        hint = {
            SceneSource.CLIP: " (a film of depth: depth video)",
            SceneSource.FOLDER: " (unrelated pictures: depth dir)",
        }.get(found.source, "")
        log(f"depth scene{hint}")
    made = SceneOptions(report=options.report, frames=options.frames, model=options.model, backend=options.backend)
    do_scene(found, inputs, output, made)


def _image(inputs: list[str], output: Optional[str], options: AutoOptions) -> None:
    from depthcli.cli.image import estimate
    from depthcli.cli.running import open_early

    pictures = PictureOptions(
        output=PictureOutput(if_exists="overwrite"),
        report=options.report,
        model=options.model,
        backend=options.backend,
    )
    with open_early(pictures, inputs) as early:
        estimate(inputs, output, pictures, early)
