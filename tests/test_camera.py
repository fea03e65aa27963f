import numpy as np
import pytest

from depthcli.camera import Camera, CameraSource, Distortion, LensModel, assumed_camera
from depthcli.depthmap import DepthKind, DepthMap

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
