"""What every benchmark needs: a model, the backends that run it, and the facts about this machine."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from depthcli.backends import BACKENDS, Backend
from depthcli.bench.flops import network_flops
from depthcli.bench.own_process import Ended
from depthcli.bench.rows import Machine
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import CheckpointError, DepthError, Log, ModelError, UsageError
from depthcli.host import fastest
from depthcli.host.cores import compute_threads, usable_cores
from depthcli.host.graph_cache import FOLDER_VARIABLE
from depthcli.host.machine import cpu_flags, cpu_model, versions
from depthcli.pixels.preprocess import InputPlan
from depthcli.predict.model import resolve_model
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import DEPTHCRAFTER, ModelRow, ModelTask, find_row, is_row, select_row

# Measurements that take seconds are repeated no more often than this, whatever `runs` is.
LONG_RUNS = 3
_MEGABYTE = 1e6


@dataclass(frozen=True)
class MeasuredModel:
    """The model that is measured. random: its weights are random, as the real ones are not on this machine."""

    row: ModelRow
    weights: WeightsFile
    random: bool = False

    def options(self, choice: BackendChoice, input_size: int, trust: bool) -> tuple[str, ...]:
        """Return the options of a command that runs this network on a backend, without a download."""
        checkpoint = () if choice.runs_compiled else ("--checkpoint", str(self.weights.path))
        model = ("--model", self.row.name, *checkpoint, "--offline")
        backend = ("--backend", choice.backend, "--device", choice.device, "--precision", choice.precision)
        return (*model, *backend, "--input-size", str(input_size), *(("--trust-checkpoint",) if trust else ()))


@dataclass
class Contender:
    """A backend in the comparison.

    choice: None for the official code's network. name, precision: as chosen, then as opened. description, device: of
    the opened backend. open_s: seconds to load the network. times: milliseconds per input size (width, height), turn by
    turn. processes: in the order they ran. error: why it failed, or empty.
    """

    name: str
    choice: Optional[BackendChoice]
    precision: str
    backend: Optional[Backend] = None
    description: str = ""
    device: str = ""
    open_s: Optional[float] = None
    error: str = ""
    times: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    processes: list[Ended] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name and precision."""
        return f"{self.name} {self.precision}"

    def close(self) -> None:
        """Free the backend; closing twice is allowed."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None


def each_backend(names: Sequence[str]) -> list[str]:
    """Return names of backends, each once and in order. "all" stands for those that run checkpoints."""
    every = [name for name in BACKENDS if not BackendChoice(name).runs_compiled]
    return list(dict.fromkeys(name for item in names for name in (every if item == "all" else (item,))))


def check_runs(runs: int, warmup: int) -> None:
    """Raise UsageError for numbers of runs that measure nothing."""
    if runs < 1:
        raise UsageError(f"`runs` must be at least 1, got {runs}")
    if warmup < 0:
        raise UsageError(f"`warmup` must be at least 0, got {warmup}")


def measured_model(
    choice: ModelChoice, folder: Path, log: Log, compiled: Optional[BackendChoice] = None, clips: bool = False
) -> MeasuredModel:
    """Return the chosen model with weights that are on this machine, else with random ones.

    folder: for random weights. compiled: take the model of the networks compiled for this backend. clips: allow a video
    model. Raises UsageError or ModelError, EngineError if there is no compiled network.
    """
    if compiled is not None:
        found = resolve_model(choice, log, backend=compiled)
        return MeasuredModel(found.row, found.weights)
    if choice.model == DEPTHCRAFTER:
        raise UsageError(f"{DEPTHCRAFTER} is for clips", "add `video`")
    if choice == ModelChoice():
        choice = replace(choice, encoder="vits")
    try:
        tasks = tuple(ModelTask) if clips else (ModelTask.PICTURE, ModelTask.SCENE)
        found = resolve_model(replace(choice, offline=True), log, tasks=tasks)
        return MeasuredModel(found.row, found.weights)
    except CheckpointError:
        raise
    except ModelError:
        named = choice.model
        if choice.checkpoint is not None or not (named is None or is_row(named)):
            raise
    encoder = "vits" if choice.encoder == "auto" else choice.encoder
    row = find_row(named) if named else select_row(encoder, choice.metric)
    from depthcli.nets.random_weights import random_weights

    log(f"the weights of {row.name} are not on this machine: random ones take as long and give no depth")
    return MeasuredModel(row, random_weights(row, folder), random=True)


def machine_row(
    model: MeasuredModel, plan: InputPlan, pictures: int, runs: int, warmup: int, load: Optional[float]
) -> Machine:
    """Return the head of a result: this machine, the model, and the pictures that it is measured with."""
    row = model.row
    return Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        threads=compute_threads(),
        flags=cpu_flags(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions(),
        model=row.name,
        title=row.title,
        random_weights=model.random,
        pictures=pictures,
        picture_size=plan.picture_size,
        input_size=plan.input_size,
        # Operations of video models are not counted: they share only a part with picture models.
        gflop=None if row.task is ModelTask.CLIP else network_flops(row.network, *plan.input_size) / 1e9,
        runs=runs,
        warmup=warmup,
        load=load,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def reason(error: Exception) -> str:
    """Return why a backend failed, in one line; an unforeseen error is named by its class too."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if isinstance(error, DepthError) else f"{type(error).__name__}: {line}"


def peak_megabytes(runs: Sequence[Ended]) -> Optional[float]:
    """Return the largest memory of some processes, in 1e6 bytes; None if the system does not tell."""
    peaks = [ended.peak for ended in runs if ended.peak]
    return max(peaks) / _MEGABYTE if peaks else None


@contextlib.contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Keep converted networks in this folder: the first run is a first run, and the user's cache stays as it is.

    What `auto` takes is known there too.
    """
    before = os.environ.get(FOLDER_VARIABLE)
    known = fastest.every()
    os.environ[FOLDER_VARIABLE] = str(folder)
    for item in known:
        fastest.remember(item)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(FOLDER_VARIABLE, None)
        else:
            os.environ[FOLDER_VARIABLE] = before
