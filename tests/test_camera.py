import json

import cv2
import numpy as np
import pytest

from depthcli.camera import (
    Camera,
    CameraSource,
    Distortion,
    LensModel,
    assumed_camera,
    camera_of,
    describe_camera,
    equivalent_focal,
    pinhole,
    same_ratio,
)
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError
from depthcli.io.codecs.files import read_depth, write_depth
from depthcli.io.pictures.samples import upright

INTRINSICS = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]])


def test_a_camera_keeps_its_own_read_only_numbers():
    given = INTRINSICS.astype(np.float64)
    camera = Camera(given, CameraSource.EXIF)
    given[0, 0] = 1
    assert camera.intrinsics[0, 0] == 500 and camera.extrinsics is None
    with pytest.raises(ValueError, match="read-only"):
        camera.intrinsics[0, 0] = 1


@pytest.mark.parametrize(
    ("intrinsics", "extrinsics", "message"),
    [
        (np.eye(4), None, "intrinsics"),
        (INTRINSICS * np.nan, None, "intrinsics"),
        (-INTRINSICS, None, "focal lengths"),
        (INTRINSICS, np.eye(4), "extrinsics"),
    ],
)
def test_what_cannot_be_a_camera_is_refused(intrinsics, extrinsics, message):
    with pytest.raises(ValueError, match=message):
        Camera(intrinsics, CameraSource.GIVEN, extrinsics)


def test_a_depth_map_carries_layers_and_its_camera():
    values = np.array([[1, 2], [np.nan, 4]], np.float32)
    camera = Camera(INTRINSICS, CameraSource.GIVEN)
    depth = DepthMap(
        values,
        DepthKind.METRIC_DEPTH,
        valid=np.isfinite(values),
        confidence=np.ones((2, 2)),
        sky=values > 3,
        camera=camera,
    )
    assert depth.values[1, 0] == 0 and depth.range == (1, 4) and depth.camera is camera
    assert depth.confidence.dtype == np.float32 and depth.sky.tolist() == [[False, False], [False, True]]
    with pytest.raises(ValueError, match="confidence"):
        DepthMap(np.ones((2, 2)), DepthKind.METRIC_DEPTH, confidence=np.ones((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        DepthMap(values, DepthKind.METRIC_DEPTH, valid=np.ones((2, 2), bool))


def test_an_assumed_camera_sees_60_degrees_across_the_long_side():
    for size in ((640, 480), (480, 640)):
        camera = assumed_camera(size)
        assert camera.source is CameraSource.ASSUMED
        assert camera.intrinsics[0, 0] == camera.intrinsics[1, 1] == pytest.approx(320 / np.tan(np.radians(30)))
        assert camera.intrinsics[:2, 2].tolist() == [(size[0] - 1) / 2, (size[1] - 1) / 2]


@pytest.mark.parametrize("coefficients", [(0.1, 0.2), (0.1, 0, 0, 0, np.nan)])
def test_a_distortion_has_as_many_finite_numbers_as_its_model(coefficients):
    with pytest.raises(ValueError, match="5 finite numbers"):
        Distortion(LensModel.RADIAL, coefficients)
    assert Distortion(LensModel.FISHEYE, (0.1, 0, 0, 0)).coefficients == (0.1, 0, 0, 0)


# --- Resized, cropped, turned -----------------------------------------------------------------------------------------

LENS = Distortion(LensModel.RADIAL, (-0.2, 0.05, 0.01, -0.02, 0.003))
OFF_CENTRE = np.array([[50.0, 0, 13], [0, 60, 7], [0, 0, 1]])


def pixel(camera, point):
    """The pixel of a point (x, y, z), by OpenCV."""
    lens = np.array(camera.distortion.coefficients if camera.distortion else (0.0,) * 5)
    nowhere = np.zeros(3)
    return cv2.projectPoints(np.array([[point]], np.float64), nowhere, nowhere, camera.intrinsics, lens)[0].ravel()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_camera_sees_each_point_where_the_turned_picture_has_it(orientation):
    camera, stored = Camera(OFF_CENTRE, CameraSource.GIVEN, distortion=LENS), np.zeros((20, 32), np.uint8)
    turned = camera.turned(orientation, (32, 20))
    axes = {1: (1, 2), 2: (-1, 2), 3: (-1, -2), 4: (1, -2), 5: (2, 1), 6: (-2, 1), 7: (-2, -1), 8: (2, -1)}[orientation]
    for column, row in ((3, 2), (30, 4), (12, 17)):
        stored[:] = 0
        stored[row, column] = 1
        (v,), (u,) = np.nonzero(upright(stored, orientation))
        # The ray of a pixel of the picture without a lens, and the same ray seen by the turned camera.
        ray = np.linalg.solve(OFF_CENTRE, (column, row, 1))
        seen = [np.sign(axis) * ray[abs(axis) - 1] for axis in axes] + [1]
        straight = Camera(turned.intrinsics, turned.source)
        assert np.allclose(pixel(straight, seen), (u, v))
        bent = pixel(camera, ray)  # where the lens puts it, turned by the same map of pixels
        moved = np.array((bent[0] - column, bent[1] - row))
        assert np.allclose(pixel(turned, seen) - (u, v), [np.sign(axis) * moved[abs(axis) - 1] for axis in axes])


def test_a_pose_turns_with_its_picture_and_what_would_be_mirrored_is_refused():
    pose = np.array([[1.0, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]])
    turned = Camera(OFF_CENTRE, CameraSource.GIVEN, pose).turned(6, (32, 20))
    assert np.allclose(turned.extrinsics, [[0, -1, 0, -2], [1, 0, 0, 1], [0, 0, 1, 3]])
    with pytest.raises(ValueError, match="mirrored"):
        Camera(OFF_CENTRE, CameraSource.GIVEN, pose).turned(2, (32, 20))
    with pytest.raises(ValueError, match="skew"):
        Camera(OFF_CENTRE + np.diag([1.0, 0], 1), CameraSource.GIVEN).turned(6, (32, 20))


def test_the_corners_of_a_picture_keep_their_rays_if_it_is_resized():
    camera = Camera(OFF_CENTRE, CameraSource.GIVEN)
    small = camera.resized((32, 20), (8, 5))
    for x, y in ((0, 0), (1, 1)):  # edges lie half a pixel outside of the outer pixel centres
        there = np.linalg.solve(camera.intrinsics, (x * 32 - 0.5, y * 20 - 0.5, 1))
        here = np.linalg.solve(small.intrinsics, (x * 8 - 0.5, y * 5 - 0.5, 1))
        assert np.allclose(there, here)
    assert small.focal == (12.5, 15)
    assert np.allclose(small.resized((8, 5), (32, 20)).intrinsics, OFF_CENTRE)


def test_a_crop_moves_the_principal_point():
    assert Camera(OFF_CENTRE, CameraSource.GIVEN).cropped(3, 2).center == (10, 5)


def test_26_millimetres_at_12_megapixels_are_3029_pixels_in_either_orientation():
    for size in ((4032, 3024), (3024, 4032)):
        assert equivalent_focal(size, 26) == pytest.approx(3028.7, abs=0.5)


@pytest.mark.parametrize(
    ("size", "other", "same"),
    [
        ((4032, 3024), (1008, 756), True),
        ((4032, 3024), (640, 481), True),
        ((4032, 3024), (640, 470), False),
        ((4032, 3024), (3024, 4032), False),
        ((30, 20), (10, 7), True),  # rounded
    ],
)
def test_a_resize_keeps_the_ratio_of_the_sides(size, other, same):
    assert same_ratio(size, other) is same


@pytest.mark.parametrize("pose", [None, np.eye(4)[:3]])
@pytest.mark.parametrize("lens", [None, LENS, Distortion(LensModel.FISHEYE, (0.1, 0, 0, 0))])
def test_a_camera_comes_back_from_its_facts(lens, pose):
    camera = Camera(OFF_CENTRE, CameraSource.EXIF_CROPPED, pose, lens)
    facts = json.loads(json.dumps(describe_camera(camera, (32, 20))))
    assert (facts["source"], facts["fx"], facts["cy"], facts["size"]) == ("exif-cropped", 50, 7, [32, 20])
    back = camera_of(facts)
    assert np.array_equal(back.intrinsics, OFF_CENTRE) and back.distortion == lens and back.source == camera.source
    assert pose is None if back.extrinsics is None else np.array_equal(back.extrinsics, pose)


@pytest.mark.parametrize("name", ["a.npz", "a.exr", "a.png"])
def test_files_carry_the_camera_of_their_map(name):
    camera = Camera(OFF_CENTRE, CameraSource.GIVEN, distortion=LENS)
    values = np.linspace(0, 1, 640, dtype=np.float32).reshape(20, 32)
    write_depth(DepthMap(values, DepthKind.RELATIVE_DISPARITY, camera=camera), name)
    back = read_depth(name).camera
    assert np.array_equal(back.intrinsics, OFF_CENTRE)
    assert back.source is CameraSource.GIVEN and back.distortion == LENS
    if name.endswith("npz"):
        assert np.array_equal(np.load(name)["intrinsics"], OFF_CENTRE)
    write_depth(DepthMap(values, DepthKind.RELATIVE_DISPARITY), name)
    assert read_depth(name).camera is None
    assert not name.endswith("npz") or set(np.load(name)) == {"depth", "meta"}


def test_a_file_whose_camera_is_broken_is_refused_in_one_line():
    values, facts = np.ones((2, 3), np.float32), {"schema": "depthcli/1", "kind": "metric_depth"}
    for broken in ({"fx": 1}, {**describe_camera(pinhole((3, 2), 4, CameraSource.GIVEN), (3, 2)), "fx": -1}, "none"):
        np.savez("broken.npz", depth=values, meta=json.dumps({**facts, "camera": broken}))
        with pytest.raises(OutputError, match=r"cannot read depth from broken\.npz"):
            read_depth("broken.npz")
