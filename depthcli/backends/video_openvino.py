"""OpenVINO for models that see a window of frames at once: each frame alone, the window's coarse maps over time, and
each frame alone again, in three graphs that are compiled once for every size of frame, kept in the cache, and mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.backends.openvino import cpu_settings, describe, open_cpu, pick_precision
from depthcli.choices import BackendChoice
from depthcli.errors import EngineError, Log
from depthcli.graphs.converted import EngineGraph, Write, graph_name, runtime_errors
from depthcli.host.memory import check_clip_memory, free_memory
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

if TYPE_CHECKING:
    from depthcli.graphs.any_size import AnySizeClipGraphs

_PARTS = ("encode", "mix", "finish")

Taps = Sequence[np.ndarray]


class VideoOpenVino:
    """A `VideoNetwork` of temporal/windows.py on the CPU. Arguments as for every engine of `backends`."""

    best_batch = 1  # more at once only takes more memory here

    def __init__(self, row: ModelRow, weights: WeightsFile, choice: BackendChoice, trust: bool, talk: Log) -> None:
        core, capabilities, cpu = open_cpu(choice.device)
        precision = pick_precision(choice.precision, capabilities, row)
        if precision == "int8":
            raise EngineError("models for video do not run in int8", "use --precision bf16 or fp32")
        name = f"{graph_name('openvino', row, weights)}-{precision}-{cpu}"
        self._row = row
        self._graph = EngineGraph(_ClipEngine(core, cpu_settings(precision)), name, row, weights, trust, talk)
        self._requests: dict[str, Any] = {}
        with runtime_errors("openvino"):
            for part in _PARTS:
                self._requests[part] = self._graph.network.compiled[part].create_infer_request()
        self.description = describe(precision)

    def check(self, plan: InputPlan) -> None:
        """Raise PictureError where a window of this size would not fit into the memory."""
        check_clip_memory(self._row.network, plan, 1, free_memory(), whole_maps=True)

    def encode(self, images: np.ndarray) -> Sequence[Taps]:
        """Return the tapped maps of each of the images (n, 3, H, W) float32; raises EngineError."""
        inputs = (self._graph.inputs.of(image) for image in np.ascontiguousarray(images)[:, None])
        return [self._run("encode", each) for each in inputs]

    def decode(self, frames: Sequence[Taps]) -> np.ndarray:
        """Return the answers (32, H, W) float32 for the maps of a window; raises EngineError."""
        (mixed,) = self._run("mix", [np.concatenate([taps[level] for taps in frames]) for level in (2, 3)])
        answers = [
            self._run("finish", [mixed[number : number + 1], taps[1], taps[0]])[0] for number, taps in enumerate(frames)
        ]
        self._graph.computed()
        return np.concatenate(answers)

    def close(self) -> None:
        """Free the network; closing twice is no error."""
        self._requests = {}
        self._graph.close()

    def _run(self, part: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
        if not self._requests:
            raise EngineError("this network is closed", "open another one")
        with runtime_errors("openvino"):
            results = self._requests[part].infer(inputs, share_inputs=True)
            return [results[port].copy() for port in range(len(results))]  # the next run writes to the same memory


@dataclass(frozen=True)
class _Networks:
    """What OpenVINO compiled, and the mapped files that it reads its weights from and does not keep alive itself."""

    compiled: dict[str, Any]
    blobs: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class _ClipEngine:
    core: Any
    settings: dict[str, Any]

    def is_current(self, kept: Optional[Path]) -> bool:
        return kept is not None

    def load(self, folder: Path) -> _Networks:
        from openvino import Tensor

        blobs = tuple(np.memmap(folder / f"{part}.blob", np.uint8, "c") for part in _PARTS)
        with runtime_errors("openvino"):
            compiled = {
                part: self.core.import_model(Tensor(blob, shared_memory=True), "CPU", self.settings)
                for part, blob in zip(_PARTS, blobs)
            }
        return _Networks(compiled, blobs)

    def compile(self, graphs: AnySizeClipGraphs) -> tuple[_Networks, Write]:
        from depthcli.backends.exports import to_openvino

        compiled = {}
        with runtime_errors("openvino"):
            for part, graph in zip(_PARTS, (graphs.encode, graphs.mix, graphs.finish)):
                model = to_openvino(graph.trace, graph.examples, any_size=True)
                compiled[part] = self.core.compile_model(model, "CPU", self.settings)

        def write(folder: Path) -> None:
            for part in _PARTS:
                (folder / f"{part}.blob").write_bytes(compiled[part].export_model().getbuffer())

        return _Networks(compiled), write
