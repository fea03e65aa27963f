"""`depth video`: clips of any length to steady depth, continuing where an earlier run stopped."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, Union

import typer

from depthcli.choices.clips import OFFLOADS, STEADY, ClipChoice, DiffusionChoice
from depthcli.choices.model import ModelChoice
from depthcli.choices.settings import IF_EXISTS, parse_colormap, require
from depthcli.cli.groups import ADVANCED, CLIP, DIFFUSION, flag, grouped, option
from depthcli.cli.options import (
    BackendOptions,
    CameraOptions,
    Colormap,
    IfExists,
    MetresOptions,
    ModelOptions,
    NetworkOptions,
    ReportOptions,
    ServerOptions,
    ShapeOptions,
)
from depthcli.cli.parts import PartOptions
from depthcli.cli.running import open_server
from depthcli.cli.streams import is_stdout, open_stream
from depthcli.errors import DiskFullError, OutputError, UsageError
from depthcli.io.codecs.formats import CLIP_ROWS, CLIPS, crafter_files, parse_formats
from depthcli.io.names import STDIN
from depthcli.jobs.failures import NO_LIMIT, FailureLimit
from depthcli.jobs.parsing import parse_range, parse_rate, parse_seconds, parse_size

if TYPE_CHECKING:
    from depthcli.io.video.clip import Selection
    from depthcli.jobs.clip_folder import ClipFolder
    from depthcli.jobs.clip_job import ClipJob, Events, Progress
    from depthcli.jobs.find import Input, LeftOut
    from depthcli.jobs.manifest import Result
    from depthcli.jobs.remote import Client
    from depthcli.jobs.remote_clip import RemoteClips
    from depthcli.jobs.shards import Shard
    from depthcli.jobs.targets import Target
    from depthcli.predict.clip_predictors import ClipPredictor


PIPES = ("y4m", "rgb24", "gray16le")
SCENES = ("auto", "off")


@dataclass(frozen=True)
class ClipOutput:
    """What is written for each clip."""

    formats: Annotated[
        Optional[list[str]],
        option(
            "mp4 (colour), side, ffv1 (16-bit gray), hevc10, prores (10 bit); "
            "folders: color, gray, npz, exr, mm, ply, ... (docs/video.md). Default: mp4.",
            "--format",
            "-f",
            metavar="A,B",
            values=tuple(row.name for row in CLIPS.values()),
        ),
    ] = None
    colormap: Colormap = "Spectral_r"
    value_range: Annotated[
        Optional[str],
        option(
            "Numbers at the ends of the colours. Default: the clip's.",
            "--range",
            metavar="LO,HI",
        ),
    ] = None
    if_exists: IfExists = "skip"
    pipe: Annotated[
        str, option("With -o -: y4m, or raw rgb24 or gray16le. Default: y4m.", metavar="FORMAT", values=PIPES)
    ] = "y4m"
    grayscale: Annotated[bool, flag("Short for --colormap gray.", "--grayscale", panel=ADVANCED)] = False
    mix_models: Annotated[bool, flag("Continue beside results of another model.", "--mix-models", panel=ADVANCED)] = (
        False
    )

    @property
    def colors(self) -> str:
        """The colour map."""
        return "gray" if self.grayscale else self.colormap

    def check(self) -> tuple[str, ...]:
        """Return the formats. Raises UsageError for unknown names before any work is done."""
        require("if_exists", self.if_exists, IF_EXISTS)
        require("pipe", self.pipe, PIPES)
        parse_colormap(self.colors)
        return parse_formats(self.formats or ("mp4",), CLIPS)

    @property
    def limits(self) -> Optional[tuple[float, float]]:
        """The depth values at the ends of the colours, None for the whole clip's."""
        return parse_range(self.value_range)


@dataclass(frozen=True)
class ClipOptions:
    """Which frames are taken, and what makes them steady."""

    steady: Annotated[
        str,
        option(
            "auto: a video model, or on if there is none. on: a picture model, smoothed along the motion. "
            "off: each frame alone.",
            panel=CLIP,
            metavar="CHOICE",
            values=STEADY,
        ),
    ] = "auto"
    start: Annotated[Optional[str], option("Start here: seconds, or 1:02:03.5.", panel=CLIP, metavar="TIME")] = None
    end: Annotated[Optional[str], option("Stop before this time.", panel=CLIP, metavar="TIME")] = None
    fps: Annotated[
        Optional[str], option("Frames per second of the result. Default: the clip's.", panel=CLIP, metavar="RATE")
    ] = None
    stride: Annotated[int, option("Take every Nth frame. Default: 1.", panel=CLIP, metavar="N")] = 1
    max_frames: Annotated[Optional[int], option("Take at most N frames.", panel=CLIP, metavar="N")] = None
    rate: Annotated[
        Optional[str],
        option("Frames per second of frame folders and raw video. Default: 24.", panel=CLIP, metavar="RATE"),
    ] = None
    size: Annotated[
        Optional[str], option("Width and height of raw RGB24 on stdin, in pixels.", panel=CLIP, metavar="WxH")
    ] = None
    scenes: Annotated[
        str,
        option(
            "auto: start anew at cuts. off: one shot. Default: auto.",
            "--scene",
            panel=ADVANCED,
            metavar="CHOICE",
            values=SCENES,
        ),
    ] = "auto"
    exact: Annotated[
        bool,
        flag("Video models: as the official script, bit for bit; depthcrafter: its files.", "--exact", panel=ADVANCED),
    ] = False

    def choice(self, network: NetworkOptions, backend: BackendOptions) -> ClipChoice:
        """Return the choice of how a clip is processed."""
        require("scenes", self.scenes, SCENES)
        return ClipChoice(
            self.steady,
            self.exact,
            network.input_size,
            backend.choice(),
            network.batch,
            network.panorama,
            self.scenes == "auto",
        )

    def selection(self) -> "Selection":
        """Return which frames are taken."""
        from depthcli.io.video.clip import Selection

        return Selection(
            parse_seconds(self.start), parse_seconds(self.end), parse_rate(self.fps), self.stride, self.max_frames
        )

    def raw(self) -> dict[str, Any]:
        """Return the rate and the size of raw video."""
        return {
            "rate": parse_rate(self.rate),
            "size": None if self.size is None else parse_size(self.size, "size", "1920x1080"),
        }


@dataclass(frozen=True)
class DiffusionOptions:
    """How a diffusion model works."""

    steps: Annotated[
        int, option("For depthcrafter: steps of denoising.", panel=DIFFUSION, metavar="N", show_default=True)
    ] = 5
    window: Annotated[
        int, option("Frames that are denoised at once.", panel=DIFFUSION, metavar="N", show_default=True)
    ] = 110
    overlap: Annotated[
        int, option("Frames that two windows share.", panel=DIFFUSION, metavar="N", show_default=True)
    ] = 25
    max_res: Annotated[
        int,
        option("Longer side of the network input, at most.", panel=DIFFUSION, metavar="PIXELS", show_default=True),
    ] = 1024
    guidance: Annotated[
        float, option("Above 1: sharper, at twice the time.", panel=DIFFUSION, metavar="FACTOR", show_default=True)
    ] = 1.0
    seed: Annotated[int, option("Of the noise.", panel=DIFFUSION, metavar="N", show_default=True)] = 42
    cpu_offload: Annotated[
        str,
        option(
            "Keep on the GPU: all (none), the network (model) or the layer (sequential) that runs.",
            panel=DIFFUSION,
            metavar="CHOICE",
            values=OFFLOADS,
            show_default=True,
        ),
    ] = "none"
    accept_licence: Annotated[
        bool, flag("Accept a licence for some purposes only; asked for once.", "--accept-licence", panel=DIFFUSION)
    ] = False

    def choice(self) -> DiffusionChoice:
        """Return the choice."""
        return DiffusionChoice(**{name: value for name, value in vars(self).items() if name != "accept_licence"})


@grouped(without=("detail",))
def video(
    clips: Annotated[
        list[str], typer.Argument(metavar="CLIP...", help="Clips, folders, frames as shot/f%04d.png, or - for stdin.")
    ],
    output: Annotated[
        Optional[str],
        option("File, folder or - for stdout. Default: beside each clip.", "-o", "--output", metavar="PATH"),
    ] = None,
    *,
    files: ClipOutput,
    report: ReportOptions,
    clip: ClipOptions,
    diffusion: DiffusionOptions,
    model: ModelOptions,
    network: NetworkOptions,
    backend: BackendOptions,
    camera: CameraOptions,
    metres: MetresOptions,
    shape: ShapeOptions,
    server: ServerOptions,
    parts: PartOptions,
) -> None:
    """Estimate the depth of clips: steady, with the clip's size, times and sound.

    depth video clip.mp4                            writes clip_depth.mp4
    depth video clip.mp4 -f mp4,ffv1 -o out/        colour to look at, and 16-bit gray to work with
    depth video day1 -o day1_depth                  a folder of clips
    ffmpeg -i in.mov -f yuv4mpegpipe - | depth video - -o - | ffplay -

    The same command continues an interrupted run and ends with the same files.
    A damaged clip is done as far as it can be read; the message names it.
    """
    from depthcli.zoo.diffusion import check_diffusion
    from depthcli.zoo.rows import DEPTHCRAFTER

    choice = replace(model.choice(), accept_licence=diffusion.accept_licence)
    clip_choice = replace(clip.choice(network, backend), diffusion=diffusion.choice())
    wanted, official = files.check(), clip.exact and choice.model == DEPTHCRAFTER
    if official:  # whose script sees one shot
        clip_choice, wanted = replace(clip_choice, scenes=False), crafter_files(wanted)
        other = {
            f"-o {output}": output == STDIN,
            "--range": bool(files.value_range),
            "metres": metres.choice().is_given,
        }
        for name, given in other.items():
            if given:
                raise UsageError(
                    f"`exact` writes depth from 0 to 1 over the whole clip, {name} does not", "leave it out"
                )
    check_diffusion(choice, clip_choice)
    from depthcli.io.codecs.encode import Look
    from depthcli.io.codecs.outputs import check_extras
    from depthcli.jobs.clip_folder import ClipFolder, listed_clips
    from depthcli.jobs.clip_job import ClipJob
    from depthcli.jobs.find import CLIP, LeftOut, find_inputs
    from depthcli.jobs.name_list import open_list
    from depthcli.jobs.targets import STREAM, Target
    from depthcli.predict.picture import open_cameras, open_clip_metres

    selection, raw = clip.selection(), clip.raw()
    target = Target.of(output)
    streams = target.place == STREAM
    if official and streams:  # a pipe or a device
        raise UsageError(f"`exact` writes files, and -o {output} is a stream", "leave out one")
    spatial = [CLIP_ROWS[name].name for name in wanted if CLIP_ROWS[name].spatial]
    if network.panorama and spatial:
        raise UsageError(f"{spatial[0]} cannot be made of a panorama", "leave out --panorama")
    if streams and metres.choice().is_given:
        raise UsageError(
            f"metres are fitted before a frame is written, and -o {output} is a stream", "write files, such as -f npz"
        )
    check_extras(wanted)
    cameras = open_cameras(camera.choice(), network.panorama)
    in_metres = open_clip_metres(metres.choice(), network.panorama)
    left = LeftOut(CLIP)
    shard, processes, places = parts.part(), parts.processes(), parts.places(backend.device)
    source = _folder_of(clips, parts, target)
    found = find_inputs(clips, CLIP, left)
    chosen = found
    if parts.files_from is not None:
        chosen = listed_clips(found, open_list(parts.files_from), Path(clips[0]))
        found = list({item.relative: item for item in [*found, *chosen]}.values())  # names are decided among all
    if streams and files.formats:
        raise UsageError(f"-f is for files, and -o {output} is a stream", "choose its form with --pipe")
    if streams and len(found) > 1:
        raise UsageError(f"-o {output} takes one clip, not {len(found)}", "give -o a folder")
    jobs = [
        ClipJob(
            source,
            outputs,
            model=choice,
            clip=clip_choice,
            look=Look(files.colors, files.limits),
            selection=selection,
            if_exists=files.if_exists,
            cameras=cameras,
            metres=in_metres,
            solid=shape.choice(),
            **raw,
        )
        for (source, _), outputs in ([(found[0], [])] if streams else _planned(found, chosen, wanted, target, shard))
    ]
    only_here = {
        **{name: getattr(clip, name) is not None for name in ("rate", "size")},
        "exact": official,
    }
    if streams and server.address:
        raise UsageError(f"-o {output} is a stream, and a service writes files", "leave out --server, or name a file")
    client = open_server(server, model, backend, only_here)
    service = None if client is None else _RemoteWork(client, files, clip, network, wanted, camera, metres, shape)
    if service is not None:
        service.check()
    if service and (processes > 1 or places):
        name = "devices" if places else "workers"
        raise UsageError(f"`{name}` is for this machine, and a service does the work", "leave it out, or `server`")
    if streams and (processes > 1 or places):
        raise UsageError(f"-o {output} is a stream, which one process writes", "leave out --workers and --devices")
    folder = None
    if source and target.folder is not None and (len(found) > 1 or parts.shard or parts.files_from):
        folder = ClipFolder(source, target.folder, wanted, shard)
    do_clips(
        jobs,
        output,
        left,
        report,
        files.mix_models,
        files.pipe if streams else "",
        service,
        folder,
        places or ("",) * processes,
        parts.failures(),
    )


def _folder_of(clips: Sequence[str], parts: PartOptions, target: "Target") -> str:
    """Return the folder that the clips are in, "" if they were named otherwise. Raises UsageError for a part of it."""
    is_folder = len(clips) == 1 and os.path.isdir(clips[0])
    name = "shard" if parts.shard is not None else "files_from"
    if parts.shard is not None or parts.files_from is not None:
        if not is_folder:
            raise UsageError(f"`{name}` takes a part of one folder of clips", "name the folder, and no clips")
        if target.folder is None:
            raise UsageError(f"with `{name}` results have a folder of their own", "name it with -o")
    return clips[0] if is_folder else ""


def _planned(
    found: "Sequence[Input]", chosen: "Sequence[Input]", formats: Sequence[str], target: "Target", shard: "Shard"
) -> "Iterator[tuple[Input, list[tuple[str, Path]]]]":
    """Yield the clips to do and their results, whose names do not depend on what is chosen."""
    from depthcli.jobs.targets import plan_clips

    outputs = {item.relative: planned for item, planned in zip(found, plan_clips(found, formats, target))}
    if len(outputs) < len(found):  # clips of one name from several folders, of which none is left out
        yield from zip(found, plan_clips(found, formats, target))
        return
    for item in chosen:
        if shard.has(item.relative.as_posix()):
            yield item, outputs[item.relative]


@dataclass(frozen=True)
class _RemoteWork:
    """A service that does the clips, and the options that it is told."""

    client: "Client"
    files: ClipOutput
    clip: ClipOptions
    network: NetworkOptions
    formats: Sequence[str]
    camera: CameraOptions
    metres: MetresOptions
    shape: ShapeOptions

    def check(self) -> None:
        """Raise UsageError for files that only this machine can read."""
        from depthcli.jobs.remote_folder import space_options

        space_options(self.camera.choice(), self.metres.choice())

    def open(self, job: "ClipJob") -> "RemoteClips":
        """Ask what the service offers, for clips as `job`."""
        from depthcli.jobs.remote_clip import RemoteClips
        from depthcli.jobs.remote_folder import shape_options, space_options

        clip, network = self.clip, self.network
        space = space_options(self.camera.choice(), self.metres.choice())
        options = {
            "colormap": self.files.colors,
            "value_range": self.files.value_range,
            **{name: getattr(clip, name) for name in ("steady", "start", "end", "fps", "stride", "max_frames")},
            "scenes": clip.scenes,
            "exact": 1 if clip.exact else None,
            "panorama": 1 if network.panorama else None,
            "input_size": network.input_size,
            "batch": network.batch,
            **(shape_options(self.shape.choice()) if job.shapes else {}),
        }
        return RemoteClips.of(self.client, job.model, job.clip, self.formats, options, space)


def _open_quietly(model: ModelChoice, clip: ClipChoice, metres: bool, device: str) -> "ClipPredictor":
    """Return the predictor of a process; its notes were printed when the first one loaded the same."""
    from depthcli.predict.clip import open_clip_predictor

    if device:
        clip = replace(clip, backend=replace(clip.backend, device=device))
    return open_clip_predictor(model, clip, metres=metres)


def do_clips(
    jobs: "Sequence[ClipJob]",
    output: Optional[str],
    left: "LeftOut",
    report: ReportOptions,
    mix_models: bool = False,
    pipe: str = "",
    remote: Optional[_RemoteWork] = None,
    folder: "Optional[ClipFolder]" = None,
    places: Sequence[str] = ("",),
    failures: FailureLimit = NO_LIMIT,
) -> None:
    """Do the clips with the model of the first, report them, and leave with the exit code.

    output: as the user gave it. left: what was found and is not taken. mix_models: allow existing results of other
    models. pipe: the form of a stream to `output`; "" for files. remote: the service that does the work. folder: that
    all clips are of. places: the device of each process, "" as the backend has it; one "" is this process. failures:
    that end the run.
    """
    from depthcli.cli.report import stop_signals
    from depthcli.jobs.clip_job import Progress
    from depthcli.jobs.manifest import FAILED, MANIFEST_NAME, Manifest, Result

    manifest = None
    if folder is not None:
        manifest = folder.manifest()
    elif output and len(jobs) > 1:
        manifest = Manifest(Path(output) / MANIFEST_NAME)
    opened: list[ClipPredictor] = []

    def load() -> "ClipPredictor":
        from depthcli.jobs.clip import check_models
        from depthcli.predict.clip import open_clip_predictor
        from depthcli.temporal.denoising import EIGHT
        from depthcli.zoo.rows import DEPTHCRAFTER

        if not opened:
            if manifest is not None:
                manifest.check()
            stop.at_once = True  # a download need not be finished first
            opened.append(open_clip_predictor(jobs[0].model, jobs[0].clip, progress.warn, jobs[0].metres is not None))
            stop.at_once = False
            if not (pipe or mix_models):
                check_models(jobs, opened[0])
            if folder is not None:
                row, weights = opened[0].row, opened[0].weights
                folder.note(jobs[0], row.name, weights.sha256, mix_models or jobs[0].if_exists == "overwrite")
            if pipe and opened[0].row.family == DEPTHCRAFTER:
                latest = jobs[0].clip.diffusion.window + EIGHT
                progress.warn(f"depth comes up to {latest} frames late: each window is denoised as a whole")
            if report.verbose:
                row = opened[0].row
                progress.log(f"model {row.title}, {row.licence}; {opened[0].description}")
        return opened[0]

    @cache
    def ask() -> "RemoteClips":
        assert remote is not None
        if manifest is not None:
            manifest.check()
        service = remote.open(jobs[0])
        if not mix_models:
            service.check_models(jobs)
        if folder is not None:
            known = service.model
            folder.note(jobs[0], known.name, known.weights or "", mix_models or jobs[0].if_exists == "overwrite")
        if report.verbose:
            model = service.model
            progress.log(f"model {model.title}, {model.licence}; {model.description} at {remote.client.address}")
        return service

    def events_of(job: "ClipJob") -> "Events":
        if remote is not None:
            from depthcli.jobs.remote_clip import run_clip_on_service

            return run_clip_on_service(job, ask, lambda: stop.asked, log)
        if pipe:
            from depthcli.jobs.clip_stream import stream_clip

            return stream_clip(job, pipe, load, stream, lambda: stop.asked)
        from depthcli.jobs.clip import run_clip

        return run_clip(job, load, lambda: stop.asked, log)

    at_work: list[ClipJob] = []

    def told() -> "Generator[Union[Progress, Result, str], None, None]":
        """Yield what is to be told of all clips, done here or in several processes."""
        if tuple(places) == ("",):
            for job in jobs:
                if stop.asked:
                    return
                at_work.append(job)
                with closing(events_of(job)) as events:
                    yield from events
            return
        from depthcli.jobs.clip_workers import run_clips, settled_clip

        waiting = []
        for job in jobs:
            settled = settled_clip(job)
            if settled is None:
                waiting.append(job)
            else:
                yield settled
        if waiting and not stop.asked:
            load()  # once here: it may download, convert, or be refused
            opened.pop().close()
            more = jobs[0].model, jobs[0].clip, jobs[0].metres is not None
            yield from run_clips(
                waiting, [partial(_open_quietly, *more, place) for place in places], lambda: stop.asked
            )

    progress = report.clip_report(len(jobs), bool(pipe))
    log = cache(progress.log)  # each line once
    with ExitStack() as stack, progress, stop_signals(report.quiet, "frame") as stop:
        if remote is not None:
            stack.callback(remote.client.close)
            remote.client.log = log
        for line in left.lines():
            log(line)
        stream = stack.enter_context(open_stream(output)) if output and pipe and not is_stdout(output) else None
        try:
            with closing(told()) as events:
                for event in events:
                    if isinstance(event, str):
                        log(event)
                    elif isinstance(event, Progress):
                        progress.progress(event)
                    else:
                        progress.add(event)
                        if manifest is not None and event.status != "skipped":
                            manifest.add(event)
                        if failures.exceeded(progress.counts[FAILED], progress.done):
                            count = progress.counts[FAILED]
                            progress.fail(OutputError(f"{count} clips failed, more than `max_failures` allows"))
                            break
        except DiskFullError as error:
            if not at_work:  # in one of several processes
                raise
            job = at_work[-1]
            failed = Result(job.name, tuple(map(str, job.paths)), FAILED, error=str(error), code=error.exit_code)
            progress.add(failed)
            with suppress(OutputError):  # a line may fit although a film does not
                if manifest is not None:
                    manifest.add(failed)
        progress.clear()
        for predictor in opened:
            predictor.close()
        interrupted = stop.asked and sum(progress.counts.values()) < len(jobs)
        progress.finish(interrupted)
    raise typer.Exit(progress.exit_code(interrupted))
