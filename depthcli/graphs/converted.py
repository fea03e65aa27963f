"""A checkpoint's graph for engines that compile for themselves: out of the cache, or traced, compiled and kept there.

Only a graph that is not there yet needs torch, and only while it is made. It is kept beside the second picture, or
at the end, so that nobody who waits for a picture waits for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import numpy as np

from depthcli.errors import DepthError, EngineError, Log, first_line, last_line
from depthcli.graphs.positions import resize_positions
from depthcli.host import graph_cache
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import PATCH, ModelRow, ModelTask

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeClipGraphs, AnySizeGraph

# To be raised with every change of the networks or of the way they are converted that changes the files.
GRAPH_VERSION = 3
_POSITIONS = "positions.npy"
_KEPT_GRIDS = 16

Write = Callable[[Path], None]


@dataclass
class GraphInputs:
    """What a graph is fed. positions: the trained grid (D, side, side) float32, None for a network of convolutions."""

    positions: Optional[np.ndarray]
    _grids: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def of(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the graph's inputs, in order, for one picture (1, 3, H, W)."""
        if self.positions is None:
            return [image]
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        if grid not in self._grids:
            if len(self._grids) >= _KEPT_GRIDS:
                self._grids.pop(next(iter(self._grids)))
            self._grids[grid] = resize_positions(self.positions, *grid)
        return [image, self._grids[grid]]


class GraphEngine(Protocol):
    """How an engine takes a graph."""

    def is_current(self, kept: Optional[Path]) -> bool:
        """Return whether the entry that the cache has, or None, is what is wanted."""

    def load(self, folder: Path) -> Any:
        """Return what runs, from the files of an entry of the cache."""

    def compile(self, graph: Any) -> tuple[Any, Write]:
        """Return what runs an AnySizeGraph or AnySizeClipGraphs, and what writes an entry's files, in a thread."""


class EngineGraph:
    """A checkpoint's graph in an engine, out of the cache where it is there.

    name: what it is kept under. `network` is what the engine runs, `inputs` what it is fed. Raises ModelError where
    the weights cannot be read, and what the engine raises. Where nothing can be kept, `talk` is told at the end.
    """

    def __init__(
        self, engine: GraphEngine, name: str, row: ModelRow, weights: WeightsFile, trust: bool, talk: Log
    ) -> None:
        self._talk = talk
        self.network: Any = None
        self._keeping: Optional[threading.Thread] = None
        self._trouble: Optional[Exception] = None
        self._starting = threading.Lock()
        self._answered = False
        folder = graph_cache.find(name)
        if not (engine.is_current(folder) and folder is not None and self._load(engine, folder)):
            graph = _trace(row, weights, trust)
            self.network, write = engine.compile(graph)
            self.inputs = GraphInputs(graph.positions)
            self._keeping = threading.Thread(target=self._keep, args=(name, write, graph.positions))

    def _load(self, engine: GraphEngine, folder: Path) -> bool:
        """Take what is kept; False where it cannot be, as another process has removed it or made it elsewhere."""
        try:
            self.inputs = GraphInputs(np.load(folder / _POSITIONS) if (folder / _POSITIONS).exists() else None)
            self.network = engine.load(folder)
        except (EngineError, OSError, ValueError):
            return False
        return True

    def computed(self) -> None:
        """To be called when an engine has computed. From the second time on a graph that is new is kept, in a thread.

        Whoever waits for one picture should not wait for the disk as well: for them it is kept at the end.
        """
        if self._answered:
            self._start_keeping()
        self._answered = True

    def close(self) -> None:
        """Wait until the graph is kept, and free it; closing twice is no error."""
        self._start_keeping()
        if self._keeping is not None:
            self._keeping.join()
        if self._trouble is not None:
            reason = getattr(self._trouble, "strerror", None) or self._trouble
            place = graph_cache.cache_folder()
            where = f" in {place}" if place else ""
            self._talk(f"the network was not kept{where} and will be converted again: {reason}")
        self.network = self._keeping = self._trouble = None

    def _start_keeping(self) -> None:
        with self._starting:
            if self._keeping is not None and self._keeping.ident is None:
                self._keeping.start()

    def _keep(self, name: str, write: Write, positions: Optional[np.ndarray]) -> None:
        try:
            with graph_cache.new_entry(name) as partial:
                write(partial)
                if positions is not None:
                    np.save(partial / _POSITIONS, positions)
        except Exception as error:  # whatever it is, the graph itself runs
            self._trouble = error


@contextmanager
def runtime_errors(package: str) -> Iterator[None]:
    """Within this context what an engine's package raises becomes an EngineError; its classes have none in common."""
    try:
        yield
    except DepthError:
        raise
    except MemoryError as error:
        raise EngineError("the machine ran out of memory", "use a smaller --input-size") from error
    except Exception as error:
        line = last_line(error) if package == "openvino" else first_line(error)
        raise EngineError(f"{package} failed: {line}", "try --backend torch") from error


def graph_name(package: str, row: ModelRow, weights: WeightsFile) -> str:
    """Return what a checkpoint's graph is kept under, for the engine of this package in its present version."""
    form = row.name if row.task is ModelTask.CLIP else f"{row.encoder}-metric" if row.kind.is_metric else row.encoder
    return f"{form}-{weights.sha256[:32]}-{package}-{version(package)}-{GRAPH_VERSION}"


def _trace(row: ModelRow, weights: WeightsFile, trust: bool) -> AnySizeGraph | AnySizeClipGraphs:
    from depthcli.graphs.any_size import trace_any_size, trace_clip_graphs
    from depthcli.nets.build import load_network
    from depthcli.nets.checkpoint import read_state
    from depthcli.nets.video_depth_anything import VideoDepthAnything

    state = read_state(weights.path, weights.sha256, trust=trust)
    network = load_network(row, state, weights.path.name)
    return trace_clip_graphs(network) if isinstance(network, VideoDepthAnything) else trace_any_size(network)
