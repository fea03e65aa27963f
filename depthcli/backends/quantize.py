"""Linear layers in eight bits: post-training quantisation of a transformer with NNCF, calibrated on given pictures.

Only the encoder's linear layers: with the convolutions of the head the answer strays ten times as far and little time
is won. What comes out is compared with float32 on pictures that it was not calibrated on where there are enough, and
refused beyond the bounds below. Comes with the extra [int8].
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli import graph_cache
from depthcli.backends.graphs import POSITIONS, KeptGraph, graph_name, read_positions
from depthcli.errors import EngineError, PictureError, UsageError
from depthcli.io.images import is_picture, read_picture
from depthcli.preprocess import plan_input, to_network_input
from depthcli.weights import Talk, WeightsFile
from depthcli.zoo import LiteConfig, ModelRow

# How far int8 may be from float32: the mean difference over the map's range, averaged over the pictures compared, and
# the least correlation of the ranks of their pixels.
MEAN_BOUND = 0.01
RANK_BOUND = 0.99
_FEWEST = 4
_CALIBRATED = 16
_COMPARED = 6
_FACTS = "int8.json"


def obtain_int8(
    graph: KeptGraph, row: ModelRow, weights: WeightsFile, calibration: Optional[Path], talk: Talk
) -> KeptGraph:
    """Return the graph in int8: the one that is kept, or one made by the pictures of a folder, which takes a minute.

    Raises UsageError where no pictures are given and none were before, EngineError where the answer strays too far.
    """
    if isinstance(row.network, LiteConfig):
        raise EngineError(f"{row.name} has no linear layers to run in int8", "use --precision fp32")
    name = f"{graph_name('openvino', row, weights)}-int8"
    folder = graph_cache.find(name)
    pictures = None if calibration is None else _pictures(calibration)
    if folder is None and pictures is None:
        raise UsageError(
            f"int8 has not been calibrated for {weights.path.name}", "give a dozen pictures with --calibration FOLDER"
        )
    if pictures is not None and (folder is None or _facts(folder)["pictures"] != _digest(pictures)):
        talk(f"calibrating int8 on the pictures of {calibration}; this takes about a minute, once")
        folder = _make(name, graph, row, pictures, talk)
    assert folder is not None
    graph.close()
    return KeptGraph(folder, read_positions(folder), contextlib.ExitStack())


def _make(name: str, graph: KeptGraph, row: ModelRow, pictures: Sequence[Path], talk: Talk) -> Path:
    nncf = _import_nncf()
    import openvino as ov

    from depthcli.backends.openvino import FILE

    chosen, compared = pictures[:_CALIBRATED], (pictures[_CALIBRATED:] or pictures)[:_COMPARED]
    source = ov.Core().read_model(graph.folder / FILE)
    names = [port.get_any_name() for port in source.inputs]
    data = nncf.Dataset(chosen, lambda path: dict(zip(names, _inputs(graph, row, path))))
    with _quiet():
        model = nncf.quantize(
            source,
            data,
            subset_size=len(chosen),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(types=["Convolution", "ConvolutionBackpropData"]),
        )
    mean, rank = _compare(source, model, [_inputs(graph, row, path) for path in compared])
    if mean > MEAN_BOUND or rank < RANK_BOUND:
        raise EngineError(
            f"int8 strays too far from float32 with these weights: mean difference {100 * mean:.2f} % of the range "
            f"(bound {100 * MEAN_BOUND:.0f} %), rank correlation {rank:.4f} (bound {RANK_BOUND})",
            "use --precision bf16 or fp32",
        )
    talk(f"int8 differs from float32 by {100 * mean:.2f} % of the range in the mean, rank correlation {rank:.4f}")
    try:
        with graph_cache.new_entry(name) as partial:
            ov.save_model(model, partial / FILE, compress_to_fp16=False)
            shutil.copyfile(graph.folder / POSITIONS, partial / POSITIONS)
            facts = {"pictures": _digest(pictures), "mean_difference": mean, "rank_correlation": rank}
            (partial / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineError(f"what was calibrated cannot be kept in {graph_cache.cache_folder()}: {reason}") from error
    return graph_cache.cache_folder() / name


def _compare(source: Any, model: Any, inputs: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Return the mean difference over the range, averaged over pictures, and the least rank correlation."""
    import openvino as ov

    core = ov.Core()
    exact = core.compile_model(source, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rough = core.compile_model(model, "CPU")
    means, ranks = [], []
    for given in inputs:
        wanted, found = (np.array(compiled(given)[0], np.float64) for compiled in (exact, rough))
        means.append(float(np.abs(found - wanted).mean() / (np.ptp(wanted) or 1)))
        ranks.append(float(np.corrcoef(_ranks(wanted), _ranks(found))[0, 1]))
    return float(np.mean(means)), min(ranks)


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(values.size)
    ranks[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size)
    return ranks


def _inputs(graph: KeptGraph, row: ModelRow, path: Path) -> list[np.ndarray]:
    rgb = read_picture(path).rgb
    plan = plan_input(rgb.shape[1], rgb.shape[0], row.input_size)
    return graph.inputs(to_network_input(rgb, plan)[None])


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder that can be read, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of pictures", "--calibration names a folder")
    found = []
    for path in sorted(path for path in folder.iterdir() if is_picture(path))[: _CALIBRATED + _COMPARED]:
        with contextlib.suppress(PictureError):
            read_picture(path)
            found.append(path)
    if len(found) < _FEWEST:
        raise UsageError(f"{folder} holds {len(found)} pictures, too few to calibrate on", f"{_FEWEST} are the least")
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
    """Keep NNCF's log and its bars off the terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
