"""Read the cameras of a COLMAP model: cameras.txt or .bin, and the pictures they belong to from images.txt or .bin.

Formats: colmap.github.io/format.html. COLMAP's pixel centres lie at half numbers; poses are world to camera.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.errors import UsageError
from depthcli.geometry.poses import rotations_of
from depthcli.io.cameras.stored import StoredCamera, camera_from, fisheye, radial

TITLE = "COLMAP"
_FOLDERS = ("", "sparse/0", "sparse")
_MOST_CAMERAS = 1 << 20
_LONGEST_NAME = 1 << 12
_POINT_BYTES = 24  # of a picture's point: x, y, and the number of the point in space

# Name -> its number in binary files, and the count of its parameters.
_MODELS = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "FOV": (7, 5),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12),
}
CameraRow = tuple[str, tuple[int, int], list[float]]  # name of the model, (width, height), parameters
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_BY_NUMBER = {number: (name, count) for name, (number, count) in _MODELS.items()}


def _shared(p: Sequence[float], lens: Optional[Callable[..., object]] = None) -> Camera:
    """Return the camera of f cx cy and coefficients."""
    return camera_from((p[0], p[0]), (p[1], p[2]), lens and lens(p[3:]), half=True)  # type: ignore[arg-type]


def _apart(p: Sequence[float], lens: Optional[Callable[..., object]] = None) -> Camera:
    """Return the camera of fx fy cx cy and coefficients."""
    return camera_from((p[0], p[1]), (p[2], p[3]), lens and lens(p[4:]), half=True)  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Sequence[float]], Camera]] = {
    "SIMPLE_PINHOLE": _shared,
    "PINHOLE": _apart,
    "SIMPLE_RADIAL": lambda p: _shared(p, radial),
    "RADIAL": lambda p: _shared(p, radial),
    "OPENCV": lambda p: _apart(p, radial),
    "OPENCV_FISHEYE": lambda p: _apart(p, fisheye),
    "FULL_OPENCV": lambda p: _apart(p, radial),
    "SIMPLE_RADIAL_FISHEYE": lambda p: _shared(p, fisheye),
    "RADIAL_FISHEYE": lambda p: _shared(p, fisheye),
}


def find_model(folder: Path) -> Path | None:
    """Return the file of the cameras in a COLMAP folder, or one that holds sparse/0; None if there is none."""
    files = (folder / below / f"cameras{suffix}" for below in _FOLDERS for suffix in (".bin", ".txt"))
    return next((path for path in files if path.is_file()), None)


def is_text(text: str) -> bool:
    """Return whether a text is a cameras.txt."""
    words = next(_rows(text.splitlines()), "").split()
    return len(words) > 4 and words[0].isdecimal() and words[1].isupper() and words[2].isdecimal()


def read_text(path: Path, text: str) -> list[StoredCamera]:
    """Return the cameras of a cameras.txt, one for each picture that images.* beside it names.

    Raises ValueError for a line that is no camera.
    """
    return _for_pictures(path, text_rows(text))


def read_binary(path: Path, file: BinaryIO) -> list[StoredCamera] | None:
    """Return the cameras of a cameras.bin as `read_text`; None for any other file. Raises ValueError."""
    found = binary_rows(file)
    return None if found is None else _for_pictures(path, found)


def read_pinholes(folder: Path) -> list[StoredCamera]:
    """Return the cameras of a model without their lenses, of any kind, one for each picture that has one.

    Raises UsageError for a folder without a model, and for one that is broken.
    """
    path = find_model(folder)
    if path is None:
        raise UsageError(f"{folder} is a folder without cameras.txt or cameras.bin of COLMAP")
    try:
        with path.open("rb") as stream:
            found = binary_rows(stream) if path.suffix == ".bin" else text_rows(stream.read().decode("utf-8"))
        if found is None:
            raise ValueError("it is cut short")
        return _for_pictures(path, found, _pinhole)
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"cannot read cameras from {path}: {' '.join(str(error).split())}") from error


def text_rows(text: str) -> dict[int, CameraRow]:
    """Return the rows of a cameras.txt by their numbers. Raises ValueError for a line that is no camera."""
    found = {}
    for row in _rows(text.splitlines()):
        words = row.split()
        if len(words) < 4:
            raise ValueError(f"its line {row[:60]!r} is no camera")
        found[int(words[0])] = words[1], (int(words[2]), int(words[3])), [*map(float, words[4:])]
    return found


def binary_rows(file: BinaryIO) -> dict[int, CameraRow] | None:
    """Return the rows of a cameras.bin by their numbers; None for any other file."""
    found: dict[int, CameraRow] = {}
    head = file.read(8)
    count = int.from_bytes(head, "little")
    if len(head) < 8 or not 0 < count <= _MOST_CAMERAS:
        return None
    for _ in range(count):
        fixed = file.read(24)
        if len(fixed) < 24:
            return None
        number, kind, width, height = struct.unpack("<iiQQ", fixed)
        if kind not in _BY_NUMBER:
            return None
        model, parameters = _BY_NUMBER[kind]
        data = file.read(8 * parameters)
        if len(data) < 8 * parameters:
            return None
        found[number] = model, (width, height), [*struct.unpack(f"<{parameters}d", data)]
    return None if file.read(1) else found


def _for_pictures(
    path: Path,
    found: dict[int, CameraRow],
    camera: Callable[[str, tuple[int, int], Sequence[float]], Camera] | None = None,
) -> list[StoredCamera]:
    made = camera or _camera
    cameras = {number: StoredCamera(made(*item), item[1]) for number, item in found.items()}
    if not cameras:
        raise ValueError("it holds no camera")
    named = [
        StoredCamera(cameras[number].camera, cameras[number].size, name, pose=pose)
        for number, name, pose in _pictures(path)
        if number in cameras
    ]
    return named or list(cameras.values())


def _camera(model: str, size: tuple[int, int], parameters: Sequence[float]) -> Camera:
    if model not in _READERS:
        raise ValueError(f"its camera model {model} is not supported (undistort the pictures with COLMAP first)")
    if len(parameters) != _MODELS[model][1]:
        raise ValueError(f"its {model} has {len(parameters)} parameters, not {_MODELS[model][1]}")
    return _READERS[model](parameters)


def _pinhole(model: str, size: tuple[int, int], parameters: Sequence[float]) -> Camera:
    """Return the camera of a model without its lens."""
    if model not in _MODELS or len(parameters) != _MODELS[model][1]:
        raise ValueError(f"its {model} is no camera with {len(parameters)} parameters")
    return (_shared if model in _ONE_FOCAL else _apart)(parameters)


def _pictures(path: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield (number of its camera, name, pose) of each picture that images.* beside the cameras lists."""
    beside = path.with_name(f"images{path.suffix}")
    if not beside.is_file():
        return
    if path.suffix == ".bin":
        with beside.open("rb") as file:
            yield from _binary_pictures(file)
        return
    with beside.open(encoding="utf-8", errors="replace") as lines:
        for row in lines:
            if row.strip() and not row.startswith("#"):
                words = row.rstrip("\r\n").split(maxsplit=9)
                yield int(words[8]), words[9], pose_of([*map(float, words[1:8])])
                next(lines, None)  # its points, which may be none


def _binary_pictures(file: BinaryIO) -> Iterator[tuple[int, str, np.ndarray]]:
    (count,) = struct.unpack("<Q", file.read(8))
    for _ in range(count):
        _, *numbers, number = struct.unpack("<i7di", file.read(64))
        name = read_name(file)
        (points,) = struct.unpack("<Q", file.read(8))
        file.seek(points * _POINT_BYTES, 1)
        yield number, name.decode(errors="replace"), pose_of(numbers)


def pose_of(numbers: Sequence[float]) -> np.ndarray:
    """Return (3, 4) world to camera of qw qx qy qz tx ty tz. A quaternion of zeros, or of huge numbers, gives NaN."""
    w, *xyz = numbers[:4]
    with np.errstate(all="ignore"):
        rotation = rotations_of(np.array([[*xyz, w]]))[0]
    return np.concatenate([rotation, np.array(numbers[4:7])[:, None]], axis=1)


def read_name(file: BinaryIO) -> bytes:
    """Return the bytes of a name up to its 0. Raises ValueError if it does not end."""
    name = bytearray()
    while (letter := file.read(1)) != b"\0":
        if not letter or len(name) > _LONGEST_NAME:
            raise ValueError("its images.bin is cut short or damaged")
        name += letter
    return bytes(name)


def _rows(lines: Sequence[str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip() and not line.startswith("#"))
