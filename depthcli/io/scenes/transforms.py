"""transforms.json of Nerfstudio and instant-ngp: camera to world with OpenGL's axes, pixel centres at half numbers.

`depthcli.io.cameras.files.read_cameras` reads it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import IO, Any

from depthcli.io.cameras.written import nerf_frame, nerf_model
from depthcli.scene import Scene, View


def write_transforms(scene: Scene, target: IO[bytes], folder: str = "images", cloud: str = "") -> None:
    """Write the cameras of the pictures at their own size.

    folder: of the pictures, before their names; empty for none. cloud: path of a PLY file with points to begin with.
    """
    content: dict[str, Any] = {
        "camera_model": nerf_model([view.camera for view in scene.views]),
        **{key: 0.0 for key in ("k1", "k2", "p1", "p2")},
        **({"ply_file_path": cloud} if cloud else {}),
        "frames": [_frame(view, f"{folder}/{view.name}" if folder else view.name) for view in scene.views],
    }
    target.write((json.dumps(content, indent=1) + "\n").encode("ascii"))


def _frame(view: View, path: str) -> dict[str, Any]:
    camera = replace(view.picture_camera, extrinsics=view.extrinsics)
    return {"file_path": path, **nerf_frame(camera, view.picture_size)}
