"""Whole processes: `depth image` for one picture and `depth dir` for a folder, from start to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from depthcli.bench.contenders import Contender, peak_megabytes
from depthcli.bench.networks import time_all_sizes
from depthcli.bench.own_process import Ended
from depthcli.bench.rows import Folder, Process
from depthcli.bench.sample import Sample
from depthcli.bench.statistics import median, times_faster

if TYPE_CHECKING:
    from depthcli.bench.peers import OfficialNetwork

OFFICIAL_LOOP = "official script's loop"


def time_processes(sample: Sample, contenders: Sequence[Contender], runs: int) -> None:
    """Time `depth image`: first once for each backend, without converted networks, then all in turns."""
    for turn in range(1 + runs):
        for number, item in enumerate(contenders):
            assert item.choice is not None  # peers have no command
            if item.processes and item.processes[-1].error:
                continue
            sample.log(f"whole process: {item.title}, {turn + 1} of {1 + runs}")
            target = sample.folder / f"process-{number}.png"
            item.processes.append(sample.depth("image", sample.pictures[0], target, item.choice))


def process_rows(contenders: Sequence[Contender]) -> Iterator[Process]:
    """Yield the rows of `time_processes`."""
    reference: Optional[tuple[str, list[float]]] = None
    for item in contenders:
        if item.choice is None:
            continue
        first, *again = item.processes
        row = Process(name=item.name, precision=item.precision, error=item.processes[-1].error)
        if row.error:
            yield row
            continue
        seconds = [ended.seconds for ended in again]
        reference = reference or (item.title, seconds)
        yield replace(
            row,
            faster=times_faster(reference[1], seconds),
            reference=reference[0],
            first_s=first.seconds,
            again_s=median(seconds),
            peak_mb=peak_megabytes(again),
        )


def measure_folders(
    sample: Sample, contenders: Sequence[Contender], folder: Path, official: Optional[OfficialNetwork], runs: int
) -> Iterator[Folder]:
    """Time `depth dir` over the pictures, in turns with the official script's loop if there is one. Closes backends."""
    racing = [item for item in contenders if item.choice is not None and not item.error]
    time_all_sizes(sample, contenders, runs)
    for item in contenders:  # the commands have the memory to themselves
        if item.backend is not official:
            item.close()
    format = "side" if official else "color"
    ended: dict[int, list[Ended]] = {number: [] for number in range(len(racing))}
    loop: list[tuple[float, int]] = []
    for turn in range(runs):
        counted = f"{turn + 1} of {runs}"
        for number, item in enumerate(racing):
            assert item.choice is not None
            sample.log(f"folder: {item.title}, {counted}")
            target = sample.folder / f"folder-{number}-{turn}"
            ended[number].append(sample.depth("dir", folder, target, item.choice, "-f", format))
        if official is not None:
            from depthcli.bench.peers import official_loop

            sample.log(f"folder: {OFFICIAL_LOOP}, {counted}")
            target = sample.folder / f"loop-{turn}"
            target.mkdir()
            loop.append(official_loop(official, sample.pictures, target, sample.input_size))
    yield from _folder_rows(sample, format, racing, ended, loop)


def _folder_rows(
    sample: Sample,
    format: str,
    racing: Sequence[Contender],
    runs: Mapping[int, Sequence[Ended]],
    loop: Sequence[tuple[float, int]],
) -> Iterator[Folder]:
    # Seconds per picture, as OpenCV may not read all of them.
    reference: Optional[tuple[str, list[float]]] = None
    if loop:
        reference = (OFFICIAL_LOOP, [seconds / max(done, 1) for seconds, done in loop])
        row = Folder(OFFICIAL_LOOP, "fp32", format, loop[0][1])
        yield _timed(row, [seconds for seconds, _ in loop], 1.0, reference[0])
    count = len(sample.pictures)
    for number, item in enumerate(racing):
        ended = runs[number]
        row = Folder(item.name, item.precision, format, count)
        failed = next((one.error for one in ended if one.error), "")
        if failed:
            yield replace(row, error=failed)
            continue
        seconds = [one.seconds for one in ended]
        each = [one / count for one in seconds]
        reference = reference or (item.title, each)
        row = _timed(row, seconds, times_faster(reference[1], each), reference[0])
        assert row.seconds is not None
        network = sum(median(item.times[plan.input_size]) for plan in sample.plans) / 1000
        yield replace(row, network_s=network, over_network=row.seconds / network, peak_mb=peak_megabytes(ended))


def _timed(row: Folder, seconds: Sequence[float], faster: float, reference: str) -> Folder:
    whole = median(seconds)
    return replace(
        row,
        faster=faster,
        reference=reference,
        seconds=whole,
        seconds_per_picture=whole / max(row.pictures, 1),
        pictures_per_second=row.pictures / whole,
    )
