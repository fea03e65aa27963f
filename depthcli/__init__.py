"""Depth maps of pictures and clips, with Depth Anything V2 and 3 and Video-Depth-Anything.

    import depthcli

    depth = depthcli.estimate("photo.jpg")       # a DepthMap: .values (H, W) float32, .kind, .provenance
    with depthcli.DepthEstimator("vits") as estimator:
        for depth in estimator.map(paths):
            ...
    for depth in depthcli.estimate_clip("clip.mp4"):
        ...

The import loads no torch; each name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthcli.calibration import Calibration
    from depthcli.choices.camera import CameraChoice
    from depthcli.choices.clips import ClipChoice
    from depthcli.choices.metres import MetresChoice
    from depthcli.choices.model import BackendChoice, ModelChoice
    from depthcli.choices.scenes import SceneChoice, ViewsChoice
    from depthcli.choices.shapes import ShapeChoice
    from depthcli.choices.stereo import StereoChoice
    from depthcli.depthmap import DepthKind, DepthMap, Provenance
    from depthcli.errors import DepthError
    from depthcli.geometry.shapes import mesh, points
    from depthcli.geometry.solids import Mesh, PointCloud
    from depthcli.io.codecs.files import read_depth, write_depth
    from depthcli.io.points.files import read_shape, write_shape
    from depthcli.io.scenes.files import read_scene, write_scene
    from depthcli.jobs.remote import Client
    from depthcli.predict.clip import estimate_clip
    from depthcli.predict.metres import calibrate
    from depthcli.predict.picture import DepthEstimator, estimate
    from depthcli.predict.scene import SceneEstimator, estimate_scene
    from depthcli.predict.stereo import stereo
    from depthcli.scene import Scene, View
    from depthcli.version import __version__

_HOMES = {
    "BackendChoice": "depthcli.choices.model",
    "Calibration": "depthcli.calibration",
    "CameraChoice": "depthcli.choices.camera",
    "Client": "depthcli.jobs.remote",
    "ClipChoice": "depthcli.choices.clips",
    "DepthError": "depthcli.errors",
    "DepthEstimator": "depthcli.predict.picture",
    "DepthKind": "depthcli.depthmap",
    "DepthMap": "depthcli.depthmap",
    "Mesh": "depthcli.geometry.solids",
    "MetresChoice": "depthcli.choices.metres",
    "ModelChoice": "depthcli.choices.model",
    "PointCloud": "depthcli.geometry.solids",
    "Provenance": "depthcli.depthmap",
    "Scene": "depthcli.scene",
    "SceneChoice": "depthcli.choices.scenes",
    "SceneEstimator": "depthcli.predict.scene",
    "ShapeChoice": "depthcli.choices.shapes",
    "StereoChoice": "depthcli.choices.stereo",
    "View": "depthcli.scene",
    "ViewsChoice": "depthcli.choices.scenes",
    "__version__": "depthcli.version",
    "calibrate": "depthcli.predict.metres",
    "estimate": "depthcli.predict.picture",
    "estimate_clip": "depthcli.predict.clip",
    "estimate_scene": "depthcli.predict.scene",
    "mesh": "depthcli.geometry.shapes",
    "points": "depthcli.geometry.shapes",
    "read_depth": "depthcli.io.codecs.files",
    "read_scene": "depthcli.io.scenes.files",
    "read_shape": "depthcli.io.points.files",
    "stereo": "depthcli.predict.stereo",
    "write_depth": "depthcli.io.codecs.files",
    "write_scene": "depthcli.io.scenes.files",
    "write_shape": "depthcli.io.points.files",
}

__all__ = [
    "BackendChoice",
    "Calibration",
    "CameraChoice",
    "Client",
    "ClipChoice",
    "DepthError",
    "DepthEstimator",
    "DepthKind",
    "DepthMap",
    "Mesh",
    "MetresChoice",
    "ModelChoice",
    "PointCloud",
    "Provenance",
    "Scene",
    "SceneChoice",
    "SceneEstimator",
    "ShapeChoice",
    "StereoChoice",
    "View",
    "ViewsChoice",
    "__version__",
    "calibrate",
    "estimate",
    "estimate_clip",
    "estimate_scene",
    "mesh",
    "points",
    "read_depth",
    "read_scene",
    "read_shape",
    "stereo",
    "write_depth",
    "write_scene",
    "write_shape",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'depthcli' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
