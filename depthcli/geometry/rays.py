"""Rays of a camera's pixels, and points along them.

Conventions of `camera`: axes x right, y down, z forward; pixel centres are integers. A point at depth z along the
optical axis is z * (x, y, 1), and (x, y) is the ray of its pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from depthcli.camera import Camera, Distortion, LensModel

BAND_PIXELS = 1 << 17  # of a map, computed at a time: some megabytes of float64
_STEPS = 30  # of the inversion of a lens, which stops when a step is smaller than this:
_CLOSE = 1e-12


def rays_at(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the (N, 2) float64 rays (x, y) at z = 1 of (N, 2) pixels (u, v), straightened if the camera has a lens.

    Formula: (x, y, 1) = K^-1 (u, v, 1), then the inverse of OpenCV's distortion, found by iteration.
    """
    matrix = camera.intrinsics
    y = (pixels[:, 1] - matrix[1, 2]) / matrix[1, 1]
    x = (pixels[:, 0] - matrix[0, 2] - matrix[0, 1] * y) / matrix[0, 0]
    bent = np.stack([x, y], axis=1)
    return bent if camera.distortion is None else _straightened(bent, camera.distortion)


def rays(size: tuple[int, int], camera: Camera) -> np.ndarray:
    """Return the (H, W, 2) float64 rays (x, y) at z = 1 of a picture of (width, height)."""
    width, height = size
    out = np.empty((height, width, 2))
    for rows in bands(size):
        out[rows] = rays_at(_pixels_of(rows, width), camera).reshape(-1, width, 2)
    return out


def unproject(z: np.ndarray, camera: Camera) -> np.ndarray:
    """Return (H, W, 3) float32 points of an (H, W) map of depth along the optical axis, in the camera's axes."""
    height, width = z.shape
    out = np.empty((height, width, 3), np.float32)
    for rows in bands((width, height)):
        out[rows] = along_rays(z[rows].ravel(), rays_at(_pixels_of(rows, width), camera)).reshape(-1, width, 3)
    return out


def along_rays(z: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return (N, 3) float32 points at depths z (N,) on the rays xy (N, 2); products are made in float64."""
    out = np.empty((len(z), 3), np.float32)
    out[:, :2] = xy * z[:, None]
    out[:, 2] = z
    return out


def depth_along_axis(distances: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the (H, W) float32 depth along the optical axis of a map of distances from the camera, along the rays.

    Formula: z = r / sqrt(x^2 + y^2 + 1).
    """
    height, width = distances.shape
    out = np.empty((height, width), np.float32)
    for rows in bands((width, height)):
        xy = rays_at(_pixels_of(rows, width), camera)
        out[rows] = distances[rows] / np.sqrt(1 + (xy * xy).sum(axis=1)).reshape(-1, width)
    return out


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the (N, 2) float64 pixels (u, v) of (N, 3) points in the camera's axes, in front of it."""
    points = np.asarray(points, np.float64)
    xy = points[:, :2] / points[:, 2:]
    if camera.distortion is not None:
        xy = _bent(xy, camera.distortion)
    return xy @ camera.intrinsics[:2, :2].T + camera.intrinsics[:2, 2]


def bands(size: tuple[int, int]) -> Iterator[slice]:
    """Yield slices of rows of a picture of (width, height), each small enough to stay in the processor's cache."""
    width, height = size
    step = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def chunks(count: int) -> Iterator[slice]:
    """Yield slices of so many rows of an array, each as large as a band."""
    return (slice(start, min(start + BAND_PIXELS, count)) for start in range(0, count, BAND_PIXELS))


def _pixels_of(rows: slice, width: int) -> np.ndarray:
    """Return the (N, 2) float64 pixels (u, v) of some rows."""
    v, u = np.mgrid[rows, 0:width]
    return np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)


def _bent(xy: np.ndarray, lens: Distortion) -> np.ndarray:
    """Return the (N, 2) rays as the lens shows them."""
    import cv2

    coefficients = np.array(lens.coefficients)
    if lens.model is LensModel.FISHEYE:
        return cv2.fisheye.distortPoints(xy[:, None], np.eye(3), coefficients)[:, 0]
    solid = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    return cv2.projectPoints(solid, np.zeros(3), np.zeros(3), np.eye(3), coefficients)[0][:, 0]


def _straightened(xy: np.ndarray, lens: Distortion) -> np.ndarray:
    """Return the (N, 2) rays without the lens."""
    import cv2

    coefficients, criteria = np.array(lens.coefficients), (3, _STEPS, _CLOSE)  # 3: by count and by accuracy
    if lens.model is LensModel.FISHEYE:
        return cv2.fisheye.undistortPoints(xy[:, None], np.eye(3), coefficients)[:, 0]
    if hasattr(cv2, "undistortPointsIter"):  # OpenCV 4; in 5 the plain function takes the criteria
        return cv2.undistortPointsIter(xy[:, None], np.eye(3), coefficients, None, None, criteria)[:, 0]
    return cv2.undistortPoints(xy[:, None], np.eye(3), coefficients, criteria=criteria)[:, 0]
