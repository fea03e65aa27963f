"""Choose among the masks of a picture: by class, score and number, and each object once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depthcli.choices.objects import ObjectsChoice
from depthcli.io.masks.found import ObjectMask


def select(masks: Sequence[ObjectMask], choice: ObjectsChoice) -> list[ObjectMask]:
    """Return the masks of a choice, in their order. Masks without pixels, and those that repeat a better one, go.

    Only masks with a score repeat each other: two annotations of one place are meant.
    """
    wanted = [item for item in masks if _is_wanted(item, choice) and item.mask.any()]
    kept = _each_once(wanted, choice.overlap)
    if choice.max_objects is not None and len(kept) > choice.max_objects:
        best = sorted(kept, key=_goodness, reverse=True)[: choice.max_objects]
        kept = [item for item in kept if any(item is other for other in best)]
    return kept


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Return the intersection of two masks over their union, 0 for empty ones."""
    both = int(np.count_nonzero(one & two))
    return both / int(np.count_nonzero(one | two)) if both else 0.0


def _is_wanted(item: ObjectMask, choice: ObjectsChoice) -> bool:
    if item.score is not None and item.score < choice.threshold:
        return False
    names = {name.casefold() for name in choice.classes}
    return not names or item.label.casefold() in names or str(item.class_id) in names


def _each_once(masks: Sequence[ObjectMask], most: float) -> list[ObjectMask]:
    kept: list[ObjectMask] = []
    for item in sorted(masks, key=_goodness, reverse=True):
        if item.score is None or all(other.score is None or overlap(item.mask, other.mask) <= most for other in kept):
            kept.append(item)
    return [item for item in masks if any(item is other for other in kept)]


def _goodness(item: ObjectMask) -> tuple[float, int]:
    return (1.0 if item.score is None else item.score), int(np.count_nonzero(item.mask))
