"""Objects in pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from depthcli.choices.settings import require
from depthcli.errors import UsageError

OBJECT_FILES = ("json", "overlay", "masks", "mattes", "exr")
OBJECT_ORDERS = ("distance", "score", "area", "label")


@dataclass(frozen=True)
class ObjectsChoice:
    """Which objects are measured, and how.

    classes: names or numbers, none for all. threshold: least score of a detection; annotations have none.
    max_objects: the best by score, then area; None for all. trim_px: pixels left out along the edge of a mask, None for
    1 of masks from files and the coarseness of a detector's. overlap: intersection over union beyond which a
    detection repeats a better one. sort: one of OBJECT_ORDERS. require_metric: refuse depth without metres.
    """

    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    max_objects: Optional[int] = None
    trim_px: Optional[float] = None
    overlap: float = 0.8
    sort: str = "distance"
    require_metric: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"`{name}` must be 0 to 1, got {getattr(self, name):g}")
        if self.max_objects is not None and self.max_objects < 1:
            raise UsageError(f"`max_objects` must be at least 1, got {self.max_objects}")
        if self.trim_px is not None and not 0 <= self.trim_px < math.inf:
            raise UsageError(f"`trim_px` must be 0 pixels or more, got {self.trim_px:g}")
        require("sort", self.sort, OBJECT_ORDERS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note; None for those left open."""
        return {
            "classes": ",".join(self.classes) or None,
            "threshold": self.threshold,
            "max-objects": self.max_objects,
            "trim-px": self.trim_px,
            "overlap": self.overlap,
            "sort": self.sort,
        }


def object_files(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the names of OBJECT_FILES, in their order, that lists with commas hold. Raises UsageError for others."""
    asked = [name.strip() for item in formats for name in item.split(",") if name.strip()]
    for name in asked:
        require("formats", name, OBJECT_FILES)
    return tuple(name for name in OBJECT_FILES if name in asked)
