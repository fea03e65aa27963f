"""Options that several commands share, each written down once."""

from pathlib import Path
from typing import Annotated, Optional

import typer

MODEL_PANEL = "Model"
OUTPUT_PANEL = "Output"
RUN_PANEL = "Run"

Encoder = Annotated[
    str,
    typer.Option(
        help="Size of the network: tiny, vits, vitb, vitl, vitg. auto takes vits if its weights are here or can be "
        "downloaded, else tiny, which is part of this package.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Metric = Annotated[
    Optional[str],
    typer.Option(help="Answer in metres: indoor (to 20 m) or outdoor (to 80 m).", rich_help_panel=MODEL_PANEL),
]
Model = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        "-m",
        help="A model of `depth models list`, or the path of a checkpoint.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Checkpoint = Annotated[
    Optional[Path],
    typer.Option(help="Take this file of weights (.pth or .safetensors).", rich_help_panel=MODEL_PANEL),
]
MaxDepth = Annotated[
    Optional[float],
    typer.Option(help="Metres at the top of a metric model's range, for a fine-tune.", rich_help_panel=MODEL_PANEL),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never download.", rich_help_panel=MODEL_PANEL)]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Read a .pth of unknown origin with torch before 2.6, where this can run code hidden in it.",
        rich_help_panel=MODEL_PANEL,
    ),
]

Formats = Annotated[
    Optional[list[str]],
    typer.Option(
        "--format",
        "-f",
        help="color (8-bit PNG), gray (16-bit PNG), gray8, side (photo beside colour), npz (float32). Repeat it or "
        "separate with commas. Default: color.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Colormap = Annotated[
    str,
    typer.Option(
        help="Spectral, inferno, turbo, magma, viridis, plasma, cividis or gray; add _r to reverse.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Grayscale = Annotated[
    bool,
    typer.Option("--grayscale", help="The same as --format gray8.", rich_help_panel=OUTPUT_PANEL),
]
PredOnly = Annotated[
    bool,
    typer.Option(
        "--pred-only",
        help="Depth alone, without the photo: the default here, accepted for old scripts.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
KeepAlpha = Annotated[
    bool,
    typer.Option(
        "--keep-alpha",
        help="Mark transparent pixels as invalid in the results: transparent in colour, 0 in gray, NaN in npz. "
        "The network sees them black in any case.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Naming = Annotated[
    Optional[str],
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help='Name of the results, with {stem}, {name} and {parent} (folder) of the picture, and {format}: "{stem}" '
        "gives IMG_1.png. Default: {stem}_depth and what tells the format.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
IfExists = Annotated[
    str,
    typer.Option(help="When all files of a picture are there: skip, overwrite or error.", rich_help_panel=OUTPUT_PANEL),
]

InputSize = Annotated[
    Optional[int],
    typer.Option(
        help="Shorter side of the network's input in pixels, rounded to a multiple of 14. Default: the model's own "
        "(518; tiny less). More shows finer detail and takes more time and memory.",
        rich_help_panel=RUN_PANEL,
    ),
]
Panorama = Annotated[
    bool,
    typer.Option(
        "--panorama",
        help="For whole panoramas (equirectangular, 2:1): join the left and right edges, so that no seam shows.",
        rich_help_panel=RUN_PANEL,
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN_PANEL),
]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        help="Engine: auto, torch, openvino, onnx, torchscript or neuron (see --artifacts). auto takes torch on a GPU, "
        "else openvino where it is installed.",
        rich_help_panel=RUN_PANEL,
    ),
]
Artifacts = Annotated[
    Optional[Path],
    typer.Option(
        metavar="PATH",
        help="A network compiled by `depth compile`, or a folder of them, for torchscript and neuron. Default: "
        "checkpoints/compiled.",
        rich_help_panel=RUN_PANEL,
    ),
]
ShapePolicy = Annotated[
    str,
    typer.Option(
        help="For pictures whose size was not compiled: strict takes a network whose ratio of sides is the picture's "
        "to 3 %, stretch the nearest of the same orientation.",
        rich_help_panel=RUN_PANEL,
    ),
]
AllowStandin = Annotated[
    bool,
    typer.Option(
        "--allow-standin",
        help="With --backend neuron: run files of `depth compile --target cpu-standin`, which try all but the chip.",
        rich_help_panel=RUN_PANEL,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto (bf16 on a CPU that computes it, else fp32), exact (as the reference computes), fp32, bf16, "
        "int8 (see --calibration), or fp16 on a GPU.",
        rich_help_panel=RUN_PANEL,
    ),
]
Calibration = Annotated[
    Optional[Path],
    typer.Option(
        metavar="FOLDER",
        help="Pictures to choose the steps of int8 by, a dozen or more like those to come; once per checkpoint.",
        rich_help_panel=RUN_PANEL,
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", "-b", help="Pictures of one input size that share a run of the network.", rich_help_panel=RUN_PANEL
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object per picture and a last one that sums up."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and warnings, print no paths.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say what was done to each picture, and how long it took.")
]
