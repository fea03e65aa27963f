"""transforms.json of Nerfstudio and instant-ngp: camera to world with OpenGL's axes, pixel centres at half numbers.

`depthcli.io.cameras.files.read_cameras` reads it.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from depthcli.geometry.poses import inverted, square
from depthcli.scene import Scene, View

_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_transforms(scene: Scene, target: IO[bytes], folder: str = "images", cloud: str = "") -> None:
    """Write the cameras of the pictures at their own size.

    folder: of the pictures, before their names; empty for none. cloud: path of a PLY file with points to begin with.
    """
    content: dict[str, Any] = {
        "camera_model": "OPENCV",
        **{key: 0.0 for key in ("k1", "k2", "p1", "p2")},
        **({"ply_file_path": cloud} if cloud else {}),
        "frames": [_frame(view, f"{folder}/{view.name}" if folder else view.name) for view in scene.views],
    }
    target.write((json.dumps(content, indent=1) + "\n").encode("ascii"))


def _frame(view: View, path: str) -> dict[str, Any]:
    camera = view.picture_camera
    (fx, fy), (cx, cy) = camera.focal, camera.center
    width, height = view.picture_size
    back = square(inverted(view.extrinsics[None]))[0] @ _TO_OPENGL
    return {
        "file_path": path,
        "w": width,
        "h": height,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx + 0.5,
        "cy": cy + 0.5,
        "transform_matrix": back.tolist(),
    }
