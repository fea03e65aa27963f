"""Compiled networks as files: what `depth compile` writes for an engine, and how one is found again for a picture.

A file is a TorchScript archive that carries its description as JSON, and lies beside a copy of it. Description and
content are checked by backends/archive.py, so that whatever does not fit is reported before a framework is imported.
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

from depthcli.backends.archive import DIGEST, read_description, verified
from depthcli.errors import CheckpointError, EngineError, UsageError
from depthcli.pixels.preprocess import InputPlan, by_height
from depthcli.zoo.locate import CHECKPOINTS, WeightsFile
from depthcli.zoo.rows import PATCH, ModelRow, ModelTask, find_row, is_row, with_max_depth

SCHEMA = "depthcli-network/2"
SUFFIX = ".pt"
# Where compiled networks are written and looked for unless a place is named.
FOLDER = CHECKPOINTS / "compiled"
# The target of files that only pretend to be for a chip.
STANDIN = "cpu-standin"
# A picture may be stretched by so much, as a logarithm of the sides' ratio, without a word from the user; the
# reference itself, which rounds sides to multiples of 14, stretches by up to 0.009.
NEAR = 0.03
# Loaded networks that are kept, the last used; each holds all the weights.
_LOADED = 4
# What a description may say: far more than any network that was ever compiled, far less than what does harm.
_MOST_BATCH = 4096
_LONGEST_SIDE = 1 << 16
_LONGEST_TEXT = 200
_MOST_TEXTS = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Artifact:
    """One compiled network.

    target: the engine it is for. model: its row's name. batch, height, width: of its only input. weights_sha256: of the
    checkpoint it was made of. versions: of the packages that wrote it, by name, with torch among them. compiler_args:
    how its compiler was called.
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


def read_artifact(path: Path) -> Artifact:
    """Return what a file says it is. Raises CheckpointError if it is no whole file that `depth compile` wrote."""
    facts = read_description(path)
    if facts.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} was made by another version of depthcli: its description is not {SCHEMA}", "compile it again"
        )
    return _from_facts(path, facts)


def find_artifacts(place: Optional[Path], targets: Sequence[str]) -> list[Artifact]:
    """Return the networks for one of these targets in a file or a folder, by default those beside the checkpoints.

    Where a folder holds networks for several of them, those of the first are returned. Raises EngineError where there
    is none, or where a file that was named is for another target, CheckpointError where one is damaged.
    """
    place = FOLDER if place is None else place
    if place.is_dir():
        every = [read_artifact(path) for path in sorted(place.glob(f"*{SUFFIX}"))]
        found = next(filter(None, ([item for item in every if item.target == target] for target in targets)), [])
    else:
        found = [read_artifact(place)] if place.exists() else []
        if found and found[0].target == STANDIN and STANDIN not in targets:
            raise EngineError(f"{place} is a CPU stand-in (no Neuron code)", "use --allow-standin for tests")
        if found and found[0].target not in targets:
            raise EngineError(
                f"{place} was compiled for {found[0].target}, this runs {' or '.join(targets)}",
                f"recompile it with --target {targets[0]}",
            )
    if not found:
        raise EngineError(
            f"no network compiled for {' or '.join(targets)} in {place}",
            f"depth compile --target {targets[0]} --encoder vits --size 518x686, or name the place with --artifacts",
        )
    return found


def select_artifacts(artifacts: Sequence[Artifact], name: Optional[str], sha256: Optional[str]) -> list[Artifact]:
    """Return the networks of one model and one checkpoint, which is what a run may take.

    name: the row that was asked for, None for any. sha256: of the checkpoint that was named. Raises EngineError where
    none fits, UsageError where more than one would.
    """
    place = artifacts[0].path.parent
    fitting = [item for item in artifacts if name in (None, item.model)]
    if not fitting:
        there = ", ".join(sorted({item.model for item in artifacts}))
        raise EngineError(f"{place} holds networks of {there}, none of {name}", f"compile one of {name}")
    models = sorted({item.model for item in fitting})
    if len(models) > 1:
        raise UsageError(f"{place} holds networks of {', '.join(models)}", "choose one with --model")
    of_weights = [item for item in fitting if sha256 in (None, item.weights_sha256)]
    if not of_weights:
        raise EngineError(
            f"the networks of {models[0]} in {place} were compiled from another checkpoint", "compile them again"
        )
    if len({(item.weights_sha256, item.max_depth) for item in of_weights}) > 1:
        raise UsageError(
            f"{place} holds networks of {models[0]} from several checkpoints", "name one of the files with --artifacts"
        )
    return of_weights


def weights_of(artifact: Artifact) -> WeightsFile:
    """Return the weights that a network was compiled from, as a file of this machine: the network itself."""
    return WeightsFile(artifact.path, artifact.weights_sha256, "compiled")


def sidecar_of(path: Path) -> Path:
    """Return where the copy of a file's description lies."""
    return path.with_name(path.name + ".json")


def open_artifact(artifact: Artifact) -> io.BytesIO:
    """Return the verified content of a network for torch.jit.load.

    Raises CheckpointError if the file is damaged, holds what `depth compile` does not write, or is another one than its
    .json describes. Without its .json the file stands for itself.
    """
    facts, content = verified(artifact.path, chip=artifact.target not in ("torchscript", STANDIN))
    try:
        stated = json.loads(sidecar_of(artifact.path).read_text(encoding="utf-8"))[DIGEST]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        stated = facts[DIGEST]
    if stated != facts[DIGEST] or _from_facts(artifact.path, facts) != artifact:
        raise CheckpointError(
            f"{artifact.path} is not the file that its .json describes", "copy both again, or compile it again"
        )
    return content


@dataclass(frozen=True)
class InputSizes:
    """The input sizes (width, height) that an engine was compiled for, and what may be done with other pictures.

    policy: "strict" takes the size that the reference would, or one of the same orientation and, to 3 %, the same ratio
    of its sides; "stretch" takes the nearest of the same orientation, whatever it does to the picture.
    """

    sizes: tuple[tuple[int, int], ...]
    policy: str
    target: str

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a size that is there. Raises EngineError where none may be taken."""
        if plan.input_size in self.sizes:
            return plan
        wanted = plan.input_size
        # A square stands for both orientations, as a picture of it does.
        same = [size for size in self.sizes if _orientation(size) * _orientation(wanted) >= 0]
        near = [size for size in same if abs(math.log(size[0] / size[1] / plan.ratio)) <= NEAR]
        allowed = near or (same if self.policy == "stretch" else [])
        if not allowed:
            there = ", ".join(by_height(size) for size in self.sizes)
            raise EngineError(
                f"the picture wants a network input of {by_height(wanted)}, there are {there}",
                f"depth compile --target {self.target} --size {by_height(wanted)}"
                + (", or --shape-policy stretch" if same else ""),
            )
        nearest = min(allowed, key=lambda size: _distance(size, wanted))
        return replace(plan, input_size=nearest, fitted_from=wanted)


class CompiledNetworks:
    """The compiled networks of one model by the size of their input, and those that are loaded.

    Raises EngineError and UsageError as `find_artifacts` and `select_artifacts` do.
    """

    def __init__(
        self, place: Optional[Path], targets: Sequence[str], policy: str, row: ModelRow, weights: WeightsFile
    ) -> None:
        self.artifacts = select_artifacts(find_artifacts(place, targets), row.name, weights.sha256)
        self.target = self.artifacts[0].target
        self.by_size = {artifact.input_size: artifact for artifact in self.artifacts}
        self._sizes = InputSizes(tuple(self.by_size), policy, self.target)
        self._loaded: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan with a size that was compiled. Raises EngineError where there is none for the picture."""
        return self._sizes.fit(plan)

    def of(self, size: tuple[int, int]) -> Artifact:
        """Return the network for an input of exactly (width, height). Raises EngineError where there is none."""
        if size not in self.by_size:  # a portrait is not a landscape, whatever a trace makes of it
            raise EngineError(f"no network was compiled for an input of {by_height(size)}", "compile one")
        return self.by_size[size]

    def loaded(self, artifact: Artifact, load: Callable[[Artifact, io.BytesIO], T]) -> T:
        """Return what `load` makes of a network's content, kept from the last time where that is not long ago."""
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
        """Free what is loaded."""
        self._loaded.clear()


def _orientation(size: tuple[int, int]) -> int:
    return (size[0] > size[1]) - (size[0] < size[1])


def _distance(size: tuple[int, int], wanted: tuple[int, int]) -> float:
    return sum(abs(math.log(have / want)) for have, want in zip(size, wanted))


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
