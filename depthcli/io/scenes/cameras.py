"""cameras.json: the cameras of a scene for their pictures at their own size, as depthcli describes them.

`depthcli.io.cameras.files.read_cameras` reads it. Pixel centres are integers, poses world to camera, axes OpenCV's.
"""

from __future__ import annotations

import json
from typing import IO, Any

from depthcli.camera import describe_camera
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.scene import Scene
from depthcli.version import __version__


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Return what every file of a scene tells about it, ready for JSON."""
    return {
        "schema": SCHEMA,
        "kind": scene.kind.value,
        "meaning": scene.kind.meaning,
        "unit": scene.unit,
        "axes": "opencv",
        "extrinsics": "world to camera",
        "pixel_centers": "integer",
        "scene": dict(scene.facts),
        "cameras": [
            {"name": view.name, **describe_camera(view.picture_camera, view.picture_size)} for view in scene.views
        ],
        "depthcli": __version__,
    }


def write_cameras(scene: Scene, target: IO[bytes]) -> None:
    """Write the cameras; numbers keep all their digits."""
    target.write((json.dumps(scene_facts(scene), indent=1) + "\n").encode("ascii"))
