"""int8 by search: on given pictures, take the layers that can run in int8 within a bound of the damage.

The pictures are divided in three: one part gives the ranges, one the choice of the layers, and one the verdict, which
the other two would flatter. All damage is measured against float32.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.backends.converted import GraphInputs
from depthcli.backends.int8_nodes import EXACT, Layer, measure_layers, with_int8
from depthcli.backends.int8_search import Damage, choose_layers
from depthcli.errors import EngineError, Log, PictureError, UsageError
from depthcli.io.pictures.files import is_picture
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.difference import compare_maps
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.zoo.rows import PATCH, ModelRow

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeGraph

# Bounds of the difference from float32: mean difference over the map's range, and lowest rank correlation. bf16 in a
# transformer differs by 0.2 %.
MEAN_BOUND = 0.005
RANK_BOUND = 0.99
# The search aims lower, as other pictures suffer up to a third more than those it sees.
_AIM = 0.7
_FEWEST = 4
_MOST_RANGES, _MOST_SEARCHED, _MOST_JUDGED = 12, 4, 6  # pictures
_FACTS = "int8.json"
_TIMED = 7

Inputs = Sequence[Sequence[np.ndarray]]  # of a graph, for each picture


class Calibration:
    """The pictures that determine which layers run in int8, and their ranges.

    folder: of pictures; None takes an earlier calibration. Raises UsageError for a folder with too few pictures.
    """

    def __init__(self, row: ModelRow, folder: Optional[Path], log: Log) -> None:
        self._row = row
        self._folder = folder
        self._pictures = [] if folder is None else _pictures(folder)
        self._log = log

    def is_that_of(self, kept: Optional[Path]) -> bool:
        """Return whether a cached graph, or None, was calibrated on these pictures; without a folder, on any.

        Raises UsageError if there is neither a graph nor a folder.
        """
        if not self._pictures:
            if kept is None:
                raise UsageError(
                    f"int8 has not been calibrated for these weights at an input of {self._row.input_size}",
                    "give a folder with a dozen pictures as `calibration`",
                )
            return True
        return kept is not None and _facts(kept)["pictures"] == _digest(self._pictures)

    def quantized(self, model: Any, graph: AnySizeGraph, settings: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        """Return a model of OpenVINO with layers in int8, and the texts to cache with it by file name; takes minutes.

        graph: the graph of `model`. settings: of the compiler, which hold for all other layers. Raises EngineError if
        no layer can run in int8 within the bounds.
        """
        self._log(f"int8: choosing layers on the pictures of {self._folder}; this takes minutes, once")
        from depthcli.backends.openvino import shared_core

        parts = _divide(self._pictures)
        inputs = GraphInputs(graph.positions)
        full = self._row.input_size
        # The damage hardly depends on the input size, the time of the search does.
        small = max(PATCH, full // 2 // PATCH * PATCH)
        core = shared_core()
        layers = measure_layers(core, model, [self._inputs(inputs, path, full) for path in parts.ranges])
        damage = _damage(core, model, [self._inputs(inputs, path, small) for path in parts.search])
        chosen = choose_layers(layers, damage, _AIM * MEAN_BOUND)
        if not chosen:
            raise EngineError("no layer of this network can run in int8 within the bound", "use `precision` fp32")
        rough = with_int8(model, chosen)
        verdict = _judge(core, model, rough, [self._inputs(inputs, path, full) for path in parts.verdict], settings)
        work = sum(layer.flops for layer in chosen) / sum(layer.flops for layer in layers)
        if verdict.mean > MEAN_BOUND or verdict.rank < RANK_BOUND:
            raise EngineError(
                f"int8 is too far from float32 with these weights: mean difference {100 * verdict.mean:.2f} % of the "
                f"range (bound {100 * MEAN_BOUND:.1f} %), rank correlation {verdict.rank:.4f} (bound {RANK_BOUND})",
                "use `precision` bf16 or fp32, or other pictures for `calibration`",
            )
        self._log(
            f"int8: {100 * work:.0f} % of the work, {verdict.faster:.2f} times as fast; differs from float32 by "
            f"{100 * verdict.mean:.2f} % of the range, rank correlation {verdict.rank:.4f}"
        )
        facts = {"pictures": _digest(self._pictures), "layers": [layer.name for layer in chosen], "work": work}
        return rough, {_FACTS: json.dumps({**facts, **asdict(verdict)})}

    def _inputs(self, inputs: GraphInputs, path: Path, size: int) -> list[np.ndarray]:
        rgb = read_picture(path).rgb
        plan = plan_input(rgb.shape[1], rgb.shape[0], self._row.input.with_size(size))
        return inputs.of(to_network_input(rgb, plan)[None])


@dataclass(frozen=True)
class _Verdict:
    """mean: mean difference over the range, averaged over pictures. rank: the lowest correlation of ranks.
    faster: how many times as fast as the model was.
    """

    mean: float
    rank: float
    faster: float


def _damage(core: Any, model: Any, inputs: Inputs) -> Damage:
    """Return the damage of int8 in some layers, all else in float32: the mean difference over the range."""
    wanted = _answers(core.compile_model(model, "CPU", EXACT), inputs)

    def damage(layers: Sequence[Layer]) -> float:
        found = _answers(core.compile_model(with_int8(model, layers), "CPU", EXACT), inputs)
        return float(np.mean([compare_maps(*pair).mean for pair in zip(wanted, found)]))

    return damage


def _judge(core: Any, model: Any, rough: Any, inputs: Inputs, settings: dict[str, Any]) -> _Verdict:
    """Compare a model in int8 with float32, and in time with the same settings without int8."""
    wanted = _answers(core.compile_model(model, "CPU", EXACT), inputs)
    plain, narrow = (core.compile_model(form, "CPU", settings) for form in (model, rough))
    found = [compare_maps(*pair) for pair in zip(wanted, _answers(narrow, inputs))]
    ratios = []
    for _ in range(_TIMED):
        before = time.perf_counter()
        plain(inputs[0])
        between = time.perf_counter()
        narrow(inputs[0])
        ratios.append((between - before) / (time.perf_counter() - between))
    return _Verdict(
        mean=float(np.mean([difference.mean for difference in found])),
        rank=min(difference.rank for difference in found),
        faster=statistics.median(ratios),
    )


def _answers(compiled: Any, inputs: Inputs) -> list[np.ndarray]:
    return [np.array(compiled(list(given))[0]) for given in inputs]


@dataclass(frozen=True)
class _Parts:
    ranges: list[Path]
    search: list[Path]
    verdict: list[Path]


def held_out(pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures of a folder that a calibration on it does not see before its verdict."""
    return list(pictures[3::4])


def _divide(pictures: Sequence[Path]) -> _Parts:
    """Divide in turns, as neighbours in a folder are often alike."""
    ranges = [*pictures[0::4], *pictures[2::4]][:_MOST_RANGES]
    return _Parts(ranges, list(pictures[1::4])[:_MOST_SEARCHED], held_out(pictures)[:_MOST_JUDGED])


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder that can be read, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of pictures", "`calibration` names a folder")
    found = []
    for path in sorted(path for path in folder.iterdir() if is_picture(path))[: 4 * _MOST_JUDGED]:
        with contextlib.suppress(PictureError):
            read_picture(path)
            found.append(path)
    if len(found) < _FEWEST:
        raise UsageError(f"{folder} holds {len(found)} pictures, too few to calibrate on", f"give {_FEWEST} or more")
    return found


def _digest(pictures: Sequence[Path]) -> str:
    stats = [(path.name, os.stat(path).st_size) for path in pictures]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return facts
