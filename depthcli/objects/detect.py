"""From a picture to a detector's input, and from its answers to masks. NumPy and OpenCV only.

The input is RGB from 0 to 1, stretched to a square without antialiasing, less the mean and over the deviation of
ImageNet. As in the official code, the best Q of all Q x C scores count, so that one query may answer under two labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from depthcli.io.masks.found import ObjectMask

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CELL = 4  # pixels of the input that share one cell of a mask
_BLURRED = 0.3  # of a cell: how far from the true edge a mask's edge may lie
_LEAST_TRIM = 3.0  # pixels


def to_input(rgb: np.ndarray, side: int) -> np.ndarray:
    """Return the (3, side, side) float32 input for a (H, W, 3) uint8 RGB picture."""
    square = cv2.resize(rgb.astype(np.float32) / np.float32(255), (side, side), interpolation=cv2.INTER_LINEAR)
    normalised = (square - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), np.float32)


def masks_of(
    logits: np.ndarray,
    boxes: np.ndarray,
    mask_logits: np.ndarray,
    size: tuple[int, int],
    classes: Mapping[int, str],
    threshold: float,
) -> list[ObjectMask]:
    """Return the detections with at least a score, best first; of one query the best label alone.

    logits: (Q, C). boxes: (Q, 4) middle and size from 0 to 1. mask_logits: (Q, h, w). size: (width, height) of the
    picture. classes: names by row of the logits; rows without a name, such as background, are no detections.
    """
    return [
        ObjectMask(mask_at(mask_logits[query], size), classes[label], label, score, pixel_box(boxes[query], size))
        for query, (label, score) in detections(logits, classes, threshold).items()
    ]


def detections(logits: np.ndarray, classes: Mapping[int, str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return label and score by query, best first, of those that `masks_of` takes."""
    scores, labels, queries = best_pairs(logits)
    found: dict[int, tuple[int, float]] = {}
    for score, label, query in zip(scores.tolist(), labels.tolist(), queries.tolist()):
        if score >= threshold and label in classes:
            found.setdefault(query, (label, score))
    return found


def best_pairs(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores, labels and queries of the best Q of the Q x C pairs, best first."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float32)))
    order = np.argsort(-scores.ravel(), kind="stable")[: len(logits)]
    return scores.ravel()[order], order % logits.shape[1], order // logits.shape[1]


def pixel_box(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) in pixels, inside of the picture."""
    x, y, width, height = (float(number) for number in box)
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    left, top, right, bottom = (min(max(0.0, place * side), side) for place, side in zip(corners, size * 2))
    return left, top, right, bottom


def mask_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) bool mask of a picture of (width, height) for (h, w) logits."""
    return np.asarray(cv2.resize(logits.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0)


def trim_of(size: tuple[int, int], side: int) -> float:
    """Return the pixels of a picture by which the edges of a detector's masks may be off. side: of its input."""
    return max(_LEAST_TRIM, _BLURRED * _CELL * max(size) / side)
