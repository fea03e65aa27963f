"""Read depth maps of any program: ours say what they are, and for others the user says it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from depthcli.camera import Camera
from depthcli.choices.settings import require
from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import DepthError, OutputError, PictureError, UsageError
from depthcli.io.codecs import embedded
from depthcli.io.codecs.arrays import memory_errors, open_npz
from depthcli.io.codecs.encode import unrotated
from depthcli.io.codecs.files import read_depth, read_facts
from depthcli.io.codecs.formats import SHAPE_SUFFIXES, suffix_of
from depthcli.io.codecs.numbers import ENCODINGS, METRES, Encoding, read_numbers
from depthcli.io.codecs.presets import PARAMS

DEPTH_SUFFIXES = frozenset((".png", ".npz", ".npy", ".exr", ".pfm", ".tif", ".tiff"))
_UNSAID = SourceChoice()
_BACKGROUND = 1e9  # renderers give 1e10 to pixels without a surface


@dataclass(frozen=True)
class Source:
    """What a program writes. encoding: None for plain numbers. kind: None if the user has to say it.

    arrays: names of the depth in its NPZ, the likeliest first. shades: white is near, from 0 to the largest code, and
    every pixel has depth. black: black is near. logarithmic: its 16-bit PNG are logarithms. photos: maps in JPEG.
    scene: inverse depth, in the unit of a scene by a file about all of its maps.
    """

    name: str
    what: str
    kind: Optional[DepthKind] = None
    encoding: Optional[Encoding] = None
    arrays: tuple[str, ...] = ("depth", "depths")
    shades: bool = False
    black: bool = False
    logarithmic: bool = False
    photos: bool = False
    scene: bool = False


def _millimetres(name: str, who: str) -> Source:
    return Source(name, f"16-bit PNG, millimetres: {who}", METRES, ENCODINGS["scannet"])


_NEAR = DepthKind.RELATIVE_DISPARITY
SOURCES: dict[str, Source] = {
    row.name: row
    for row in (
        _millimetres("mm", "ROS, Azure Kinect, nerfstudio"),
        *(_millimetres(name, name) for name in ("scannet", "open3d", "nyu", "realsense", "zed")),
        *(Source(name, ENCODINGS[name].what, METRES, ENCODINGS[name]) for name in ("kitti", "tum", "sun")),
        Source("vda", "Video-Depth-Anything, NPZ or EXR", arrays=("depths", "depth")),
        Source("da3", "Depth Anything 3, NPZ"),
        Source("moge", "MoGe, EXR or its 16-bit PNG", logarithmic=True),
        Source("gdepth", "JPEG of a camera, with GDepth or Dynamic Depth", photos=True),
        Source("3dgs", "16-bit PNG of 3D Gaussian Splatting, with depth_params.json", scene=True),
        Source("white", "gray PNG, white is near", _NEAR, shades=True),
        Source("black", "gray PNG, black is near", _NEAR, shades=True, black=True),
    )
}


def check_source(choice: SourceChoice) -> None:
    """Raise UsageError for an unknown name, and for a kind that contradicts it."""
    if choice.source_format is None:
        return
    require("source_format", choice.source_format, tuple(SOURCES))
    row = SOURCES[choice.source_format]
    if row.kind is not None and choice.kind not in (None, row.kind.value):
        raise UsageError(f"{row.name} holds {row.kind.value}, not {choice.kind}", "leave out `kind`")


def count_maps(path: Path, choice: SourceChoice) -> int:
    """Return how many maps a file holds: those along the first axis of an NPZ, else 1. Nothing is raised."""
    if path.suffix.lower() != ".npz":
        return 1
    try:
        with path.open("rb") as stream, open_npz(stream) as arrays:
            if "meta" in arrays.names:
                return 1
            shape = arrays.shape(_array(arrays.names, choice))
        return shape[0] if len(shape) == 3 else 1
    except Exception:  # reading it will tell
        return 1


def read_map(path: Path, choice: SourceChoice = _UNSAID, number: int = 0) -> DepthMap:
    """Return the depth map in a file. Ours say what they are, and `choice` does not count for them.

    number: which map, of an NPZ that holds several. Raises OutputError or PictureError for a file that is missing,
    damaged, or does not say what it is.
    """
    if read_facts(path):
        return read_depth(path)
    row = SOURCES[choice.source_format] if choice.source_format else None
    if suffix_of(path) in embedded.SUFFIXES:
        return _of_photo(path, choice)
    if row is not None and row.scene:
        return _of_scene(path, choice)
    kind = _kind(path, row, choice)
    try:
        with memory_errors(path):
            values, valid = _shades(path, row) if row and row.shades else _numbers(path, row, kind, choice, number)
            camera = _camera(path, number)
            return DepthMap(values, kind, Provenance(source=path.name), valid=valid, camera=camera)
    except DepthError:
        raise
    except Exception as error:  # what zip readers raise on broken bytes has no common class
        raise PictureError(
            f"cannot read depth from {path}: {' '.join(str(error).split()) or 'it is broken'}"
        ) from error


def is_ray(path: Path, choice: SourceChoice) -> bool:
    """Return whether the numbers of a file are distances from the camera. Ours never are; photos say it."""
    if suffix_of(path) in embedded.SUFFIXES:
        return embedded.read_embedded(path).ray
    return choice.depth_is == "ray" and not read_facts(path)


def suffixes_of(choice: SourceChoice) -> frozenset[str]:
    """Return the suffixes of files that are taken from a folder: photos only if they were asked for."""
    row = SOURCES.get(choice.source_format or "")
    return frozenset(embedded.SUFFIXES) if row and row.photos else DEPTH_SUFFIXES


def _kind(path: Path, row: Optional[Source], choice: SourceChoice) -> DepthKind:
    """Return the kind of a stranger's file. Raises OutputError if nobody says it."""
    if not path.exists():
        raise OutputError(f"{path} does not exist", "check the path")
    if suffix_of(path) in SHAPE_SUFFIXES:
        raise OutputError(f"{path} holds points or a mesh, and no depth map", "depthcli.read_shape reads it")
    unsaid = f"{path} does not say what its numbers mean"
    if row is None and suffix_of(path) == ".png":
        raise OutputError(unsaid, "if another program wrote it, give `source_format`, such as mm")
    if row is not None and row.photos:
        raise OutputError(f"{path} is no JPEG", "leave out `source_format`")
    if row is not None and row.kind is not None:
        return row.kind
    if choice.kind is None:
        raise OutputError(unsaid, "if another program wrote it, give `kind`")
    return DepthKind(choice.kind)


def _of_photo(path: Path, choice: SourceChoice) -> DepthMap:
    """Return the map inside of a JPEG; one that names no unit has none, unless the user says metres."""
    found = embedded.read_embedded(path)
    kind = METRES if found.metric else DepthKind(choice.kind or DepthKind.RELATIVE_DEPTH.value)
    if kind.near_is_high:
        raise UsageError(f"the numbers in {path} grow with the distance", "leave out `kind`")
    valid = np.isfinite(found.values) & (found.values > 0)
    return DepthMap(found.values, kind, Provenance(source=path.name), valid=valid, camera=found.camera)


def _of_scene(path: Path, choice: SourceChoice) -> DepthMap:
    """Return the map in a PNG of 3DGS: depth in the unit of its scene by depth_params.json, else disparity.

    As make_depth_scale.py has it: code / 65535 x scale + offset is 1 / z; a scale of 0 is one that was not found.
    """
    shares = read_numbers(path, only_png16=True).astype(np.float64) / 65535
    scale, offset = _scale_of(path)
    if not scale > 0:
        return DepthMap(shares, DepthKind.RELATIVE_DISPARITY, Provenance(source=path.name))
    kind = DepthKind(choice.kind or DepthKind.RELATIVE_DEPTH.value)
    if kind.near_is_high:
        raise UsageError(f"{path} holds depth by its depth_params.json", "leave out `kind`")
    inverse = shares * scale + offset
    z = np.zeros_like(inverse)
    np.divide(1, inverse, out=z, where=inverse > 0)
    return DepthMap(z, kind, Provenance(source=path.name), valid=z > 0)


def _scale_of(path: Path) -> tuple[float, float]:
    """Return scale and offset of a map: below its scene lie sparse/0 and, in a folder of its own, the map."""
    for scene in list(path.absolute().parents)[1:]:
        if not (scene / PARAMS).is_file():
            continue
        key = Path(*path.absolute().relative_to(scene).parts[1:]).with_suffix("").as_posix()
        try:
            found = json.loads((scene / PARAMS).read_text(encoding="utf-8"))[key]
            scale, offset = float(found["scale"]), float(found["offset"])
        except KeyError:
            raise OutputError(f"{scene / PARAMS} has no scale and offset of {key}", "make it anew") from None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise OutputError(
                f"cannot read {scene / PARAMS}: {' '.join(str(error).split())}", "make it anew"
            ) from error
        if not np.isfinite((scale, offset)).all():
            raise OutputError(f"{scene / PARAMS} has no finite scale and offset of {key}", "make it anew")
        return scale, offset
    return 0.0, 0.0


def _numbers(
    path: Path, row: Optional[Source], kind: DepthKind, choice: SourceChoice, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W) float32 numbers and the mask of a stranger's file."""
    encoding = row.encoding if row else None
    if row and row.logarithmic and suffix_of(path) == ".png":
        return _logarithms(path)
    stored = _plane(path, choice, number)
    if stored is None:
        stored = read_numbers(path, "depth", bool(encoding and encoding.only_png16))
    if encoding and encoding.rotated:
        stored = unrotated(stored)
    with np.errstate(all="ignore"):
        values = stored.astype(np.float32)
        valid = np.isfinite(values)
        if not kind.near_is_high or stored.dtype.kind in "ui":
            valid &= values > 0
        if kind.is_metric and stored.dtype.kind == "f":
            valid &= values < _BACKGROUND
        if encoding:
            values /= np.float32(encoding.scale)
    return values, valid


def _logarithms(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers and the mask of MoGe's PNG: logarithms from `near` to `far`; 0 is unknown, 65535 infinity."""
    stored = read_numbers(path, only_png16=True)
    with PngImageFile(path) as image:
        texts = {name: image.info.get(name) for name in ("near", "far", "unit")}
    if not texts["near"] or not texts["far"]:
        raise PictureError(f"{path} lacks the texts near and far of MoGe's PNG", "leave out `source_format`")
    near, far, unit = float(texts["near"]), float(texts["far"]), float(texts["unit"] or 1)
    if not 0 < near < far < np.inf or not 0 < unit < np.inf:
        raise PictureError(f"{path} reaches from {near:g} to {far:g} in units of {unit:g}, which no depth does")
    share = (np.clip(stored, 1, 65534).astype(np.float64) - 1) / 65533
    values = unit * np.exp((1 - share) * np.log(near) + share * np.log(far))
    return values.astype(np.float32), (stored > 0) & (stored < 65535)


def _shades(path: Path, row: Source) -> tuple[np.ndarray, None]:
    stored = read_numbers(path)
    if stored.dtype.kind != "u":
        raise PictureError(f"{path} does not hold gray levels", "leave out `source_format`, and give `kind`")
    values = stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
    return (1 - values if row.black else values), None


def _plane(path: Path, choice: SourceChoice, number: int) -> Optional[np.ndarray]:
    """Return the (H, W) numbers of an NPZ; None for any other file."""
    if path.suffix.lower() != ".npz":
        return None
    with path.open("rb") as stream, open_npz(stream) as arrays:
        name = _array(arrays.names, choice)
        if len(arrays.shape(name)) == 3:
            return arrays.plane(name, number)
        return arrays.numbers(name)


def _array(names: list[str], choice: SourceChoice) -> str:
    """Return the name of the array that holds depth. Raises ValueError if none is called like it."""
    wanted = (SOURCES[choice.source_format] if choice.source_format else Source("", "")).arrays
    found = next((name for name in wanted if name in names), names[0] if len(names) == 1 else None)
    if found is None:
        raise ValueError(f"it holds {', '.join(names) or 'nothing'}, and no {' or '.join(wanted)}")
    return found


def _camera(path: Path, number: int) -> Optional[Camera]:
    """Return the camera that a stranger's NPZ has as `intrinsics`."""
    if path.suffix.lower() != ".npz":
        return None
    from depthcli.io.cameras.files import read_cameras

    try:
        cameras = read_cameras(path).cameras
    except UsageError:  # none, or none that can be used; one that is needed is asked for
        return None
    return cameras[number if number < len(cameras) else 0].camera
