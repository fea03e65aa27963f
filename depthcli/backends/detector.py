"""Detectors: what runs one, from its weights, or from a file that `depth compile` wrote. Float32 everywhere.

On a CPU the weights are converted once and kept in the cache of converted networks; from then on neither torch nor
transformers is loaded, which takes most of the time of a short run.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from depthcli.backends import pick_backend
from depthcli.backends.artifact import FOLDER
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError, EngineError, Log
from depthcli.io.names import sidecar_of
from depthcli.zoo.detectors import DETECTORS, DetectorFiles, detector_here, find_detector
from depthcli.zoo.verify import digest

if TYPE_CHECKING:
    from depthcli.backends.converted import ReadyNetwork
    from depthcli.graphs.any_size import AnySizeGraph

SCHEMA = "depthcli-detector/1"
SUFFIXES = {"openvino": ".xml", "onnx": ".onnx"}  # of compiled files, by backend
_FORM = "rf-detr"  # in the names of cached graphs


@dataclass(frozen=True, eq=False)
class DetectorNetwork:
    """A loaded detector.

    name, sha256: of its weights. side: of the square input in pixels. classes: names by number; other rows of the
    logits are no classes. engine: package, version, device and precision. close: frees it.
    """

    name: str
    sha256: str
    side: int
    classes: Mapping[int, str]
    engine: str
    infer: Callable[[np.ndarray], Sequence[np.ndarray]]
    close: Callable[[], None]

    def run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (Q, C) logits, (Q, 4) boxes (middle and size, 0 to 1) and (Q, h, w) logits of masks, float32.

        image: (3, side, side) float32, normalised.
        """
        logits, boxes, masks = (array[0] for array in self.infer(np.ascontiguousarray(image[None])))
        return logits, boxes, masks


def open_detector(
    name: str,
    choice: BackendChoice = BackendChoice(),
    *,
    offline: bool = False,
    trust: bool = False,
    log: Log = lambda line: None,
) -> DetectorNetwork:
    """Return a detector: the name of a row, a folder of transformers, a .pth, or a file of `depth compile`.

    A compiled file in checkpoints/compiled/ is taken if it is of these weights, or if the weights are not here.
    Raises ModelError, EngineError, DownloadError and UsageError.
    """
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in SUFFIXES.values():
        return _from_file(path)
    backend = _backend_for(choice)
    if backend == "torch":
        return _in_torch(find_detector(name, offline=offline, log=log), choice.device, trust)
    here = detector_here(name)
    compiled = _compiled(here, name, backend)
    if compiled is not None:
        return _from_file(compiled)
    return _converted(here or find_detector(name, offline=offline, log=log), backend, trust, log)


def _backend_for(choice: BackendChoice) -> str:
    """Return torch, openvino or onnx. What runs depth alone leaves the choice to the machine."""
    if choice.backend in ("torch", *SUFFIXES):
        if choice.backend != "torch" and choice.device not in ("auto", "cpu"):
            raise EngineError(f"{choice.backend} runs on the CPU here, not on {choice.device}", "use `backend` torch")
        return choice.backend
    precision = "exact" if choice.precision == "exact" else "fp32"
    return pick_backend(BackendChoice(device=choice.device, precision=precision))


def _in_torch(files: DetectorFiles, device: str, trust: bool) -> DetectorNetwork:
    from depthcli.nets.rf_detr import RfDetr, pick_device

    network = RfDetr(files, pick_device(device), trust)

    def infer(images: np.ndarray) -> Sequence[np.ndarray]:
        return [array[None] for array in network.run(images[0])]

    engine = f"torch {version('torch')} {network.device} fp32"
    return DetectorNetwork(files.name, files.sha256, network.side, network.classes, engine, infer, lambda: None)


def _converted(files: DetectorFiles, backend: str, trust: bool, log: Log) -> DetectorNetwork:
    def trace() -> AnySizeGraph:
        from depthcli.graphs.detector import trace_detector
        from depthcli.nets.rf_detr import RfDetr

        return trace_detector(RfDetr(files, "cpu", trust))

    ready: ReadyNetwork = _module(backend).open_converted(_FORM, files.fingerprint, trace, log)
    return _ready(ready, files.name, files.sha256, ready.facts)


def _from_file(path: Path) -> DetectorNetwork:
    if not path.is_file():
        raise CheckpointError(f"there is no {path}", "`depth compile` with `detector` writes one")
    stated = _sidecar(path).get("files_sha256")
    for name, wanted in (stated if isinstance(stated, Mapping) else {}).items():
        if digest(path.with_name(Path(name).name)) != wanted:
            raise CheckpointError(f"{name} is not what was compiled", "copy it again, or compile it again")
    backend = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix.lower())
    ready: ReadyNetwork = _module(backend).open_file(path)
    facts = ready.facts
    if facts.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} is no detector of this version", "compile one with `depth compile` and `detector`"
        )
    try:
        return _ready(ready, str(facts["detector"]), str(facts["weights_sha256"]), facts)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the description in {path} is not whole", "compile it again") from error


def _ready(ready: ReadyNetwork, name: str, sha256: str, facts: Mapping[str, Any]) -> DetectorNetwork:
    classes = {int(number): str(each) for number, each in facts["classes"].items()}
    engine = f"{ready.package} {version(ready.package)} cpu fp32"
    return DetectorNetwork(name, sha256, int(facts["side"]), classes, engine, ready.infer, ready.close)


def _compiled(files: Optional[DetectorFiles], name: str, backend: str) -> Optional[Path]:
    """Return the compiled file of a detector for a backend. files: its weights, None if they are not here."""
    if files is None and name not in DETECTORS:
        return None
    stem = name if files is None else files.stem
    for path in sorted(FOLDER.glob(f"{stem}_*{SUFFIXES[backend]}")) if FOLDER.is_dir() else ():
        facts = _sidecar(path)
        same = files is None or facts.get("weights_sha256") == files.sha256
        if facts.get("schema") == SCHEMA and facts.get("detector") == (name if files is None else files.name) and same:
            return path
    return None


def _sidecar(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(sidecar_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _module(backend: str) -> ModuleType:
    return importlib.import_module(f"depthcli.backends.{backend}")
