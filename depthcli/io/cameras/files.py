"""Open a calibration file of any format; which one it is tells its content, not its name."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from depthcli.camera import camera_of
from depthcli.errors import DepthError, UsageError
from depthcli.io.cameras import calibrations, colmap, json_files
from depthcli.io.cameras.stored import CameraFile, StoredCamera, camera_from_matrix
from depthcli.io.codecs.arrays import open_npz
from depthcli.io.codecs.files import read_facts

_MOST_BYTES = 1 << 28  # of a text; a transforms.json of ten thousand frames has 10 MB
_MOST_CALIBRATION = 1 << 22  # characters of one for a few cameras
_HINT = "`intrinsics` takes COLMAP, OpenCV, ROS, Nerfstudio, KITTI, Open3D and depthcli's files, or fx,fy,cx,cy"
# (title, whether a text is one, its reader) in the order in which they are tried
_TEXTS: tuple[tuple[str, Callable[[str], bool], Callable[[str], list[StoredCamera]]], ...] = (
    (calibrations.OPENCV, calibrations.is_opencv, calibrations.read_opencv),
    (calibrations.ROS, calibrations.is_ros, calibrations.read_ros),
    (calibrations.KITTI, calibrations.is_kitti, calibrations.read_kitti),
    (calibrations.MATRIX, calibrations.is_matrix, calibrations.read_matrix),
)


def read_cameras(path: Path) -> CameraFile:
    """Return the cameras of a calibration file, of a COLMAP folder, or of one of our depth files.

    Raises UsageError, one line with the file and the reason, for a file that is missing, broken, or without a camera.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            model = colmap.find_model(path)
            if model is None:
                raise UsageError(f"{path} is a folder without cameras.txt or cameras.bin of COLMAP", _HINT)
            return _named(path, read_cameras(model))
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise UsageError(f"{path} is not a file", _HINT)
        return _read(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist", "check the path of `intrinsics`") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read: {reason}", "check the path of `intrinsics`") from error
    except DepthError:
        raise
    except Exception as error:  # what readers of zip, JSON, YAML and numbers raise on broken bytes has no common class
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"cannot read a camera from {path}: {' '.join(reason.split())[:200]}", _HINT) from error


def _named(path: Path, file: CameraFile) -> CameraFile:
    return CameraFile(str(path), file.title, file.cameras, file.notes)


def _read(path: Path) -> CameraFile:
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(b"PK"):
            return _of_npz(path)
        if head.startswith((b"\x89PNG", b"\x76\x2f\x31\x01")):
            return _of_ours(path, read_facts(path))
        binary = colmap.read_binary(path, file)
        if binary:
            return CameraFile(str(path), colmap.TITLE, tuple(binary))
        file.seek(0)
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES or b"\0" in data[:4096]:
        raise ValueError("it is not a calibration")
    text = data.decode("utf-8-sig", errors="replace")
    if text.lstrip().startswith("{"):
        title, cameras = json_files.read_json(json.loads(text))
        return CameraFile(str(path), title, tuple(cameras))
    for title, is_one, read in _TEXTS if len(text) <= _MOST_CALIBRATION else ():
        if is_one(text):
            return CameraFile(str(path), title, tuple(read(text)))
    if colmap.is_text(text):
        return CameraFile(str(path), colmap.TITLE, tuple(colmap.read_text(path, text)))
    raise ValueError("it is none of the formats known here")


def _of_ours(path: Path, facts: dict[str, Any]) -> CameraFile:
    if not facts:
        raise ValueError("it is a picture, not a calibration")
    if isinstance(facts.get("cameras"), list):  # of a scene
        title, cameras = json_files.read_json(facts)
        return CameraFile(str(path), title, tuple(cameras))
    if not facts.get("camera"):
        raise ValueError("it says nothing about its camera")
    width, height = facts["size"]
    return CameraFile(str(path), json_files.OURS, (StoredCamera(camera_of(facts["camera"]), (width, height)),))


def _of_npz(path: Path) -> CameraFile:
    """Return the camera of one of our files, or the array `intrinsics`, as Depth Anything 3 writes it."""
    facts = read_facts(path)
    if facts:
        return _of_ours(path, facts)
    with path.open("rb") as stream, open_npz(stream) as arrays:
        if "intrinsics" not in arrays.names:
            raise ValueError("it has no array `intrinsics`")
        matrices = arrays.small("intrinsics")
        shape = arrays.shape("depth") if "depth" in arrays.names else ()
        poses = arrays.small("extrinsics") if "extrinsics" in arrays.names else None
    if matrices.ndim not in (2, 3) or matrices.shape[-2:] != (3, 3):
        raise ValueError(f"its intrinsics are {matrices.shape}, not (3, 3)")
    size = (shape[-1], shape[-2]) if len(shape) >= 2 else None
    cameras = [_of_middle(matrix, size) for matrix in matrices.reshape(-1, 3, 3)]
    if poses is not None and poses.shape in ((len(cameras), 3, 4), (len(cameras), 4, 4)):
        cameras = [(replace(stored, pose=pose[:3].astype(float)), note) for (stored, note), pose in zip(cameras, poses)]
    return CameraFile(
        str(path), "NPZ", tuple(stored for stored, _ in cameras), tuple({note for _, note in cameras if note})
    )


def _of_middle(matrix: np.ndarray, size: tuple[int, int] | None) -> tuple[StoredCamera, str]:
    """Return a camera and a note: a principal point at exactly half of the sides is the middle, with its half pixel."""
    camera = camera_from_matrix(matrix)
    if size is None or not np.allclose(camera.center, (size[0] / 2, size[1] / 2), rtol=0, atol=1e-3):
        return StoredCamera(camera, size), ""
    return StoredCamera(camera.cropped(0.5, 0.5), size), "the principal point of the file was moved by half a pixel"
