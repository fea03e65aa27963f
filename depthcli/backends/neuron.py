"""AWS Inferentia: networks that `depth compile --target inf1` wrote, one replica on each NeuronCore.

Not run on a device so far: proven against a stand-in of torch_neuron (docs/neuron.md). Nothing falls back to the CPU:
off a device such a file would compute nonsense, so it is not even loaded there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.backends import Arrays, EngineChoice, inf1
from depthcli.backends.artifact import Artifact, CompiledNetworks
from depthcli.errors import DeviceLostError, EngineError, first_line
from depthcli.preprocess import InputPlan
from depthcli.weights import Talk, WeightsFile
from depthcli.zoo import ModelRow

_CORES_PER_DEVICE = 4
# AWS's own benchmarks feed each core from two threads, so that it never waits for the host.
_THREADS_PER_CORE = 2
# One failure is a hiccup and two are a picture's misfortune; so many in a row are a device that is gone.
_FAILURES = 5


class Neuron:
    """The compiled networks of one model, on all cores that this process may have."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: EngineChoice, trust: bool, talk: Talk) -> None:
        if choice.precision != "auto":
            raise EngineError(
                f"a network for Inferentia computes as it was compiled, not in {choice.precision}",
                "leave --precision out, and see --fast-math of depth compile",
            )
        if choice.device != "auto":
            raise EngineError(f"neuron runs on NeuronCores, not on {choice.device}", "leave --device out")
        self._networks = CompiledNetworks(choice.artifacts, "inf1", choice.shape_policy, row, weights)
        if not inf1.devices():
            raise EngineError(
                "no Neuron device on this host; compiled artifacts cannot run on CPU (results would be invalid)",
                "run this on an Inf1 machine with the aws-neuronx-dkms driver, or use another --backend",
            )
        # Read when the runtime starts, which is with the import.
        os.environ.setdefault("NEURON_RT_LOG_LEVEL", "ERROR")
        os.environ.setdefault("NEURON_PROCESS_TAG", "depthcli")
        inf1.require(compiler=False)
        for artifact in self._networks.artifacts:
            _check_versions(artifact, talk)
        self._cores = core_count(os.environ, len(inf1.devices()))
        self._pool: Optional[ThreadPoolExecutor] = ThreadPoolExecutor(_THREADS_PER_CORE * self._cores)
        self._failures = 0
        self.description = f"neuron {inf1.versions()['torch_neuron']} inf1 {self._cores} cores"

    @property
    def best_batch(self) -> int:
        """How many pictures keep all cores busy."""
        return _THREADS_PER_CORE * self._cores * max(artifact.batch for artifact in self._networks.artifacts)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a size that was compiled. Raises EngineError where there is none for the picture."""
        return self._networks.fit(plan)

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise EngineError where no network was compiled for this size; what it needs was settled by the compiler."""
        self._networks.of(plan.input_size)

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}, the batch spread over the cores.

        A run that fails is tried once more. Raises EngineError where it fails again, and DeviceLostError after several
        of those in a row.
        """
        if self._pool is None:
            raise EngineError("this estimator is closed", "open another one")
        images = np.ascontiguousarray(inputs["image"])
        artifact = self._networks.of((images.shape[3], images.shape[2]))
        replicas: _Replicas = self._networks.loaded(artifact, self._load)
        parts = [images[start : start + artifact.batch] for start in range(0, len(images), artifact.batch)]
        futures = [self._pool.submit(replicas.run, part, number % self._cores) for number, part in enumerate(parts)]
        depth: list[np.ndarray] = []
        errors: list[Exception] = []
        for future in futures:  # all of them end before anything is raised
            try:
                depth.append(future.result())
            except Exception as error:  # whatever the runtime raises
                errors.append(error)
        if not errors:
            self._failures = 0
            return {"depth": np.concatenate(depth)}
        self._failures = self._failures + 1 if len(parts) == 1 else self._failures
        if self._failures >= _FAILURES:
            raise DeviceLostError(
                f"the Neuron device failed {self._failures} times in a row: {first_line(errors[0])}",
                "see neuron-top and dmesg; the same command goes on where this one stopped",
            ) from errors[0]
        raise EngineError(f"the Neuron device failed twice: {first_line(errors[0])}") from errors[0]

    def close(self) -> None:
        """Free the cores; closing twice is no error."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
        self._networks.close()

    def _load(self, artifact: Artifact) -> _Replicas:
        """Return one replica per core: the runtime puts each on the core that has least to do.

        One after the other, in this thread, as AWS has it.
        """
        networks = []
        for _ in range(self._cores):
            try:
                networks.append(load_network(artifact))
            except RuntimeError as error:
                if re.search(r"NeuronCore\(s\) not available|nrt_allocate_neuron_cores", str(error)):
                    raise EngineError(
                        "NeuronCores are held by another process (see neuron-ls)",
                        "set NEURON_RT_NUM_CORES or NEURON_RT_VISIBLE_CORES",
                    ) from error
                raise EngineError(f"{artifact.path} does not load: {first_line(error)}", "compile it again") from error
        replicas = _Replicas(artifact, networks)
        image = np.zeros((artifact.batch, 3, artifact.height, artifact.width), np.float32)
        for core in range(self._cores):  # the first call of each is slow
            replicas.run(image, core)
        return replicas


@dataclass(frozen=True)
class _Replicas:
    artifact: Artifact
    networks: Sequence[Any]

    def run(self, images: np.ndarray, core: int) -> np.ndarray:
        """Return (n, H, W) float32 for up to a compiled batch of pictures; a failure is tried once more."""
        import torch

        batch = torch.zeros((self.artifact.batch, 3, self.artifact.height, self.artifact.width))
        batch[: len(images)] = torch.from_numpy(images)
        for last in (False, True):
            try:
                with torch.no_grad():
                    depth = self.networks[core](batch)[: len(images)].float().cpu().numpy()
                if depth.shape != (len(images), *batch.shape[2:]) or not np.isfinite(depth).all():
                    raise RuntimeError("its answer is not a depth map")
                found: np.ndarray = depth
                return found
            except RuntimeError:
                if last:
                    raise
        raise AssertionError


def load_network(artifact: Artifact) -> Any:
    """Return a network, loaded onto the next core; torch_neuron has to be imported by then."""
    import torch

    from depthcli.nets.jit import quiet_jit

    with quiet_jit():
        return torch.jit.load(str(artifact.path))  # type: ignore[no-untyped-call] # old builds take no Path


def core_count(environment: Any, devices: int) -> int:
    """Return how many NeuronCores this process has: as the runtime's own variables say, else all of the machine's."""
    visible = environment.get("NEURON_RT_VISIBLE_CORES", "")
    number = environment.get("NEURON_RT_NUM_CORES", "")
    try:
        if visible:
            ends = [list(map(int, item.split("-"))) for item in visible.split(",")]
            return sum(last[-1] - last[0] + 1 for last in ends)
        return int(number) if number else _CORES_PER_DEVICE * devices
    except ValueError as error:
        raise EngineError(
            f"NEURON_RT_VISIBLE_CORES={visible!r} or NEURON_RT_NUM_CORES={number!r} is no number of cores",
            "give them as 0-3, and as 4",
        ) from error


def _check_versions(artifact: Artifact, talk: Talk) -> None:
    """Say that a file is of another torch-neuron; raise EngineError where it is of a later one or of another torch."""
    from importlib.metadata import version

    installed = inf1.versions()["torch_neuron"] or ""
    ours, theirs = version("torch"), artifact.torch
    if ours.split(".")[:2] != theirs.split(".")[:2]:
        raise EngineError(
            f"{artifact.path} was compiled with torch {theirs}, this is {ours}", "compile it with this version"
        )
    if _numbers(artifact.torch_neuron or "") > _numbers(installed):
        raise EngineError(
            f"{artifact.path} was compiled with torch-neuron {artifact.torch_neuron}, this is {installed}",
            "update torch-neuron, or compile it with this version",
        )
    if artifact.torch_neuron != installed:
        talk(f"{artifact.path.name} was compiled with torch-neuron {artifact.torch_neuron}, this is {installed}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
