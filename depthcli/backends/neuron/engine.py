"""AWS Inferentia and Trainium: networks that `depth compile` wrote, one replica on each NeuronCore.

Not run on a device so far: proven against stand-ins (docs/neuron.md). Nothing falls back to the CPU: off a device such
a file would compute nonsense, so it is not even loaded there.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.backends import Arrays, targets_of
from depthcli.backends.artifact import Artifact, CompiledNetworks
from depthcli.backends.neuron.flavours import FLAVOURS, Flavour
from depthcli.backends.neuron.standin import NOTICE
from depthcli.choices import BackendChoice
from depthcli.errors import DeviceLostError, EngineError, Log, first_line
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

# AWS's own benchmarks feed each core from two threads, so that it never waits for the host.
_THREADS_PER_CORE = 2
# One failure is a hiccup and two are a picture's misfortune; so many in a row are a device that is gone.
_FAILURES = 5


class Neuron:
    """The compiled networks of one model, on all cores that this process may have."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        if choice.precision != "auto":
            raise EngineError(
                f"a network for a NeuronCore computes as it was compiled, not in {choice.precision}",
                "leave --precision out, and see --fast-math of depth compile",
            )
        if choice.device != "auto":
            raise EngineError(f"neuron runs on NeuronCores, not on {choice.device}", "leave --device out")
        self._networks = CompiledNetworks(choice.artifacts, targets_of(choice), choice.shape_policy, row, weights)
        self.flavour: Flavour = FLAVOURS[self._networks.target]
        devices = self.flavour.devices()
        if not devices:
            raise EngineError(
                "no Neuron device on this host; compiled artifacts cannot run on CPU (results would be invalid)",
                f"run this on an {self.flavour.target} machine with the aws-neuronx-dkms driver, or use another "
                "--backend",
            )
        # Read when the runtime starts, which is with the import.
        os.environ.setdefault("NEURON_RT_LOG_LEVEL", "ERROR")
        os.environ.setdefault("NEURON_PROCESS_TAG", "depthcli")
        self.flavour.require(compiler=False)
        for artifact in self._networks.artifacts:
            _check_versions(artifact, self.flavour, talk)
        if self.flavour.simulated:
            talk(f"{NOTICE}: what it answers is right, how fast it is says nothing of a chip")
        self.cores = core_count(os.environ, len(devices) * self.flavour.cores_per_device)
        self._pool: Optional[ThreadPoolExecutor] = ThreadPoolExecutor(_THREADS_PER_CORE * self.cores)
        self._failures = 0
        # Its products are bfloat16 and the rest as it was compiled; the stand-in computes in float32.
        notice, precision = (f" ({NOTICE})", "fp32") if self.flavour.simulated else ("", "mixed")
        version = self.flavour.versions()[self.flavour.package]
        self.description = f"neuron{notice} {version} {self.flavour.target}:{self.cores} {precision}"

    @property
    def best_batch(self) -> int:
        """How many pictures keep all cores busy."""
        return _THREADS_PER_CORE * self.cores * max(artifact.batch for artifact in self._networks.artifacts)

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a size that was compiled. Raises EngineError where there is none for the picture."""
        return self._networks.fit(plan)

    def check(self, plan: InputPlan, batch: int) -> None:
        """Raise EngineError where no network was compiled for this size; what it needs was settled by the compiler."""
        self._networks.of(plan.input_size)

    def run(self, inputs: Arrays) -> Arrays:
        """Return {"depth": (B, H, W) float32} for {"image": (B, 3, H, W) float32}; raises as `run_each` does."""
        return {"depth": np.stack(self.run_each(list(inputs["image"])))}

    def run_each(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return an (H, W) float32 answer for each (3, H, W) float32 input, spread over the cores; sizes may differ.

        A run that fails is tried once more. Raises EngineError where it fails again, and DeviceLostError after several
        of those in a row.
        """
        if self._pool is None:
            raise EngineError("this estimator is closed", "open another one")
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault((image.shape[2], image.shape[1]), []).append(number)
        parts: list[tuple[list[int], Future[np.ndarray]]] = []
        for size, numbers in by_size.items():
            artifact = self._networks.of(size)
            replicas = self.replicas(artifact)
            for start in range(0, len(numbers), artifact.batch):
                part = numbers[start : start + artifact.batch]
                batch = np.stack([images[number] for number in part])
                parts.append((part, self._pool.submit(replicas.run, batch, len(parts) % self.cores)))
        depth: dict[int, np.ndarray] = {}
        errors: list[Exception] = []
        for part, future in parts:  # all of them end before anything is raised
            try:
                depth.update(zip(part, future.result()))
            except Exception as error:  # whatever the runtime raises
                errors.append(error)
        if not errors:
            self._failures = 0
            return [depth[number] for number in range(len(images))]
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

    def replicas(self, artifact: Artifact) -> Replicas:
        """Return the copies of a network, one for each core, loaded where they are not yet."""
        return self._networks.loaded(artifact, self._load)

    def artifact(self, size: tuple[int, int]) -> Artifact:
        """Return the network for an input of (width, height). Raises EngineError where there is none."""
        return self._networks.of(size)

    def _load(self, artifact: Artifact, content: io.BytesIO) -> Replicas:
        """Return one replica per core: the runtime puts each on the core that has least to do.

        One after the other, in this thread, as AWS has it.
        """
        networks = []
        for _ in range(self.cores):
            try:
                networks.append(load_network(content))
            except RuntimeError as error:
                if re.search(r"NeuronCore\(s\) not available|nrt_allocate_neuron_cores", str(error)):
                    raise EngineError(
                        "NeuronCores are held by another process (see neuron-ls)",
                        "set NEURON_RT_NUM_CORES or NEURON_RT_VISIBLE_CORES",
                    ) from error
                raise EngineError(f"{artifact.path} does not load: {first_line(error)}", "compile it again") from error
        replicas = Replicas(artifact, networks)
        image = np.zeros((artifact.batch, 3, artifact.height, artifact.width), np.float32)
        for core in range(self.cores):  # the first call of each is slow
            replicas.run(image, core)
        return replicas


@dataclass(frozen=True)
class Replicas:
    """The copies of one network, a core each. Threads may run them at the same time."""

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


def load_network(content: io.BytesIO) -> Any:
    """Return a network of verified content, loaded onto the next core; torch_neuron has to be imported by then."""
    import torch

    from depthcli.graphs.jit import quiet_jit

    content.seek(0)
    with quiet_jit():
        return torch.jit.load(content)  # type: ignore[no-untyped-call]


def core_count(environment: Any, all_cores: int) -> int:
    """Return how many NeuronCores this process has: as the runtime's own variables say, else all of the machine's."""
    visible = environment.get("NEURON_RT_VISIBLE_CORES", "")
    number = environment.get("NEURON_RT_NUM_CORES", "")
    try:
        ends = [list(map(int, item.split("-"))) for item in visible.split(",")] if visible else []
        count = sum(last[-1] - last[0] + 1 for last in ends) if visible else int(number) if number else all_cores
        if count < 1:
            raise ValueError(count)
        return count
    except ValueError as error:
        raise EngineError(
            f"NEURON_RT_VISIBLE_CORES={visible!r} or NEURON_RT_NUM_CORES={number!r} is no number of cores",
            "give them as 0-3, and as 4",
        ) from error


def _check_versions(artifact: Artifact, flavour: Flavour, talk: Log) -> None:
    """Say that a file is of another package; raise EngineError where it is of a later one or of another torch."""
    from importlib.metadata import version

    package = flavour.package
    installed, made = flavour.versions()[package] or "", artifact.versions.get(package) or ""
    ours, theirs = version("torch"), artifact.torch
    if ours.split(".")[:2] != theirs.split(".")[:2]:
        raise EngineError(
            f"{artifact.path} was compiled with torch {theirs}, this is {ours}", "compile it with this version"
        )
    if _numbers(made) > _numbers(installed):
        raise EngineError(
            f"{artifact.path} was compiled with {package} {made}, this is {installed}",
            f"update {package}, or compile it with this version",
        )
    if made != installed:
        talk(f"{artifact.path.name} was compiled with {package} {made}, this is {installed}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
