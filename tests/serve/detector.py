"""A detector that takes a given time and always finds the same objects: two people, a car, and an unsure dog."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthcli.backends.detector import DetectorNetwork

SIDE, CELLS = 48, 96
CLASSES = {1: "person", 3: "car", 18: "dog"}
# Label, score, and (left, top, right, bottom) of an ellipse as parts of the picture.
OBJECTS = (
    (1, 0.93, (0.08, 0.2, 0.34, 0.95)),
    (3, 0.81, (0.42, 0.45, 0.92, 0.85)),
    (1, 0.66, (0.55, 0.08, 0.72, 0.42)),
    (18, 0.35, (0.3, 0.6, 0.45, 0.9)),
)


def open_detector(name: str, *_: Any, **__: Any) -> DetectorNetwork:
    """Return it. Its passes take `DETECTOR` seconds."""
    return DetectorNetwork(name, "0" * 64, SIDE, CLASSES, "stand-in 1 cpu fp32", _infer, lambda: None)


def _infer(images: np.ndarray) -> Sequence[np.ndarray]:
    time.sleep(float(os.environ.get("DETECTOR", "0")))
    logits = np.full((1, len(OBJECTS), 91), -9, np.float32)
    boxes = np.zeros((1, len(OBJECTS), 4), np.float32)
    masks = np.zeros((1, len(OBJECTS), CELLS, CELLS), np.float32)
    v, u = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS
    for query, (label, score, (left, top, right, bottom)) in enumerate(OBJECTS):
        logits[0, query, label] = np.log(score / (1 - score))
        middle, size = ((left + right) / 2, (top + bottom) / 2), (right - left, bottom - top)
        boxes[0, query] = (*middle, *size)
        masks[0, query] = 1 - ((u - middle[0]) / size[0] * 2) ** 2 - ((v - middle[1]) / size[1] * 2) ** 2
    return logits, boxes, masks
