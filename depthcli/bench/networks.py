"""The network alone in each backend, in turns, and the stages around it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.bench.contenders import LONG_RUNS, Contender, reason
from depthcli.bench.flops import network_flops
from depthcli.bench.rows import Network, Roofline, Row, Stages
from depthcli.bench.sample import Sample
from depthcli.bench.statistics import median, p90, spread, times_faster
from depthcli.errors import EngineError
from depthcli.io.codecs.files import write_still
from depthcli.io.codecs.formats import STILLS
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.pixels.postprocess import to_depth_map
from depthcli.pixels.preprocess import InputPlan, to_network_input

STAGES = ("read", "prepare", "run", "finish", "write")


def measure_networks(sample: Sample, contenders: Sequence[Contender], warmup: int, runs: int) -> Iterator[Row]:
    """Time the backends in turns; yield their rows, the rooflines and the stages. Raises EngineError if none runs."""
    from depthcli.bench.limits import limit_rows  # loads torch

    rooflines = _rooflines(sample, contenders, min(runs, LONG_RUNS))
    stages: dict[str, list[float]] = {name: [] for name in STAGES if name != "run"}
    picture = read_picture(sample.pictures[0])
    time_in_turns(sample, contenders, picture, sample.plan, warmup, runs, stages)
    for precision, line in _rooflines(sample, contenders, min(runs, LONG_RUNS)).items():
        if precision not in rooflines or line.gflop_s > rooflines[precision].gflop_s:
            rooflines[precision] = line
    reference = next((item for item in contenders if not item.error), None)
    gflop = network_flops(sample.model.row.network, *sample.plan.input_size) / 1e9
    for item in contenders:
        yield _network_row(item, reference, sample.plan.input_size, gflop, rooflines)
    if reference is None:
        raise EngineError(contenders[0].error)
    yield from rooflines.values()
    yield from limit_rows(sample, contenders, rooflines, min(runs, LONG_RUNS))
    yield from _stage_rows(contenders, sample.plan.input_size, stages)


def time_in_turns(
    sample: Sample,
    contenders: Sequence[Contender],
    picture: Picture,
    plan: InputPlan,
    warmup: int,
    runs: int,
    stages: Optional[dict[str, list[float]]] = None,
) -> None:
    """Run each backend once in every turn and add its milliseconds to `times`; a backend that fails drops out.

    stages: also receives the milliseconds of the other stages. None leaves them and the peers out.
    """
    inputs = {"image": to_network_input(picture.rgb, plan)[None]}
    output: Optional[np.ndarray] = None
    width, height = plan.input_size
    count = sum(not item.error for item in contenders)
    sample.log(f"network at {width}x{height}: {warmup} + {runs} turns of {count} backends")
    for turn in range(-warmup, runs):
        for item in contenders:
            if item.error or item.backend is None or (stages is None and item.choice is None):
                continue
            try:
                if turn == -warmup:
                    item.backend.check(plan, 1)
                started = time.perf_counter()
                answer = item.backend.run(inputs, item.backend.traits.graphs[0])["depth"][0]
                milliseconds = 1000 * (time.perf_counter() - started)
            except Exception as error:  # whatever is wrong with one backend, the others are measured
                item.error = reason(error)
                continue
            output = answer if output is None else output
            if turn >= 0:
                item.times.setdefault(plan.input_size, []).append(milliseconds)
        if stages is not None and output is not None:
            around = _other_stages(sample, sample.pictures[0], plan, output)
            for name, milliseconds in around.items() if turn >= 0 else ():
                stages[name].append(milliseconds)


def time_all_sizes(sample: Sample, contenders: Sequence[Contender], runs: int) -> None:
    """Time the backends at the input sizes that the first picture does not have."""
    done = {sample.plan.input_size}
    for path, plan in zip(sample.pictures, sample.plans):
        if plan.input_size not in done:
            time_in_turns(sample, contenders, read_picture(path), plan, 1, runs)
            done.add(plan.input_size)


def _rooflines(sample: Sample, contenders: Sequence[Contender], runs: int) -> dict[str, Roofline]:
    """Measure the best matrix product in each precision that a backend computes in."""
    from depthcli.bench.limits import best_product, product_shapes

    shapes = product_shapes(sample.model.row.network, *sample.plan.input_size)
    lines: dict[str, Roofline] = {}
    for item in contenders:
        if item.error or item.precision in lines:
            continue
        sample.log(f"matrix products in {item.precision}")
        best = best_product(item.precision, item.device, runs, shapes)
        if best is not None:
            lines[item.precision] = Roofline(item.precision, item.device, *best)
    return lines


def _network_row(
    item: Contender,
    reference: Optional[Contender],
    size: tuple[int, int],
    gflop: float,
    rooflines: Mapping[str, Roofline],
) -> Network:
    row = Network(
        name=item.name,
        backend=item.choice.backend if item.choice else "",
        precision=item.precision,
        engine=item.description,
        error=item.error,
    )
    if item.error or reference is None:
        return row
    times = item.times[size]
    speed = gflop / (median(times) / 1000)
    line = rooflines.get(item.precision)
    return replace(
        row,
        faster=times_faster(reference.times[size], times),
        reference=reference.title,
        median_ms=median(times),
        p90_ms=p90(times),
        min_ms=min(times),
        spread=spread(times),
        gflop_s=speed,
        roofline=speed / line.gflop_s if line else None,
        open_s=item.open_s,
    )


def _other_stages(sample: Sample, path: Path, plan: InputPlan, output: np.ndarray) -> dict[str, float]:
    """Return the milliseconds of each stage before and after the network."""
    times = [time.perf_counter()]
    picture = read_picture(path)
    times.append(time.perf_counter())
    to_network_input(picture.rgb, plan)
    times.append(time.perf_counter())
    depth = to_depth_map(output, plan, sample.model.row)
    times.append(time.perf_counter())
    write_still(STILLS["color"], depth, io.BytesIO())
    times.append(time.perf_counter())
    names = [name for name in STAGES if name != "run"]
    return {name: 1000 * (after - before) for name, before, after in zip(names, times, times[1:])}


def _stage_rows(
    contenders: Sequence[Contender], size: tuple[int, int], others: Mapping[str, Sequence[float]]
) -> Iterator[Stages]:
    around = {f"{name}_ms": median(times) for name, times in others.items()}
    rest = [sum(turn) for turn in zip(*others.values())]
    reference: Optional[tuple[str, list[float]]] = None
    for item in contenders:
        if item.error or item.choice is None:
            continue
        times = item.times[size]
        totals = [run + other for run, other in zip(times, rest)]
        reference = reference or (item.title, totals)
        yield Stages(
            name=item.name,
            precision=item.precision,
            faster=times_faster(reference[1], totals),
            reference=reference[0],
            total_ms=median(totals),
            run_ms=median(times),
            **around,
        )
