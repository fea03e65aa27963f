"""A mask of one object, with what its source says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One object of a picture.

    mask: (H, W) bool at the size of the upright picture, read-only. label: name of its class, empty if unknown.
    class_id: number of its class, as the source counts; None without one. score: 0 to 1, None for an annotation.
    box: (left, top, right, bottom) in pixels from the picture's outer corner as a detector gave it; None for the
    bounds of the mask. track: number of the object in a clip, None if unknown.
    """

    mask: np.ndarray
    label: str = ""
    class_id: Optional[int] = None
    score: Optional[float] = None
    box: Optional[tuple[float, float, float, float]] = None
    track: Optional[int] = None

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask, dtype=bool)
        if mask.ndim != 2:
            raise ValueError(f"a mask is (H, W), not {mask.shape}")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    @property
    def name(self) -> str:
        """The label, or the number of the class, or "object"."""
        return self.label or ("object" if self.class_id is None else f"class {self.class_id}")
