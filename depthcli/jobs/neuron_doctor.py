"""A report on a machine for AWS Inferentia: what is installed, and whether a small network compiles and runs."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.backends import open_backend
from depthcli.backends.artifact import read_artifact, weights_of
from depthcli.backends.neuron import common
from depthcli.backends.neuron.backend import core_count
from depthcli.backends.neuron.flavours import FLAVOURS, Flavour, targets_here
from depthcli.choices.compiler import CompilerChoice
from depthcli.choices.model import BackendChoice
from depthcli.errors import DepthError, Log, UsageError
from depthcli.host.cores import usable_cores
from depthcli.host.machine import cpu_model
from depthcli.host.memory import free_memory
from depthcli.jobs.compile import LoadedModel, write_network
from depthcli.nets.random_weights import random_weights
from depthcli.zoo.rows import find_row

# Small enough to compile in minutes, large enough to be this network: 362 tokens.
SIDE = 266
SHAPE = (1, SIDE, SIDE)
_PACKAGES = ("torch", "numpy", "protobuf", "torch-neuron", "neuron-cc", "torch-neuronx", "neuronx-cc")
_RUNS = 20


@dataclass(frozen=True)
class Finding:
    """One line of the report. good: None for a neutral fact."""

    name: str
    value: str
    good: Optional[bool] = None


def examine(log: Log, target: Optional[str] = None) -> Iterator[Finding]:
    """Yield the findings; the last steps compile and run vits with random weights at 266x266, if possible.

    log: receives a line for each long step. target: one of FLAVOURS, None for that of this machine. Raises UsageError.
    """
    if target is not None and target not in FLAVOURS:
        raise UsageError(f"`target` {target} has no self-test", f"choose from: {', '.join(FLAVOURS)}")
    flavour = FLAVOURS[target or targets_here(standin=False)[0]]
    yield Finding("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}")
    free = free_memory()
    memory = "unknown" if free is None else f"{free / 1e9:.0f} GB free"
    yield Finding("instance", common.instance_type() or "unknown")
    yield Finding("host", f"{cpu_model()}, {usable_cores()} cores, memory {memory}")
    for package in _PACKAGES:
        yield Finding(package, common.installed_version(package) or "not installed")
    variables = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NEURON")]
    yield Finding("variables", " ".join(variables) or "none of NEURON_*")
    devices = flavour.devices()
    yield Finding("devices", " ".join(devices) or "none: nothing can run here", bool(devices))
    with tempfile.TemporaryDirectory(prefix="depthcli-") as name:
        row = find_row("vits")
        model = LoadedModel.read(row, random_weights(row, Path(name)))
        yield _graph(flavour, model)
        runs = yield from _ready(flavour, "to run", compiler=False)
        compiles = yield from _ready(flavour, "to compile", compiler=True)
        if compiles:
            path = Path(name) / f"doctor_{flavour.target}.pt"
            compiled = yield from _compiled(flavour, model, path, log)
            if compiled and runs and devices:
                yield _speed(path, len(devices) * flavour.cores_per_device)


def _ready(flavour: Flavour, purpose: str, compiler: bool) -> Generator[Finding, None, bool]:
    name = f"{flavour.package}, {purpose}"
    try:
        flavour.require(compiler)
    except DepthError as error:
        yield Finding(name, str(error), False)
        return False
    yield Finding(name, "imports", True)
    return True


def _graph(flavour: Flavour, model: LoadedModel) -> Finding:
    from depthcli.backends.neuron.analysis import analyze

    found = analyze(flavour, model.network, SHAPE)
    text = (
        f"unknown to {flavour.package}: {', '.join(found.unknown) or 'none'}; {found.difference:.1e} from the network"
    )
    return Finding("graph", text, found.passed)


def _compiled(flavour: Flavour, model: LoadedModel, path: Path, log: Log) -> Generator[Finding, None, bool]:
    try:
        result, _ = write_network(model, flavour.target, SHAPE, path, CompilerChoice(timeout=3600), log)
    except DepthError as error:
        yield Finding("compile", str(error), False)
        return False
    yield Finding("compile", f"{SIDE}x{SIDE} in {result.seconds:.0f} s", True)
    if result.device is not None:
        yield Finding("parity", f"{100 * result.device:.2f} % of the standard deviation from the CPU on average", True)
    return True


def _speed(path: Path, cores: int) -> Finding:
    artifact = read_artifact(path)
    try:
        backend = open_backend(
            artifact.row, weights_of(artifact), BackendChoice("neuron", artifacts=path, allow_standin=True)
        )
    except DepthError as error:
        return Finding("run", str(error), False)
    try:
        count = 2 * core_count(os.environ, cores)
        images = np.zeros((count, 3, SIDE, SIDE), np.float32)
        started = time.monotonic()
        for _ in range(_RUNS):
            backend.run({"image": images})
        rate = _RUNS * count / (time.monotonic() - started)
        return Finding("run", f"{rate:.1f} pictures/s through {backend.traits.description}, the network alone", True)
    except DepthError as error:
        return Finding("run", str(error), False)
    finally:
        backend.close()
