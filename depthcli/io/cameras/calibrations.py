"""Read calibrations as text: OpenCV's YAML and XML, ROS's camera_info, KITTI's calib files, and plain matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from depthcli.io.cameras.stored import StoredCamera, camera_from_matrix, fisheye, radial

OPENCV, ROS, KITTI, MATRIX = "OpenCV", "ROS camera_info", "KITTI", "matrix"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
MATRIX_NAMES = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "intrinsic_matrix", "intrinsics", "mtx", "K")
LENS_NAMES = ("distortion_coefficients", "dist_coeffs", "distCoeffs", "Distortion_Coefficients", "dist", "D")
_ROS_LENSES = {"plumb_bob": radial, "rational_polynomial": radial, "equidistant": fisheye, "fisheye": fisheye}
_KITTI_KEY = re.compile(r"^(P_rect_0?|P)(\d):(.*)$", re.MULTILINE)
_LEFT_COLOUR = 2  # KITTI's camera of the pictures in image_02 and image_2


# --- OpenCV -----------------------------------------------------------------------------------------------------------


def is_opencv(text: str) -> bool:
    """Return whether a text is what cv2.FileStorage writes as YAML or XML."""
    return text.startswith("%YAML") or "<opencv_storage>" in text[:1000]


def read_opencv(text: str) -> list[StoredCamera]:
    """Return the camera of a calibration. Raises ValueError if there is none.

    Not by cv2.FileStorage, which writes beyond its memory for some damaged files.
    """
    fields = _fields(text) if text.startswith("%YAML") else _xml_fields(text)
    matrix, lens = _first(fields, *MATRIX_NAMES), _first(fields, *LENS_NAMES)
    if matrix is None or len(matrix) != 9:
        raise ValueError("it has no camera_matrix of 9 numbers")
    is_fisheye = str(fields.get("fisheye_model", "0")) not in ("0", "false")
    distortion = None if lens is None else (fisheye if is_fisheye else radial)(lens)
    return [StoredCamera(camera_from_matrix(np.reshape(matrix, (3, 3)), distortion), _size(fields))]


def _xml_fields(text: str) -> dict[str, Any]:
    """Return numbers and texts by tag; `data` inside of a matrix belongs to the matrix."""
    fields: dict[str, Any] = dict(re.findall(r"<(\w+)>\s*([^<>]{1,100}?)\s*</\1>", text))
    for name, data in re.findall(r"<(\w+)\s+type_id=\"opencv-matrix\">[^\0]*?<data>([^<]*)</data>", text):
        fields[name] = [float(number) for number in re.findall(_NUMBER, data)]
    return fields


# --- ROS --------------------------------------------------------------------------------------------------------------


def is_ros(text: str) -> bool:
    """Return whether a text is a camera_info: of camera_calibration, or a message as rostopic and ros2 print it."""
    saved = re.search(r"^image_width:", text, re.MULTILINE) and re.search(r"^camera_matrix:", text, re.MULTILINE)
    return bool(saved or (re.search(r"^distortion_model:", text, re.MULTILINE) and re.search(r"^[kK]:", text, re.M)))


def read_ros(text: str) -> list[StoredCamera]:
    """Return the camera of the raw pictures, not of the rectified ones (projection_matrix). Raises ValueError."""
    fields = _fields(text)
    matrix = _first(fields, "camera_matrix", "K", "k")
    if matrix is None or len(matrix) != 9:
        raise ValueError("its camera_matrix is not 9 numbers")
    model = str(fields.get("distortion_model", "plumb_bob")).strip("'\" ")
    if model and model not in _ROS_LENSES:
        raise ValueError(f"its distortion_model {model} is not supported")
    coefficients = _first(fields, "distortion_coefficients", "D", "d") or []
    lens = _ROS_LENSES[model or "plumb_bob"](coefficients) if coefficients else None
    return [StoredCamera(camera_from_matrix(np.reshape(matrix, (3, 3)), lens), _size(fields))]


def _size(fields: Mapping[str, Any]) -> Optional[tuple[int, int]]:
    """Return (width, height); None if they are missing. Raises ValueError for what are no numbers."""
    width, height = (int(float(str(fields.get(f"image_{name}", fields.get(name, 0))))) for name in ("width", "height"))
    return (width, height) if min(width, height) > 0 else None


def _first(fields: Mapping[str, Any], *names: str) -> Optional[list[float]]:
    return next((fields[name] for name in names if isinstance(fields.get(name), list)), None)


def _fields(text: str) -> dict[str, Any]:
    """Return the numbers and texts by key; `data` below a key belongs to that key.

    The lists of camera_info and OpenCV are `[1, 2]`, which may wrap, or lines that begin with a dash.
    """
    fields: dict[str, Any] = {}
    above = key = ""
    lines = iter(text.splitlines())
    for line in lines:
        item = re.match(rf"\s*-\s+({_NUMBER})\s*$", line)
        if item and isinstance(fields.setdefault(key, []), list):
            fields[key].append(float(item[1]))
            continue
        match = re.match(r"(\s*)(\w+):\s*(.*?)\s*(?:#.*)?$", line)
        if not match:
            continue
        indent, name, value = match.groups()
        above = above if indent else name
        key = above if name == "data" else name
        if not value.startswith("["):
            if value and not (indent and name in fields):
                fields[key] = value
            continue
        while "]" not in value:
            following = next(lines, None)
            if following is None:
                raise ValueError(f"its list {key} is cut short")
            value += " " + following
        fields[key] = [float(number) for number in re.findall(_NUMBER, value)]
    return fields


# --- KITTI ------------------------------------------------------------------------------------------------------------


def is_kitti(text: str) -> bool:
    """Return whether a text is a calib_cam_to_cam.txt or a calib.txt."""
    return _KITTI_KEY.search(text) is not None


def read_kitti(text: str) -> list[StoredCamera]:
    """Return the rectified cameras, the left colour one first. Raises ValueError."""
    sizes = {
        int(number): (round(float(width)), round(float(height)))
        for number, width, height in re.findall(rf"^S_rect_0?(\d):\s*({_NUMBER})\s+({_NUMBER})", text, re.MULTILINE)
    }
    found: dict[int, list[StoredCamera]] = {}
    for key, number, rest in _KITTI_KEY.findall(text):
        numbers = [float(word) for word in re.findall(_NUMBER, rest)]
        if len(numbers) != 12:
            raise ValueError(f"its {key}{number} has {len(numbers)} numbers, not 12")
        camera, size = camera_from_matrix(np.reshape(numbers, (3, 4))), sizes.get(int(number))
        folders = (f"image_0{number}", f"image_{number}")
        found[int(number)] = [StoredCamera(camera, size, part=folder) for folder in folders]
    order = sorted(found, key=lambda number: (number != _LEFT_COLOUR, number))
    return [stored for number in order for stored in found[number]]


# --- Plain numbers ----------------------------------------------------------------------------------------------------


def is_matrix(text: str) -> bool:
    """Return whether a text is 9, 12 or 16 numbers and nothing else."""
    words = text.replace(",", " ").split()
    return len(words) in (9, 12, 16) and all(re.fullmatch(_NUMBER, word) for word in words)


def read_matrix(text: str) -> list[StoredCamera]:
    """Return the camera of a 3x3, 3x4 or 4x4 matrix, row by row. Raises ValueError."""
    numbers = [float(word) for word in text.replace(",", " ").split()]
    columns = 3 if len(numbers) == 9 else 4
    return [StoredCamera(camera_from_matrix(np.reshape(numbers, (-1, columns))))]
