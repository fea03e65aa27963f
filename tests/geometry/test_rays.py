"""Points on rays: a sphere keeps its radius, and a lens comes out straight."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.camera import Camera, CameraSource, Distortion, LensModel
from depthcli.geometry.rays import depth_along_axis, project, rays, rays_at, unproject
from tests.geometry.scenes import CENTRE, RADIUS, VGA, camera, sphere

LENSES = (
    Distortion(LensModel.RADIAL, (-0.28, 0.07, 0.001, -0.002, 0.01)),
    Distortion(LensModel.FISHEYE, (-0.01, 0.02, -0.005, 0.001)),
)


def fitted_sphere(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return centre, radius and RMS distance: |P|^2 = 2 P . c + (r^2 - |c|^2) is linear in c."""
    points = points.astype(np.float64)
    found = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    radius = float(np.sqrt(found[3] + found[:3] @ found[:3]))
    distance = np.linalg.norm(points - found[:3], axis=1) - radius
    return found[:3], radius, float(np.sqrt((distance**2).mean()))


@pytest.mark.parametrize("lens", [None, *LENSES])
def test_a_sphere_is_one(lens):
    seen_by = camera(lens=lens)
    z, hit = sphere(seen_by)
    centre, radius, rms = fitted_sphere(unproject(z, seen_by)[hit])
    assert abs(radius - RADIUS) < 1e-6 and rms < 1e-6 and np.abs(centre - CENTRE).max() < 2e-6


@pytest.mark.parametrize("wrong", ["focal", "centre", "ray"])
def test_the_sphere_tells_a_wrong_camera(wrong):
    z, hit = sphere(camera())
    matrix = camera().intrinsics.copy()
    if wrong == "focal":
        matrix[[0, 1], [0, 1]] *= 1.01
    if wrong == "centre":
        matrix[:2, 2] = 0
    if wrong == "ray":
        z = depth_along_axis(z, camera())
    _, radius, rms = fitted_sphere(unproject(z, Camera(matrix, CameraSource.GIVEN))[hit])
    assert abs(radius - RADIUS) > 5e-3 or rms > 5e-3


def test_distances_along_rays_become_depth_along_the_axis():
    seen_by = camera()
    z, hit = sphere(seen_by)
    distances = np.linalg.norm(unproject(z, seen_by), axis=2)
    assert np.abs(depth_along_axis(distances, seen_by) - z)[hit].max() < 1e-6


@pytest.mark.parametrize("lens", LENSES)
def test_pixels_come_back_through_the_lens(lens):
    pixels = np.array([[0, 0], [639, 0], [0, 479], [320, 240], [100.5, 400.25]], np.float64)
    seen_by = camera(lens=lens)
    points = np.c_[rays_at(pixels, seen_by), np.ones(len(pixels))] * 3.0
    assert np.abs(project(points, seen_by) - pixels).max() < 1e-6


def test_skewed_pixels_come_back_too():
    seen_by = Camera(np.array([[500, 7.0, 310], [0, 520, 250], [0, 0, 1]]), CameraSource.GIVEN)
    pixels = np.array([[10.0, 20], [600, 400]])
    assert np.allclose(project(np.c_[rays_at(pixels, seen_by), [1, 1]], seen_by), pixels)


def test_pixel_centres_are_integers():
    assert np.abs(rays((7, 5), camera(10.0, (7, 5)))[2, 3]).max() == 0
    assert rays(VGA, camera()).shape == (480, 640, 2)
