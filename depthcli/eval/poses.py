"""Accuracy of cameras: angles between pairs of views, and paths after they are laid on each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from depthcli.errors import UsageError
from depthcli.geometry.poses import centers, quaternions_of, relative_to_first, square
from depthcli.geometry.sim3 import IDENTITY, Sim3, align_cameras, umeyama

THRESHOLDS = (3, 5, 15, 30)  # degrees
ALIGNMENTS = ("sim3", "se3", "none")
_STILL = 1e-12  # distance of two views in one place

PROTOCOL = (
    "auc_da3: mean share of pairs of views with errors below 1, 2 ... degrees, of the larger of the errors in rotation "
    "and in direction of translation; auc_exact: the area under the same curve, exactly; ate, rpe: places and steps "
    "of one view after alignment by least squares, in the unit of the truth"
)


@dataclass(frozen=True, eq=False)
class PairErrors:
    """rotation, translation: (P,) degrees, of all pairs of views (0, 1), (0, 2) ... (1, 2) ..."""

    rotation: np.ndarray
    translation: np.ndarray

    @property
    def larger(self) -> np.ndarray:
        """(P,) the larger of the two."""
        return np.maximum(self.rotation, self.translation)


@dataclass(frozen=True)
class PathScore:
    """Errors of a path after alignment; lengths in the unit of the truth, angles in degrees.

    scale: that the alignment found. length: of the true path. ate_rmse, ate_mean, ate_max: distances of places.
    rotation_mean: of directions. rpe_translation, rpe_rotation: root mean squares from one view to the next.
    """

    views: int
    scale: float
    length: float
    ate_rmse: float
    ate_mean: float
    ate_max: float
    rotation_mean: float
    rpe_translation: float
    rpe_rotation: float


def check_alignment(align: str) -> None:
    """Raise UsageError for a name that is not one of ALIGNMENTS."""
    if align not in ALIGNMENTS:
        raise UsageError(f"unknown `align` {align!r}", f"choose from: {', '.join(ALIGNMENTS)}")


def score_poses(predicted: np.ndarray, truth: np.ndarray, align: str = "sim3") -> dict[str, float]:
    """Return all figures by name.

    predicted, truth: (N, 3, 4), world to camera, N > 1. align: one of ALIGNMENTS; raises UsageError for others.
    """
    check_alignment(align)
    errors = pair_errors(predicted, truth).larger
    areas = {
        f"{name}_{one}": of(errors, one)
        for name, of in (("auc_da3", auc_da3), ("auc_exact", auc_exact))
        for one in THRESHOLDS
    }
    path = asdict(score_path(predicted, truth, align))
    return {**areas, **{name: value for name, value in path.items() if name != "views"}}


def pair_errors(predicted: np.ndarray, truth: np.ndarray) -> PairErrors:
    """Return the errors of relative poses. predicted, truth: (N, 3, 4) or (N, 4, 4), world to camera, in one order.

    The convention of VGGT and Depth Anything 3: inv(E_i) E_j with poses relative to the first view, and the angle
    between the directions of its translation and the true one, folded at 90 degrees. Two views in one place have no
    direction: 0 if they are in one place in both, else 90.
    """
    first, second = np.triu_indices(len(truth), 1)
    found, known = (_relative(poses, first, second) for poses in (predicted, truth))
    between = known[:, :3, :3].transpose(0, 2, 1) @ found[:, :3, :3]
    ours, theirs = (one[:, :3, 3] for one in (found, known))
    apart = np.degrees(
        np.arctan2(np.linalg.norm(np.cross(ours, theirs), axis=1), np.abs(np.einsum("ij,ij->i", ours, theirs)))
    )
    still = [np.linalg.norm(one, axis=1) <= _STILL for one in (ours, theirs)]
    apart = np.where(still[0] | still[1], np.where(still[0] & still[1], 0.0, 90.0), apart)
    return PairErrors(_angles(between), apart)


def auc_da3(errors: np.ndarray, threshold: int) -> float:
    """Return the area under the curve as the benchmark of Depth Anything 3 has it, 0 to 1.

    It is the mean of the shares of errors below 1, 2 ... degrees, and up to the threshold at last.
    """
    bounds = [*range(1, threshold), np.nextafter(threshold, np.inf)]
    return float(np.mean([(errors < bound).mean() for bound in bounds])) if len(errors) else 0.0


def auc_exact(errors: np.ndarray, threshold: float) -> float:
    """Return the exact area under the share of errors up to each angle, by trapezoids, 0 to 1: the usual pose AUC."""
    if not len(errors):
        return 0.0
    ordered = np.concatenate([[0.0], np.sort(errors)])
    share = np.arange(len(ordered)) / len(errors)
    last = int(np.searchsorted(ordered, threshold))
    x = np.concatenate([ordered[:last], [threshold]])
    y = np.concatenate([share[:last], [share[last - 1]]])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / threshold)


def score_path(predicted: np.ndarray, truth: np.ndarray, align: str = "sim3") -> PathScore:
    """Return the errors of a path. predicted, truth: (N, 3, 4), world to camera. align: one of ALIGNMENTS.

    ATE and RPE of the TUM benchmark: J. Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems" (2012),
    with all views and steps of one view. The prediction is moved onto the truth by least squares of places; a path on a
    line, or in one place, is turned by the views' own directions.
    """
    moved = _onto(predicted, truth, align)
    laid = square(moved.extrinsics(np.asarray(predicted, np.float64)[:, :3]))
    known = square(np.asarray(truth, np.float64)[:, :3])
    apart = np.linalg.norm(centers(laid) - centers(known), axis=1)
    turned = _angles(known[:, :3, :3] @ laid[:, :3, :3].transpose(0, 2, 1))
    steps = [_steps(one) for one in (laid, known)]
    drift = np.linalg.inv(steps[1]) @ steps[0]
    return PathScore(
        views=len(known),
        scale=moved.scale,
        length=float(np.linalg.norm(np.diff(centers(known), axis=0), axis=1).sum()),
        ate_rmse=_rms(apart),
        ate_mean=float(apart.mean()),
        ate_max=float(apart.max()),
        rotation_mean=float(turned.mean()),
        rpe_translation=_rms(np.linalg.norm(drift[:, :3, 3], axis=1)),
        rpe_rotation=_rms(_angles(drift[:, :3, :3])),
    )


def _onto(predicted: np.ndarray, truth: np.ndarray, align: str) -> Sim3:
    if align == "none":
        return IDENTITY
    places, goals = centers(np.asarray(predicted, np.float64)), centers(np.asarray(truth, np.float64))
    try:
        return umeyama(places, goals, align == "sim3")
    except ValueError:
        found = align_cameras(predicted, truth)
        if align == "sim3":
            return found
        return Sim3(1.0, found.rotation, goals.mean(axis=0) - found.rotation @ places.mean(axis=0))


def _relative(poses: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    whole = relative_to_first(np.asarray(poses, np.float64))
    return np.linalg.inv(whole[first]) @ whole[second]


def _steps(whole: np.ndarray) -> np.ndarray:
    """Return how each next camera lies in the axes of the one before, (N - 1, 4, 4)."""
    return whole[:-1] @ np.linalg.inv(whole[1:])


def _angles(rotations: np.ndarray) -> np.ndarray:
    """Return the (N,) angles in degrees of (N, 3, 3) rotations; accurate near 0."""
    quaternions = quaternions_of(rotations)
    return np.degrees(2 * np.arctan2(np.linalg.norm(quaternions[:, :3], axis=1), quaternions[:, 3]))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0
