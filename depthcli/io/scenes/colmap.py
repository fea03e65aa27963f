"""COLMAP models of a scene: cameras, images and points3D, binary or text.

Formats: colmap.github.io/format.html. Cameras are pinholes for the pictures at their own size, pixel centres lie at
half numbers, and points have a track through all views that see them. `depthcli.io.cameras.colmap` reads the cameras.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable

import numpy as np

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import OutputError
from depthcli.geometry.poses import quaternions_of
from depthcli.geometry.scene_points import Tracks, find_tracks
from depthcli.host.atomic import atomic_path
from depthcli.io.cameras.colmap import CameraRow, binary_rows, text_rows
from depthcli.io.cameras.colmap_points import POINT2D, TRACK, ColmapImage, ColmapPoint, read_images, read_points
from depthcli.scene import Scene

_PINHOLE = 1
_PINHOLES = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
_FILES = ("cameras", "images", "points3D")
_OTHERS = ("rigs", "frames")  # of newer models, which must fit the cameras beside them
_SUFFIXES = (".bin", ".txt")


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A model, numbered from 1 in the order of its lists.

    names: of the pictures. sizes: (N, 2) int64, width and height. pinholes: (N, 4) float64, fx fy cx cy with pixel
    centres at half numbers. extrinsics: (N, 3, 4) float64, world to camera. points: (M, 3) float64. colors: (M, 3)
    uint8. errors: (M,) float64, -1 if unknown. places: for each picture (K, 2) float64 (x, y), and `seen` their points,
    counted from 0. tracks: (S, 3) int64: point, picture, and index among its places, all from 0.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    pinholes: np.ndarray
    extrinsics: np.ndarray
    points: np.ndarray
    colors: np.ndarray
    errors: np.ndarray
    places: tuple[np.ndarray, ...]
    seen: tuple[np.ndarray, ...]
    tracks: np.ndarray


def colmap_model(scene: Scene, choice: SceneChoice = SceneChoice()) -> ColmapModel:
    """Return the model of a scene. Raises OutputError if no point is left."""
    found = find_tracks(scene, choice)
    cameras = [view.picture_camera for view in scene.views]
    places, seen, index = [], [], np.zeros(len(found.view), np.int64)
    scales = np.array([np.mean(view.scale) for view in scene.views])
    for number, view in enumerate(scene.views):
        mine = np.flatnonzero(found.view == number)
        index[mine] = np.arange(len(mine))
        places.append(view.to_picture(found.pixels[mine]) + 0.5)
        seen.append(found.point[mine])
    return ColmapModel(
        names=tuple(view.name for view in scene.views),
        sizes=np.array([view.picture_size for view in scene.views], np.int64),
        pinholes=np.array([(*camera.focal, *(np.array(camera.center) + 0.5)) for camera in cameras]),
        extrinsics=scene.extrinsics,
        points=found.points,
        colors=found.colors,
        errors=np.where(found.errors < 0, -1.0, found.errors * scales[_first_views(found)]),
        places=tuple(places),
        seen=tuple(seen),
        tracks=np.stack([found.point, found.view, index], axis=1),
    )


def _first_views(found: Tracks) -> np.ndarray:
    """Return (N,) the view of each point's first sight."""
    starts = np.cumsum(found.lengths) - found.lengths
    return np.asarray(found.view[starts])


def write_colmap(model: ColmapModel, folder: Path, suffix: str = ".bin") -> list[Path]:
    """Write the three files of a model, as binary or text; none of them appears before all are written.

    Raises OutputError if the folder holds parts of another model that would be read with them.
    """
    strange = [
        folder / f"{name}{ending}"
        for name in (*_FILES, *_OTHERS)
        for ending in _SUFFIXES
        if ending != suffix or name in _OTHERS
    ]
    other = next((path for path in strange if path.exists()), None)
    if other is not None:
        raise OutputError(f"{folder} holds another COLMAP model, with {other.name}", "choose another folder")
    paths = [folder / f"{name}{suffix}" for name in _FILES]
    with ExitStack() as stack:
        partials = [stack.enter_context(atomic_path(path)) for path in paths]
        for partial, write in zip(partials, _WRITERS[suffix]):
            with partial.open("wb") as stream:
                write(model, stream)
    return paths


def _quaternions(model: ColmapModel) -> np.ndarray:
    """Return (N, 7) qw qx qy qz tx ty tz."""
    x, y, z, w = quaternions_of(model.extrinsics[:, :, :3]).T
    return np.concatenate([np.stack([w, x, y, z], axis=1), model.extrinsics[:, :, 3]], axis=1)


def _write_cameras(model: ColmapModel, target: IO[bytes]) -> None:
    target.write(struct.pack("<Q", len(model.names)))
    for number, (size, pinhole) in enumerate(zip(model.sizes, model.pinholes), 1):
        target.write(struct.pack("<iiQQ4d", number, _PINHOLE, *map(int, size), *pinhole))


def _write_images(model: ColmapModel, target: IO[bytes]) -> None:
    target.write(struct.pack("<Q", len(model.names)))
    for number, (name, pose) in enumerate(zip(model.names, _quaternions(model))):
        target.write(struct.pack("<i7di", number + 1, *pose, number + 1) + name.encode() + b"\0")
        rows = np.empty(len(model.seen[number]), POINT2D)
        rows["xy"], rows["point"] = model.places[number], model.seen[number] + 1
        target.write(struct.pack("<Q", len(rows)) + rows.tobytes())


def _write_points(model: ColmapModel, target: IO[bytes]) -> None:
    target.write(struct.pack("<Q", len(model.points)))
    for number, (track, point) in enumerate(zip(_tracks(model), model.points)):
        about = struct.pack("<Q3d3Bd", number + 1, *point, *model.colors[number].tolist(), model.errors[number])
        target.write(about + struct.pack("<Q", len(track)) + track.tobytes())


def _tracks(model: ColmapModel) -> Iterator[np.ndarray]:
    """Yield for each point the rows of its track, with pictures numbered from 1."""
    rows = np.empty(len(model.tracks), TRACK)
    rows["image"], rows["index"] = model.tracks[:, 1] + 1, model.tracks[:, 2]
    ends = np.cumsum(np.bincount(model.tracks[:, 0], minlength=len(model.points)))
    return (rows[start:end] for start, end in zip(np.concatenate([[0], ends[:-1]]), ends))


def _text_cameras(model: ColmapModel, target: IO[bytes]) -> None:
    lines = ["# Camera list with one line of data per camera:", "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    for number, (size, pinhole) in enumerate(zip(model.sizes.tolist(), model.pinholes), 1):
        lines.append(f"{number} PINHOLE {size[0]} {size[1]} {_plain(pinhole)}")
    target.write(_lines(lines))


def _text_images(model: ColmapModel, target: IO[bytes]) -> None:
    target.write(
        _lines(
            [
                "# Image list with two lines of data per image:",
                "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME",
                "#   POINTS2D[] as (X, Y, POINT3D_ID)",
            ]
        )
    )
    for number, (name, pose) in enumerate(zip(model.names, _quaternions(model))):
        places = zip(model.places[number].tolist(), (model.seen[number] + 1).tolist())
        seen = " ".join(f"{x!r} {y!r} {point}" for (x, y), point in places)
        target.write(_lines([f"{number + 1} {_plain(pose)} {number + 1} {name}", seen]))


def _text_points(model: ColmapModel, target: IO[bytes]) -> None:
    header = ["# 3D point list with one line of data per point:"]
    target.write(_lines([*header, "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]))
    for number, (track, point) in enumerate(zip(_tracks(model), model.points)):
        red, green, blue = model.colors[number].tolist()
        sights = " ".join(f"{image} {index}" for image, index in track.tolist())
        about = f"{number + 1} {_plain(point)} {red} {green} {blue} {float(model.errors[number])!r} {sights}"
        target.write(_lines([about]))


def _plain(numbers: np.ndarray) -> str:
    """Return numbers as text that gives the same float64 back."""
    return " ".join(repr(number) for number in numbers.tolist())


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


_WRITERS: dict[str, tuple[Callable[[ColmapModel, IO[bytes]], None], ...]] = {
    ".bin": (_write_cameras, _write_images, _write_points),
    ".txt": (_text_cameras, _text_images, _text_points),
}


def read_colmap(folder: Path) -> ColmapModel:
    """Return the model in a folder, of pinhole cameras, with points and tracks; those of pictures only it names.

    Pictures keep the order of their file. Raises OutputError for a folder without the three files, broken files, and
    cameras with a lens.
    """
    suffix = next((ending for ending in _SUFFIXES if (folder / f"cameras{ending}").is_file()), None)
    if suffix is None:
        raise OutputError(f"{folder} holds no COLMAP model: cameras.bin or cameras.txt is missing")
    cameras, images, points = (folder / f"{name}{suffix}" for name in _FILES)
    try:
        return _assembled(_cameras(cameras), read_images(images), read_points(points))
    except FileNotFoundError as error:
        raise OutputError(f"{folder} lacks {Path(str(error.filename)).name}") from error
    except (OSError, ValueError, LookupError, OverflowError, struct.error) as error:
        raise OutputError(f"cannot read the COLMAP model in {folder}: {' '.join(str(error).split())}") from error


def _cameras(path: Path) -> dict[int, CameraRow]:
    if path.suffix == ".txt":
        return text_rows(path.read_text(encoding="utf-8"))
    with path.open("rb") as file:
        found = binary_rows(file)
    if found is None:
        raise ValueError("its cameras.bin is cut short or damaged")
    return found


def _pinhole(model: str, numbers: Sequence[float]) -> tuple[float, ...]:
    if model not in _PINHOLES:
        raise ValueError("a camera of it has a lens: undistort the pictures with COLMAP first")
    if len(numbers) != _PINHOLES[model]:
        raise ValueError(f"its {model} has {len(numbers)} parameters, not {_PINHOLES[model]}")
    return (numbers[0], *numbers[-3:])


def _assembled(
    cameras: Mapping[int, CameraRow], images: Sequence[ColmapImage], points: Sequence[ColmapPoint]
) -> ColmapModel:
    of_point = {point.number: index for index, point in enumerate(points)}
    of_image = {image.number: index for index, image in enumerate(images)}
    pinholes = {number: _pinhole(model, numbers) for number, (model, _, numbers) in cameras.items()}
    tracks = [
        (index, of_image[image], place)
        for index, point in enumerate(points)
        for image, place in zip(point.track["image"].tolist(), point.track["index"].tolist())
    ]
    seen = [
        np.array([of_point.get(number, -1) for number in image.rows["point"].tolist()], np.int64) for image in images
    ]
    return ColmapModel(
        names=tuple(image.name for image in images),
        sizes=np.array([cameras[image.camera][1] for image in images], np.int64).reshape(-1, 2),
        pinholes=np.array([pinholes[image.camera] for image in images], np.float64).reshape(-1, 4),
        extrinsics=np.array([image.pose for image in images]).reshape(-1, 3, 4),
        points=np.array([point.place for point in points], np.float64).reshape(-1, 3),
        colors=np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        errors=np.array([point.error for point in points], np.float64),
        places=tuple(image.rows["xy"].astype(np.float64) for image in images),
        seen=tuple(seen),
        tracks=np.array(tracks, np.int64).reshape(-1, 3),
    )
