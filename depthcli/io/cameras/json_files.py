"""Read cameras from JSON: Nerfstudio's and instant-ngp's transforms.json, Open3D's, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from depthcli.camera import Distortion, camera_of
from depthcli.io.cameras.calibrations import LENS_NAMES, MATRIX, MATRIX_NAMES
from depthcli.io.cameras.stored import StoredCamera, camera_from, camera_from_matrix, fisheye, focal_of_angle, radial

NERFSTUDIO, OPEN3D, OURS = "Nerfstudio transforms.json", "Open3D", "depthcli"
_FISHEYES = ("OPENCV_FISHEYE", "FISHEYE")
_LENSES = ("", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE", *_FISHEYES)


def read_json(content: Any) -> tuple[str, list[StoredCamera]]:
    """Return the format's title and the cameras. Raises ValueError for JSON that holds none, KeyError, TypeError."""
    if isinstance(content, Mapping):
        if isinstance(content.get("frames"), list):
            return NERFSTUDIO, _transforms(content)
        if isinstance(content.get("cameras"), list) and content["cameras"]:
            return OURS, [_ours(facts) for facts in content["cameras"]]
        if isinstance(content.get("parameters"), list):
            return OPEN3D, [stored for item in content["parameters"] for stored in _open3d(item["intrinsic"])]
        if "intrinsic_matrix" in content or isinstance(content.get("intrinsic"), Mapping):
            return OPEN3D, _open3d(content.get("intrinsic", content))
        name = next((name for name in MATRIX_NAMES if name in content), "")
        if name:
            return MATRIX, [_plain(content, name)]
        ours = content.get("camera", content)
        if isinstance(ours, Mapping) and {"fx", "fy", "cx", "cy"} <= set(ours):
            return OURS, [_ours(ours)]
    raise ValueError("it is JSON without a camera that is known here")


def _plain(content: Mapping[str, Any], name: str) -> StoredCamera:
    """Return the camera of a matrix and the coefficients of OpenCV, under one of the usual names."""
    matrix = _matrix(content[name])
    if matrix.size != 9:
        raise ValueError(f"its {name} has {matrix.size} numbers, not 9")
    lens = next((radial(_matrix(content[key]).ravel().tolist()) for key in LENS_NAMES if key in content), None)
    sides = [content.get(f"image_{side}", content.get(side, 0)) for side in ("width", "height")]
    return StoredCamera(camera_from_matrix(matrix.reshape(3, 3), lens), _size(sides))


def _ours(facts: Mapping[str, Any]) -> StoredCamera:
    camera = camera_of({"source": "given", **facts})
    pose, camera = camera.extrinsics, replace(camera, extrinsics=None)
    return StoredCamera(camera, _size(facts.get("size")), str(facts.get("name", "")), pose=pose)


def _pose(facts: Mapping[str, Any]) -> Optional[np.ndarray]:
    """Return world to camera of a frame, which has camera to world with OpenGL's axes."""
    if "transform_matrix" not in facts:
        return None
    back = np.array(facts["transform_matrix"], np.float64)
    if back.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"a transform_matrix of it is {back.shape}, not (4, 4)")
    back = np.vstack([back[:3], [0, 0, 0, 1]]) @ np.diag([1.0, -1.0, -1.0, 1.0])
    return np.linalg.inv(back)[:3] if np.linalg.det(back) else None


def _size(sides: Any) -> Optional[tuple[int, int]]:
    return (int(sides[0]), int(sides[1])) if sides and min(int(side) for side in sides) > 0 else None


def _open3d(content: Mapping[str, Any]) -> list[StoredCamera]:
    """Return the camera of nine numbers in columns."""
    numbers = content["intrinsic_matrix"]
    if len(numbers) != 9:
        raise ValueError(f"its intrinsic_matrix has {len(numbers)} numbers, not 9")
    camera = camera_from_matrix(np.reshape(np.array(numbers, np.float64), (3, 3)).T)
    return [StoredCamera(camera, _size((content.get("width", 0), content.get("height", 0))))]


def _transforms(content: Mapping[str, Any]) -> list[StoredCamera]:
    """Return one camera per frame: its own numbers, else those of the file. Pixel centres lie at half numbers there."""
    shared = {name: value for name, value in content.items() if name != "frames"}
    if not content["frames"]:
        return [_frame(shared, "")]
    return [_frame({**shared, **frame}, str(frame.get("file_path", ""))) for frame in content["frames"]]


def _frame(facts: Mapping[str, Any], name: str) -> StoredCamera:
    lens, size = _lens(facts), _size((facts.get("w", 0), facts.get("h", 0)))
    has_focal, angle = "fl_x" in facts, facts.get("camera_angle_x")
    if not has_focal and angle is None:
        raise ValueError("it has neither fl_x nor camera_angle_x")
    if not has_focal and size is None:  # as of synthetic scenes
        focal_of_angle(1, float(angle))  # type: ignore[arg-type]  # raises for no such angle
        return StoredCamera(None, None, name, view=float(angle), pose=_pose(facts))  # type: ignore[arg-type]
    if size is None and not {"cx", "cy"} <= set(facts):
        raise ValueError("it has neither cx and cy nor w and h")
    width, height = size or (0, 0)
    if has_focal:
        x = float(facts["fl_x"])
        y = float(facts.get("fl_y", x))
    else:
        x = focal_of_angle(width, float(angle))  # type: ignore[arg-type]
        y = focal_of_angle(height, float(facts["camera_angle_y"])) if "camera_angle_y" in facts else x
    center = float(facts.get("cx", width / 2)), float(facts.get("cy", height / 2))
    return StoredCamera(camera_from((x, y), center, lens, half=True), size, name, pose=_pose(facts))


def _lens(facts: Mapping[str, Any]) -> Optional[Distortion]:
    model = str(facts.get("camera_model", "")).upper()
    if model not in _LENSES:
        raise ValueError(f"its camera_model {model} is not supported")
    if model in _FISHEYES or facts.get("is_fisheye"):
        return fisheye([float(facts.get(key, 0)) for key in ("k1", "k2", "k3", "k4")])
    return radial([float(facts.get(key, 0)) for key in ("k1", "k2", "p1", "p2", "k3", "k4")])


def _matrix(content: Any) -> np.ndarray:
    """Return the numbers of a list of rows, or of a matrix as OpenCV writes it to JSON."""
    return np.array(content["data"] if isinstance(content, Mapping) else content, np.float64)
