"""The metrics, each defined in its function's docstring, in float64.

p and t are the predicted and the true depth of the known elements: (N,) arrays of equal length N >= 1, finite, above 0
and of one unit. `sq_rel` and `rmse` need metres, and `errors` leaves them out for other units; the other metrics depend
on ratios only. Logarithms are natural unless the name differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from depthcli.pixels.alignment import ranks

# ((row, column), (row, column)) of two elements of a picture; the first is the nearer one.
Pair = tuple[tuple[int, int], tuple[int, int]]

BOUNDARY_THRESHOLDS = np.linspace(1.05, 1.25, 10)
DENSE = 0.5  # least share of known neighbour pairs: a sparser truth misses most of its boundaries


@dataclass(frozen=True)
class Figures:
    """The metrics of one picture, or their means; None for one that cannot be computed.

    Lower is better from abs_rel to silog, higher from delta1 on. prior: `spearman` of the guess "lower in the picture
    is nearer", the baseline of a rank correlation. pairs: share of point pairs in the right order.
    """

    abs_rel: float | None = None
    sq_rel: float | None = None
    rmse: float | None = None
    rmse_log: float | None = None
    log10: float | None = None
    silog: float | None = None
    delta1: float | None = None
    delta2: float | None = None
    delta3: float | None = None
    spearman: float | None = None
    prior: float | None = None
    pairs: float | None = None
    boundary_f1: float | None = None


def abs_rel(p: np.ndarray, t: np.ndarray) -> float:
    """Mean of |p - t| / t (Eigen et al. 2014)."""
    return float(np.mean(np.abs(p - t) / t))


def sq_rel(p: np.ndarray, t: np.ndarray) -> float:
    """Mean of (p - t)^2 / t, in metres: the divisor is not squared (Eigen et al. 2014)."""
    return float(np.mean((p - t) ** 2 / t))


def rmse(p: np.ndarray, t: np.ndarray) -> float:
    """Square root of the mean of (p - t)^2, in metres."""
    return float(np.sqrt(np.mean((p - t) ** 2)))


def rmse_log(p: np.ndarray, t: np.ndarray) -> float:
    """Square root of the mean of (ln p - ln t)^2."""
    return float(np.sqrt(np.mean(np.log(p / t) ** 2)))


def log10(p: np.ndarray, t: np.ndarray) -> float:
    """Mean of |log10 p - log10 t| (Saxena et al. 2009)."""
    return float(np.mean(np.abs(np.log10(p / t))))


def silog(p: np.ndarray, t: np.ndarray) -> float:
    """100 sqrt(mean(g^2) - mean(g)^2) with g = ln p - ln t: a common factor does not count.

    The SILog of the KITTI depth benchmark. Eigen et al. take its square without the 100, and half of the second term as
    a loss.
    """
    return float(100 * np.std(np.log(p / t)))


def delta(p: np.ndarray, t: np.ndarray, power: int) -> float:
    """Share of elements with max(p / t, t / p) < 1.25^power (Ladický et al. 2014)."""
    return float(np.mean(np.maximum(p / t, t / p) < 1.25**power))


ERRORS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "abs_rel": abs_rel,
    "sq_rel": sq_rel,
    "rmse": rmse,
    "rmse_log": rmse_log,
    "log10": log10,
    "silog": silog,
    "delta1": lambda p, t: delta(p, t, 1),
    "delta2": lambda p, t: delta(p, t, 2),
    "delta3": lambda p, t: delta(p, t, 3),
}
IN_METRES = ("sq_rel", "rmse")


def errors(p: np.ndarray, t: np.ndarray, metres: bool) -> dict[str, float]:
    """Return the depth errors by name. metres: False leaves out those that have a unit."""
    return {name: of(p, t) for name, of in ERRORS.items() if metres or name not in IN_METRES}


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation: Pearson's correlation of the ranks, ties shared; from -1 to 1.

    a: the prediction, b: the truth, both (N,) with large near, of any unit. 0 for a constant prediction, as by chance;
    None for a constant truth.
    """
    x, y = (rank - rank.mean() for rank in (ranks(a), ranks(b)))
    if not y.any():
        return None
    return float(x @ y / np.sqrt((x @ x) * (y @ y))) if x.any() else 0.0


def pair_accuracy(nearness: np.ndarray, pairs: Sequence[Pair]) -> float:
    """Share of pairs whose first element has the larger nearness, as DA-2K counts; a tie is wrong.

    nearness: (H, W) at the picture's size, large is near. There is at least one pair, all inside.
    """
    return float(np.mean([nearness[first] > nearness[second] for first, second in pairs]))


def boundary_f1(p: np.ndarray, t: np.ndarray) -> float | None:
    """F1 of occlusion boundaries, after Depth Pro (Bochkovskii et al. 2024), from 0 to 1; scale cancels out.

    p, t: (H, W) depth > 0; t is NaN if unknown. Two neighbours in a row or column, one of them farther by more than a
    factor f, form a boundary with a near and a far side. A predicted boundary is right if the truth has one between the
    same neighbours with the same near side. With R right boundaries, P predicted and T true ones, F1(f) is the harmonic
    mean of R / P and R / T: 2 R / (P + T). The result is the mean over ten factors from 1.05 to 1.25, weighted by the
    factor; a factor without boundaries is left out.

    Only pairs with two known elements count. None for a sparse truth (fewer than half of the neighbour pairs known) or
    one without boundaries. The published code averages R / P and R / T over the four directions, and scores a direction
    without boundaries as 0; the paper's formula, used here, pools them, so that a perfect prediction gets 1.
    """
    steps = [_log_steps(depth) for depth in (p, t)]
    known = np.isfinite(steps[1])
    if not known.any() or known.mean() < DENSE:
        return None
    predicted, true = (step[known] for step in steps)
    if np.abs(true).max() <= np.log(BOUNDARY_THRESHOLDS[0]):
        return None
    scores, weights = [], []
    for factor in BOUNDARY_THRESHOLDS:
        boundary_p, boundary_t = np.abs(predicted) > np.log(factor), np.abs(true) > np.log(factor)
        total = boundary_p.sum() + boundary_t.sum()
        if total:
            right = boundary_p & boundary_t & (np.sign(predicted) == np.sign(true))
            scores.append(2 * right.sum() / total)
            weights.append(factor)
    return float(np.average(scores, weights=weights))


def _log_steps(depth: np.ndarray) -> np.ndarray:
    """Return ln(next / this) for all neighbours in rows and columns, as one (N,) array; NaN if one is unknown."""
    logs = np.log(depth)
    return np.concatenate([np.diff(logs, axis=1).ravel(), np.diff(logs, axis=0).ravel()])
