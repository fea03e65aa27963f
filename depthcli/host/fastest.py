"""The fastest backend of this machine, as `depth bench --remember` measured it: a file beside the converted networks.

Nothing is measured or written unless the user asks, so that no answer depends on a time. An entry counts for the CPU,
threads and package versions that it was measured with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import OutputError
from depthcli.host.atomic import atomic_path
from depthcli.host.graph_cache import NO_FOLDER, cache_folder

FILE = "fastest.json"


@dataclass(frozen=True)
class Fastest:
    """A measurement.

    network: ModelRow.encoder. precision: as chosen, one of PRECISIONS. backend: the fastest. milliseconds: of the
    network, by backend. machine, versions: as `here` returns them. date: ISO 8601, UTC.
    """

    network: str
    precision: str
    backend: str
    milliseconds: Mapping[str, float]
    machine: str
    versions: str
    date: str

    @property
    def place(self) -> tuple[str, str, str]:
        """What there is one measurement of: network, precision and machine."""
        return self.network, self.precision, self.machine

    @property
    def counts(self) -> bool:
        """Whether it was measured on this machine, with these versions."""
        return (self.machine, self.versions) == here()


def here() -> tuple[str, str]:
    """Return this machine (CPU, threads, flags), and the versions of the packages that compute, a line each."""
    from depthcli.host.cores import compute_threads
    from depthcli.host.machine import cpu_flags, cpu_model, versions

    packages = versions()
    computing = (f"{name} {packages[name]}" for name in ("torch", "openvino", "onnxruntime") if name in packages)
    return ", ".join((cpu_model(), f"{compute_threads()} threads", *cpu_flags())), ", ".join(computing)


def find(network: str, precision: str) -> Optional[Fastest]:
    """Return the measurement that counts here, or None."""
    return next(
        (item for item in every() if (item.network, item.precision) == (network, precision) and item.counts), None
    )


def every() -> list[Fastest]:
    """Return all measurements in the file, also those that do not count here; none if it is missing or damaged."""
    path = _path()
    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if path else []
        return [item for item in map(_read, rows) if item is not None]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def remember(item: Fastest) -> None:
    """Write a measurement, instead of an earlier one of its place. Raises OutputError."""
    _write([item, *(other for other in every() if other.place != item.place)])


def forget(items: Iterable[Fastest]) -> None:
    """Remove measurements. Raises OutputError."""
    gone = [item.place for item in items]
    if gone:
        _write([item for item in every() if item.place not in gone])


def _write(items: list[Fastest]) -> None:
    path = _path()
    if path is None:
        raise OutputError(NO_FOLDER)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps([asdict(item) for item in items], indent=1) + "\n", encoding="utf-8")


def _path() -> Optional[Path]:
    folder = cache_folder()
    return folder / FILE if folder else None


def _read(row: Any) -> Optional[Fastest]:
    """Return a row of the file as a measurement, None if it is damaged."""
    try:
        item = Fastest(**row)
    except TypeError:
        return None
    texts = (item.network, item.precision, item.backend, item.machine, item.versions, item.date)
    times = item.milliseconds
    whole = all(isinstance(text, str) for text in texts) and isinstance(times, Mapping) and item.backend in times
    return item if whole and all(isinstance(ms, float) and math.isfinite(ms) for ms in times.values()) else None
