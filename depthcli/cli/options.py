"""The options that several commands share, each written once, in groups. A field has the name of its setting."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import FITS, MetresChoice
from depthcli.choices.model import (
    BACKENDS,
    DETAILS,
    PRECISIONS,
    SHAPE_POLICIES,
    BackendChoice,
    ModelChoice,
    shaping_settings,
)
from depthcli.choices.settings import COLORMAPS, IF_EXISTS, noted, parse_colormap
from depthcli.choices.shapes import AXES, ShapeChoice
from depthcli.choices.source import DEPTH_IS, KINDS, SourceChoice
from depthcli.cli.groups import ADVANCED, CAMERA, METRES, MODEL, SPACE, flag, option
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import STILLS, implied_format, parse_formats
from depthcli.io.codecs.presets import PRESETS, Preset, preset_of

if TYPE_CHECKING:
    from depthcli.cli.report import ClipReport, Report
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.targets import NameTemplate, Target

# Names for the shell to complete, written out because their own modules load NumPy.
ENCODERS = ("tiny", "vits", "vitb", "vitl", "vitg")
DETECTORS = ("seg-nano", "seg-small", "seg-medium", "seg-large")
MODELS = (
    *ENCODERS,
    *(f"metric-{place}-{encoder}" for place in ("indoor", "outdoor") for encoder in ("vits", "vitb", "vitl")),
    "metric-tiny",
    *(f"vda-{kind}{encoder}" for kind in ("", "metric-") for encoder in ("vits", "vitb", "vitl")),
    "depthcrafter",
    *(f"da3-{kind}" for kind in ("mono", "metric", "small", "base", "large", "giant", "nested")),
)
# Written out because their own module loads NumPy.
_SOURCES = (
    *("mm", "scannet", "open3d", "nyu", "realsense", "zed", "kitti", "tum", "sun"),
    *("vda", "da3", "moge", "gdepth", "3dgs"),
)
_SHADES = ("white", "black")
_COLORMAPS = tuple(name + end for name in COLORMAPS for end in ("", "_r"))
DEVICES = ("auto", "cpu", "cuda", "mps")

Colormap = Annotated[
    str, option("Such as inferno, turbo, gray; _r reverses. Default: Spectral_r.", metavar="NAME", values=_COLORMAPS)
]
IfExists = Annotated[
    str, option("Existing results: skip, overwrite, error.", metavar="CHOICE", values=IF_EXISTS, show_default=True)
]
Device = Annotated[
    str,
    option(
        "auto, cpu, cuda, cuda:N or mps. Default: auto.",
        "--device",
        "-d",
        panel=MODEL,
        metavar="NAME",
        values=DEVICES,
    ),
]
Edges = Annotated[
    str,
    option(
        "Cut where depth jumps by this part of itself; off: never.",
        panel=SPACE,
        metavar="PART",
        values=("off", "0.04"),
        show_default=True,
    ),
]
Output = Annotated[
    Optional[str],
    option("File, folder or - for stdout. Default: beside each picture.", "-o", "--output", metavar="PATH"),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which model."""

    encoder: Annotated[
        str,
        option(
            "tiny, vits, vitb, vitl, vitg. Default: vits, else tiny.",
            panel=MODEL,
            metavar="SIZE",
            values=("auto", *ENCODERS),
        ),
    ] = "auto"
    metric: Annotated[
        Optional[str],
        option(
            "Depth in metres: indoor (up to 20 m) or outdoor (up to 80 m).",
            panel=MODEL,
            metavar="PLACE",
            values=("indoor", "outdoor"),
        ),
    ] = None
    model: Annotated[
        Optional[str],
        option(
            "A name from `depth models list`, or a checkpoint file.",
            "--model",
            "-m",
            panel=MODEL,
            metavar="NAME",
            values=MODELS,
        ),
    ] = None
    checkpoint: Annotated[
        Optional[Path], option("Load this weights file (.pth, .safetensors).", panel=MODEL, metavar="FILE")
    ] = None
    offline: Annotated[bool, flag("Never download.", "--offline", panel=MODEL)] = False
    max_depth: Annotated[
        Optional[float],
        option(
            "Largest depth: of your own metric weights, or of metres made of relative depth.",
            panel=ADVANCED,
            metavar="METRES",
        ),
    ] = None
    trust: Annotated[
        bool,
        flag("Load an unknown .pth, which can run code in torch before 2.6.", "--trust-checkpoint", panel=ADVANCED),
    ] = False

    def choice(self) -> ModelChoice:
        """Return the choice of the model."""
        return ModelChoice(**vars(self))


@dataclass(frozen=True)
class NetworkOptions:
    """How pictures go through the network."""

    input_size: Annotated[
        Optional[int],
        option("Shorter side of the network input. Default: 518 (tiny: 210).", panel=MODEL, metavar="PIXELS"),
    ] = None
    panorama: Annotated[
        bool, flag("For 360-degree panoramas (2:1): no seam at the edges.", "--panorama", panel=MODEL)
    ] = False
    detail: Annotated[
        str,
        option(
            "Large pictures: off, edges (the photo's), tiles (slower), nearest.",
            panel=MODEL,
            metavar="CHOICE",
            values=DETAILS,
            show_default=True,
        ),
    ] = "off"
    batch: Annotated[
        int,
        option("Pictures of one size per run of the network. Default: 1.", "--batch", "-b", panel=MODEL, metavar="N"),
    ] = 1


@dataclass(frozen=True)
class BackendOptions:
    """What runs the network."""

    device: Device = "auto"
    backend: Annotated[
        str,
        option(
            "auto, torch (GPU), openvino (CPU), onnx, torchscript, neuron.",
            panel=MODEL,
            metavar="NAME",
            values=("auto", *BACKENDS),
        ),
    ] = "auto"
    precision: Annotated[
        str,
        option(
            "auto, exact (as official), fp32, bf16, fp16 (GPU), int8.", panel=MODEL, metavar="NAME", values=PRECISIONS
        ),
    ] = "auto"
    calibration: Annotated[
        Optional[Path],
        option("For int8, once per checkpoint: a folder of a dozen pictures.", panel=ADVANCED, metavar="FOLDER"),
    ] = None
    artifacts: Annotated[
        Optional[Path], option("Compiled networks. Default: checkpoints/compiled.", panel=ADVANCED, metavar="PATH")
    ] = None
    shape_policy: Annotated[
        str,
        option(
            "Sizes not compiled: strict (ratio within 3 %) or stretch.",
            panel=ADVANCED,
            metavar="CHOICE",
            values=SHAPE_POLICIES,
        ),
    ] = "strict"
    allow_standin: Annotated[
        bool, flag("With neuron: run networks compiled for cpu-standin.", "--allow-standin", panel=ADVANCED)
    ] = False

    def choice(self) -> BackendChoice:
        """Return the choice of the backend."""
        return BackendChoice(**vars(self))


@dataclass(frozen=True)
class SourceOptions:
    """What depth files of other programs hold."""

    source_format: Annotated[
        Optional[str],
        option(
            f"What wrote the files, if not depthcli: {', '.join((*_SOURCES, *_SHADES))}.",
            "--from",
            metavar="NAME",
            values=(*_SOURCES, *_SHADES),
        ),
    ] = None
    kind: Annotated[
        Optional[str],
        option(f"Kind of depth of such files: {', '.join(KINDS)}.", metavar="KIND", values=KINDS),
    ] = None
    depth_is: Annotated[
        str,
        option("Such files hold z (along the axis) or ray (distances).", metavar="CHOICE", values=DEPTH_IS),
    ] = "z"

    def choice(self) -> SourceChoice:
        """Return the choice of the source."""
        return SourceChoice(**vars(self))


@dataclass(frozen=True)
class CameraOptions:
    """The camera of the pictures, if their EXIF does not tell it, or not rightly."""

    intrinsics: Annotated[
        Optional[str],
        option(
            "Calibration (COLMAP, OpenCV, ROS, KITTI, ...), or fx,fy,cx,cy in pixels.", panel=CAMERA, metavar="FILE"
        ),
    ] = None
    focal: Annotated[
        Optional[float], option("Focal length in pixels of the whole picture.", panel=CAMERA, metavar="PIXELS")
    ] = None
    fov: Annotated[
        Optional[str],
        option(
            "Angle of view across the picture; v:45 its height, d:75 its diagonal.", panel=CAMERA, metavar="DEGREES"
        ),
    ] = None
    f35: Annotated[
        Optional[float], option("Focal length as on 35 mm film, in millimetres.", panel=CAMERA, metavar="MM")
    ] = None

    def choice(self) -> CameraChoice:
        """Return the choice of the camera."""
        return CameraChoice(**vars(self))

    def settings(self, panorama: bool) -> dict[str, Any]:
        """Return the choice as results note it. Raises UsageError for a calibration file that cannot be used."""
        choice = self.choice()
        if not choice.is_given:  # without loading NumPy
            return {}
        from depthcli.predict.picture import open_cameras

        cameras = open_cameras(choice, panorama)
        return cameras.settings if cameras else {}


@dataclass(frozen=True)
class MetresOptions:
    """What makes metres of a relative map."""

    scale_from: Annotated[
        Optional[list[str]],
        option(
            "at:u,v=METRES, ground:HEIGHT, a depth file, ... (docs/metres.md). Repeatable.", panel=METRES, metavar="REF"
        ),
    ] = None
    fit: Annotated[
        str, option("auto, scale (no shift), line, or isotonic (a curve).", panel=METRES, metavar="CHOICE", values=FITS)
    ] = "auto"
    scale: Annotated[
        Optional[float], option("Multiply the metres of a metric model.", panel=METRES, metavar="FACTOR")
    ] = None
    calibration_from: Annotated[
        Optional[Path], option("Scale and shift of `depth calibrate`: a fixed camera.", panel=METRES, metavar="FILE")
    ] = None
    unit_of_colmap: Annotated[
        Optional[float], option("Metres in a unit of the COLMAP model.", panel=METRES, metavar="METRES")
    ] = None
    cloud_to_camera: Annotated[
        Optional[Path], option("For a PLY cloud: its 3x4 or 4x4 matrix to the camera.", panel=METRES, metavar="FILE")
    ] = None

    def choice(self) -> MetresChoice:
        """Return the choice of the metres."""
        return MetresChoice(**{**vars(self), "scale_from": tuple(self.scale_from or ())})

    def settings(self, panorama: bool) -> dict[str, Any]:
        """Return the choice as results note it. Raises UsageError for references that cannot be used."""
        choice = self.choice()
        if not choice.is_given:  # without loading NumPy
            return {}
        from depthcli.predict.picture import open_metres

        metres = open_metres(choice, panorama)
        return metres.settings if metres else {}


@dataclass(frozen=True)
class ReportOptions:
    """What is printed."""

    as_json: Annotated[bool, flag("Print one JSON object per result, and a summary.", "--json")] = False
    quiet: Annotated[bool, flag("Print errors and warnings only.", "--quiet", "-q")] = False
    verbose: Annotated[bool, flag("Print the model, and the time each result took.", "--verbose", "-v")] = False

    def report(self, total: Optional[int]) -> "Report":
        """Return the report of a job. total: pictures; None if it is not known yet."""
        from depthcli.cli.report import Report

        return Report(total, as_json=self.as_json, quiet=self.quiet, verbose=self.verbose)

    def clip_report(self, total: int, streams: bool) -> "ClipReport":
        """Return the report of a job. total: clips. streams: the result goes to stdout or a pipe."""
        from depthcli.cli.report import ClipReport

        as_json, quiet = self.as_json and not streams, self.quiet or streams
        return ClipReport(total, as_json=as_json, quiet=quiet, verbose=self.verbose)


@dataclass(frozen=True)
class PictureOutput:
    """What is written for each picture."""

    formats: Annotated[
        Optional[list[str]],
        option(
            "color (default), gray (16 bit), npz, exr, tiff, mm, ply, glb, html, normal, ... (docs/formats.md).",
            "--format",
            "-f",
            metavar="A,B",
            values=tuple(STILLS),
        ),
    ] = None
    preset: Annotated[
        Optional[str],
        option("Files for a program, such as nuke, kitti, vr, 3dgs.", metavar="NAME", values=tuple(PRESETS)),
    ] = None
    colormap: Colormap = "Spectral_r"
    template: Annotated[
        Optional[str], option("File name: {stem}, {name}, {parent}, {format} are filled in.", "--name", metavar="TEXT")
    ] = None
    if_exists: IfExists = "skip"
    keep_alpha: Annotated[
        bool, flag("Transparent pixels get no depth: clear, 0 or NaN.", "--keep-alpha", panel=ADVANCED)
    ] = False
    grayscale: Annotated[bool, flag("Short for --format gray8.", "--grayscale", panel=ADVANCED)] = False
    pred_only: Annotated[bool, flag("Accepted for old scripts; does nothing.", "--pred-only", panel=ADVANCED)] = False

    def name_template(self, formats: Sequence[str]) -> "Optional[NameTemplate]":
        """Return the names that --name gives to results; None without it."""
        from depthcli.jobs.targets import parse_template

        return None if self.template is None else parse_template(self.template, formats)


@dataclass(frozen=True)
class ShapeOptions:
    """How depth becomes points and meshes. Texts, as a number or a word may stand there."""

    axes: Annotated[
        Optional[str],
        option(
            "opengl (y up; ply, obj), opencv (y down; pcd) or zup (laz).",
            panel=SPACE,
            metavar="NAME",
            values=AXES,
        ),
    ] = None
    edges: Edges = "0.04"
    points: Annotated[
        str,
        option("Most points in ply and pcd, or all.", panel=SPACE, metavar="N", show_default=True),
    ] = "1000000"
    mesh_size: Annotated[
        int,
        option(
            "Most vertices along the longer side of a mesh.",
            panel=SPACE,
            metavar="N",
            show_default=True,
        ),
    ] = 512
    farthest: Annotated[
        Optional[float],
        option(
            "Leave out what is farther. Default: all; relative: 20.",
            panel=SPACE,
            metavar="DEPTH",
        ),
    ] = None

    def choice(self) -> ShapeChoice:
        """Return the choice of the shape."""
        return ShapeChoice(
            axes=self.axes,
            edges=edges_of(self.edges),
            points=points_of(self.points),
            mesh_size=self.mesh_size,
            farthest=self.farthest,
        )


def edges_of(text: str) -> Optional[float]:
    """Return the part that `edges` names, None for off. Raises UsageError."""
    return None if text == "off" else _number(text, "edges", "off or a part such as 0.04")


def points_of(text: str, setting: str = "points") -> Optional[int]:
    """Return the most points that a setting names, None for all. Raises UsageError."""
    return None if text == "all" else int(_number(text, setting, "a number or all"))


def _number(text: str, setting: str, wanted: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"`{setting}` is {text!r}", f"give {wanted}") from None


@dataclass(frozen=True)
class ServerOptions:
    """Which service does the work."""

    server: Annotated[
        Optional[str],
        option(
            "Ask `depth serve`: its URL, unix:PATH or auto. Default: $DEPTH_SERVER.",
            panel=MODEL,
            metavar="URL",
            values=("auto",),
            variable="DEPTH_SERVER",
        ),
    ] = None

    @property
    def address(self) -> str:
        """The service that was asked for, "" for none."""
        return self.server or ""


@dataclass(frozen=True)
class PictureOptions:
    """All that `image` and `dir` share."""

    output: PictureOutput = field(default_factory=PictureOutput)
    report: ReportOptions = field(default_factory=ReportOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)
    camera: CameraOptions = field(default_factory=CameraOptions)
    metres: MetresOptions = field(default_factory=MetresOptions)
    shape: ShapeOptions = field(default_factory=ShapeOptions)
    server: ServerOptions = field(default_factory=ServerOptions)

    def output_spec(self, target: "Target", pictures: int = 1) -> "OutputSpec":
        """Return what is written for each picture. pictures: how many there are."""
        from depthcli.io.codecs.outputs import OneFile, OneStream, OutputSpec, check_extras
        from depthcli.jobs.targets import FILE, STREAM

        output = self.output
        if output.grayscale and output.formats:
            raise UsageError("--grayscale and --format contradict each other", "--grayscale means --format gray8")
        implied = implied_format(target.path, "color") if target.place == FILE else "color"
        preset = preset_of(output.preset)
        if preset is not None:
            return self._preset_outputs(preset, target, pictures)
        formats = ("gray8",) if output.grayscale else parse_formats(output.formats or (implied,))
        shape = self.shape.choice()
        spatial = [name for name in formats if STILLS[name].spatial]
        if self.network.panorama and spatial:
            raise UsageError(f"{spatial[0]} cannot be made of a panorama", "leave out --panorama")
        parse_colormap(output.colormap)  # an unknown name is an error now, not after the first picture
        check_extras(formats)
        if target.place not in (FILE, STREAM):
            template = output.name_template(formats)
            return OutputSpec(formats, output.colormap, template.endings if template else (), shape)
        if output.template is not None:
            raise UsageError(f"--name does not apply to {target}", "leave out --name, or give a folder with -o")
        target.check_one(pictures, "picture", formats, {name: row.suffix for name, row in STILLS.items()})
        if target.place == FILE:
            return OneFile(formats, output.colormap, shape=shape)
        if self.report.as_json:
            raise UsageError(f"{target} cannot hold a picture and JSON", "leave out --json, or give -o FILE")
        if "obj" in formats:
            raise UsageError(f"{target} cannot hold an OBJ, which is three files", "use -f glb, or give -o FILE")
        return OneStream(formats, output.colormap, shape=shape, name=str(target))

    def _preset_outputs(self, preset: "Preset", target: "Target", pictures: int) -> "OutputSpec":
        """Return what a preset writes for each picture; formats that are given win over its own."""
        from depthcli.io.codecs.outputs import OneFile, check_extras
        from depthcli.io.codecs.preset_outputs import outputs_of
        from depthcli.jobs.targets import FILE, STREAM

        output = self.output
        if preset.scene:
            raise UsageError(
                f"{preset.name} wants one file about all maps, which comes after them",
                "write `formats` npz, and make it of these with depth convert",
            )
        if output.template is not None or output.grayscale:
            raise UsageError("`preset` has names and formats of its own", "leave out --name and --grayscale")
        formats = parse_formats(output.formats or preset.formats) if output.formats or preset.formats else ()
        if self.network.panorama and any(STILLS[name].spatial for name in formats):
            raise UsageError(f"{preset.name} cannot be made of a panorama", "leave out --panorama")
        parse_colormap(output.colormap)  # an unknown name is an error now, not after the first picture
        check_extras(formats)
        if target.place == STREAM or (target.place == FILE and preset.several):
            raise UsageError(f"{target} cannot hold the files of {preset.name}", "name a folder, and end it with /")
        shape = self.shape.choice()
        if target.place == FILE:
            target.check_one(pictures, "picture", formats, {name: row.suffix for name, row in STILLS.items()})
            return OneFile(formats, output.colormap, shape=shape)
        return outputs_of(preset, formats, output.colormap, shape)

    def settings(self, formats: Sequence[str]) -> str:
        """Return the options that shape results of these formats as one line, for the manifest."""
        shaping = {
            **shaping_settings(
                self.model.choice(),
                self.backend.choice(),
                self.network.input_size,
                self.network.panorama,
                self.network.detail,
            ),
            **self.camera.settings(self.network.panorama),
            **self.metres.settings(self.network.panorama),
            "keep-alpha": self.output.keep_alpha or None,
            "colormap": self.output.colormap if {"color", "side"} & set(formats) else None,
            **(self.shape.choice().settings if any(STILLS[name].shape for name in formats) else {}),
        }
        return noted(shaping)
