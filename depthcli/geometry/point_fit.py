"""Similarity transforms between two sets of points that belong together pair by pair, some surer than others.

Conventions of DA3-Streaming, which aligns chunks of a film so: the scale of a weighted fit is the ratio of the weighted
spreads, and outliers lose weight by Huber's rule, fit after fit. `sim3.umeyama` is the fit by least squares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional

import numpy as np

from depthcli.geometry.sim3 import Sim3

HUBER = 0.1  # DA3-Streaming's limit, in units of the target
ROUNDS = 5
# A fit stands if the next one would move it by less: scale and place together, and the angle in radians; or if the
# robust error changed by less than this part of it.
_SMALL, _SMALL_TURN = 1e-9, np.radians(0.1)
_MEDIAN_LIMIT = 1.345 * 1.4826  # Huber's limit for a median error of 1: 95 % as good as least squares without outliers
_RANK_SLACK = 1e-8  # of the second singular value, relative to the first
_UNSURE = 0.1  # of the smaller median confidence


def fit_weighted(source: np.ndarray, target: np.ndarray, weights: np.ndarray, with_scale: bool = True) -> Sim3:
    """Return the transform of (N, 3) source points to target points. weights: (N,), 0 or more.

    The scale is the ratio of the weighted root-mean-square distances from the weighted means; noise of
    one set moves it less than the scale of least squares. Raises ValueError for points in one place or on one line, and
    for no weight.
    """
    total = float(weights.sum())
    if not total > 0:
        raise ValueError("no point has weight")
    share = weights / total
    middle, goal = share @ source, share @ target
    apart, wanted = source - middle, target - goal
    spreads = [float(share @ np.einsum("ij,ij->i", some, some)) for some in (apart, wanted)]
    scale = float(np.sqrt(spreads[1] / spreads[0])) if with_scale and spreads[0] > 0 else 1.0
    u, strengths, v = np.linalg.svd((wanted * share[:, None]).T @ apart)
    if not strengths[1] > _RANK_SLACK * strengths[0]:
        raise ValueError("the points lie in one place or on one line")
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(v)]) @ v
    return Sim3(scale, rotation, goal - scale * rotation @ middle)


def fit_robust(
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    with_scale: bool = True,
    limit: Optional[float] = HUBER,
    rounds: int = ROUNDS,
) -> Sim3:
    """Return the transform of (N, 3) source points to target points with little weight on outliers.

    weights: (N,), 0 or more. limit: error, in units of the target, from which on a pair loses weight; None takes it
    from the median error of each round, whatever the unit. Raises ValueError as `fit_weighted`.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weights = np.asarray(weights, np.float64)
    fit = fit_weighted(source, target, weights, with_scale)
    before = np.inf
    for _ in range(rounds):
        errors = np.linalg.norm(target - fit.points(source), axis=1)
        bound = limit if limit is not None else _MEDIAN_LIMIT * float(np.median(errors[weights > 0]))
        if bound <= 0:  # more than half of them fit
            return fit
        robust = weights * np.minimum(1.0, bound / np.maximum(errors, bound))
        following = fit_weighted(source, target, robust / robust.sum(), with_scale)
        small = np.minimum(errors, bound)
        cost = float(weights @ (small * errors - small**2 / 2))
        if _moved(fit, following) or abs(before - cost) < _SMALL * before:
            return fit
        fit, before = following, cost
    return fit


def robust_ratio(source: np.ndarray, target: np.ndarray, weights: np.ndarray, rounds: int = ROUNDS) -> float:
    """Return the factor from (N,) depths to other depths of the same pixels, by Huber's rule on their logarithms.

    weights: (N,), 0 or more. The limit comes from the median error of each round. Raises ValueError if no
    pixel with weight has two depths above 0.
    """
    known = (source > 0) & (target > 0) & (weights > 0)
    if not known.any():
        raise ValueError("no pixel has two depths")
    logs = np.log(target[known].astype(np.float64)) - np.log(source[known].astype(np.float64))
    share = weights[known].astype(np.float64)
    found = float(np.median(logs))
    for _ in range(rounds):
        errors = np.abs(logs - found)
        bound = _MEDIAN_LIMIT * float(np.median(errors))
        if bound <= 0:  # more than half of them agree
            break
        robust = share * np.minimum(1.0, bound / np.maximum(errors, bound))
        before, found = found, float(robust @ logs / robust.sum())
        if abs(found - before) < _SMALL:
            break
    return float(np.exp(found))


def _moved(fit: Sim3, following: Sim3) -> bool:
    """Return whether two fits are the same for all purposes."""
    shift = abs(following.scale - fit.scale) + float(np.linalg.norm(following.translation - fit.translation))
    cosine = (np.trace(following.rotation.T @ fit.rotation) - 1) / 2
    return shift < _SMALL and float(np.arccos(np.clip(cosine, -1, 1))) < _SMALL_TURN


def chained(steps: Iterable[Sim3]) -> Iterator[Sim3]:
    """Yield the transform to the first world of each following world. steps: each takes a world to the one before."""
    whole: Optional[Sim3] = None
    for step in steps:
        whole = step if whole is None else whole @ step
        yield whole


def fit_overlap(
    source: np.ndarray,
    source_confidence: np.ndarray,
    target: np.ndarray,
    target_confidence: np.ndarray,
    with_scale: bool = True,
    limit: Optional[float] = HUBER,
    rounds: int = ROUNDS,
) -> Sim3:
    """Return the transform between two answers for the same pixels.

    source, target: (N, 3) points of each pixel. The confidences: (N,), 0 for a pixel that does not count. Pixels where
    either confidence is at or below a tenth of the smaller median do not count, and the others weigh the root of the
    product. Raises ValueError as `fit_weighted`.
    """
    weights = pair_weights(source_confidence, target_confidence)
    kept = weights > 0
    return fit_robust(source[kept], target[kept], weights[kept], with_scale, limit, rounds)


def pair_weights(source_confidence: np.ndarray, target_confidence: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 weights of pairs, 0 for those that do not count; see `fit_overlap`."""
    medians = [float(np.median(some)) for some in (source_confidence, target_confidence)]
    kept = np.minimum(source_confidence, target_confidence) > _UNSURE * min(medians)
    return np.where(kept, np.sqrt(source_confidence.astype(np.float64) * target_confidence), 0)
