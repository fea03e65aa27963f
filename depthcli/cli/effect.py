"""`depth effect`: pictures changed by their depth."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from depthcli.cli.groups import PlainCommand, PlainGroup, grouped, option
from depthcli.cli.image import estimate
from depthcli.cli.options import (
    BackendOptions,
    IfExists,
    ModelOptions,
    NetworkOptions,
    Output,
    PictureOptions,
    PictureOutput,
    ReportOptions,
)
from depthcli.cli.running import open_early
from depthcli.errors import UsageError

if TYPE_CHECKING:
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.targets import Target

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, add_completion=False)

_NETWORK = NetworkOptions(detail="edges")


@app.callback()
def _root() -> None:
    """Change pictures by their depth: blur, fog, cut, parallax."""


Inputs = Annotated[list[str], typer.Argument(metavar="FILE...", help="Pictures, folders, globs or .txt lists.")]


@dataclass(frozen=True)
class EffectFiles:
    """What becomes of files that are there."""

    if_exists: IfExists = "overwrite"


@dataclass(frozen=True)
class EffectPictures(PictureOptions):
    """All that pictures share, with an effect as their result. effect: of views.effects."""

    effect: Any = None

    def output_spec(self, target: "Target", pictures: int = 1) -> "OutputSpec":
        """Return the file of each picture. pictures: how many there are."""
        from depthcli.io.codecs.effects import SUFFIXES, EffectSpec, OneEffectFile
        from depthcli.jobs.targets import FILE, STREAM

        if target.place == STREAM:
            raise UsageError(
                f"effects are written to files, and `output` {target} is a stream", "give a file or folder"
            )
        if target.place != FILE:
            return EffectSpec(("effect",), effect=self.effect)
        if pictures != 1:
            raise UsageError(f"{target} cannot hold {pictures} pictures", "use a folder as `output`")
        suffixes = SUFFIXES[type(self.effect)]
        if target.path.suffix.lower() not in suffixes:
            hint = f"use `output` {target.path.with_suffix(suffixes[0])}, or end it with / for a folder"
            raise UsageError(f"this effect is written as {' or '.join(suffixes)}, not {target.path.suffix}", hint)
        return OneEffectFile(("effect",), effect=self.effect)

    def settings(self, formats: Sequence[str]) -> str:
        """Return the options that shape results as one line, for the manifest."""
        shaping = (f"{name}={value}" for name, value in asdict(self.effect).items())
        return " ".join([super().settings(()), *(part.replace(" ", "") for part in shaping)])


@dataclass(frozen=True)
class EffectOptions:
    """All that the effects share."""

    files: EffectFiles
    report: ReportOptions
    model: ModelOptions
    network: NetworkOptions
    backend: BackendOptions

    def run(self, inputs: list[str], output: Optional[str], effect: Any) -> None:
        """Do the pictures, and leave with the exit code."""
        written = PictureOutput(if_exists=self.files.if_exists)
        options = EffectPictures(written, self.report, self.model, self.network, self.backend, effect=effect)
        with open_early(options, inputs) as early:
            estimate(inputs, output, options, early)


@grouped()
def blur(
    inputs: Inputs,
    output: Output = None,
    focus: Annotated[
        str, option("What is sharp: near, far, X,Y (pixels), or metres.", metavar="PLACE", show_default=True)
    ] = "near",
    strength: Annotated[
        float, option("Radius of the most blurred thing, percent of the width.", metavar="N", show_default=True)
    ] = 1.0,
    *,
    files: EffectFiles,
    report: ReportOptions,
    model: ModelOptions,
    network: NetworkOptions = _NETWORK,
    backend: BackendOptions,
) -> None:
    """Blur what is out of focus, as a wide aperture does.

    depth effect blur photo.jpg                       sharp is the nearest thing
    depth effect blur photo.jpg --focus 1200,800      sharp is what is at that pixel
    """
    from depthcli.views.effects import Blur

    EffectOptions(files, report, model, network, backend).run(inputs, output, Blur(focus, strength))


@grouped()
def fog(
    inputs: Inputs,
    output: Output = None,
    visibility: Annotated[
        str, option("Metres (metric models), or range:V in depths of the scene.", metavar="V", show_default=True)
    ] = "range:2",
    *,
    files: EffectFiles,
    report: ReportOptions,
    model: ModelOptions,
    network: NetworkOptions = _NETWORK,
    backend: BackendOptions,
) -> None:
    """Lay fog over what is far.

    depth effect fog photo.jpg --visibility range:1
    depth effect fog photo.jpg --metric outdoor --visibility 60
    """
    from depthcli.views.effects import Fog

    EffectOptions(files, report, model, network, backend).run(inputs, output, Fog(visibility))


@grouped()
def cut(
    inputs: Inputs,
    output: Output = None,
    farther_than: Annotated[
        Optional[str], option("Remove what is farther (metric models): 3m or 3.", metavar="METRES")
    ] = None,
    keep_nearest: Annotated[
        Optional[str], option("Keep this percentage of the pixels: 30% or 30.", metavar="PERCENT")
    ] = None,
    *,
    files: EffectFiles,
    report: ReportOptions,
    model: ModelOptions,
    network: NetworkOptions = _NETWORK,
    backend: BackendOptions,
) -> None:
    """Cut out what is near: the rest becomes transparent.

    depth effect cut photo.jpg --keep-nearest 30
    depth effect cut photo.jpg --metric indoor --farther-than 3
    """
    from depthcli.views.effects import Cut

    cut = Cut(_number("farther_than", farther_than, "m"), _number("keep_nearest", keep_nearest, "%"))
    EffectOptions(files, report, model, network, backend).run(inputs, output, cut)


@grouped()
def parallax(
    inputs: Inputs,
    output: Output = None,
    strength: Annotated[
        float, option("How far near and far things move apart, percent of the width.", metavar="N", show_default=True)
    ] = 2.0,
    seconds: Annotated[float, option("Length of the loop.", metavar="N", show_default=True)] = 3.0,
    *,
    files: EffectFiles,
    report: ReportOptions,
    model: ModelOptions,
    network: NetworkOptions = _NETWORK,
    backend: BackendOptions,
) -> None:
    """Move the camera around a picture: a film that loops, .mp4, .webp or .gif.

    depth effect parallax photo.jpg
    depth effect parallax photo.jpg -o photo.webp --seconds 4
    """
    from depthcli.views.effects import Parallax

    EffectOptions(files, report, model, network, backend).run(inputs, output, Parallax(strength, seconds))


for _command in (blur, fog, cut, parallax):
    app.command(_command.__name__, cls=PlainCommand)(_command)


def _number(name: str, text: Optional[str], unit: str) -> Optional[float]:
    """Return the number of an option that may end in its unit. Raises UsageError for other texts."""
    if text is None:
        return None
    try:
        return float(text.strip().removesuffix(unit))
    except ValueError:
        raise UsageError(f"`{name}` must be a number, got {text!r}", f"such as 3{unit}") from None
