"""Backends kept busy: how many pictures a second, the network alone and from file to file."""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from depthcli.backends.artifact import STANDIN
from depthcli.backends.neuron import common
from depthcli.bench.contenders import Contender, reason
from depthcli.bench.rows import Throughput
from depthcli.bench.sample import Sample
from depthcli.bench.throughput import Figures, cost_per_million, figures, measure
from depthcli.errors import EngineError
from depthcli.host.cores import usable_cores
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import read_picture
from depthcli.jobs.folder import run_folder
from depthcli.jobs.picture_job import FolderJob
from depthcli.jobs.targets import Task
from depthcli.pixels.preprocess import to_network_input
from depthcli.predict.model import Model
from depthcli.predict.picture import DepthEstimator
from depthcli.zoo.verify import digest


def measure_throughput(
    sample: Sample, contenders: Sequence[Contender], duration: float, price: Optional[float]
) -> Iterator[Throughput]:
    """Keep each backend with compiled networks busy, or all of them if there is a price. Closes them.

    duration: seconds for each. price: of this machine for an hour.
    """
    for item in contenders:
        if item.choice is None or item.error or item.backend is None:
            continue
        if item.choice.runs_compiled or price is not None:
            yield from _rows_of(sample, item, duration, price)


def _rows_of(sample: Sample, item: Contender, duration: float, price: Optional[float]) -> Iterator[Throughput]:
    row = about = _without_figures(sample, item, price)
    best = 0.0
    try:
        for row, copies in _loads(sample, item, about):
            sample.log(f"throughput: {item.title}, {row.n_models} x {row.workers_per_model}")
            before = time.process_time()
            found = measure(copies, row.workers_per_model, row.batch_size, duration)
            best = max(best, found.throughput_avg)
            yield _with_figures(row, found, time.process_time() - before)
        item.close()  # its cores go to the estimator
        yield _end_to_end(sample, item, row, round(best * duration))
    except Exception as error:  # whatever is wrong with one backend, the others are measured
        yield replace(about, error=reason(error))


def _without_figures(sample: Sample, item: Contender, price: Optional[float]) -> Throughput:
    width, height = sample.plan.input_size
    row = Throughput(
        scope="model",
        name=item.name,
        precision=item.precision,
        simulated=bool(item.choice and item.choice.allow_standin and STANDIN in item.description),
        engine=item.description,
        instance_type=common.instance_type(),
        height=height,
        width=width,
        cost_per_hour=price,
    )
    artifact = item.backend.traits.compiled.get(sample.plan.input_size) if item.backend else None
    if artifact is None:
        return row
    return replace(
        row,
        target=artifact.target,
        model_filename=artifact.path.name,
        model_sha256=digest(artifact.path),
        compiler_args=artifact.compiler_args,
        batch_size=artifact.batch,
    )


def _loads(
    sample: Sample, item: Contender, about: Throughput
) -> Iterator[tuple[Throughput, list[Callable[[], object]]]]:
    """Yield one copy of the network fed by one thread, then all copies with all their threads if there are more."""
    backend = item.backend
    assert backend is not None
    image = to_network_input(read_picture(sample.pictures[0]).rgb, sample.plan)
    batch = np.stack([image] * about.batch_size)
    traits = backend.traits
    copies: list[Callable[[], object]] = [
        functools.partial(backend.run, {"image": batch}, replica=number) for number in range(traits.replicas)
    ]
    yield about, copies[:1]
    if traits.replicas * traits.workers > 1:
        yield replace(about, n_models=traits.replicas, workers_per_model=traits.workers), copies


def _end_to_end(sample: Sample, item: Contender, about: Throughput, count: int) -> Throughput:
    """Run the folder job in this process over `count` pictures, at least two batches."""
    assert item.choice is not None
    sample.log(f"throughput: {item.title}, from file to file")
    model = Model(sample.model.row, sample.model.weights, sample.choice.trust)
    sizes = {plan.input_size for plan in sample.plans}
    with DepthEstimator(model, item.choice, input_size=sample.input_size) as estimator:
        for path, plan in zip(sample.pictures, sample.plans):  # each size is loaded before the clock runs
            if plan.input_size in sizes:
                sizes.discard(plan.input_size)
                estimator.estimate(path)
        count = max(2 * estimator.best_batch, count)
        with tempfile.TemporaryDirectory(dir=sample.folder) as name:
            pictures = itertools.islice(itertools.cycle(sample.pictures), count)
            tasks = [Task(path, str(path), Path(name) / str(number)) for number, path in enumerate(pictures)]
            before, started, calls = time.process_time(), time.perf_counter(), []
            for result in run_folder(FolderJob(tasks=tasks, outputs=OutputSpec()), lambda: estimator):
                if result.error:
                    raise EngineError(result.error)
                ended = time.perf_counter()
                calls.append((ended, result.ms))
    whole = figures([(started, ended) for ended, _ in calls], 1)
    found = replace(whole, seconds=ended - started, latencies_ms=tuple(ms for _, ms in calls))
    return _with_figures(replace(about, scope="end_to_end"), found, time.process_time() - before)


def _with_figures(row: Throughput, found: Figures, cpu: float) -> Throughput:
    return replace(
        row,
        n=found.pictures,
        duration_s=found.seconds,
        throughput_avg=found.throughput_avg,
        throughput_peak=found.throughput_peak,
        latency_ms_p50=found.percentile(50),
        latency_ms_p90=found.percentile(90),
        latency_ms_p95=found.percentile(95),
        latency_ms_p99=found.percentile(99),
        host_cpu_percent=100 * cpu / (found.seconds * usable_cores()),
        cost_per_1m=None if row.cost_per_hour is None else cost_per_million(found.throughput_avg, row.cost_per_hour),
    )
