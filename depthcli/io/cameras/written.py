"""Cameras as other programs read them: ROS, KITTI, plain matrices, Nerfstudio and instant-ngp.

What is written here, `read_cameras` reads back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthcli.camera import Camera, LensModel
from depthcli.errors import UsageError
from depthcli.geometry.poses import inverted, square

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # its cameras look along -z, and y is up
_ROS_MODELS = {LensModel.RADIAL: "plumb_bob", LensModel.FISHEYE: "equidistant"}
_TERMS = {LensModel.RADIAL: ("k1", "k2", "p1", "p2", "k3"), LensModel.FISHEYE: ("k1", "k2", "k3", "k4")}


def camera_info(camera: Camera, size: tuple[int, int], name: str) -> str:
    """Return a camera_info YAML of ROS (sensor_msgs/CameraInfo, as camera_calibration saves it)."""
    matrix, lens = camera.intrinsics, camera.distortion
    coefficients = lens.coefficients if lens else (0.0,) * 5
    return "".join(
        (
            f"image_width: {size[0]}\nimage_height: {size[1]}\ncamera_name: {json.dumps(name)}\n",
            _rows("camera_matrix", matrix),
            f"distortion_model: {_ROS_MODELS[lens.model if lens else LensModel.RADIAL]}\n",
            _rows("distortion_coefficients", np.array([coefficients])),
            _rows("rectification_matrix", np.eye(3)),
            _rows("projection_matrix", np.hstack([matrix, np.zeros((3, 1))])),
        )
    )


def kitti_calibration(camera: Camera) -> str:
    """Return a calib.txt of KITTI, whose P2 is the left colour camera. It holds no distortion."""
    return f"P2: {' '.join(f'{number:.12e}' for number in np.hstack([camera.intrinsics, np.zeros((3, 1))]).ravel())}\n"


def plain_matrix(camera: Camera) -> str:
    """Return the 3x3 intrinsics, a row a line. It holds no distortion."""
    return "".join(" ".join(f"{number:.12g}" for number in row) + "\n" for row in camera.intrinsics)


def nerf_frame(camera: Camera, size: tuple[int, int]) -> dict[str, Any]:
    """Return the camera of a frame in a transforms.json: pixel centres at half numbers, camera-to-world in OpenGL axes.

    Without a pose it has no transform_matrix. Its model stands above all frames: see `nerf_model`.
    """
    lens, (fx, fy), (cx, cy) = camera.distortion, camera.focal, camera.center
    terms = dict(zip(_TERMS[lens.model], lens.coefficients)) if lens else {}
    frame = {"w": size[0], "h": size[1], "fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5, **terms}
    if camera.extrinsics is None:
        return frame
    back = square(inverted(np.asarray(camera.extrinsics)[None]))[0] @ _OPENGL
    return {**frame, "transform_matrix": back.tolist()}


def nerf_model(cameras: Sequence[Camera]) -> str:
    """Return the camera_model of a transforms.json, which has one for all frames.

    Raises UsageError for fisheyes beside other cameras.
    """
    fisheyes = sum(camera.distortion is not None and camera.distortion.model is LensModel.FISHEYE for camera in cameras)
    if fisheyes not in (0, len(cameras)):
        raise UsageError("a transforms.json has one model of cameras, and some of these are fisheyes", "write two")
    return "OPENCV_FISHEYE" if fisheyes else "OPENCV"


def _rows(name: str, matrix: np.ndarray) -> str:
    numbers = ", ".join(f"{number:.12g}" for number in matrix.ravel())
    return f"{name}:\n  rows: {matrix.shape[0]}\n  cols: {matrix.shape[1]}\n  data: [{numbers}]\n"
