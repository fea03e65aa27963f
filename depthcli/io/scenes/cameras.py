"""cameras.json: the cameras of a scene for their pictures at their own size, as depthcli describes them.

`depthcli.io.cameras.files.read_cameras` reads it. Pixel centres are integers, poses world to camera, axes OpenCV's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from depthcli.camera import describe_camera
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.scene import Scene, View
from depthcli.version import __version__


def scene_facts(scene: Scene, cameras: bool = True) -> dict[str, Any]:
    """Return what every file of a scene tells about it, ready for JSON. cameras: or an empty list in their place."""
    return {
        "schema": SCHEMA,
        "kind": scene.kind.value,
        "meaning": scene.kind.meaning,
        "unit": scene.unit,
        "axes": "opencv",
        "extrinsics": "world to camera",
        "pixel_centers": "integer",
        "scene": dict(scene.facts),
        "cameras": [_camera_facts(view) for view in scene.views] if cameras else [],
        "depthcli": __version__,
    }


def _camera_facts(view: View) -> dict[str, Any]:
    return {"name": view.name, **describe_camera(view.picture_camera, view.picture_size)}


def write_rows(facts: Mapping[str, Any], key: str, rows: Iterable[Any], target: IO[bytes]) -> None:
    """Write facts as indented JSON. key: of its empty list, into which the rows go, one held at a time."""
    before, _, after = json.dumps(facts, indent=1).partition(f'\n "{key}": []')
    target.write(f'{before}\n "{key}": ['.encode("ascii"))
    separator = "\n"
    for row in rows:
        text = json.dumps(row, indent=1).replace("\n", "\n  ")
        target.write(f"{separator}  {text}".encode("ascii"))
        separator = ",\n"
    target.write(f"\n ]{after}\n".encode("ascii"))


def write_cameras(scene: Scene, target: IO[bytes]) -> None:
    """Write the cameras; numbers keep all their digits."""
    write_rows(scene_facts(scene, cameras=False), "cameras", map(_camera_facts, scene.views), target)
