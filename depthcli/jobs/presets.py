"""The files of presets about all maps of a scene."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Callable, Optional

from depthcli.camera import Camera
from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.cameras.written import nerf_frame, nerf_model
from depthcli.io.codecs.presets import PARAMS, TRANSFORMS, Preset
from depthcli.io.codecs.stills import inverse_range
from depthcli.jobs.convert import Conversion, Converted, open_map
from depthcli.jobs.manifest import Manifest
from depthcli.jobs.targets import Task

_MILLIMETRE = 0.001


@dataclass(frozen=True)
class View:
    """What a file about a scene needs to know of one map.

    map: its path below the output. picture: of the photo, relative to the output if it was given. metric: in metres.
    inverse: see `inverse_range`.
    """

    map: str
    picture: str
    size: tuple[int, int]
    camera: Optional[Camera]
    metric: bool
    inverse: tuple[float, float]


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
    for task in tasks:
        try:
            item = open_map(task, conversion)
        except Exception:  # converting it will tell
            continue
        views.append(_view(task, item, conversion, folder, ending))
    return views


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
    """Write sparse/0/depth_params.json: {stem: {scale, offset}} with v / 65535 * scale + offset = 1 / metres."""
    path = folder / PARAMS
    span = scene_range(views)
    if span is None or not views[0].metric:
        return Path(), "relative depth: make sparse/0/depth_params.json with make_depth_scale.py of 3DGS, which fits it"
    stems = (PurePath(view.map).relative_to("depths").with_suffix("").as_posix() for view in views)
    _write_json(path, {stem: {"scale": span[1], "offset": 0.0} for stem in stems})
    return path, "scale and offset hold if the scene of COLMAP is in metres"


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
