"""Metres for a scene: the scale between its relative depth and the metric depth of another network.

The rule is that of the nested model of Depth Anything 3, with medians and quantiles of all pixels instead of a random
part of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from depthcli.pixels.sky import quantile

_CANONICAL = 300.0  # pixels; the focal length that the metric network's answers are made for
_SURE = 0.5  # quantile of the confidence outside the sky, from which on a pixel counts
_LEAST_METRIC, _LEAST_DEPTH = 1e-2, 1e-3
_FEW = 10
_SKY = 0.3  # as in sky.py: what is filled, not what the mask shows
_SKY_QUANTILE, _FARTHEST_SKY = 0.99, 200.0  # metres


@dataclass(frozen=True, eq=False)
class MetricScene:
    """depth: (N, H, W) float32 metres. confidence: likewise, 1 in the sky. scale: metres for one unit of before."""

    depth: np.ndarray
    confidence: np.ndarray
    scale: float


def metres_of(answer: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the (N, H, W) metres of a metric network's answers. intrinsics: (N, 3, 3), of the network's input."""
    focal = (intrinsics[:, 0, 0] + intrinsics[:, 1, 1]) / 2
    return np.asarray(answer * (focal / _CANONICAL)[:, None, None], np.float32)


def scene_scale(
    depth: np.ndarray, confidence: Optional[np.ndarray], metric: np.ndarray, sky: Optional[np.ndarray] = None
) -> float:
    """Return the factor, by least squares, that makes relative depth metric. All arrays are (N, H, W).

    metric: metres. sky: the metric network's answer. Pixels count outside the sky, with a confidence of the median at
    least. Raises ValueError if too few are left, as in pictures of nothing but sky.
    """
    there = np.ones(depth.shape, bool) if sky is None else sky < _SKY
    if there.sum() <= _FEW:
        raise ValueError("there is nothing but sky, which gives no scale")
    used = there & (metric > _LEAST_METRIC) & (depth > _LEAST_DEPTH)
    if confidence is not None:
        used &= confidence >= quantile(confidence[there], _SURE)
    if used.sum() <= _FEW:
        raise ValueError("too few pixels have depth in both networks to give a scale")
    relative, metres = depth[used].astype(np.float64), metric[used].astype(np.float64)
    return float((metres * relative).sum() / (relative * relative).sum())


def metric_scene(depth: np.ndarray, confidence: np.ndarray, metric: np.ndarray, sky: np.ndarray) -> MetricScene:
    """Return a scene in metres: scaled as `scene_scale` says, with sky at its 0.99 quantile, 200 m at most.

    The places of the cameras are to be scaled by the same factor.
    """
    scale = scene_scale(depth, confidence, metric, sky)
    scaled = np.asarray(depth * np.float32(scale), np.float32)
    there = sky < _SKY
    far = min(quantile(scaled[there], _SKY_QUANTILE), np.float32(_FARTHEST_SKY))
    return MetricScene(
        np.where(there, scaled, far).astype(np.float32),
        np.where(there, confidence, np.float32(1)).astype(np.float32),
        scale,
    )
