"""Cameras from maps of rays, as the ray branch of Depth Anything 3 answers them.

A ray of a cell is a direction and an origin in the world. Directions are R' K^-1 (u, v, 1), so that they are the rays
(x, y, 1) of the picture after a homography H = R' K^-1, found by RANSAC and the direct linear transform (Hartley and
Zisserman, "Multiple View Geometry", chapter 4).

A camera whose axis passes through the middle has a diagonal K^-1 in a square around it, and H = Q L, with L lower
triangular, gives R and the focal lengths; what is left of L beside its diagonal is noise. That is the official way, and
with noise the better one. For another principal point it is wrong by degrees; there H = Q U gives R, K and the point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DRAWS, _SAMPLE = 100, 8
_SURE = 0.3  # share of the cells, the surest ones, that samples are drawn of
_CLOSE = 0.2  # of a direction at z = 1: an inlier
_KEPT = 0.95  # share of the inliers, the surest ones, that the last fit takes
_MOST = 8000  # of them
_FLAT = 1e-4  # of z; a direction this near to the plane z = 0 weighs nothing


@dataclass(frozen=True, eq=False)
class RayCameras:
    """extrinsics: (N, 3, 4) float64, world to camera. intrinsics: (N, 3, 3) float64, centres at half numbers."""

    extrinsics: np.ndarray
    intrinsics: np.ndarray


def cameras_of_rays(
    rays: np.ndarray, confidence: np.ndarray, size: tuple[int, int], seed: int = 0, centred: bool = True
) -> RayCameras:
    """Return the cameras of N views whose rays are (N, h, w, 6): direction, origin. confidence: (N, h, w), positive.

    size: (width, height) of the pictures that intrinsics are wanted for. seed: of the samples, which are the same cells
    in every view. centred: whether axes pass through the middle of the pictures; else principal points are found too,
    and everything is less certain. Raises ValueError for rays of which no homography can be made.
    """
    count, rows, columns = rays.shape[:3]
    generator = np.random.default_rng(seed)
    sure = max(_SAMPLE, int(_SURE * rows * columns))
    groups = np.stack([generator.choice(sure, _SAMPLE, replace=False) for _ in range(_DRAWS)])
    cells = _cells(rows, columns)
    pixels = np.array([[size[0] / 2, 0, size[0] / 2], [0, size[1] / 2, size[1] / 2], [0, 0, 1]])
    found = []
    for view in range(count):
        homography, center = _fitted(cells, rays[view].reshape(-1, 6), confidence[view].ravel(), groups)
        back, matrix = _split_centred(homography) if centred else _split(homography)
        found.append((np.concatenate([back.T, -(back.T @ center)[:, None]], axis=1), pixels @ matrix))
    return RayCameras(np.stack([pose for pose, _ in found]), np.stack([matrix for _, matrix in found]))


def _cells(rows: int, columns: int) -> np.ndarray:
    """Return the (N, 2) centres of the cells in a square from -1 to 1."""
    x, y = ((2 * np.arange(side) + 1) / side - 1 for side in (columns, rows))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _fitted(
    cells: np.ndarray, rays: np.ndarray, confidence: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (3, 3) homography of a view's directions, with a positive determinant, and the mean origin."""
    directions, origins = rays[:, :3].astype(np.float64), rays[:, 3:].astype(np.float64)
    usable = np.abs(directions[:, 2]) > _FLAT
    weights = np.where(usable, confidence, 0).astype(np.float64)
    if usable.sum() < _SAMPLE:
        raise ValueError(f"{usable.sum()} rays are not enough for a camera")
    targets = directions[:, :2] / np.where(usable, directions[:, 2], 1)[:, None]
    homography = _robust_homography(cells, targets, weights, groups)
    center = (origins * weights[:, None]).sum(axis=0) / weights.sum()
    return homography * np.sign(np.linalg.det(homography)), center


def _split(homography: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotation (camera to world) and the intrinsics, both (3, 3), of R' K^-1."""
    back, upper = np.linalg.qr(homography)
    signs = np.sign(np.diag(upper))
    upper = signs[:, None] * upper
    return back * signs, np.linalg.inv(upper / upper[2, 2])


def _split_centred(homography: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for a principal point in the middle."""
    back, lower = np.linalg.qr(homography[:, ::-1])  # QL is QR with rows and columns backwards
    back, lower = back[:, ::-1], lower[::-1, ::-1]
    signs = np.sign(np.diag(lower))
    lower = signs[:, None] * lower
    return back * signs, np.diag(lower[2, 2] / np.diag(lower))


def _robust_homography(cells: np.ndarray, targets: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    order = np.argsort(-weights, kind="stable")
    drawn = order[groups]
    candidates = _homographies(cells[drawn], targets[drawn], weights[drawn])
    best, score = None, -1.0
    for candidate in candidates:
        inliers = _errors(candidate, cells, targets) < _CLOSE
        inliers &= weights > 0
        if weights[inliers].sum() > score:
            best, score = inliers, weights[inliers].sum()
    assert best is not None
    chosen = order[best[order]]
    chosen = chosen[: max(_SAMPLE, int(_KEPT * len(chosen)))]
    chosen = chosen[:: 1 + len(chosen) // (_MOST + 1)]
    if len(chosen) < _SAMPLE:
        raise ValueError("the rays of a view belong to no camera")
    return _homographies(cells[chosen][None], targets[chosen][None], weights[chosen][None])[0]


def _homographies(sources: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (B, 3, 3) least-squares homographies of (B, N, 2) points, from the weighted equations' null vectors."""
    x, y = sources[..., 0], sources[..., 1]
    u, v = targets[..., 0], targets[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    first = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], axis=-1)
    second = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], axis=-1)
    equations = np.concatenate([first, second], axis=1) * np.sqrt(np.concatenate([weights, weights], axis=1))[..., None]
    _, vectors = np.linalg.eigh(equations.transpose(0, 2, 1) @ equations)
    return vectors[..., 0].reshape(-1, 3, 3)


def _errors(homography: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the (N,) distances of the moved sources from the targets."""
    moved = sources @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.linalg.norm(moved[:, :2] / moved[:, 2:] - targets, axis=1)
    return np.where(np.isfinite(distances), distances, np.inf)
