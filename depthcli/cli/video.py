"""`depth video`: clips of any length to steady depth, continuing where an earlier run stopped."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from contextlib import ExitStack, closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.cli.groups import grouped, option
from depthcli.cli.options import BackendOptions, ClipOptions, ClipOutput, ModelOptions, NetworkOptions, ReportOptions
from depthcli.cli.streams import is_stdout, open_stream
from depthcli.errors import DiskFullError, OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.predict.clip_predictors import ClipPredictor


@grouped()
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
    model: ModelOptions,
    network: NetworkOptions,
    backend: BackendOptions,
) -> None:
    """Estimate the depth of clips: steady, with the clip's size, times and sound.

    depth video clip.mp4                            writes clip_depth.mp4
    depth video clip.mp4 -f mp4,ffv1 -o out/        colour to look at, and 16-bit gray to work with
    depth video day1 -o day1_depth                  a folder of clips
    ffmpeg -i in.mov -f yuv4mpegpipe - | depth video - -o - | ffplay -

    The same command continues an interrupted run and ends with the same files.
    A damaged clip is done as far as it can be read, and named.
    """
    from depthcli.cli.report import stop_signals
    from depthcli.io.codecs.codes import Look
    from depthcli.jobs.clip import check_models, run_clip
    from depthcli.jobs.clip_job import ClipJob, Progress
    from depthcli.jobs.clip_stream import stream_clip
    from depthcli.jobs.find import CLIP, LeftOut, find_inputs
    from depthcli.jobs.manifest import FAILED, MANIFEST_NAME, Manifest, Result
    from depthcli.jobs.targets import STREAM, Target, plan_clips
    from depthcli.predict.clip import open_clip_predictor

    wanted = files.check()
    choice, clip_choice, selection, raw = model.choice(), clip.choice(network, backend), clip.selection(), clip.raw()
    target = Target.of(output)
    streams = target.place == STREAM
    left = LeftOut(CLIP)
    found = find_inputs(clips, CLIP, left)
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
            **raw,
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
            opened.append(open_clip_predictor(choice, clip_choice, progress.warn))
            stop.at_once = False
            if not (streams or files.mix_models):
                check_models(jobs, opened[0])
            if report.verbose:
                row = opened[0].row
                progress.log(f"model {row.title}, {row.licence}; {opened[0].description}")
        return opened[0]

    progress = report.clip_report(len(jobs), streams)
    log = cache(progress.log)  # each line once
    with ExitStack() as stack, progress, stop_signals(report.quiet, "frame") as stop:
        for line in left.lines():
            log(line)
        stream = stack.enter_context(open_stream(output)) if output and streams and not is_stdout(output) else None
        for job in jobs:
            if stop.asked:
                break
            events = (
                stream_clip(job, files.pipe, load, stream, lambda: stop.asked)
                if streams
                else run_clip(job, load, lambda: stop.asked, log)
            )
            try:
                with closing(events):
                    for event in events:
                        if isinstance(event, Progress):
                            progress.progress(event)
                        else:
                            progress.add(event)
                            if manifest is not None and event.status != "skipped":
                                manifest.add(event)
            except DiskFullError as error:
                failed = Result(job.name, tuple(map(str, job.paths)), FAILED, error=str(error), code=error.exit_code)
                progress.add(failed)
                with suppress(OutputError):  # a line may fit although a film does not
                    if manifest is not None:
                        manifest.add(failed)
                break
        progress.clear()
        for predictor in opened:
            predictor.close()
        interrupted = stop.asked and sum(progress.counts.values()) < len(jobs)
        progress.finish(interrupted)
    raise typer.Exit(progress.exit_code(interrupted))
