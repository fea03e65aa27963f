"""The options that several commands share, each written once, in groups. A field has the name of its setting."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from depthcli.choices import (
    BACKENDS,
    DETAILS,
    IF_EXISTS,
    PRECISIONS,
    SHAPE_POLICIES,
    BackendChoice,
    ModelChoice,
    shaping_settings,
)
from depthcli.cli.groups import ADVANCED, MODEL, flag, option
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import STILLS, implied_format, parse_formats

if TYPE_CHECKING:
    from depthcli.cli.report import ClipReport, Report
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.targets import NameTemplate, Target

# Names for the shell to complete, written out because their own modules load NumPy.
ENCODERS = ("tiny", "vits", "vitb", "vitl", "vitg")
MODELS = (
    *ENCODERS,
    *(f"metric-{place}-{encoder}" for place in ("indoor", "outdoor") for encoder in ("vits", "vitb", "vitl")),
    *(f"vda-{kind}{encoder}" for kind in ("", "metric-") for encoder in ("vits", "vitb", "vitl")),
)
COLORMAPS = tuple(
    name + end
    for name in ("Spectral", "inferno", "turbo", "magma", "viridis", "plasma", "cividis", "gray")
    for end in ("", "_r")
)
DEVICES = ("auto", "cpu", "cuda", "mps")

Colormap = Annotated[
    str, option("Such as inferno, turbo, gray; _r reverses. Default: Spectral_r.", metavar="NAME", values=COLORMAPS)
]
IfExists = Annotated[
    str, option("Existing results: skip, overwrite, error.", metavar="CHOICE", values=IF_EXISTS, show_default=True)
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
        option("Largest depth of your own metric weights.", panel=ADVANCED, metavar="METRES"),
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
            "For large pictures: off, edges (the photo's), tiles (finer, slower).",
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

    device: Annotated[
        str,
        option(
            "auto, cpu, cuda, cuda:N or mps. Default: auto.",
            "--device",
            "-d",
            panel=MODEL,
            metavar="NAME",
            values=DEVICES,
        ),
    ] = "auto"
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
class ReportOptions:
    """What is printed."""

    as_json: Annotated[bool, flag("Print one JSON object per result, and a summary.", "--json")] = False
    quiet: Annotated[bool, flag("Print errors and warnings only.", "--quiet", "-q")] = False
    verbose: Annotated[bool, flag("Print the model, and the time each result took.", "--verbose", "-v")] = False

    def report(self, total: int) -> "Report":
        """Return the report of a job. total: pictures."""
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
            "color, gray (16 bit), gray8, side, npz, exr. Default: color.",
            "--format",
            "-f",
            metavar="A,B",
            values=tuple(STILLS),
        ),
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
class PictureOptions:
    """All that `image` and `dir` share."""

    output: PictureOutput = field(default_factory=PictureOutput)
    report: ReportOptions = field(default_factory=ReportOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)

    def output_spec(self, target: "Target", pictures: int = 1) -> "OutputSpec":
        """Return what is written for each picture. pictures: how many there are."""
        from depthcli.io.codecs.outputs import OneFile, OneStream, OutputSpec
        from depthcli.jobs.targets import FILE, STREAM
        from depthcli.pixels.colormap import color_table

        output = self.output
        if output.grayscale and output.formats:
            raise UsageError("--grayscale and --format contradict each other", "--grayscale means --format gray8")
        implied = implied_format(target.path, "color") if target.place == FILE else "color"
        formats = ("gray8",) if output.grayscale else parse_formats(output.formats or (implied,))
        color_table(output.colormap)  # an unknown name is an error now, not after the first picture
        if target.place not in (FILE, STREAM):
            template = output.name_template(formats)
            return OutputSpec(formats, output.colormap, template.endings if template else ())
        if output.template is not None:
            raise UsageError(f"--name does not apply to {target}", "leave out --name, or give a folder with -o")
        target.check_one(pictures, "picture", formats, {name: row.suffix for name, row in STILLS.items()})
        if target.place == FILE:
            return OneFile(formats, output.colormap)
        if self.report.as_json:
            raise UsageError(f"{target} cannot hold a picture and JSON", "leave out --json, or give -o FILE")
        return OneStream(formats, output.colormap, name=str(target))

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
            "keep-alpha": self.output.keep_alpha or None,
            "colormap": self.output.colormap if {"color", "side"} & set(formats) else None,
        }
        return " ".join(f"{name}={value}" for name, value in shaping.items() if value is not None)
