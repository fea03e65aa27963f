"""The files of presets about all maps of a scene."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Callable, Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.geometry.metres import Points, fit_references
from depthcli.host.atomic import atomic_path
from depthcli.io.cameras.colmap import find_model
from depthcli.io.cameras.colmap_points import ColmapPoints
from depthcli.io.cameras.files import read_cameras
from depthcli.io.cameras.written import nerf_frame, nerf_model
from depthcli.io.codecs.formats import STILL_ENDINGS
from depthcli.io.codecs.presets import PARAMS, TRANSFORMS, Preset
from depthcli.io.codecs.stills import inverse_range
from depthcli.jobs.convert import Conversion, Converted, MapTask, open_map
from depthcli.jobs.manifest import Manifest
from depthcli.jobs.targets import Task

_MILLIMETRE = 0.001
# As the script and the trainer of 3D Gaussian Splatting have it: points that a picture must see, the least difference
# of their 1 / z, and the scales that are taken, in parts of the median.
_FEWEST, _LEAST_SPREAD, _APART = 10, 1e-3, (0.2, 5.0)


_NEAREST = 1e-9  # of a point, in any unit: what is nearer has no 1 / z


@dataclass(frozen=True)
class View:
    """What a file about a scene needs to know of one map.

    map: its path below the output. picture: of the photo, relative to the output if it was given. metric: in metres.
    inverse: see `inverse_range`. fit: (s, b) of 1 / z = s q + b, with q the inverse depth of the map and z in the unit
    of a COLMAP model, (0, 0) if too few of its points are seen; None without a model. known: whether it is in it.
    """

    map: str
    picture: str
    size: tuple[int, int]
    camera: Optional[Camera]
    metric: bool
    inverse: tuple[float, float]
    fit: Optional[tuple[float, float]] = None
    known: bool = False

    @property
    def key(self) -> str:
        """The name of its picture without a suffix, as scene files have it."""
        return PurePosixPath(*PurePosixPath(self.map).parts[1:]).with_suffix("").as_posix()


class ColmapScene:
    """The pictures and the points of a COLMAP model, for maps of its pictures. Raises UsageError for a broken one."""

    def __init__(self, folder: Path) -> None:
        try:
            self._points = ColmapPoints(folder)
            self._names = {PurePosixPath(name).with_suffix("").as_posix(): name for name in self._points.names}
            self._points.seen_by(next(iter(self._points.names), ""))  # reads the points too
        except (OSError, ValueError, LookupError, OverflowError, struct.error) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"cannot read the COLMAP model {folder}: {reason}", "give one with points") from error
        self._cameras = read_cameras(self._points.cameras)

    def fit(self, depth: DepthMap, key: str) -> tuple[tuple[float, float], bool]:
        """Return (s, b), see View, and whether the model has the picture. key: its name without a suffix."""
        name = self._names.get(key)
        stored = None if name is None else self._cameras.of_picture(name)
        seen = None if name is None else self._points.seen_by(name)
        if stored is None or stored.size is None or min(stored.size) < 1 or seen is None:
            return (0.0, 0.0), False
        places, z = seen
        with np.errstate(all="ignore"):
            pixels = places * np.array(depth.size) / stored.size - 0.5
        ahead = (z > _NEAREST) & np.isfinite(z) & np.isfinite(pixels).all(axis=1)
        if ahead.sum() <= _FEWEST or np.ptp(1 / z[ahead]) <= _LEAST_SPREAD:
            return (0.0, 0.0), True
        try:
            found = fit_references(depth, [Points(pixels[ahead], z[ahead], "colmap")])
        except UsageError:  # the points contradict the map
            return (0.0, 0.0), True
        return (found.scale, found.shift) if depth.kind.near_is_high else (1 / found.scale, 0.0), True


def check_scene_file(preset: Preset, folder: Path, manifest: Manifest, conversion: Conversion, replaces: bool) -> None:
    """Raise UsageError if the file about a scene would replace one that this command did not make."""
    path = folder / preset.scene
    if not preset.scene or not os.path.lexists(path):
        return
    given = conversion.cameras.path if conversion.cameras else None
    if given is not None and os.path.realpath(given) == os.path.realpath(path):
        raise UsageError(f"{path} would be replaced, and it is also `intrinsics`", "use another `output`")
    if not replaces and str(path) not in manifest.outputs:
        raise UsageError(
            f"{path} is there and was not made by this command",
            "`if_exists` overwrite replaces it, or use another `output`",
        )


def survey(tasks: Sequence[Task], conversion: Conversion, folder: Path, ending: str) -> list[View]:
    """Return what a scene file needs, of every map that can be read. folder: the output."""
    views = []
    given = conversion.cameras.path if conversion.cameras else None
    scene = ColmapScene(given) if given is not None and given.is_dir() and find_model(given) else None
    for task in tasks:
        try:
            item = open_map(task, conversion)
        except Exception:  # converting it will tell
            continue
        view = _view(task, item, conversion, folder, ending)
        if scene is not None:
            fit, known = scene.fit(item.depth, view.key)
            view = replace(view, fit=fit, known=known)
        views.append(view)
    return views


def without_endings(tasks: Sequence[MapTask]) -> list[MapTask]:
    """Return tasks whose maps are named as their pictures, as scene files find them: a_depth.npz becomes a.

    Raises UsageError if two maps would have one name.
    """
    ends = sorted({PurePath(ending).stem for ending in STILL_ENDINGS}, key=len, reverse=True)
    named = []
    for task in tasks:
        end = next((end for end in ends if task.stem.name.endswith(end) and task.stem.name != end), "")
        named.append(replace(task, stem=task.stem.with_name(task.stem.name[: len(task.stem.name) - len(end)])))
    twice = next((stem for stem, count in Counter(task.stem for task in named).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two maps are of one picture, {twice.name}", "convert them one after the other")
    return named


def scene_range(views: Sequence[View]) -> Optional[tuple[float, float]]:
    """Return the (lo, hi) of inverse depth of all maps; None without any.

    Raises UsageError for metric and relative maps in one scene, which have no common scale.
    """
    if not views:
        return None
    if len({view.metric for view in views}) > 1:
        raise UsageError("metric and relative depth make no common scene", "convert them one after the other")
    return min(view.inverse[0] for view in views), max(view.inverse[1] for view in views)


def write_scene(preset: Preset, views: Sequence[View], folder: Path, conversion: Conversion) -> tuple[Path, str]:
    """Write the file about a scene; return its path and a remark for the user, or empty."""
    return SCENE_FILES[preset.name](views, folder, conversion)


def _view(task: Task, item: Converted, conversion: Conversion, folder: Path, ending: str) -> View:
    depth: DepthMap = item.depth
    picture = depth.provenance.source or PurePath(task.name).name
    if conversion.photos is not None:
        picture = os.path.relpath(conversion.photos.of(task, depth.provenance.source), folder)
    path = task.stem.with_name(task.stem.name + ending)
    return View(
        PurePath(os.path.relpath(path, folder)).as_posix(),
        PurePath(picture).as_posix(),
        depth.size,
        depth.camera,
        depth.kind.is_metric,
        inverse_range(depth),
    )


def _depth_params(views: Sequence[View], folder: Path, conversion: Conversion) -> tuple[Path, str]:
    """Write sparse/0/depth_params.json: {stem: {scale, offset}} with v / 65535 * scale + offset = 1 / z."""
    path, span = folder / PARAMS, scene_range(views)
    if span is None:
        return Path(), "no map could be read"
    lo, hi = span
    if views[0].fit is None:
        if not views[0].metric:
            return Path(), "relative depth: give the COLMAP model of the scene as `intrinsics`, which it is fitted to"
        _write_json(path, {view.key: {"scale": hi, "offset": 0.0} for view in views})
        return path, "scale and offset hold if the scene of COLMAP is in metres; `intrinsics` with its model fits them"
    fits = {view.key: view.fit for view in views if view.fit is not None}
    lines = {key: {"scale": s * (hi - lo), "offset": s * lo + b} for key, (s, b) in fits.items()}
    _write_json(path, lines)
    scales = np.array([line["scale"] for line in lines.values()])
    middle = float(np.median(scales[scales > 0])) if (scales > 0).any() else 0.0
    apart = int(((scales > 0) & ((scales < _APART[0] * middle) | (scales > _APART[1] * middle))).sum())
    strangers, unfitted = sum(not view.known for view in views), int((scales == 0).sum())
    remarks = (
        f"{strangers} maps are of no picture of the model" if strangers else "",
        f"{unfitted - strangers} maps see too few points that agree with them" if unfitted > strangers else "",
        f"{apart} maps have scales that the trainer leaves out as too unlike the others" if apart else "",
    )
    return path, ", ".join(filter(None, remarks))


def _nerfstudio(views: Sequence[View], folder: Path, conversion: Conversion) -> tuple[Path, str]:
    return _transforms("depth_file_path", {}, views, folder, conversion)


def _ngp(views: Sequence[View], folder: Path, conversion: Conversion) -> tuple[Path, str]:
    more = {"enable_depth_loading": True, "integer_depth_scale": _MILLIMETRE}
    return _transforms("depth_path", more, views, folder, conversion)


def _transforms(
    key: str, more: Mapping[str, Any], views: Sequence[View], folder: Path, conversion: Conversion
) -> tuple[Path, str]:
    """Write transforms.json: the one given as `intrinsics` with a depth file for each frame, else one of cameras."""
    path = folder / TRANSFORMS
    given = conversion.cameras.json if conversion.cameras else None
    if given is not None and isinstance(given.get("frames"), list):
        by_stem = {PurePath(view.map).stem: view.map for view in views}
        frames, found = [], 0
        for frame in given["frames"]:
            place = by_stem.get(PurePath(str(frame.get("file_path", ""))).stem)
            found += place is not None
            frames.append(frame if place is None else {**frame, key: place})
        _write_json(path, {**given, **more, "frames": frames})
        return path, "" if found == len(views) else f"{len(views) - found} maps have no frame in it"
    known = [(view, view.camera) for view in views if view.camera is not None]
    frames = [{"file_path": view.picture, key: view.map, **nerf_frame(camera, view.size)} for view, camera in known]
    model = nerf_model([camera for _, camera in known])
    _write_json(path, {"camera_model": model, **more, "frames": frames})
    if len(known) < len(views):
        return path, f"{len(views) - len(known)} maps have no camera, and are not in it: give `intrinsics`"
    poses = sum("transform_matrix" in frame for frame in frames)
    return path, "" if poses == len(
        frames
    ) else "it has no poses: give the transforms.json of the scene as `intrinsics`"


SCENE_FILES: Mapping[str, Callable[[Sequence[View], Path, Conversion], tuple[Path, str]]] = {
    "3dgs": _depth_params,
    "nerfstudio": _nerfstudio,
    "ngp": _ngp,
}


def _write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
