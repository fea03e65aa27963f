"""AWS Inferentia and Trainium: compiled networks, one replica on each NeuronCore.

Not yet tested on hardware: tested with stand-ins (docs/neuron.md). Files are not loaded without a device, because on
the CPU they would compute nonsense.
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

from depthcli.backends import Arrays, Traits, targets_of
from depthcli.backends.artifact import Artifact, CompiledNetworks, named_outputs
from depthcli.backends.neuron.flavours import FLAVOURS, Flavour
from depthcli.backends.neuron.standin import NOTICE
from depthcli.choices.model import BackendChoice
from depthcli.errors import DeviceLostError, EngineError, Log, first_line
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

_THREADS_PER_CORE = 2  # AWS's own benchmarks feed each core from two threads, so that it never waits for the host
_FAILURES = 5  # after so many failures in a row the device counts as lost, and not the picture as unlucky


class Neuron:
    """The compiled networks of one model, on all cores that this process may use."""

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, log: Log) -> None:
        if choice.precision != "auto":
            raise EngineError(
                f"a network for a NeuronCore computes as it was compiled, not in {choice.precision}",
                "leave out `precision`, and see `fast_math` of depth compile",
            )
        if choice.device != "auto":
            raise EngineError(f"neuron runs on NeuronCores, not on {choice.device}", "leave out `device`")
        self._row = row
        self._networks = CompiledNetworks(choice.artifacts, targets_of(choice), choice.shape_policy, row, weights)
        flavour: Flavour = FLAVOURS[self._networks.target]
        devices = flavour.devices()
        if not devices:
            raise EngineError(
                "no Neuron device on this host; compiled networks cannot run on the CPU (results would be invalid)",
                f"run this on an {flavour.target} machine with the aws-neuronx-dkms driver, or use another `backend`",
            )
        # The runtime reads them when it is imported.
        os.environ.setdefault("NEURON_RT_LOG_LEVEL", "ERROR")
        os.environ.setdefault("NEURON_PROCESS_TAG", "depthcli")
        flavour.require(compiler=False)
        for artifact in self._networks.artifacts:
            _check_versions(artifact, flavour, log)
        if flavour.simulated:
            log(f"{NOTICE}: its results are right, its speed is not that of a chip")
        self._cores = core_count(os.environ, len(devices) * flavour.cores_per_device)
        self._pool: Optional[ThreadPoolExecutor] = ThreadPoolExecutor(_THREADS_PER_CORE * self._cores)
        self._failures = 0
        self.traits = Traits(
            name="neuron",
            note=NOTICE if flavour.simulated else "",
            version=str(flavour.versions()[flavour.package]),
            device=f"{flavour.target}:{self._cores}",
            # A chip multiplies in bfloat16 and does the rest as compiled; the stand-in computes in float32.
            precision="fp32" if flavour.simulated else "mixed",
            best_batch=_THREADS_PER_CORE * self._cores * max(artifact.batch for artifact in self._networks.artifacts),
            mixes_sizes=True,
            replicas=self._cores,
            workers=_THREADS_PER_CORE,
            compiled=self._networks.by_size,
        )

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a compiled input size. Raises EngineError if none fits the picture."""
        return self._networks.fit(plan)

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """Raise EngineError if no network was compiled for this input size; the compiler has checked the memory."""
        self._networks.of(plan.input_size)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """See Backend. A failed run is repeated once. Raises EngineError; DeviceLostError after several in a row."""
        if self._pool is None:
            raise EngineError("this backend is closed", "open another one")
        images = inputs["image"]
        if replica is not None:
            artifact = self._networks.of((images.shape[3], images.shape[2]))
            return named_outputs(self._row, self._replicas(artifact).run(images, replica))
        maps = self._run_on_all(list(images))
        if isinstance(images, np.ndarray):
            return named_outputs(self._row, np.stack(maps))
        each = [named_outputs(self._row, found[None]) for found in maps]
        return {name: [found[name][0] for found in each] for name in self._row.outputs}

    def _run_on_all(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the float32 map (H, W), or maps (outputs, H, W), for each (3, H, W) image.

        They are spread over the cores; sizes may differ.
        """
        assert self._pool is not None
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault((image.shape[2], image.shape[1]), []).append(number)
        parts: list[tuple[list[int], Future[np.ndarray]]] = []
        for size, numbers in by_size.items():
            artifact = self._networks.of(size)
            replicas = self._replicas(artifact)
            for start in range(0, len(numbers), artifact.batch):
                part = numbers[start : start + artifact.batch]
                batch = np.stack([images[number] for number in part])
                parts.append((part, self._pool.submit(replicas.run, batch, len(parts) % self._cores)))
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
        """Free the cores; closing twice is allowed."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
        self._networks.close()

    def _replicas(self, artifact: Artifact) -> Replicas:
        return self._networks.loaded(artifact, self._load)

    def _load(self, artifact: Artifact, content: io.BytesIO) -> Replicas:
        """Load one replica per core, one after the other in this thread: the runtime puts each on the idlest core."""
        networks = []
        for _ in range(self._cores):
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
        for core in range(self._cores):  # the first call of each is slow
            replicas.run(image, core)
        return replicas


@dataclass(frozen=True)
class Replicas:
    """The copies of one network, one per core. Threads may run them at the same time."""

    artifact: Artifact
    networks: Sequence[Any]

    def run(self, images: np.ndarray, core: int) -> np.ndarray:
        """Return (n, H, W), or (n, outputs, H, W), float32 for up to a compiled batch of images.

        A failed run is tried once more.
        """
        import torch

        names = self.artifact.row.outputs
        outputs = (len(names),) if len(names) > 1 else ()
        batch = torch.zeros((self.artifact.batch, 3, self.artifact.height, self.artifact.width))
        batch[: len(images)] = torch.from_numpy(images)
        for last in (False, True):
            try:
                with torch.no_grad():
                    depth = self.networks[core](batch)[: len(images)].float().cpu().numpy()
                if depth.shape != (len(images), *outputs, *batch.shape[2:]) or not np.isfinite(depth).all():
                    raise RuntimeError("the output is not a depth map")
                found: np.ndarray = depth
                return found
            except RuntimeError:
                if last:
                    raise
        raise AssertionError


def load_network(content: io.BytesIO) -> Any:
    """Return a network of verified content, loaded onto the next core; torch_neuron must be imported already."""
    import torch

    from depthcli.graphs.jit import quiet_jit

    content.seek(0)
    with quiet_jit():
        return torch.jit.load(content)  # type: ignore[no-untyped-call]


def core_count(environment: Any, all_cores: int) -> int:
    """Return how many NeuronCores this process has: by the runtime's variables, else all of the machine."""
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
            f"NEURON_RT_VISIBLE_CORES={visible!r} or NEURON_RT_NUM_CORES={number!r} is not a number of cores",
            "write 0-3 for the first, 4 for the second",
        ) from error


def _check_versions(artifact: Artifact, flavour: Flavour, log: Log) -> None:
    """Log a difference of versions; raise EngineError for a file of a later package or of another torch."""
    from importlib.metadata import version

    package = flavour.package
    installed, made = flavour.versions()[package] or "", artifact.versions.get(package) or ""
    ours, theirs = version("torch"), artifact.torch
    if ours.split(".")[:2] != theirs.split(".")[:2]:
        raise EngineError(f"{artifact.path} was compiled with torch {theirs}, this is {ours}", "compile it again")
    if _numbers(made) > _numbers(installed):
        raise EngineError(
            f"{artifact.path} was compiled with {package} {made}, this is {installed}",
            f"update {package}, or compile it again",
        )
    if made != installed:
        log(f"{artifact.path.name} was compiled with {package} {made}, this is {installed}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
