"""Similarity transforms: a turn, a move and one scale, found between points or between cameras.

Formula of the fit: S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
IEEE PAMI 13 (1991), equations 34 to 43.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthcli.geometry.poses import centers

_DRAWS = 10
_SEED = 42
_MANY = 10  # views, from which on outliers are looked for
_RANK_SLACK = 1e-8  # of the second singular value, relative to the first
_STRAIGHT = 1e-2  # second width of a track, relative to its length: its roll about itself is then mostly noise
_APART = 1e-9  # shortest distance of two cameras, relative to their distance from the origin


@dataclass(frozen=True, eq=False)
class Sim3:
    """x -> scale R x + t. rotation: (3, 3) float64. translation: (3,) float64. scale: > 0."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __matmul__(self, other: Sim3) -> Sim3:
        """Return the transform that applies `other` first."""
        return Sim3(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self.scale * self.rotation @ other.translation + self.translation,
        )

    def inverse(self) -> Sim3:
        """Return the transform back."""
        back = self.rotation.T
        return Sim3(1 / self.scale, back, -(back @ self.translation) / self.scale)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return (N, 3) float64 points after the transform."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.translation

    def extrinsics(self, extrinsics: np.ndarray) -> np.ndarray:
        """Return (N, 3, 4) poses of the same cameras in the world after the transform; depths times `scale` fit them.

        A pose stays rigid: its camera sees the moved world as it saw the old one, only larger.
        """
        turn = np.asarray(extrinsics, np.float64)[:, :3, :3] @ self.rotation.T
        place = self.points(centers(np.asarray(extrinsics, np.float64)))
        return np.concatenate([turn, -turn @ place[:, :, None]], axis=2)


IDENTITY = Sim3(1.0, np.eye(3), np.zeros(3))


def umeyama(source: np.ndarray, target: np.ndarray, with_scale: bool = True) -> Sim3:
    """Return the transform of (N, 3) source points that comes nearest to the target points, by least squares.

    Raises ValueError for points that lie in one place or on one line: a turn about it would change nothing.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    spread = ((source - middle) ** 2).sum() / len(source)
    u, strengths, v = np.linalg.svd((target - goal).T @ (source - middle) / len(source))
    if not strengths[1] > _RANK_SLACK * strengths[0]:
        raise ValueError("the points lie in one place or on one line")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    scale = float((strengths * signs).sum() / spread) if with_scale else 1.0
    return Sim3(scale, rotation, goal - scale * rotation @ middle)


def align_cameras(given: np.ndarray, predicted: np.ndarray) -> Sim3:
    """Return the transform from the world of the given (N, 3, 4) poses to that of the predicted ones.

    Centres of cameras are fitted. From 10 views on, those that the best of ten fits of half of them misses are left
    out, see `_inliers`; draws are seeded. If the centres do not fix a turn (one or two cameras,
    a straight track), it is the mean of the cameras' own turns, and the scale the ratio of the spreads; cameras in one
    place have a scale of 1.
    """
    places, goals = centers(np.asarray(given, np.float64)), centers(np.asarray(predicted, np.float64))
    if min(_widths(places)[1], _widths(goals)[1]) <= _STRAIGHT:
        return _by_turns(given, predicted)
    try:
        kept = np.ones(len(places), bool) if len(places) < _MANY else _inliers(places, goals)
        return umeyama(places[kept], goals[kept])
    except ValueError:
        return _by_turns(given, predicted)


def _widths(places: np.ndarray) -> np.ndarray:
    """Return how far places spread along their three axes, as shares of the first; zeros for a single place."""
    spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    spread = np.pad(spread, (0, max(0, 3 - len(spread))))
    apart = spread[0] > _APART * (1 + np.abs(places).max())
    return spread / spread[0] if apart else np.zeros(3)


def _by_turns(given: np.ndarray, predicted: np.ndarray) -> Sim3:
    given, predicted = np.asarray(given, np.float64), np.asarray(predicted, np.float64)
    turns = predicted[:, :, :3].transpose(0, 2, 1) @ given[:, :3, :3]
    u, _, v = np.linalg.svd(turns.sum(axis=0))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(v)]) @ v
    places, goals = centers(given), centers(predicted)
    spreads = [float(np.linalg.norm(some - some.mean(axis=0))) for some in (places, goals)]
    apart = [spread > _APART * (1 + np.abs(some).max()) for spread, some in zip(spreads, (places, goals))]
    scale = spreads[1] / spreads[0] if all(apart) else 1.0
    return Sim3(scale, rotation, goals.mean(axis=0) - scale * rotation @ places.mean(axis=0))


def _inliers(places: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return which of the (N,) places the best fit of half of them brings close to their goals.

    Close is the median distance from a place, after a fit of all, to the nearest goal of any. The best fit has the most
    close places, and of several the smaller mean error of these.
    """
    moved = umeyama(places, goals).points(places)
    close = np.median(np.linalg.norm(moved[:, None] - goals[None], axis=2).min(axis=1))
    generator = np.random.default_rng(_SEED)
    best, score = np.ones(len(places), bool), (0, 0.0)
    for _ in range(_DRAWS):
        drawn = generator.choice(len(places), (len(places) + 1) // 2, replace=False)
        try:
            errors = np.linalg.norm(umeyama(places[drawn], goals[drawn]).points(places) - goals, axis=1)
        except ValueError:
            continue
        inliers = errors <= close
        if inliers.any() and (int(inliers.sum()), -float(errors[inliers].mean())) > score:
            best, score = inliers, (int(inliers.sum()), -float(errors[inliers].mean()))
    return best if score[0] >= 3 else np.ones(len(places), bool)
