"""Depth maps that are kept for a while, so that one estimate gives many downloads."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.host.memory import free_memory

KEPT_BYTES = 512 << 20
KEPT_SECONDS = 600.0
_SHARE = 0.125  # of the memory that is free at the start, where that is less
_BESIDE = 8 << 10  # bytes that a result takes beside its layers, so that a million of one pixel are bounded too


@dataclass(frozen=True, eq=False)
class Result:
    """A depth map with its picture. rgb: (H, W, 3) uint8. name: of the picture. about: what its answer says of it.

    settings: what shaped the map, as files note it. answers: of the detector, once it was asked.
    """

    depth: DepthMap
    rgb: np.ndarray
    name: str
    about: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[np.ndarray, ...] = ()
    made: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        depth = self.depth
        layers = (depth.values, depth.valid, depth.confidence, depth.sky, self.rgb, *self.answers)
        return _BESIDE + sum(_held(layer) for layer in layers if layer is not None)


class Results:
    """Results by a name that cannot be guessed; the one that was used longest ago leaves first."""

    def __init__(self, most: int = KEPT_BYTES, seconds: float = KEPT_SECONDS) -> None:
        free = free_memory()
        self._most = most if free is None else min(most, int(free * _SHARE))
        self._seconds = seconds
        self._kept: OrderedDict[str, Result] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def add(self, result: Result) -> str:
        """Keep a result and return its name. One that is larger than all that may be kept is kept alone."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._put(name, result)
        self.drop_old()
        return name

    def add_answers(self, name: str, answers: tuple[np.ndarray, ...]) -> None:
        """Keep the answers of a detector with a result, if that is still kept."""
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._drop(name)
                self._put(name, replace(found, answers=answers))

    def _put(self, name: str, result: Result) -> None:
        self._kept[name] = result
        self._held += result.size
        while len(self._kept) > 1 and self._held > self._most:
            self._drop(next(iter(self._kept)))

    def get(self, name: str) -> Optional[Result]:
        """Return a result, None if it is not kept any more."""
        self.drop_old()
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def remove(self, name: str) -> None:
        """Forget a result."""
        with self._lock:
            if name in self._kept:
                self._drop(name)

    def drop_old(self) -> None:
        """Forget what has been kept for its time."""
        since = time.monotonic() - self._seconds
        with self._lock:
            for name in [name for name, item in self._kept.items() if item.made < since]:
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._held -= self._kept.pop(name).size


def _held(layer: np.ndarray) -> int:
    """Return the bytes that stay in memory for an array: those of the one that it is a part of."""
    return layer.base.nbytes if isinstance(layer.base, np.ndarray) else layer.nbytes
