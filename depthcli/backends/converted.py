"""A checkpoint's graph in the format of a backend: taken from the cache, or traced, converted and cached.

torch is needed only for a graph that is not in the cache. A new graph is written while the second picture runs, or at
the end, so that the first result does not wait for the disk.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import numpy as np

from depthcli.errors import CheckpointError, DepthError, EngineError, Log, StoppedError, first_line, last_line
from depthcli.graphs.positions import resize_positions
from depthcli.host import graph_cache
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import PATCH, ModelRow, ModelTask

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeGraph

# Raise it with every change to the networks or their conversion that changes the files.
GRAPH_VERSION = 5
_POSITIONS = "positions.npy"
_CAMERAS = "cameras.npy"
_FACTS = "facts.json"
_KEPT_GRIDS = 16

Write = Callable[[Path], None]


@dataclass
class GraphInputs:
    """Makes a graph's inputs.

    positions: the trained grid (D, side, side), None for a convolutional network. cameras: tokens (2, D) of the
    reference view and of the others, for scenes.
    """

    positions: Optional[np.ndarray]
    cameras: Optional[np.ndarray] = None
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


class Converter(Protocol):
    """How a backend converts a graph."""

    def is_current(self, kept: Optional[Path]) -> bool:
        """Return whether the cache's entry, or None, is the network that is wanted."""

    def load(self, folder: Path) -> Any:
        """Return the runnable network, from the files of a cache entry."""

    def convert(self, graph: AnySizeGraph) -> tuple[Any, Write]:
        """Return the runnable network, and a function that writes an entry's files and may run in a thread."""


class ConvertedGraph:
    """A checkpoint's converted graph.

    name: of its entry in the cache. trace: makes the graph, if it is not in the cache. network: what the backend runs.
    inputs: of the network. facts: of the graph. log: receives the reason if the graph cannot be cached. Raises
    ModelError for unreadable weights, and the converter's errors.
    """

    def __init__(self, converter: Converter, name: str, trace: Callable[[], AnySizeGraph], log: Log) -> None:
        self._log = log
        self.network: Any = None
        self._keeping: Optional[threading.Thread] = None
        self._failure: Optional[Exception] = None
        self._starting = threading.Lock()
        self.facts: Mapping[str, Any] = {}
        self._answered = False
        folder = graph_cache.find(name)
        if not (converter.is_current(folder) and folder is not None and self._load(converter, folder)):
            graph = trace()
            self.network, write = converter.convert(graph)
            self.inputs = GraphInputs(graph.positions, graph.cameras)
            self.facts = graph.facts
            self._keeping = threading.Thread(target=self._keep, args=(name, write))

    def _load(self, converter: Converter, folder: Path) -> bool:
        """Load a cache entry; False if that fails, as when another process has removed it."""
        try:
            self.inputs = GraphInputs(_read(folder / _POSITIONS), _read(folder / _CAMERAS))
            facts = folder / _FACTS
            self.facts = json.loads(facts.read_bytes()) if facts.exists() else {}
            self.network = converter.load(folder)
        except (EngineError, OSError, ValueError):
            return False
        return True

    def computed(self) -> None:
        """Note that a run has ended. From the second on, a new graph is written to the cache, in a thread."""
        if self._answered:
            self._start_keeping()
        self._answered = True

    def close(self) -> None:
        """Wait until the graph is kept, and free it; closing twice is allowed."""
        self._start_keeping()
        if self._keeping is not None:
            self._keeping.join()
        if self._failure is not None:
            reason = (self._failure.strerror if isinstance(self._failure, OSError) else None) or self._failure
            folder = graph_cache.cache_folder()
            where = f" in {folder}" if folder else ""
            self._log(f"the network was not kept{where} and will be converted again: {reason}")
        self.network = self._keeping = self._failure = None

    def _start_keeping(self) -> None:
        with self._starting:
            if self._keeping is not None and self._keeping.ident is None:
                self._keeping.start()

    def _keep(self, name: str, write: Write) -> None:
        try:
            with graph_cache.new_entry(name) as partial:
                write(partial)
                for file, array in ((_POSITIONS, self.inputs.positions), (_CAMERAS, self.inputs.cameras)):
                    if array is not None:
                        np.save(partial / file, array)
                if self.facts:
                    (partial / _FACTS).write_text(json.dumps(self.facts), encoding="utf-8")
        except Exception as error:  # the graph runs all the same
            self._failure = error


def _read(path: Path) -> Optional[np.ndarray]:
    return np.load(path) if path.exists() else None


@dataclass(frozen=True, eq=False)
class ReadyNetwork:
    """A network of one size that is ready to run in float32 on the CPU.

    facts: that were kept with it. package: that runs it. infer: takes the input, returns the outputs in order, and
    raises EngineError. close: frees it; closing twice is allowed.
    """

    facts: Mapping[str, Any]
    package: str
    infer: Callable[[np.ndarray], Sequence[np.ndarray]]
    close: Callable[[], None] = lambda: None


@contextmanager
def runtime_errors(package: str) -> Iterator[None]:
    """Turn what a backend's package raises into an EngineError; its classes have no base in common."""
    try:
        yield
    except (DepthError, StoppedError):
        raise
    except MemoryError as error:
        raise EngineError("the machine ran out of memory", "use a smaller `input_size`") from error
    except Exception as error:
        line = last_line(error) if package == "openvino" else first_line(error)
        raise EngineError(f"{package} failed: {line}", "try `backend` torch") from error


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what a package raises about a compiled file into a CheckpointError."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or no network: {first_line(error)}", "compile it again") from error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Postpone Ctrl-C: in a converter that calls Python back it would become an error of the converter."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def graph_name(package: str, row: ModelRow, weights: WeightsFile) -> str:
    """Return the name under which this version of a backend's package keeps a checkpoint's graph."""
    form = f"{row.encoder}-metric" if row.kind.is_metric else row.encoder
    if row.task is not ModelTask.PICTURE:
        form = row.name
    return entry_name(package, form, weights.sha256)


def entry_name(package: str, form: str, sha256: str) -> str:
    """Return the name under which a graph is kept. form: of the network. sha256: of all that determines it."""
    return f"{form}-{sha256[:32]}-{package}-{version(package)}-{GRAPH_VERSION}"


def trace_of(row: ModelRow, weights: WeightsFile, trust: bool) -> Callable[[], AnySizeGraph]:
    """Return a function that reads a checkpoint and traces its graph. It raises ModelError."""
    return lambda: _trace(row, weights, trust)


def _trace(row: ModelRow, weights: WeightsFile, trust: bool) -> AnySizeGraph:
    from depthcli.graphs.any_size import trace_any_size
    from depthcli.nets.build import read_network

    return trace_any_size(read_network(row, weights, trust))
