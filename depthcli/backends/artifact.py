"""Compiled networks as files: read, found, and selected for a picture.

A file is a TorchScript archive with a JSON description inside and a copy of that beside it. backends/archive.py checks
it before torch is imported.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import numpy as np

from depthcli.backends.archive import DIGEST, read_description, verified
from depthcli.errors import CheckpointError, EngineError, UsageError
from depthcli.io.names import sidecar_of
from depthcli.pixels.preprocess import InputPlan, by_height
from depthcli.zoo.locate import CHECKPOINTS, WeightsFile
from depthcli.zoo.rows import PATCH, ModelRow, ModelTask, find_row, is_row, with_max_depth

SCHEMA = "depthcli-network/2"
SUFFIX = ".pt"
FOLDER = CHECKPOINTS / "compiled"
STANDIN = "cpu-standin"  # target that simulates a chip on the CPU
NEAR = 0.03  # limit of stretching, log of the sides' ratio; the reference's rounding stretches by up to 0.009
_LOADED = 4  # networks that stay in memory, the last used ones; each holds all the weights
# Limits of a description: far above those of every real network, far below harmful ones.
_MOST_BATCH = 4096
_LONGEST_SIDE = 1 << 16
_LONGEST_TEXT = 200
_MOST_TEXTS = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Artifact:
    """One compiled network.

    target: as in `depth compile`. model: its row's name. batch, height, width: of its input. weights_sha256: of its
    checkpoint. versions: of the packages that wrote it, by name. compiler_args: of its compiler.
    """

    path: Path
    target: str
    model: str
    max_depth: Optional[float]
    weights_sha256: str
    batch: int
    height: int
    width: int
    versions: Mapping[str, Any]
    compiler_args: tuple[str, ...] = ()

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the network's input."""
        return self.width, self.height

    @property
    def torch(self) -> str:
        """The version of torch that wrote it."""
        return str(self.versions["torch"])

    @property
    def row(self) -> ModelRow:
        """The row of its model."""
        row = find_row(self.model)
        return row if self.max_depth in (None, row.max_depth) else with_max_depth(row, self.max_depth or 0)


def named_outputs(row: ModelRow, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a compiled network gives, (B, H, W) or (B, outputs, H, W), by the names of the row's outputs."""
    if len(row.outputs) == 1:
        return {row.outputs[0]: maps}
    return {name: maps[:, number] for number, name in enumerate(row.outputs)}


def read_artifact(path: Path) -> Artifact:
    """Return a file's description. Raises CheckpointError if it is damaged or not of `depth compile`."""
    facts = read_description(path)
    if facts.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} is of another version of depthcli: its schema is not {SCHEMA}", "compile it again"
        )
    return _from_facts(path, facts)


def find_artifacts(place: Optional[Path], targets: Sequence[str]) -> list[Artifact]:
    """Return the networks in a file or a folder (None: FOLDER) for the first of these targets that has any.

    Raises EngineError if there are none or a file is for another target, CheckpointError for a damaged file.
    """
    place = FOLDER if place is None else place
    if place.is_dir():
        every = [read_artifact(path) for path in sorted(place.glob(f"*{SUFFIX}"))]
        found = next(filter(None, ([item for item in every if item.target == target] for target in targets)), [])
    else:
        found = [read_artifact(place)] if place.exists() else []
        if found and found[0].target == STANDIN and STANDIN not in targets:
            raise EngineError(f"{place} is a CPU stand-in (no Neuron code)", "set `allow_standin` for tests")
        if found and found[0].target not in targets:
            raise EngineError(
                f"{place} was compiled for {found[0].target}, this runs {' or '.join(targets)}",
                f"recompile it with `target` {targets[0]}",
            )
    if not found:
        raise EngineError(
            f"no network compiled for {' or '.join(targets)} in {place}",
            f"run depth compile with `target` {targets[0]}, or name the folder as `artifacts`",
        )
    return found


def select_artifacts(artifacts: Sequence[Artifact], name: Optional[str], sha256: Optional[str]) -> list[Artifact]:
    """Return the networks of one model and one checkpoint.

    name: of the chosen row, None for any. sha256: of the chosen checkpoint, None for any.
    Raises EngineError if none fits, UsageError if several models or checkpoints fit.
    """
    place = artifacts[0].path.parent
    fitting = [item for item in artifacts if name in (None, item.model)]
    if not fitting:
        there = ", ".join(sorted({item.model for item in artifacts}))
        raise EngineError(f"{place} holds networks of {there}, none of {name}", f"compile one of {name}")
    models = sorted({item.model for item in fitting})
    if len(models) > 1:
        raise UsageError(f"{place} holds networks of {', '.join(models)}", "choose one as `model`")
    of_weights = [item for item in fitting if sha256 in (None, item.weights_sha256)]
    if not of_weights:
        raise EngineError(f"the networks of {models[0]} in {place} are of another checkpoint", "compile them again")
    if len({(item.weights_sha256, item.max_depth) for item in of_weights}) > 1:
        raise UsageError(f"{place} has networks of {models[0]} of several checkpoints", "name one file as `artifacts`")
    return of_weights


def weights_of(artifact: Artifact) -> WeightsFile:
    """Return the compiled network as the weights of a model, with the sha256 of its checkpoint."""
    return WeightsFile(artifact.path, artifact.weights_sha256, "compiled")


def open_artifact(artifact: Artifact) -> io.BytesIO:
    """Return the verified content of a network for torch.jit.load.

    Raises CheckpointError if the file is damaged, holds what `depth compile` does not write, or does not match its
    .json, which may be missing.
    """
    facts, content = verified(artifact.path, chip=artifact.target not in ("torchscript", STANDIN))
    try:
        stated = json.loads(sidecar_of(artifact.path).read_text(encoding="utf-8"))[DIGEST]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        stated = facts[DIGEST]
    if stated != facts[DIGEST] or _from_facts(artifact.path, facts) != artifact:
        raise CheckpointError(f"{artifact.path} does not match its .json", "copy both again, or compile it again")
    return content


@dataclass(frozen=True)
class InputSizes:
    """The compiled input sizes (width, height), and the choice among them.

    policy: "strict" takes the reference's size, or one of the same orientation whose aspect differs by up to 3 %;
    "stretch" takes the nearest size of the same orientation.
    """

    sizes: tuple[tuple[int, int], ...]
    policy: str
    target: str

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a compiled size. Raises EngineError if the policy allows none."""
        if plan.input_size in self.sizes:
            return plan
        wanted = plan.input_size
        # A square has both orientations.
        same = [size for size in self.sizes if _orientation(size) * _orientation(wanted) >= 0]
        near = [size for size in same if abs(math.log(size[0] / size[1] / plan.ratio)) <= NEAR]
        allowed = near or (same if self.policy == "stretch" else [])
        if not allowed:
            there = ", ".join(by_height(size) for size in self.sizes)
            raise EngineError(
                f"the picture wants a network input of {by_height(wanted)}, there are {there}",
                f"run depth compile with `target` {self.target} and `size` {by_height(wanted)}"
                + (", or set `shape_policy` to stretch" if same else ""),
            )

        def distance(size: tuple[int, int]) -> float:
            return sum(abs(math.log(have / want)) for have, want in zip(size, wanted))

        return replace(plan, input_size=min(allowed, key=distance), fitted_from=wanted)


class CompiledNetworks:
    """The compiled networks of one model by input size. Errors as for `find_artifacts` and `select_artifacts`."""

    def __init__(
        self, place: Optional[Path], targets: Sequence[str], policy: str, row: ModelRow, weights: WeightsFile
    ) -> None:
        self.artifacts = select_artifacts(find_artifacts(place, targets), row.name, weights.sha256)
        self.target = self.artifacts[0].target
        self.by_size = {artifact.input_size: artifact for artifact in self.artifacts}
        self._sizes = InputSizes(tuple(self.by_size), policy, self.target)
        self._loaded: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a compiled size. Raises EngineError if the policy allows none."""
        return self._sizes.fit(plan)

    def of(self, size: tuple[int, int]) -> Artifact:
        """Return the network for an input of exactly (width, height). Raises EngineError if there is none."""
        if size not in self.by_size:  # a trace accepts a portrait for a landscape, but computes nonsense
            raise EngineError(f"no network was compiled for an input of {by_height(size)}", "compile one")
        return self.by_size[size]

    def loaded(self, artifact: Artifact, load: Callable[[Artifact, io.BytesIO], T]) -> T:
        """Return `load(artifact, content)`, from memory if it was used recently."""
        size = artifact.input_size
        if size not in self._loaded:
            content = open_artifact(artifact)
            while len(self._loaded) >= _LOADED:
                self._loaded.popitem(last=False)
            self._loaded[size] = load(artifact, content)
        self._loaded.move_to_end(size)
        found: T = self._loaded[size]
        return found

    def close(self) -> None:
        """Free the loaded networks."""
        self._loaded.clear()


def _orientation(size: tuple[int, int]) -> int:
    return (size[0] > size[1]) - (size[0] < size[1])


def _from_facts(path: Path, facts: dict[str, Any]) -> Artifact:
    try:
        batch, _, height, width = (_number(value) for value in facts["input"]["shape"])
        if not (
            0 < batch <= _MOST_BATCH
            and all(side % PATCH == 0 <= side - PATCH < _LONGEST_SIDE for side in (height, width))
        ):
            raise ValueError("no network has such an input")
        versions = facts["versions"]
        if len(versions) > _MOST_TEXTS or not re.match(r"\d{1,4}\.\d{1,4}", _text(versions["torch"])):
            raise ValueError("these are no versions")
        artifact = Artifact(
            path,
            _text(facts["target"]),
            _text(facts["model"]),
            _positive(facts["max_depth"]),
            _text(facts["weights_sha256"]),
            batch,
            height,
            width,
            {_text(name): text if text is None else _text(text) for name, text in versions.items()},
            tuple(_text(item) for item in facts.get("compiler", {}).get("args", ())[:_MOST_TEXTS]),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"the description in {path} is not whole", "compile it again") from error
    if not is_row(artifact.model) or find_row(artifact.model).task is not ModelTask.PICTURE:
        raise CheckpointError(f"{path} is a network of {artifact.model}, which this version does not run")
    if artifact.max_depth != find_row(artifact.model).max_depth and find_row(artifact.model).max_depth is None:
        raise CheckpointError(f"{path} gives {artifact.model} a depth in metres, but that model has relative depth")
    return artifact


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise ValueError("not a text of usual length")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _positive(value: Any) -> Optional[float]:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise ValueError("not a number of metres")
    return float(value)
