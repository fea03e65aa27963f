"""A checkpoint's graph for engines that compile for themselves: out of the cache, or traced, converted and kept there.

Only a graph that is not there yet needs torch, and only while it is made.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from depthcli import graph_cache
from depthcli.backends.positions import resize_positions
from depthcli.weights import Talk, WeightsFile
from depthcli.zoo import PATCH, ModelRow

if TYPE_CHECKING:
    from depthcli.nets.any_size import AnySizeGraph

# To be raised with every change of the networks or of the way they are converted that changes the files.
GRAPH_VERSION = 1
_POSITIONS = "positions.npy"
_KEPT_GRIDS = 16

Write = Callable[["AnySizeGraph", Path], None]


@dataclass
class KeptGraph:
    """The files of one graph.

    folder: where they are. positions: the trained grid (D, side, side) float32, None for a network of convolutions.
    temporary: what has to live as long as the folder is needed, where it is not in the cache.
    """

    folder: Path
    positions: Optional[np.ndarray]
    temporary: contextlib.ExitStack
    _grids: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def inputs(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the graph's inputs for one picture (1, 3, H, W)."""
        if self.positions is None:
            return [image]
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        if grid not in self._grids:
            if len(self._grids) >= _KEPT_GRIDS:
                self._grids.pop(next(iter(self._grids)))
            self._grids[grid] = resize_positions(self.positions, *grid)
        return [image, self._grids[grid]]

    def close(self) -> None:
        """Remove what is not kept."""
        self.temporary.close()


def graph_name(package: str, row: ModelRow, weights: WeightsFile) -> str:
    """Return what a checkpoint's graph is kept under, for the engine of this package in its present version."""
    form = f"{row.encoder}-metric" if row.metric else row.encoder
    return f"{form}-{weights.sha256[:32]}-{package}-{version(package)}-{GRAPH_VERSION}"


def obtain_graph(
    name: str,
    row: ModelRow,
    weights: WeightsFile,
    trust: bool,
    talk: Talk,
    write: Write,
    is_current: Optional[Callable[[Optional[Path]], bool]] = None,
) -> KeptGraph:
    """Return the graph of a checkpoint as `write` puts it into a folder for an engine.

    name: what it is kept under. is_current: asked, where given, whether what is there, or None, is what is wanted; else
    what is there is. Raises ModelError where the weights cannot be read. Where nothing can be kept the graph is made in
    a temporary folder, and `talk` is told.
    """
    temporary = contextlib.ExitStack()
    folder = graph_cache.find(name)
    if is_current and not is_current(folder):
        folder = None
    if folder is None:
        graph = _trace(row, weights, trust)
        try:
            with graph_cache.new_entry(name) as partial:
                _write(graph, partial, write)
            folder = graph_cache.find(name)
            reason = "it is gone"
        except OSError as error:
            reason = error.strerror or str(error)
        if folder is None:
            talk(f"the network cannot be kept in {graph_cache.cache_folder()} and will be converted again: {reason}")
            folder = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="depthcli-")))
            _write(graph, folder, write)
    positions = np.load(folder / _POSITIONS) if (folder / _POSITIONS).exists() else None
    return KeptGraph(folder, positions, temporary)


def _trace(row: ModelRow, weights: WeightsFile, trust: bool) -> AnySizeGraph:
    from depthcli.nets.any_size import trace_any_size
    from depthcli.nets.build import load_network
    from depthcli.nets.checkpoint import read_state

    state = read_state(weights.path, weights.sha256, trust=trust)
    return trace_any_size(load_network(row, state, weights.path.name))


def _write(graph: AnySizeGraph, folder: Path, write: Write) -> None:
    write(graph, folder)
    if graph.positions is not None:
        np.save(folder / _POSITIONS, graph.positions)
