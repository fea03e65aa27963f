"""Linear layers in int8: post-training quantisation of a transformer with NNCF, calibrated on given pictures.

Only the encoder's linear layers are quantised: with the head's convolutions the error is ten times as large and little
time is gained. The result is compared with float32 on other pictures, at the input size in use, and refused beyond the
bounds below. Needs the extra [int8].
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.backends.converted import GraphInputs
from depthcli.errors import EngineError, Log, PictureError, UsageError
from depthcli.io.pictures.images import is_picture, read_picture
from depthcli.pixels.alignment import places
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.zoo.rows import LiteConfig, ModelRow

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeGraph

# Bounds of int8's difference from float32: mean difference over the map's range, and lowest rank correlation.
MEAN_BOUND = 0.01
RANK_BOUND = 0.99
_FEWEST = 4
_CALIBRATED = 16
_COMPARED = 6
_FACTS = "int8.json"


class Calibration:
    """The pictures that determine the quantisation steps.

    folder: of pictures; None takes an earlier calibration. Raises UsageError for a folder with too few pictures, and
    EngineError for a network without linear layers.
    """

    def __init__(self, row: ModelRow, folder: Optional[Path], log: Log) -> None:
        if isinstance(row.network, LiteConfig):
            raise EngineError(f"{row.name} has no linear layers to run in int8", "use `precision` fp32")
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

    def quantized(self, model: Any, graph: AnySizeGraph) -> tuple[Any, dict[str, str]]:
        """Return a model of OpenVINO in int8, and the texts to cache with it by file name; takes a minute.

        graph: the graph of `model`. Raises EngineError if the result is outside the bounds or NNCF is missing.
        """
        nncf = _import_nncf()
        self._log(f"calibrating int8 on the pictures of {self._folder}; this takes about a minute, once")
        # A quarter is left for the comparison, which pictures of the calibration would flatter.
        count = min(_CALIBRATED, len(self._pictures) - len(self._pictures) // 4)
        chosen, compared = self._pictures[:count], self._pictures[count:][:_COMPARED]
        inputs = GraphInputs(graph.positions)
        data = nncf.Dataset(chosen, lambda path: dict(zip(graph.parts["depth"].examples, self._inputs(inputs, path))))
        with _quiet():
            rough = nncf.quantize(
                model,
                data,
                subset_size=len(chosen),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(types=["Convolution", "ConvolutionBackpropData"]),
            )
        mean, rank = _compare(model, rough, [self._inputs(inputs, path) for path in compared])
        if mean > MEAN_BOUND or rank < RANK_BOUND:
            raise EngineError(
                f"int8 is too far from float32 with these weights: mean difference {100 * mean:.2f} % of the range "
                f"(bound {100 * MEAN_BOUND:.0f} %), rank correlation {rank:.4f} (bound {RANK_BOUND})",
                "use `precision` bf16 or fp32",
            )
        self._log(f"int8 differs from float32 by {100 * mean:.2f} % of the range, rank correlation {rank:.4f}")
        facts = {"pictures": _digest(self._pictures), "mean_difference": mean, "rank_correlation": rank}
        return rough, {_FACTS: json.dumps(facts)}

    def _inputs(self, inputs: GraphInputs, path: Path) -> list[np.ndarray]:
        rgb = read_picture(path).rgb
        plan = plan_input(rgb.shape[1], rgb.shape[0], self._row.input)
        return inputs.of(to_network_input(rgb, plan)[None])


def _compare(source: Any, model: Any, inputs: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Return the mean difference over the range, averaged over pictures, and the lowest rank correlation."""
    from depthcli.backends.openvino import shared_core

    core = shared_core()
    exact = core.compile_model(source, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rough = core.compile_model(model, "CPU")
    means, ranks = [], []
    for given in inputs:
        wanted, found = (np.array(compiled(given)[0], np.float64) for compiled in (exact, rough))
        means.append(float(np.abs(found - wanted).mean() / (np.ptp(wanted) or 1)))
        ranks.append(float(np.corrcoef(places(wanted), places(found))[0, 1]))
    return float(np.mean(means)), min(ranks)


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder that can be read, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of pictures", "`calibration` names a folder")
    found = []
    for path in sorted(path for path in folder.iterdir() if is_picture(path))[: _CALIBRATED + _COMPARED]:
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


def _import_nncf() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise EngineError(f"NNCF is not installed: {error}", 'pip install "depthcli[int8]"') from error
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log and progress bars off the terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
