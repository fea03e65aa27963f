"""transforms.json of Nerfstudio and instant-ngp: camera to world with OpenGL's axes, pixel centres at half numbers.

`depthcli.io.cameras.files.read_cameras` reads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import IO, Any

from depthcli.io.cameras.written import nerf_frame, nerf_model
from depthcli.io.scenes.cameras import write_rows
from depthcli.scene import Scene, View


def write_transforms(scene: Scene, target: IO[bytes], folder: str = "images", cloud: str = "") -> None:
    """Write the cameras of the pictures at their own size.

    folder: of the pictures, before their names; empty for none. cloud: path of a PLY file with points to begin with.
    """
    content: dict[str, Any] = {
        "camera_model": nerf_model([scene.views[0].camera]),  # all are pinholes
        **{key: 0.0 for key in ("k1", "k2", "p1", "p2")},
        **({"ply_file_path": cloud} if cloud else {}),
        "frames": [],
    }
    paths = (f"{folder}/{name}" if folder else name for name in scene.names)
    write_rows(content, "frames", map(_frame, scene.views, paths), target)


def _frame(view: View, path: str) -> dict[str, Any]:
    camera = replace(view.picture_camera, extrinsics=view.extrinsics)
    return {"file_path": path, **nerf_frame(camera, view.picture_size)}
