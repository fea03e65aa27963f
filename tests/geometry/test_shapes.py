"""From a DepthMap to points, meshes and normals: kinds, units, masks and axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import depthcli
from depthcli.camera import CameraSource, Distortion, LensModel, assumed_camera, pinhole
from depthcli.choices.shapes import AXES, ShapeChoice
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.normals import normals
from depthcli.geometry.shapes import remarks
from depthcli.geometry.solids import Mesh, PointCloud, turn_to, with_axes
from depthcli.geometry.space import FARTHEST, space_of
from tests.geometry.scenes import camera, metric, plane, small, sphere

ALL = ShapeChoice(axes="opencv", edges=None, points=None)


@pytest.mark.parametrize("axes", AXES)
def test_the_one_near_pixel_is_at_its_place_in_every_axes(axes):
    depth, rgb = small()
    cloud = depthcli.points(depth, rgb, replace(ALL, axes=axes))
    nearest = 1 * 7 + 3  # row by row
    x, y, z = {"opencv": (0, -0.19, 1.9), "opengl": (0, 0.19, -1.9), "zup": (0, 1.9, 0.19)}[axes]
    assert np.allclose(cloud.points[nearest], (x, y, z), atol=1e-6)
    assert [tuple(color) for color in cloud.colors].index((255, 0, 0)) == nearest
    corner = {"opencv": (-0.6, -0.4, 2), "opengl": (-0.6, 0.4, -2), "zup": (-0.6, 2, 0.4)}[axes]
    assert np.allclose(cloud.points[0], corner, atol=1e-6)


def test_the_methods_of_a_map_are_the_functions():
    depth, rgb = small()
    for method, function in ((depth.points, depthcli.points), (depth.mesh, depthcli.mesh)):
        ours, theirs = method(rgb, ALL), function(depth, rgb, ALL)
        arrays = {name for name, value in vars(theirs).items() if isinstance(value, np.ndarray)}
        assert arrays and all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in arrays)


def test_axes_keep_hands_apart():
    """Right, up and toward the viewer, as each of the axes has them, make a determinant of 1."""
    for axes in AXES:
        right, up, toward = np.array([(1, 0, 0), (0, -1, 0), (0, 0, -1)]) @ turn_to(axes).T
        assert np.linalg.det([right, up, toward]) == pytest.approx(1)


def test_axes_come_back_without_a_digit_lost():
    depth, rgb = small()
    cloud = depthcli.points(depth, rgb, ALL)
    for axes in AXES:
        turned = with_axes(cloud, axes)
        back = with_axes(turned, "opencv")
        assert turned.axes == turned.facts["shape"]["axes"] == axes
        assert np.array_equal(back.points, cloud.points) and np.array_equal(back.normals, cloud.normals)


def test_the_mesh_has_the_picture_the_right_way_round():
    depth, rgb = small()
    mesh = depthcli.mesh(depth, rgb, ALL)
    nearest = int(np.argmin(mesh.vertices[:, 2]))
    assert np.allclose(mesh.vertices[nearest], (0, -0.19, 1.9), atol=1e-6)
    assert np.allclose(mesh.uv[nearest], (3.5 / 7, 1.5 / 5))
    assert len(mesh.vertices) == 35 and len(mesh.faces) == 48


@pytest.mark.parametrize("lens", [None, Distortion(LensModel.RADIAL, (-0.2, 0.05, 0.001, 0.001, 0))])
@pytest.mark.parametrize("normal", [(0, 0, 1), (0.3, -0.4, 1), (-0.8, 0.1, 0.6)])
def test_normals_of_a_plane_are_its_own(normal, lens):
    seen_by = camera(100.0, (60, 40), lens)
    z = plane(seen_by, normal, 2.0, (60, 40))
    found, valid = normals(metric(z, seen_by), axes="opencv")
    true = -np.array(normal) / np.linalg.norm(normal)
    angle = np.degrees(np.arccos(np.clip(found @ true, -1, 1)))
    assert valid.all() and angle.max() < (0.05 if lens is None else 1)


@pytest.mark.parametrize("size", [(160, 120), (157, 123), (163, 113)])
def test_normals_of_an_enlarged_plane_are_its_own_up_to_the_edges(size):
    seen_by = camera(120.0, size)
    z = plane(seen_by, (0.3, -0.4, 1), 2.0, size)
    depth = DepthMap(z, DepthKind.METRIC_DEPTH, Provenance(input_size=(size[0] // 8, size[1] // 8)), camera=seen_by)
    true = -np.array((0.3, -0.4, 1)) / np.linalg.norm((0.3, -0.4, 1))
    assert (normals(depth, axes="opencv")[0] @ true).min() > 1 - 1e-6


def test_normals_of_a_sphere_point_away_from_its_centre():
    z, hit = sphere(camera())
    depth = metric(z, camera(), hit)
    cloud = depthcli.points(depth, None, replace(ALL, edges=0.04))
    outward = cloud.points - np.array([0.3, -0.2, 2.0])
    outward /= np.linalg.norm(outward, axis=1)[:, None]
    towards = (cloud.normals * cloud.points).sum(axis=1)
    assert np.median((cloud.normals * outward).sum(axis=1)) > 0.9995
    assert (towards <= 0).mean() > 0.99 and np.allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("input_size", [(0, 0), (20, 15)])  # a map as it is, and one enlarged 8 times
def test_the_normals_of_points_are_those_of_their_pixels(input_size):
    seen_by = camera(120.0, (160, 120))
    z = plane(seen_by, (0.3, -0.4, 1), 2.0, (160, 120)) + np.float32(0.01) * np.sin(np.arange(160) / 9).astype(
        np.float32
    )
    depth = DepthMap(z, DepthKind.METRIC_DEPTH, Provenance(input_size=input_size), camera=seen_by)
    cloud = depthcli.points(depth, None, ALL)
    everywhere = normals(depth, axes="opencv")[0].reshape(-1, 3)
    assert np.abs(cloud.normals - everywhere).max() < 1e-6
    some = depthcli.points(depth, None, replace(ALL, points=500))
    places = {tuple(point): number for number, point in enumerate(cloud.points.tolist())}
    assert np.abs(some.normals - everywhere[[places[tuple(point)] for point in some.points.tolist()]]).max() < 1e-6


def test_metres_need_metric_depth_and_a_known_camera():
    z = np.full((5, 7), 2.0, np.float32)
    known = pinhole((7, 5), 10.0, CameraSource.EXIF)
    cases = (
        (DepthKind.METRIC_DEPTH, known, "m"),
        (DepthKind.METRIC_DEPTH, None, "arbitrary"),
        (DepthKind.METRIC_DEPTH, assumed_camera((7, 5)), "arbitrary"),
        (DepthKind.RELATIVE_DEPTH, known, "arbitrary"),
        (DepthKind.RELATIVE_DISPARITY, known, "arbitrary"),
    )
    for kind, seen_by, unit in cases:
        depth = DepthMap(z, kind, camera=seen_by)
        cloud = depthcli.points(depth)
        assert cloud.unit == cloud.facts["shape"]["unit"] == unit
        assert cloud.facts["shape"]["camera"]["source"] == (seen_by.source.value if seen_by else "assumed")
        assert len(remarks(depth)) >= len(remarks(depth, shape=False))
        assert len(remarks(depth)) == (not kind.is_metric) + (seen_by is None or seen_by.source.value == "assumed")


def test_a_relative_disparity_is_inverted_its_nearest_percent_at_1():
    values = np.linspace(8, 2, 35, dtype=np.float32).reshape(5, 7)
    space = space_of(DepthMap(values, DepthKind.RELATIVE_DISPARITY))
    assert np.allclose(space.z * values, (space.z * values)[0, 0])
    assert space.z.min() == pytest.approx(1, abs=0.02) and space.unit == "arbitrary"


def test_sky_invalid_pixels_and_what_is_too_far_are_left_out():
    values = np.full((5, 7), 4.0, np.float32)
    values[0] = 0  # infinitely far
    values[1, 0] = 4.0 / (FARTHEST * 1.1)
    sky, valid = np.zeros((5, 7), bool), np.ones((5, 7), bool)
    sky[2], valid[3] = True, False
    depth = DepthMap(values, DepthKind.RELATIVE_DISPARITY, valid=valid, sky=sky)
    kept = space_of(depth).valid
    assert kept[1, 1:].all() and kept[4].all() and kept.sum() == 6 + 7
    assert space_of(depth, farthest=FARTHEST * 1.2).valid[1, 0]
    assert space_of(metric(np.linspace(1, 9, 35).reshape(5, 7), None), 3.0).z.max() <= 3


def test_what_has_no_shape_is_refused():
    with pytest.raises(OutputError, match="no pixel"):
        space_of(DepthMap(np.zeros((5, 7)), DepthKind.RELATIVE_DISPARITY))
    with pytest.raises(OutputError, match="nearer than 1"):
        space_of(metric(np.full((5, 7), 2.0), None), 1.0)
    with pytest.raises(UsageError, match="panorama"):
        space_of(DepthMap(np.ones((5, 10)), DepthKind.RELATIVE_DISPARITY, Provenance(panorama=True)))
    noise = metric(np.random.default_rng(0).uniform(1, 9, (9, 9)), None)
    with pytest.raises(OutputError, match="edges"):
        depthcli.mesh(noise, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(OutputError, match="edges"):
        depthcli.points(noise)
    with pytest.raises(ValueError, match="picture"):
        depthcli.points(noise, np.zeros((9, 8, 3), np.uint8))


def test_shapes_check_their_arrays():
    with pytest.raises(ValueError, match="points"):
        PointCloud(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="colors"):
        PointCloud(np.zeros((3, 3)), colors=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="vertex"):
        Mesh(np.zeros((3, 3)), np.zeros((3, 2)), np.array([[0, 1, 3]]), b"")
    with pytest.raises(ValueError, match="unit"):
        PointCloud(np.zeros((3, 3)), unit="feet")


@pytest.mark.parametrize(
    "wrong", [{"axes": "left"}, {"edges": 0.0}, {"edges": 1.0}, {"points": 0}, {"mesh_size": 1}, {"farthest": 0.0}]
)
def test_choices_that_make_no_shape_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ShapeChoice(**wrong)
