"""`depth video`: clips to steady depth, any length, going on where they were left."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.streams import is_stdout, open_stream
from depthcli.errors import DiskFullError, OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.predict.clip_predictors import ClipPredictor

CLIP_PANEL = "Clip"


def video(
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIP...",
            help="Video files, folders of clips or of frames, frames as shot/f%04d.png, or - for y4m or raw RGB24 "
            "(--size, --rate) on stdin.",
        ),
    ],
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results, or the very file; - for stdout, or a pipe, see --pipe. Default: beside each "
            "clip.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    formats: Annotated[
        Optional[list[str]],
        typer.Option(
            "--format",
            "-f",
            help="mp4 (colour), side (clip beside colour), ffv1 (16-bit gray, lossless), hevc10 and prores (10-bit "
            "gray), png16, exr, npz (folders of frames). Repeat it or separate with commas. Default: mp4.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    colormap: opt.Colormap = "Spectral_r",
    grayscale: Annotated[
        bool, typer.Option("--grayscale", help="The same as --colormap gray.", rich_help_panel=opt.OUTPUT_PANEL)
    ] = False,
    value_range: Annotated[
        Optional[str],
        typer.Option(
            "--range",
            metavar="LO,HI",
            help="What is shown from end to end, in the model's numbers (metres for metric models). Default: what the "
            "whole clip holds, half a percent off on either side.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    pipe: Annotated[
        str,
        typer.Option(
            help="With -o -: y4m (colour), rgb24 (colour, raw) or gray16le (raw). Without --range it "
            "looks 30 frames ahead.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = "y4m",
    if_exists: Annotated[
        str,
        typer.Option(
            help="When all files of a clip are there: skip, overwrite or error.", rich_help_panel=opt.OUTPUT_PANEL
        ),
    ] = "skip",
    mix_models: Annotated[
        bool,
        typer.Option(
            "--mix-models",
            help="Go on where results of another model are, instead of ending with an error.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = False,
    steady: Annotated[
        str,
        typer.Option(
            help="auto: a model for video where its weights are here or can be fetched, else as on. on: a model for "
            "pictures, its frames aligned and averaged along the motion. off: every frame by itself.",
            rich_help_panel=CLIP_PANEL,
        ),
    ] = "auto",
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="With a model for video: align as its official script does, to the last bit. Takes more disk.",
            rich_help_panel=CLIP_PANEL,
        ),
    ] = False,
    scene: Annotated[
        str, typer.Option(help="auto begins anew at cuts, off takes the clip for one shot.", rich_help_panel=CLIP_PANEL)
    ] = "auto",
    start: Annotated[
        Optional[str],
        typer.Option(help="Begin here: seconds, or 1:02:03.5.", rich_help_panel=CLIP_PANEL),
    ] = None,
    end: Annotated[Optional[str], typer.Option(help="End before this.", rich_help_panel=CLIP_PANEL)] = None,
    fps: Annotated[
        Optional[str],
        typer.Option(
            help="Frames per second of the result, such as 12 or 24000/1001, at the same speed. Default: the clip's.",
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None,
    stride: Annotated[int, typer.Option(help="Take every so many-th frame.", rich_help_panel=CLIP_PANEL)] = 1,
    max_frames: Annotated[
        Optional[int], typer.Option(help="Take no more frames than these.", rich_help_panel=CLIP_PANEL)
    ] = None,
    rate: Annotated[
        Optional[str],
        typer.Option(help="Frames per second of a folder of frames (24) or of raw video.", rich_help_panel=CLIP_PANEL),
    ] = None,
    size: Annotated[
        Optional[str],
        typer.Option(metavar="WxH", help="Size of raw RGB24 on stdin.", rich_help_panel=CLIP_PANEL),
    ] = None,
    encoder: opt.Encoder = "auto",
    metric: opt.Metric = None,
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    max_depth: opt.MaxDepth = None,
    offline: opt.Offline = False,
    trust_checkpoint: opt.TrustCheckpoint = False,
    input_size: opt.InputSize = None,
    panorama: opt.Panorama = False,
    device: opt.Device = "auto",
    backend: opt.BackendName = "auto",
    precision: opt.Precision = "auto",
    artifacts: opt.Artifacts = None,
    shape_policy: opt.ShapePolicy = "strict",
    allow_standin: opt.AllowStandin = False,
    batch: opt.Batch = 1,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per event: progress, each clip's result, and a sum."),
    ] = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Estimate the depth of clips: steady, at the clip's own size, times and sound.

    The same command goes on where an interrupted one was, and ends with the same files: the depth is kept on disk while
    it is made. A clip that is damaged is done as far as it can be read, and named.

    Examples: depth video clip.mp4 · depth video clip.mp4 -f mp4,ffv1 -o out/ · depth video day1 -o day1_depth ·
    ffmpeg -i in.mov -f yuv4mpegpipe - | depth video - -o - | ffplay -
    """
    from depthcli.choices import IF_EXISTS, BackendChoice, ClipChoice, ModelChoice, require
    from depthcli.cli.report import ClipReport, stop_signals
    from depthcli.io.codecs.formats import CLIPS, parse_formats
    from depthcli.io.video.clip import Selection
    from depthcli.jobs.clip import check_models, run_clip
    from depthcli.jobs.clip_job import ClipJob, Progress
    from depthcli.jobs.clip_stream import stream_clip
    from depthcli.jobs.find import CLIP, LeftOut, find_inputs
    from depthcli.jobs.manifest import FAILED, MANIFEST_NAME, Manifest, Result
    from depthcli.jobs.targets import STREAM, Target, plan_clips
    from depthcli.pixels.colormap import color_table
    from depthcli.predict.clip import open_clip_predictor

    require("if_exists", if_exists, IF_EXISTS)
    if scene not in ("auto", "off"):
        raise UsageError(f"--scene {scene} means nothing", "choose from: auto, off")
    colors = "gray" if grayscale else colormap
    color_table(colors)
    wanted = parse_formats(formats or ("mp4",), CLIPS)
    choice = ModelChoice(model, encoder, metric, checkpoint, max_depth, offline, trust_checkpoint)
    engine = BackendChoice(
        backend, device, precision, artifacts=artifacts, shape_policy=shape_policy, allow_standin=allow_standin
    )
    clip_choice = ClipChoice(steady, exact, input_size, engine, batch, panorama)
    selection = Selection(_seconds(start), _seconds(end), _rate(fps), stride, max_frames)
    target = Target.of(output)
    streams = target.place == STREAM
    left = LeftOut(CLIP)
    found = find_inputs(clips, CLIP, left)
    if streams and formats:
        raise UsageError(f"-f is for files, and -o {output} gets a stream", "choose its form with --pipe")
    if streams and len(found) > 1:
        raise UsageError(f"-o {output} takes one clip, not {len(found)}", "give -o a folder")
    settings = {
        "steady": steady,
        "exact": exact or None,
        "encoder": encoder,
        "metric": metric,
        "model": model,
        "checkpoint": checkpoint and checkpoint.name,
        "max-depth": max_depth,
        "input-size": input_size,
        "panorama": panorama or None,
        "backend": backend,
        "precision": precision,
        "shape-policy": shape_policy if shape_policy != "strict" else None,
    }
    jobs = [
        ClipJob(
            source,
            outputs,
            selection,
            _rate(rate),
            _size(size),
            colors,
            _range(value_range),
            scene == "auto",
            if_exists,
            settings,
        )
        for (source, _), outputs in zip(found, [[]] if streams else plan_clips(found, wanted, target))
    ]
    manifest = Manifest(Path(output) / MANIFEST_NAME) if output and len(jobs) > 1 else None
    opened: list[ClipPredictor] = []

    def load() -> "ClipPredictor":
        if not opened:
            if manifest is not None:
                manifest.check()
            stop.at_once = True  # a download need not be finished first
            opened.append(open_clip_predictor(choice, clip_choice, report.warn))
            stop.at_once = False
            if not (streams or mix_models):
                check_models(jobs, opened[0])
            if verbose:
                row = opened[0].row
                report.talk(f"model {row.title}, {row.licence}; {opened[0].description}")
        return opened[0]

    report = ClipReport(len(jobs), as_json=as_json and not streams, quiet=quiet or streams, verbose=verbose)
    talk = cache(report.talk)  # each line once
    with ExitStack() as stack, report, stop_signals(quiet, "frame") as stop:
        for line in left.lines():
            talk(line)
        stream = stack.enter_context(open_stream(output)) if output and streams and not is_stdout(output) else None
        for job in jobs:
            if stop.asked:
                break
            events = (
                stream_clip(job, pipe, load, stream, lambda: stop.asked)
                if streams
                else run_clip(job, load, lambda: stop.asked, talk)
            )
            try:
                with closing(events):
                    for event in events:
                        if isinstance(event, Progress):
                            report.progress(event)
                        else:
                            report.add(event)
                            if manifest is not None and event.status != "skipped":
                                manifest.add(event)
            except DiskFullError as error:
                failed = Result(job.name, tuple(map(str, job.paths)), FAILED, error=str(error), code=error.exit_code)
                report.add(failed)
                with suppress(OutputError):  # a line may fit where a film does not
                    if manifest is not None:
                        manifest.add(failed)
                break
        report.clear()
        for predictor in opened:
            predictor.close()
        interrupted = stop.asked and sum(report.counts.values()) < len(jobs)
        report.finish(interrupted)
    raise typer.Exit(report.exit_code(interrupted))


def _seconds(text: Optional[str]) -> Optional[Fraction]:
    """Return the seconds of 90, 90.5, 1:30 or 0:01:30.5."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d+)?)", text)
    if match is None:
        raise UsageError(f"{text!r} is no time", "give seconds, or 1:02:03.5")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


def _rate(text: Optional[str]) -> Optional[Fraction]:
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?|\d+/[1-9]\d*", text) is None or not Fraction(text):
        raise UsageError(f"{text!r} is no rate", "give frames per second, such as 25, 23.976 or 24000/1001")
    return Fraction(text)


def _size(text: Optional[str]) -> Optional[tuple[int, int]]:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(f"{text!r} is no size", "give --size as 1920x1080")
    return int(match[1]), int(match[2])


def _range(text: Optional[str]) -> Optional[tuple[float, float]]:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is no range", "give --range as 0,80") from None
    return low, high
