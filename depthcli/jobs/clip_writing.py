"""The second pass over a clip: from the spool into all outputs, in the range of the whole clip."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from depthcli.depthmap import Provenance
from depthcli.errors import ClipError
from depthcli.host.cores import usable_cores
from depthcli.io.video.animations import WEBP
from depthcli.io.video.clip import ClipInfo, Frame
from depthcli.io.video.reader import STDIN, open_clip
from depthcli.io.video.spool import Spool, SpooledFrame
from depthcli.io.video.writers import Timing, Writer, video_writer
from depthcli.jobs.clip_job import WRITING, ClipJob, Progress
from depthcli.jobs.clip_making import StoppedError
from depthcli.jobs.clip_show import Show
from depthcli.jobs.pipeline import Lane
from depthcli.zoo.rows import ModelRow

_Shown = tuple[SpooledFrame, dict[str, np.ndarray]]


def write_outputs(
    job: ClipJob,
    info: ClipInfo,
    row: ModelRow,
    provenance: Provenance,
    spool: Spool,
    made_of: Mapping[str, Any],
    stop: Callable[[], bool],
) -> Generator[Progress, None, tuple[str, ...]]:
    """Write all outputs; yield the progress after each frame, and return notes on what could not be kept.

    Raises StoppedError if it was asked to stop: no output that is not whole gets its name.
    """
    assert spool.ended is not None
    show = _show(job, info, row, provenance, spool.ended)
    with ExitStack() as stack:
        writers = _open_writers(stack, job, info, show, spool, made_of)
        sources: Iterator[Optional[Frame]] = iter(lambda: None, 0)
        if job.needs_source:
            sources = stack.enter_context(open_clip(job.source, job.rate, job.size)).frames(job.selection)
        done = 0
        for frame, pictures in _pictures(stack, show, writers, zip(spool.read(), sources)):
            for name, writer in writers.items():
                if name in pictures:
                    writer.write(pictures[name], frame.time, frame.duration)
                else:
                    writer.skip(frame.time, frame.duration)
            done += 1
            yield Progress(info.name, WRITING, done, spool.ended["frames"])
            if stop():
                raise StoppedError
        if done != spool.ended["frames"]:
            raise ClipError(f"{info.name} has changed while it was read", "start the same command again")
    lost = ("the sound was left out, as the clip came on stdin",) if info.audio and job.source == STDIN else ()
    return (*lost, *dict.fromkeys(note for writer in writers.values() for note in writer.notes))


def _show(job: ClipJob, info: ClipInfo, row: ModelRow, provenance: Provenance, ended: Mapping[str, Any]) -> Show:
    low, high = job.value_range or ended["range"]
    extremes = ended["min"], ended["max"]
    return Show(info.size, row, provenance, (low, high), job.colormap, extremes, job.settings_text, ended["damage"])


def _open_writers(
    stack: ExitStack, job: ClipJob, info: ClipInfo, show: Show, spool: Spool, made_of: Mapping[str, Any]
) -> dict[str, Writer]:
    """Return the writer of each output, closed by the stack."""
    timing = Timing.of(info, job.selection)
    # Sound and subtitles: a folder, an animated WebP or stdin has none to take along, and a clip that has gone neither.
    along = job.source != STDIN and os.path.isfile(job.source) and info.codec != WEBP
    source, whole = Path(job.source) if along else None, job.selection.whole
    numbers = () if job.selection.fps is not None else info.numbers
    number_of = (lambda moment: numbers[round(moment * info.rate)]) if numbers else None
    orders = [(name, path, show.size(name), timing, show.facts(name)) for name, path in job.outputs]
    keep = spool.was_writing({"files": [(name, path.name, facts) for name, path, _, _, facts in orders]})
    return {
        order[0]: stack.enter_context(video_writer(*order, source, info.pixel_aspect, made_of, number_of, keep, whole))
        for order in orders
    }


def _pictures(
    stack: ExitStack,
    show: Show,
    writers: Mapping[str, Writer],
    pairs: Iterator[tuple[SpooledFrame, Optional[Frame]]],
) -> Iterator[_Shown]:
    """Yield each frame with the pictures its writers do not have yet, made by several threads."""
    lane = stack.enter_context(Lane[_Shown](max(1, usable_cores() - 1)))
    for index, (frame, source) in enumerate(pairs):
        names = [name for name, writer in writers.items() if not writer.has(index, frame.time)]
        lane.put(_shown, show, names, frame, source)
        if len(lane) > usable_cores():
            yield lane.take()
    while lane:
        yield lane.take()


def _shown(show: Show, names: Sequence[str], frame: SpooledFrame, source: Optional[Frame]) -> _Shown:
    pictures = show.pictures(names, frame.values, None if source is None else source.rgb) if names else []
    return frame, dict(zip(names, pictures))
