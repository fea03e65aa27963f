"""Align a prediction with the truth, by a named protocol, and never more than its kind of depth allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from depthcli.depthmap import DepthKind
from depthcli.errors import PictureError, UsageError
from depthcli.eval.truth import Truth
from depthcli.pixels.alignment import fit_line

SCALE_SHIFT, MEDIAN, NONE, AUTO = "scale-shift", "median", "none", "auto"
ALIGNMENTS = (AUTO, SCALE_SHIFT, MEDIAN, NONE)

_NEAR_LIMIT = "min_depth (of the list, else a thousandth of the nearest truth)"
_SENTENCES = {
    SCALE_SHIFT: "scale and shift fitted to each picture by least squares in disparity (1 / depth) over the known "
    "elements, disparity held at or above 1 / max_depth (of the list, else of the farthest truth), then inverted, and "
    f"depth held at or above {_NEAR_LIMIT}",
    MEDIAN: "each picture's depth scaled until its median over the known elements is the truth's, then held at or "
    f"above {_NEAR_LIMIT} and at or below max_depth where the list has it",
    NONE: f"metres as predicted, held at or above {_NEAR_LIMIT} and at or below max_depth where the list has it",
}
_NEARER = 1e-3  # near limit as a share of the nearest truth, without min_depth: keeps logarithms finite


@dataclass(frozen=True)
class Alignment:
    """How one prediction was aligned. A constant prediction has scale 0.

    method: scale-shift (disparity = scale * predicted disparity + shift), median (depth = scale * predicted depth) or
    none.
    """

    method: str
    scale: float = 1.0
    shift: float = 0.0

    @property
    def turned_over(self) -> bool:
        """Whether the fit swapped near and far: the errors are those of the negated prediction."""
        return self.scale < 0


def check_name(wanted: str) -> None:
    """Raise UsageError for a name that is not one of ALIGNMENTS."""
    if wanted not in ALIGNMENTS:
        raise UsageError(f"unknown `align` {wanted!r}", f"choose from: {', '.join(ALIGNMENTS)}")


def choose(wanted: str, kind: DepthKind, metres: bool) -> str:
    """Return the method for a prediction of this kind; auto fits exactly what the kind leaves open.

    metres: whether the truth has a unit. Raises UsageError for a method that gives meaningless metrics.
    """
    check_name(wanted)
    if wanted == AUTO:
        if kind is DepthKind.RELATIVE_DISPARITY:
            return SCALE_SHIFT
        return NONE if kind is DepthKind.METRIC_DEPTH and metres else MEDIAN
    if wanted == MEDIAN and kind is DepthKind.RELATIVE_DISPARITY:
        raise UsageError("relative disparity has an unknown shift, which a median keeps", "use `align` scale-shift")
    if wanted == NONE and kind is not DepthKind.METRIC_DEPTH:
        raise UsageError(f"{kind.value} has no unit and cannot be compared as it is", "use `align` auto")
    if wanted == NONE and not metres:
        raise UsageError("a truth in disparity has no unit to compare metres with", "use `align` median or scale-shift")
    return wanted


def align(
    prediction: np.ndarray,
    kind: DepthKind,
    truth: Truth,
    wanted: str = AUTO,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> tuple[np.ndarray, Alignment]:
    """Return the prediction as (H, W) float64 depth in the truth's unit, and its alignment.

    prediction: (H, W) finite numbers of `kind`, at the truth's size. wanted: one of ALIGNMENTS. min_depth, max_depth:
    limits of the result in metres. By default the near limit is a thousandth of the nearest truth; scale-shift also has
    a far limit, the farthest truth, as disparity at or below 0 has no depth.

    Raises UsageError as `choose`, PictureError if fewer than two elements are known, or if a depth to be inverted or
    scaled is not above 0.
    """
    method = choose(wanted, kind, truth.metres)
    known = truth.known
    if known.sum() < 2:
        raise PictureError(f"the truth knows {known.sum()} elements, and two are the least", "check crop and format")
    prediction = prediction.astype(np.float64)
    depths = truth.depth[known]
    near = min_depth if min_depth is not None else _NEARER * depths.min()
    if method == SCALE_SHIFT:
        disparity = prediction if kind is DepthKind.RELATIVE_DISPARITY else _inverse(prediction)
        scale, shift = fit_scale_shift(disparity[known], truth.disparity[known])
        far = max_depth if max_depth is not None else depths.max()
        depth = 1 / np.maximum(scale * disparity + shift, 1 / far)
    else:
        scale, shift = (1.0 if method == NONE else fit_median(prediction[known], depths)), 0.0
        depth = np.minimum(scale * prediction, np.inf if max_depth is None else max_depth)
    return np.maximum(depth, near), Alignment(method, scale, shift)


def fit_scale_shift(p: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    """Return the (scale, shift) that minimise the sum of (scale p + shift - t)^2. p, t: (N,), N >= 1.

    A constant p gives (0, mean of t). The scale is negative if p decreases with t.
    """
    line = fit_line(p, t) if p.min() < p.max() else None  # the rounded mean of a constant may give it a variance
    scale, shift = line or (0.0, t.mean())
    return float(scale), float(shift)


def fit_median(p: np.ndarray, t: np.ndarray) -> float:
    """Return median(t) / median(p). Raises PictureError if the median of p is not above 0."""
    middle = float(np.median(p))
    if middle <= 0:
        raise PictureError("half of the predicted depths are 0 or below, which no factor mends")
    return float(np.median(t)) / middle


def protocol(alignments: Iterable[Alignment]) -> str:
    """Return one line that describes the alignment; with counts if methods differ."""
    counts = Counter(alignment.method for alignment in alignments)
    if not counts:
        return "nothing was aligned (point pairs need no alignment)"
    used = [method for method in _SENTENCES if counts[method]]
    if len(used) == 1:
        return f"{used[0]}: {_SENTENCES[used[0]]}"
    return "; ".join(f"{method} (pictures: {counts[method]}): {_SENTENCES[method]}" for method in used)


def _inverse(depth: np.ndarray) -> np.ndarray:
    if depth.min() <= 0:
        raise PictureError("a predicted depth is 0 or below and has no disparity to fit", "use `align` median or auto")
    return 1 / depth
