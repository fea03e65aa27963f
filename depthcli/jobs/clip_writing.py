"""The second pass over a clip: from the spool into all outputs, in the range of the whole clip."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

from depthcli.errors import ClipError, StoppedError
from depthcli.host.cores import usable_cores
from depthcli.io.codecs.facts import facts_of_clip
from depthcli.io.names import STDIN
from depthcli.io.video.animations import WEBP
from depthcli.io.video.clip import ClipInfo, Frame
from depthcli.io.video.clip_output import ClipOutput, FrameWriter, Timing
from depthcli.io.video.reader import open_clip
from depthcli.io.video.spool import Spool, SpooledFrame
from depthcli.io.video.writers import video_writer
from depthcli.jobs.clip_frames import ClipFrames, clip_frames
from depthcli.jobs.clip_job import WRITING, ClipJob, Progress
from depthcli.jobs.clip_shots import ShownClip
from depthcli.jobs.pipeline import Lane

_Encoded = tuple[SpooledFrame, Mapping[Path, Any]]


def write_outputs(
    job: ClipJob,
    clip: ShownClip,
    spool: Spool,
    made_of: Mapping[str, Any],
    stop: Callable[[], bool],
) -> Generator[Progress, None, tuple[str, ...]]:
    """Write all outputs; yield the progress after each frame, and return notes on what could not be kept.

    Raises StoppedError if it was asked to stop; unfinished outputs do not appear.
    """
    assert spool.ended is not None
    info, damage = clip.info, job.worded(spool.ended["damage"])
    facts = facts_of_clip(
        clip.kind, clip.extremes, info.size, clip.provenance, clip.max_depth, job.settings_text, damage, clip.camera
    )
    shows = clip_frames(job, clip, job.look.range or clip.range, {**facts, **clip.facts})

    def encoded(paths: Sequence[Path], frame: SpooledFrame, source: Optional[Frame]) -> _Encoded:
        return frame, shows.pixels(paths, frame, source) if paths else {}

    with ExitStack() as stack:
        writers = _open_writers(stack, job, info, shows, spool, made_of)
        sources: Iterator[Optional[Frame]] = iter(lambda: None, 0)
        if job.needs_source:
            sources = stack.enter_context(open_clip(job.source, job.rate, job.size)).frames(job.selection)
        done = 0
        for frame, pixels in _pictures(stack, encoded, writers, zip(spool.read(), sources)):
            for path, writer in writers.items():
                if path in pixels:
                    writer.write(pixels[path], frame.time, frame.duration)
                else:
                    writer.skip(frame.time, frame.duration)
            done += 1
            yield Progress(info.name, WRITING, done, spool.ended["frames"])
            if stop():
                raise StoppedError
        if done != spool.ended["frames"]:
            raise ClipError(f"{info.name} has changed while it was read", "start the same command again")
    lost = ("the sound was left out, as the clip came on stdin",) if info.audio and job.source == STDIN else ()
    return (*lost, *dict.fromkeys(note for writer in writers.values() for note in writer.notes), *shows.notes)


def _open_writers(
    stack: ExitStack,
    job: ClipJob,
    info: ClipInfo,
    shows: ClipFrames,
    spool: Spool,
    made_of: Mapping[str, Any],
) -> dict[Path, FrameWriter]:
    """Return the writer of each output, closed by the stack. shows: their sizes and facts."""
    # Sound and subtitles: a folder, an animated WebP or stdin has none to take along, and a clip that has gone neither.
    along = job.source != STDIN and os.path.isfile(job.source) and info.codec != WEBP
    numbers = () if job.selection.fps is not None else info.numbers
    common = ClipOutput(
        *job.outputs[0],
        size=info.size,
        timing=Timing.of(info, job.selection),
        facts={},
        source=Path(job.source) if along else None,
        whole=job.selection.whole,
        pixel_aspect=info.pixel_aspect,
        made_of=made_of,
        frames=spool.ended["frames"] if spool.ended else None,
        number_of=(lambda moment: numbers[round(moment * info.rate)]) if numbers else None,
    )
    outputs = [shows.output(common, name, path) for name, path in job.outputs]
    keep = spool.was_writing({"files": [(output.format, output.path.name, output.facts) for output in outputs]})
    return {output.path: stack.enter_context(video_writer(replace(output, keep=keep))) for output in outputs}


def _pictures(
    stack: ExitStack,
    encode: Callable[[Sequence[Path], SpooledFrame, Optional[Frame]], _Encoded],
    writers: Mapping[Path, FrameWriter],
    pairs: Iterator[tuple[SpooledFrame, Optional[Frame]]],
) -> Iterator[_Encoded]:
    """Yield each frame with the pixels its writers do not have yet, made by several threads."""
    lane = stack.enter_context(Lane[_Encoded](max(1, usable_cores() - 1)))
    for index, (frame, source) in enumerate(pairs):
        paths = [path for path, writer in writers.items() if not writer.has(index, frame.time)]
        lane.put(encode, paths, frame, source)
        if len(lane) > usable_cores():
            yield lane.take()
    while lane:
        yield lane.take()
