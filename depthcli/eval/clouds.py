"""Accuracy of a reconstruction: how far its points are from true ones, and true ones from it.

Figures of the benchmark of Depth Anything 3 (protocol da3-recon).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.errors import UsageError
from depthcli.geometry.nearest import box_means, nearest_distances
from depthcli.geometry.solids import OPENCV, PointCloud, with_axes
from depthcli.io.points.files import read_shape

PROTOCOL = (
    "accuracy, completeness: mean distance of points from the nearest true one, and of true points from the nearest "
    "point; precision, recall: shares of these below the threshold; clouds as they are, without alignment"
)


@dataclass(frozen=True)
class CloudScore:
    """Distances in the unit of the clouds; the others are shares, 0 to 1.

    accuracy: mean distance of points from the truth. completeness: of true points from the prediction. overall: the
    mean of both. precision, recall: shares of points, and of true points, nearer than the threshold. f_score: their
    harmonic mean.
    """

    accuracy: float
    completeness: float
    overall: float
    precision: float
    recall: float
    f_score: float


def score_cloud(
    predicted: np.ndarray, truth: np.ndarray, threshold: float, voxel: Optional[float] = None
) -> CloudScore:
    """Return how well (N, 3) points match (M, 3) true ones, both in one world.

    voxel: width of the boxes in which each cloud is replaced by its means before, None for none. An empty cloud has
    infinite distances and shares of 0.
    """
    if voxel is not None:
        predicted, truth = box_means(predicted, voxel)[0], box_means(truth, voxel)[0]
    if not len(predicted) or not len(truth):
        return CloudScore(np.inf, np.inf, np.inf, 0.0, 0.0, 0.0)
    there, back = nearest_distances(predicted, truth), nearest_distances(truth, predicted)
    accuracy, completeness = float(there.mean()), float(back.mean())
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    both = precision + recall
    f_score = 2 * precision * recall / both if both else 0.0
    return CloudScore(accuracy, completeness, (accuracy + completeness) / 2, precision, recall, f_score)


def read_points(path: Path) -> np.ndarray:
    """Return the (N, 3) float64 points of a file, with OpenCV's axes if it tells its own.

    Raises UsageError for a file of triangles, OutputError as `read_shape`.
    """
    shape = read_shape(path)
    if not isinstance(shape, PointCloud):
        raise UsageError(f"{path} holds no cloud of points", "sample its surface first")
    return np.asarray((shape if shape.axes is None else with_axes(shape, OPENCV)).points, np.float64)
