"""Where the masks of pictures and frames come from: files, or a detector."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from depthcli.choices.model import BackendChoice
from depthcli.choices.objects import ObjectsChoice
from depthcli.errors import Log, UsageError
from depthcli.io.masks.files import MaskFiles
from depthcli.io.masks.found import ObjectMask
from depthcli.objects.detect import detections, masks_of, to_input, trim_of
from depthcli.objects.measure import FILE_TRIM
from depthcli.zoo.detectors import DEFAULT

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]  # logits, boxes and mask logits


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

    # The three steps, for jobs that do them at the same time for different pictures. `prepare` and `finish` may be
    # called from any thread, `run` from one at a time.

    def prepare(self, rgb: np.ndarray, path: Optional[Path] = None, number: int = 0) -> Any:
        """Return what `run` takes of a (H, W, 3) uint8 picture, or of a frame with a number from 0 if it has no path.

        Raises DepthError.
        """

    def run(self, prepared: Any) -> Any:
        """Return the answer of a network. Raises DepthError."""

    def finish(self, prepared: Any, answer: Any, size: tuple[int, int]) -> FoundMasks:
        """Return the masks. size: (width, height) of the picture."""

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

    def file_of(self, picture: Path) -> Path:
        """Return the file that the masks of a picture are in. Raises UsageError if there is none."""
        return self._files.file_of(picture)

    def prepare(self, rgb: np.ndarray, path: Optional[Path] = None, number: int = 0) -> FoundMasks:
        """Return the masks that belong to a picture's path, or to a frame."""
        size = rgb.shape[1], rgb.shape[0]
        masks, notes = self._files.of_frame(number, size) if path is None else self._files.of_picture(path, size)
        return FoundMasks(masks, notes=notes)

    def run(self, prepared: FoundMasks) -> None:
        """Do nothing."""

    def finish(self, prepared: FoundMasks, answer: None, size: tuple[int, int]) -> FoundMasks:
        """Return what was read."""
        return prepared

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
        try:
            self._choose(choice)
        except UsageError:
            self.close()
            raise

    def variant(self, choice: ObjectsChoice) -> Detector:
        """Return a detector of another choice with the same network; the first one is to be closed.

        Raises UsageError.
        """
        other = copy.copy(self)
        other._choose(choice)
        return other

    def _choose(self, choice: ObjectsChoice) -> None:
        self._threshold = choice.threshold
        known = {each.casefold() for pair in self.classes.items() for each in map(str, pair)}
        for wanted in choice.classes:
            if wanted.casefold() not in known:
                some = ", ".join(list(self.classes.values())[:5])
                raise UsageError(f"{self._network.name} knows no class {wanted!r}", f"`classes` are such as {some}")

    @property
    def facts(self) -> dict[str, Any]:
        """Name and digest of the weights, and what runs them."""
        network = self._network
        return {"source": network.name, "digest": network.sha256[:12], "engine": network.engine}

    @property
    def classes(self) -> Mapping[int, str]:
        """Names of the classes by number."""
        return self._network.classes

    def count(self, answer: Answers) -> int:
        """Return how many masks `finish` makes."""
        return len(detections(answer[0], self.classes, self._threshold))

    def close(self) -> None:
        """Free the network, and keep a converted one."""
        self._network.close()

    def prepare(self, rgb: np.ndarray, path: Optional[Path] = None, number: int = 0) -> np.ndarray:
        """Return the input of the network."""
        return to_input(rgb, self._network.side)

    def run(self, prepared: np.ndarray) -> Answers:
        """Return the answers of the network."""
        return self._network.run(prepared)

    def finish(self, prepared: np.ndarray, answer: Answers, size: tuple[int, int]) -> FoundMasks:
        """Return the masks of what is found."""
        network = self._network
        return FoundMasks(masks_of(*answer, size, self.classes, self._threshold), trim_of(size, network.side))
