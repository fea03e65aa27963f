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
from depthcli.geometry.tsdf import sample_triangles
from depthcli.io.points.files import read_shape
from depthcli.io.points.ply import read_ply_triangles

SAMPLES = 1_000_000  # points of a surface, as in the benchmark
PROTOCOL = (
    "accuracy, completeness: mean distance of points from the nearest true one, and of true points from the nearest "
    "point; precision, recall: shares of these below the threshold; clouds as they are, without alignment, and meshes "
    "as a million points of their surface"
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


def read_points(path: Path, samples: Optional[int] = None) -> np.ndarray:
    """Return (N, 3) float64 points of a file, with OpenCV's axes if it tells its own.

    Those of a cloud; of a mesh, samples that are spread evenly over its surface, the same every time. samples: how
    many, None for SAMPLES. Raises UsageError for a mesh that cannot be sampled, OutputError as `read_shape`.
    """
    samples = SAMPLES if samples is None else samples
    if path.suffix.lower() == ".ply" and path.is_file():
        try:
            found = read_ply_triangles(path.read_bytes())
        except (ValueError, LookupError, MemoryError, OSError) as error:
            raise UsageError(f"cannot read a surface from {path}: {error}") from error
        if found is not None:
            return _sampled(path, found[0][found[1]], samples)
    shape = read_shape(path)
    shape = shape if shape.axes is None else with_axes(shape, OPENCV)
    if isinstance(shape, PointCloud):
        return np.asarray(shape.points, np.float64)
    return _sampled(path, np.asarray(shape.vertices, np.float64)[shape.faces], samples)


def _sampled(path: Path, triangles: np.ndarray, samples: int) -> np.ndarray:
    points = sample_triangles(triangles, samples)
    if not len(points):
        raise UsageError(f"the triangles of {path} have no area")
    return points
