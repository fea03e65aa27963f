"""Speed of a diffusion model for clips: each of its networks alone, against what the machine can do at best.

A clip through all of them takes minutes a frame on a CPU, so the time of a frame follows from the networks' own: how
often a frame of a long clip passes each of them is known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from depthcli.bench.contenders import LONG_RUNS, MeasuredModel, check_runs, machine_row
from depthcli.bench.rows import Denoising, Load, Roofline, Row
from depthcli.bench.statistics import median
from depthcli.choices.clips import LATENT_MULTIPLE, MOST_RES, DiffusionChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import Log, ModelError, UsageError
from depthcli.host.diffusion_memory import check_diffusion_memory
from depthcli.host.machine import load_average
from depthcli.io.video.reader import open_clip
from depthcli.pixels.preprocess import plan_input
from depthcli.temporal.denoising import EIGHT
from depthcli.zoo.download import obtain
from depthcli.zoo.licences import LicenceError, check_packages, check_usable
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import DEPTHCRAFTER, find_row

if TYPE_CHECKING:
    from depthcli.backends.diffusion import Diffusion

SIZE = 128  # pixels: some seconds a pass on a CPU
_PICTURE = (1024, 576)  # proportions without a clip


@dataclass(frozen=True)
class DenoisingBenchJob:
    """What to measure. Raises UsageError.

    backend: device and precision. max_res: bound of the network input's longer side. clip: whose proportions the input
    has, None for 16:9. frames: of a window. runs: turns, at most LONG_RUNS, after `warmup` that do not count.
    """

    model: ModelChoice = field(default_factory=lambda: ModelChoice(DEPTHCRAFTER))
    backend: BackendChoice = field(default_factory=BackendChoice)
    max_res: int = SIZE
    clip: Optional[Path] = None
    frames: int = EIGHT
    runs: int = LONG_RUNS
    warmup: int = 1

    def __post_init__(self) -> None:
        check_runs(self.runs, self.warmup)
        if not LATENT_MULTIPLE <= self.max_res <= MOST_RES:
            raise UsageError(f"`input_size` must be {LATENT_MULTIPLE} to {MOST_RES}, got {self.max_res}")
        if self.frames < 1:
            raise UsageError(f"`frames` must be at least 1, got {self.frames}")
        if self.backend.backend not in ("auto", "torch"):
            raise UsageError(f"{self.backend.backend} does not run {DEPTHCRAFTER}", "leave out `backend`")


def run_denoising_benchmark(job: DenoisingBenchJob, log: Log = lambda line: None) -> Iterator[Row]:
    """Measure and yield the rows, without downloads. Raises ModelError without the packages that the model needs.

    log: receives lines about the progress. Raises ClipError if the clip cannot be read, PictureError if the networks or
    a window do not fit into the memory.
    """
    before, started = load_average(), time.perf_counter()
    row = find_row(DEPTHCRAFTER).with_input_size(job.max_res)
    check_packages(row)
    size = _PICTURE
    if job.clip is not None:
        with open_clip(job.clip) as clip:
            size = clip.info.size
    plan, choice = plan_input(*size, row.input), DiffusionChoice(max_res=job.max_res)
    weights = _weights(job.model, log)
    from depthcli.backends.diffusion import Diffusion
    from depthcli.bench.limits import SIDES, best_product

    log(f"opening {row.name}")
    backend = Diffusion(weights, job.backend)
    try:
        check_diffusion_memory(backend, DiffusionChoice(window=job.frames, overlap=0), plan, job.frames)
        device, precision = backend.description.split()[-2:]
        model = MeasuredModel(row, weights or WeightsFile(Path(), "", ""), weights is None)
        turns = min(job.runs, LONG_RUNS)
        yield machine_row(model, plan, job.frames, turns, job.warmup, before)
        lines: dict[str, Roofline] = {}
        for kind in dict.fromkeys((precision, "fp32")):  # pixels are encoded in fp32
            log(f"best product in {kind}")
            found = best_product(kind, device, turns, [(side, side, side) for side in SIDES])
            if found is not None:
                lines[kind] = Roofline(kind, device, *found)
        operations = backend.operations(plan.input_size, job.frames)
        seconds = _seconds(backend, plan.input_size, job.frames, turns, job.warmup, log)
        yield from lines.values()  # with the rows that they belong to: tables of an interrupted run show neither
        step = choice.window / (choice.window - choice.overlap)
        often = {"encode": 1.0, "denoise": choice.steps * step, "decode": 1.0}
        for name, each in seconds.items():
            rate = operations[name] / median(each) / 1e9
            line = lines.get("fp32" if name == "encode" else precision)
            yield Denoising(
                network=name,
                engine=backend.description,
                model=row.name,
                random_weights=weights is None,
                input_size=plan.input_size,
                frames=job.frames,
                passes=often[name],
                tflop=operations[name] / 1e12,
                seconds=median(each),
                gflop_s=rate,
                roofline=rate / line.gflop_s if line else None,
            )
    finally:
        backend.close()
    yield Load(before, load_average(), round(time.perf_counter() - started, 1))


def _weights(choice: ModelChoice, log: Log) -> Optional[WeightsFile]:
    """Return the weights, if they are here and may be used; None for random ones."""
    row = find_row(DEPTHCRAFTER)
    try:
        check_usable(row, choice.accept_licence)
        return obtain(row, checkpoint=choice.checkpoint, offline=True, log=log)
    except ModelError as error:
        if choice.checkpoint is not None:
            raise
        why = "its licence was not accepted" if isinstance(error, LicenceError) else "they are not on this machine"
        log(f"no weights of {row.name}, as {why}: random ones take as long and give no depth")
        return None


def _seconds(
    backend: Diffusion, size: tuple[int, int], frames: int, runs: int, warmup: int, log: Log
) -> dict[str, list[float]]:
    """Return the seconds for each frame of every run of the three networks, in turns."""
    width, height = size
    noise = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return noise.standard_normal(shape, dtype=np.float32)

    pixels, grain = normal(3, height, width).clip(-1, 1), normal(3, height, width)
    embedding, latents = backend.encode(pixels, grain)
    window = np.stack([latents] * frames)
    context = np.stack([embedding] * frames)
    z = normal(*window.shape).astype(window.dtype)
    eight = min(frames, EIGHT)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "encode": (1, lambda: backend.encode(pixels, grain)),
        "denoise": (frames, lambda: backend.denoise(z, window, context, 1.0)),
        "decode": (eight, lambda: backend.decode(z[:eight])),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warmup + runs):
        for name, (count, work) in works.items():
            log(f"{name}: {'warm-up' if turn < warmup else f'turn {turn + 1 - warmup} of {runs}'}")
            started = time.perf_counter()
            work()
            found[name].append((time.perf_counter() - started) / count)
    return {name: each[warmup:] for name, each in found.items()}
