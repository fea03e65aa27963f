"""Where the masks of pictures and frames come from: files, or a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from depthcli.choices import BackendChoice, ObjectsChoice
from depthcli.errors import Log, UsageError
from depthcli.io.masks.files import MaskFiles
from depthcli.io.masks.found import ObjectMask
from depthcli.objects.detect import masks_of, to_input, trim_of
from depthcli.objects.measure import FILE_TRIM
from depthcli.zoo.detectors import DEFAULT


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """The masks of one picture. trim: pixels of their edges that are not sharp."""

    masks: Sequence[ObjectMask]
    trim: float = FILE_TRIM
    notes: tuple[str, ...] = ()


class MaskSource(Protocol):
    """Where masks come from."""

    @property
    def facts(self) -> dict[str, Any]:
        """What results say about it: `source`, and a digest of the file or the weights."""

    def of_picture(self, path: Path, rgb: np.ndarray) -> FoundMasks:
        """Return the masks of a (H, W, 3) uint8 picture. Raises DepthError."""

    def of_frame(self, number: int, rgb: np.ndarray) -> FoundMasks:
        """Return the masks of a frame of a clip, counted from 0."""

    def close(self) -> None:
        """Free what it holds."""


class MasksFromFiles:
    """The masks of a file or folder."""

    def __init__(self, place: Path) -> None:
        self._files = MaskFiles(place)

    @property
    def facts(self) -> dict[str, Any]:
        """Name and digest."""
        return {"source": self._files.name, "digest": self._files.fingerprint}

    def of_picture(self, path: Path, rgb: np.ndarray) -> FoundMasks:
        """Return the masks that belong to a picture's path."""
        masks, notes = self._files.of_picture(path, _size(rgb))
        return FoundMasks(masks, notes=notes)

    def of_frame(self, number: int, rgb: np.ndarray) -> FoundMasks:
        """Return the masks of a frame."""
        masks, notes = self._files.of_frame(number, _size(rgb))
        return FoundMasks(masks, notes=notes)

    def close(self) -> None:
        """Do nothing."""


class Detector:
    """A detector that finds masks; its package is loaded with it. Close it in the end.

    name: as for `open_detector`. Raises UsageError for classes that it does not know.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        choice: ObjectsChoice,
        backend: BackendChoice,
        offline: bool,
        trust: bool,
        log: Log,
    ) -> None:
        from depthcli.backends.detector import open_detector

        self._network = open_detector(name, backend, offline=offline, trust=trust, log=log)
        self._threshold = choice.threshold
        known = {each.casefold() for pair in self._network.classes.items() for each in map(str, pair)}
        for wanted in choice.classes:
            if wanted.casefold() not in known:
                self.close()
                some = ", ".join(list(self._network.classes.values())[:5])
                raise UsageError(f"{self._network.name} knows no class {wanted!r}", f"`classes` are such as {some}")

    @property
    def facts(self) -> dict[str, Any]:
        """Name and digest of the weights, and what runs them."""
        network = self._network
        return {"source": network.name, "digest": network.sha256[:12], "engine": network.engine}

    def close(self) -> None:
        """Free the network, and keep a converted one."""
        self._network.close()

    def of_picture(self, path: Path, rgb: np.ndarray) -> FoundMasks:
        """Return what is found in a picture."""
        size, side = _size(rgb), self._network.side
        answers = self._network.run(to_input(rgb, side))
        return FoundMasks(masks_of(*answers, size, self._network.classes, self._threshold), trim_of(size, side))

    def of_frame(self, number: int, rgb: np.ndarray) -> FoundMasks:
        """Return what is found in a frame."""
        return self.of_picture(Path(), rgb)


def _size(rgb: np.ndarray) -> tuple[int, int]:
    return rgb.shape[1], rgb.shape[0]
